//! The names of all metrics, spans and log targets of this crate, with units and labels.
//! [`Metric::ALL`] lists the metrics.
//!
//! Metrics go through the `metrics` facade with the feature `metrics`, and are empty inline
//! functions without it. A tenant is a label of [`Metric::LimitUsed`] alone, which is off unless
//! the service file asks for it; else a field of spans. Other labels hold words from the plan file
//! or from this file, so their number is bounded by the catalog. Durations are seconds, passed in;
//! nothing here reads a clock.
//!
//! The hot path updates one metric, [`Metric::Decisions`]; the gate caches its handles by plan,
//! route, outcome and policy in a `Decisions`, so that counting a decision needs no look-up and no
//! allocation. What goes back (`refunded` of [`Metric::Units`]) is counted where it does, by a
//! `Refunds`; what is used, where it is collected for the log.

use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::Empty;
use tracing::level_filters::LevelFilter;

/// The span around one admission, and its fields. Level DEBUG.
#[doc(hidden)]
pub const SPAN_CHECK: &str = "tallygate.check";
/// Field of [`SPAN_CHECK`]: the tenant's outer id, once the caller is known.
#[doc(hidden)]
pub const FIELD_TENANT: &str = "tallygate.tenant";
/// Field of [`SPAN_CHECK`]: the plan's name.
#[doc(hidden)]
pub const FIELD_PLAN: &str = "tallygate.plan";
/// Field of [`SPAN_CHECK`]: `allowed`, `refused`, or `waits` for an answer of the store.
#[doc(hidden)]
pub const FIELD_OUTCOME: &str = "tallygate.outcome";

/// Target of the event, DEBUG, for a refused request. Not louder: a flood of refusals must not
/// become a flood of logs.
#[doc(hidden)]
pub const EVENT_REFUSED: &str = "tallygate.refused";
/// Target of the event, INFO, for a quota that passed an alert percentage.
#[doc(hidden)]
pub const EVENT_ALERT: &str = "tallygate.alert";

/// The span around one admission, if enabled.
pub(crate) struct CheckSpan(Option<tracing::span::EnteredSpan>);

impl CheckSpan {
    /// Enters the span until dropped. The level is checked before the span is made: with the facade
    /// `log` enabled, even an unobserved span is work.
    #[inline]
    pub(crate) fn begin() -> Self {
        let is_heard = LevelFilter::current() >= LevelFilter::DEBUG;
        Self(is_heard.then(|| {
            tracing::debug_span!(
                SPAN_CHECK,
                { FIELD_TENANT } = Empty,
                { FIELD_PLAN } = Empty,
                { FIELD_OUTCOME } = Empty
            )
            .entered()
        }))
    }

    /// Records the caller and its plan.
    #[inline]
    pub(crate) fn of(&self, tenant: &str, plan: &str) {
        if let Some(span) = &self.0 {
            span.record(FIELD_TENANT, tenant).record(FIELD_PLAN, plan);
        }
    }

    /// Records the outcome.
    #[inline]
    pub(crate) fn came_to(&self, outcome: impl FnOnce() -> &'static str) {
        if let Some(span) = &self.0 {
            span.record(FIELD_OUTCOME, outcome());
        }
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric, described for exporters and for the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in Prometheus form.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit: a word of the facade's `Unit`, or empty.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its description.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $id:ident = $kind:ident $name:literal $unit:literal
        [$($label:literal)*];)+) => {
        impl Metric {
            $(
                $(#[doc = $help])+
                #[allow(non_upper_case_globals, reason = "they read as the variants of an enum")]
                pub const $id: Metric = Metric {
                    name: $name,
                    kind: Kind::$kind,
                    unit: $unit,
                    labels: &[$($label),*],
                    help: concat!($($help),+),
                };
            )+

            /// All of them.
            pub const ALL: &'static [Metric] = &[$(Metric::$id),+];
        }
    };
}

metrics! {
    /// Decisions; `reason` is why it was refused, by the last part of the problem's type
    /// (`quota-exceeded`, `feature-not-in-plan`, `suspended`), and `policy` the limit that refused;
    /// or empty.
    Decisions = Counter "tallygate_decisions_total" "count"
        ["plan" "route" "outcome" "reason" "policy"];
    /// Units that went to the log: `used` by requests and work, `reported` as events; `over`, of
    /// both, was drawn beyond a quota that bills. And `refunded`, which did not: due or held, and
    /// given back. By the plan at that time.
    Units = Counter "tallygate_units_total" "count" ["meter" "plan" "outcome"];
    /// Time for which a request waited for units of a lease, which were `answered` for, or the
    /// store was `away`.
    LeaseWait = Histogram "tallygate_lease_wait_seconds" "seconds" ["outcome"];
    /// Used share of the limit that a tenant is nearest to the end of, for as many tenants as
    /// `metrics.top-tenants` of the service file says, by what this process knows; 0 for one that
    /// is not among them any more.
    LimitUsed = Gauge "tallygate_limit_used_ratio" "" ["tenant" "limit"];
    /// Time of one call to the store for a lease or a claim.
    StoreSeconds = Histogram "tallygate_store_seconds" "seconds" ["op"];
    /// Such calls that failed, by what is known of them.
    StoreErrors = Counter "tallygate_store_errors_total" "count" ["op" "kind"];
    /// Age of the oldest usage in hand that the store has not acknowledged, as of the last try; 0
    /// where there was none.
    FlushLag = Gauge "tallygate_flush_lag_seconds" "seconds" [];
    /// Rows of one flush, which may take several records.
    FlushBatch = Histogram "tallygate_flush_batch_items" "count" [];
    /// Meter events sent to Stripe: `delivered`, `refused`, or `unknown` (sent again later).
    StripeEvents = Counter "tallygate_stripe_events_total" "count" ["result"];
    /// Entries for Stripe without an outcome (`open`), and entries and items that an operator has
    /// to decide about (`waits`), as of the last report; by the process that reports.
    OutboxEntries = Gauge "tallygate_outbox_entries" "count" ["state"];
    /// Age of the oldest usage in an entry without an outcome, as of the last report.
    OutboxAge = Gauge "tallygate_outbox_oldest_seconds" "seconds" [];
    /// Unix time of the last report of this process that succeeded.
    ReportedAt = Gauge "tallygate_report_timestamp_seconds" "seconds" [];
    /// Webhooks received: `taken`, `refused`, or `waits` (Stripe sends it again).
    WebhookEvents = Counter "tallygate_webhook_events_total" "count" ["result"];
    /// Logins whose token was to say what the tenant has, by result.
    Logins = Counter "tallygate_logins_total" "count" ["result"];
    /// Tenants held in memory.
    TenantsCached = Gauge "tallygate_tenants_cached" "count" [];
    /// 1 while what the mode names cannot be done for want of the store: `flush`, writing usage.
    Degraded = Gauge "tallygate_degraded" "" ["mode"];
    /// 1 for the catalog revision in force.
    CatalogInfo = Gauge "tallygate_catalog_info" "" ["revision"];
    /// Plan files that were not loaded; the old catalog stays.
    ReloadFailed = Counter "tallygate_reload_failures_total" "count" [];
    /// Calls with a meter that the plan file does not have, or that is a sum, whose units were not
    /// counted; `call` is `add`, `take` or `admit`.
    UnknownMeter = Counter "tallygate_unknown_meter_total" "count" ["call"];
    /// Decisions that are missing in the log of decisions: the queue was full, the disk
    /// failed, or the gate was closing.
    DecisionsUnlogged = Counter "tallygate_decisions_unlogged_total" "count" ["cause"];
    /// Deliveries of alerts: `delivered`, `failed` (tried again), `refused` (set aside, and tried
    /// again), `given-up`.
    Alerts = Counter "tallygate_alerts_total" "count" ["result"];
    /// Alerts that wait for a destination that fails, is slow, or has refused them; counted by the
    /// process that sends.
    AlertsWaiting = Gauge "tallygate_alerts_waiting" "count" [];
    /// Age of the oldest of them.
    AlertsAge = Gauge "tallygate_alerts_oldest_seconds" "seconds" [];
}

/// How an admission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "a label of a metric"))]
pub(crate) enum AdmissionOutcome {
    /// Admitted.
    Allowed,
    /// Refused.
    Refused,
    /// Would have been refused, but the plan is in shadow mode.
    Shadowed,
    /// Refused because usage could not be checked: the store or the directory does not answer, or
    /// too many requests wait for it.
    Unavailable,
    /// Refused because the caller is unknown; plan and route are empty.
    Unidentified,
}

#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "a label of a metric"))]
impl AdmissionOutcome {
    /// Its word as a label.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Shadowed => "shadowed",
            Self::Unavailable => "unavailable",
            Self::Unidentified => "unidentified",
        }
    }
}

/// The handle of one (plan, route, outcome, reason, policy), looked up once and cached by its
/// owner.
#[derive(Clone)]
pub(crate) struct Decisions {
    #[cfg(feature = "metrics")]
    counter: metrics::Counter,
}

impl std::fmt::Debug for Decisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decisions")
    }
}

impl Decisions {
    /// Looks up the handle. A handle made before the host installs its recorder stays silent.
    pub(crate) fn new(
        plan: &Arc<str>,
        route: &Arc<str>,
        outcome: AdmissionOutcome,
        (reason, policy): (&'static str, &Arc<str>),
    ) -> Self {
        backend::decisions(plan, route, outcome, (reason, policy))
    }

    /// Counts one.
    #[inline]
    pub(crate) fn count(&self) {
        #[cfg(feature = "metrics")]
        self.counter.increment(1);
    }
}

/// Counts one decision, with a look-up. The hot path keeps a [`Decisions`] instead.
pub(crate) fn decision(
    plan: &Arc<str>,
    route: &Arc<str>,
    outcome: AdmissionOutcome,
    why: (&'static str, &Arc<str>),
) {
    Decisions::new(plan, route, outcome, why).count();
}

/// Where counted units come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "a label of a metric"))]
pub(crate) enum UnitsOutcome {
    /// Used by requests and work.
    Used,
    /// Reported as events.
    Reported,
    /// Of both: drawn beyond a quota that bills.
    Over,
    /// Given back by requests and work.
    Refunded,
}

#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "a label of a metric"))]
impl UnitsOutcome {
    /// Its word as a label.
    fn word(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Reported => "reported",
            Self::Over => "over",
            Self::Refunded => "refunded",
        }
    }
}

/// The handle of the refunded units of one meter and plan, looked up once and cached by its owner.
/// It counts whole units, and keeps less than one until the next refund completes it.
#[cfg(feature = "metrics")]
pub(crate) struct Refunds {
    counter: metrics::Counter,
    /// Atoms so far.
    atoms: AtomicU64,
    /// Atoms of a unit.
    scale: u64,
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Refunds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refunds")
    }
}

#[cfg(feature = "metrics")]
impl Refunds {
    /// Looks up the handle, for a meter with so many atoms in a unit.
    pub(crate) fn new(plan: &Arc<str>, meter: &Arc<str>, scale: u64) -> Self {
        let counter = backend::units_handle(plan, meter, UnitsOutcome::Refunded);
        Self { counter, atoms: AtomicU64::new(0), scale: scale.max(1) }
    }

    /// Counts atoms that went back.
    #[inline]
    pub(crate) fn count(&self, atoms: u64) {
        let before = self.atoms.fetch_add(atoms, Ordering::Relaxed);
        let units = before.wrapping_add(atoms) / self.scale;
        // Past the largest number it begins anew: one refund is missing then.
        let more = units.saturating_sub(before / self.scale);
        if more > 0 {
            self.counter.increment(more);
        }
    }
}

/// Whether metrics go anywhere.
pub(crate) const IS_ON: bool = cfg!(feature = "metrics");

/// Counts units that went to the log.
pub(crate) fn units(plan: &Arc<str>, meter: &Arc<str>, outcome: UnitsOutcome, units: u64) {
    backend::units(plan, meter, outcome, units);
}

/// Sets the used share of a tenant's limit.
pub(crate) fn limit_used(tenant: &Arc<str>, limit: &Arc<str>, share: f64) {
    backend::limit_used(tenant, limit, share);
}

/// Records the wait of a request for a lease.
pub(crate) fn lease_wait(seconds: f64, answered: bool) {
    let outcome = if answered { "answered" } else { "away" };
    backend::histogram(Metric::LeaseWait, &[("outcome", outcome)], seconds);
}

/// Sets what a whole report has left in the outbox.
#[cfg(feature = "stripe")]
pub(crate) fn outbox(open: u64, waits: usize, oldest_seconds: f64) {
    backend::gauge(Metric::OutboxEntries, &[("state", "open")], open as f64);
    backend::gauge(Metric::OutboxEntries, &[("state", "waits")], waits as f64);
    backend::gauge(Metric::OutboxAge, &[], oldest_seconds);
}

/// Sets when a report has succeeded.
#[cfg(feature = "stripe")]
pub(crate) fn reported(at_ms: i64) {
    backend::gauge(Metric::ReportedAt, &[], at_ms as f64 / 1e3);
}

/// Records a call to the store; `error` is the word of its kind.
pub(crate) fn store_call(op: &'static str, seconds: f64, error: Option<&'static str>) {
    backend::histogram(Metric::StoreSeconds, &[("op", op)], seconds);
    if let Some(kind) = error {
        backend::counter(Metric::StoreErrors, &[("op", op), ("kind", kind)]);
    }
}

/// Sets the age of the oldest unacknowledged usage.
pub(crate) fn flush_lag(seconds: f64) {
    backend::gauge(Metric::FlushLag, &[], seconds);
}

/// Records the number of rows in a flush.
pub(crate) fn flush_batch(rows: usize) {
    backend::histogram(Metric::FlushBatch, &[], rows as f64);
}

/// Counts a meter event that was sent to Stripe.
pub(crate) fn stripe_event(result: &'static str) {
    backend::counter(Metric::StripeEvents, &[("result", result)]);
}

/// Counts a webhook.
#[cfg(feature = "stripe")]
pub(crate) fn webhook_event(result: &'static str) {
    backend::counter(Metric::WebhookEvents, &[("result", result)]);
}

/// Counts a delivery of an alert.
pub(crate) fn alert(result: &'static str) {
    backend::counter(Metric::Alerts, &[("result", result)]);
}

/// Sets how many alerts wait, and the age of the oldest.
pub(crate) fn alerts_waiting(waiting: usize, oldest_seconds: f64) {
    backend::gauge(Metric::AlertsWaiting, &[], waiting as f64);
    backend::gauge(Metric::AlertsAge, &[], oldest_seconds);
}

/// Counts a login by result: `told` (claims added), `unknown` (tenant), `failed` (look-up).
#[doc(hidden)]
pub fn login(result: &'static str) {
    backend::counter(Metric::Logins, &[("result", result)]);
}

/// Sets how many tenants are held in memory.
pub(crate) fn tenants_cached(tenants: u64) {
    backend::gauge(Metric::TenantsCached, &[], tenants as f64);
}

/// Sets whether the mode's operation is unavailable for want of the store.
pub(crate) fn degraded(mode: &'static str, is: bool) {
    backend::gauge(Metric::Degraded, &[("mode", mode)], if is { 1.0 } else { 0.0 });
}

/// Sets the catalog in force. The previous one goes to 0.
pub(crate) fn catalog_info(revision: u64, before: Option<u64>) {
    if let Some(before) = before.filter(|before| *before != revision) {
        backend::catalog(before, 0.0);
    }
    backend::catalog(revision, 1.0);
}

/// Counts a plan file that was not loaded.
pub(crate) fn reload_failed() {
    backend::counter(Metric::ReloadFailed, &[]);
}

/// Counts a call with a meter that cannot be counted.
pub(crate) fn unknown_meter(call: &'static str) {
    backend::counter(Metric::UnknownMeter, &[("call", call)]);
}

/// Counts decisions that are missing in their log: `queue` or `disk`.
pub(crate) fn decisions_unlogged(cause: &'static str, lines: u64) {
    backend::count(Metric::DecisionsUnlogged, &[("cause", cause)], lines);
}

/// Registers units and help texts. Call it once, after the host has installed a recorder.
#[doc(hidden)]
pub fn describe() {
    Metric::ALL.iter().for_each(|metric| backend::describe(*metric));
}

/// The facade. Handles of the cold path are looked up per call: the recorder caches them.
#[cfg(feature = "metrics")]
mod backend {
    use std::sync::Arc;

    use metrics::{Label, SharedString, Unit};

    use super::{AdmissionOutcome, Decisions, Kind, Metric, UnitsOutcome};

    type Pairs = [(&'static str, &'static str)];

    pub(super) fn decisions(
        plan: &Arc<str>,
        route: &Arc<str>,
        outcome: AdmissionOutcome,
        (reason, policy): (&'static str, &Arc<str>),
    ) -> Decisions {
        let labels = vec![
            Label::new("plan", SharedString::from(Arc::clone(plan))),
            Label::new("route", SharedString::from(Arc::clone(route))),
            Label::from_static_parts("outcome", outcome.word()),
            Label::from_static_parts("reason", reason),
            Label::new("policy", SharedString::from(Arc::clone(policy))),
        ];
        Decisions { counter: metrics::counter!(Metric::Decisions.name, labels) }
    }

    pub(super) fn units(plan: &Arc<str>, meter: &Arc<str>, outcome: UnitsOutcome, n: u64) {
        units_handle(plan, meter, outcome).increment(n);
    }

    pub(super) fn units_handle(
        plan: &Arc<str>,
        meter: &Arc<str>,
        outcome: UnitsOutcome,
    ) -> metrics::Counter {
        let labels = vec![
            Label::new("meter", SharedString::from(Arc::clone(meter))),
            Label::new("plan", SharedString::from(Arc::clone(plan))),
            Label::from_static_parts("outcome", outcome.word()),
        ];
        metrics::counter!(Metric::Units.name, labels)
    }

    pub(super) fn limit_used(tenant: &Arc<str>, limit: &Arc<str>, share: f64) {
        let labels = vec![
            Label::new("tenant", SharedString::from(Arc::clone(tenant))),
            Label::new("limit", SharedString::from(Arc::clone(limit))),
        ];
        metrics::gauge!(Metric::LimitUsed.name, labels).set(share);
    }

    pub(super) fn counter(metric: Metric, labels: &Pairs) {
        count(metric, labels, 1);
    }

    pub(super) fn count(metric: Metric, labels: &Pairs, n: u64) {
        metrics::counter!(metric.name, labels).increment(n);
    }

    pub(super) fn gauge(metric: Metric, labels: &Pairs, to: f64) {
        metrics::gauge!(metric.name, labels).set(to);
    }

    pub(super) fn histogram(metric: Metric, labels: &Pairs, of: f64) {
        metrics::histogram!(metric.name, labels).record(of);
    }

    pub(super) fn catalog(revision: u64, to: f64) {
        metrics::gauge!(Metric::CatalogInfo.name, "revision" => revision.to_string()).set(to);
    }

    pub(super) fn describe(metric: Metric) {
        let unit = Unit::from_string(metric.unit).unwrap_or(Unit::Count);
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// The facade's stand-in: empty inline functions.
#[cfg(not(feature = "metrics"))]
mod backend {
    use std::sync::Arc;

    use super::{AdmissionOutcome, Decisions, Metric, UnitsOutcome};

    type Pairs = [(&'static str, &'static str)];

    #[inline]
    pub(super) fn decisions(
        _: &Arc<str>,
        _: &Arc<str>,
        _: AdmissionOutcome,
        _: (&'static str, &Arc<str>),
    ) -> Decisions {
        Decisions {}
    }

    #[inline]
    pub(super) fn units(_: &Arc<str>, _: &Arc<str>, _: UnitsOutcome, _: u64) {}

    #[inline]
    pub(super) fn limit_used(_: &Arc<str>, _: &Arc<str>, _: f64) {}

    #[inline]
    pub(super) fn counter(_: Metric, _: &Pairs) {}

    #[inline]
    pub(super) fn count(_: Metric, _: &Pairs, _: u64) {}

    #[inline]
    pub(super) fn gauge(_: Metric, _: &Pairs, _: f64) {}

    #[inline]
    pub(super) fn histogram(_: Metric, _: &Pairs, _: f64) {}

    #[inline]
    pub(super) fn catalog(_: u64, _: f64) {}

    #[inline]
    pub(super) fn describe(_: Metric) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of docs/metrics.md.
    fn rows() -> String {
        let row = |metric: &&Metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels: Vec<_> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
            let help = metric.help.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("| `{}` | {kind} | {} | {help} |\n", metric.name, labels.join(", "))
        };
        Metric::ALL.iter().map(|metric| row(&metric)).collect()
    }

    /// `TALLYGATE_WRITE_METRICS=1` rewrites its table.
    #[test]
    fn the_page_has_every_metric() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap();
        let head = "| metric | type | labels | what |\n|---|---|---|---|\n";
        let (before, rest) = page.split_once(head).unwrap();
        let (table, after) = rest.split_once("\n\n").unwrap_or(("", rest));
        if std::env::var_os("TALLYGATE_WRITE_METRICS").is_some() {
            let after = after.trim_start();
            std::fs::write(path, format!("{before}{head}{}\n{after}", rows())).unwrap();
        } else {
            assert_eq!(table.trim_start().to_owned() + "\n", rows());
        }
    }

    #[test]
    fn names_are_apart_and_no_label_is_a_tenant_unasked() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert!(metric.name.starts_with("tallygate_"), "{}", metric.name);
            let counts = metric.name.ends_with("_total");
            assert_eq!(counts, metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == "seconds");
            // The one that the service file has to ask for, and for whom.
            let asked_for = *metric == Metric::LimitUsed;
            for banned in ["tenant", "key", "user", "ip"] {
                assert!(
                    asked_for && banned == "tenant" || !metric.labels.contains(&banned),
                    "{}",
                    metric.name
                );
            }
        }
    }

    #[cfg(not(feature = "metrics"))]
    #[test]
    fn a_counter_that_is_off_takes_no_room() {
        assert_eq!(std::mem::size_of::<Decisions>(), 0);
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn emits_what_it_declares() {
        let seen = Seen::default();
        let word: Arc<str> = "x".into();
        metrics::with_local_recorder(&seen, || {
            describe();
            decision(&word, &word, AdmissionOutcome::Refused, ("x", &word));
            units(&word, &word, UnitsOutcome::Used, 1);
            limit_used(&word, &word, 0.5);
            lease_wait(0.01, true);
            outbox(1, 0, 3.0);
            reported(5);
            store_call("write", 0.01, Some("throttled"));
            flush_lag(1.0);
            flush_batch(3);
            stripe_event("delivered");
            webhook_event("taken");
            login("told");
            tenants_cached(1);
            degraded("cached", true);
            catalog_info(2, Some(1));
            reload_failed();
            unknown_meter("add");
            decisions_unlogged("queue", 1);
            alert("delivered");
            alerts_waiting(2, 7.0);
        });
        let seen = seen.0.into_inner().unwrap();
        for Metric { name, labels, .. } in Metric::ALL {
            let labels: Vec<_> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert!(seen.contains(&((*name).to_owned(), labels)), "{name} is not among {seen:?}");
        }
        // The two catalog revisions, and the two states of entries, are a series each.
        assert_eq!(seen.len(), Metric::ALL.len() + 2);
    }

    /// Names and label keys of every handle requested.
    #[cfg(feature = "metrics")]
    #[derive(Default)]
    struct Seen(std::sync::Mutex<Vec<(String, Vec<String>)>>);

    #[cfg(feature = "metrics")]
    impl Seen {
        fn note(&self, key: &metrics::Key) {
            let labels = key.labels().map(|label| label.key().to_owned()).collect();
            self.0.lock().unwrap().push((key.name().to_owned(), labels));
        }
    }

    #[cfg(feature = "metrics")]
    impl metrics::Recorder for Seen {
        fn describe_counter(
            &self,
            _: metrics::KeyName,
            _: Option<metrics::Unit>,
            _: metrics::SharedString,
        ) {
        }

        fn describe_gauge(
            &self,
            _: metrics::KeyName,
            _: Option<metrics::Unit>,
            _: metrics::SharedString,
        ) {
        }

        fn describe_histogram(
            &self,
            _: metrics::KeyName,
            _: Option<metrics::Unit>,
            _: metrics::SharedString,
        ) {
        }

        fn register_counter(
            &self,
            key: &metrics::Key,
            _: &metrics::Metadata<'_>,
        ) -> metrics::Counter {
            self.note(key);
            metrics::Counter::noop()
        }

        fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
            self.note(key);
            metrics::Gauge::noop()
        }

        fn register_histogram(
            &self,
            key: &metrics::Key,
            _: &metrics::Metadata<'_>,
        ) -> metrics::Histogram {
            self.note(key);
            metrics::Histogram::noop()
        }
    }
}

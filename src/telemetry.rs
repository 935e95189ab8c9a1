//! Every name this crate emits, in one place, with its unit and labels.
//!
//! Metrics go through the `metrics` facade when the feature `metrics` is on, and are empty inline
//! functions when it is off. A tenant is never a label: it goes into spans alone, as a field.
//! Labels hold words from the plan file or of this file, so their number is bounded by the catalog.
//! Durations are seconds, handed in; nothing here reads a clock.
//!
//! On the hot path two metrics are touched, [`Metric::Decisions`] and [`Metric::DecisionSeconds`];
//! the gate keeps their handles by plan, route, outcome and policy in a [`Decisions`], so that
//! telling of a decision looks nothing up and allocates nothing.

use std::sync::Arc;

/// The span around one admission. Level DEBUG, fields [`FIELDS`].
pub const SPAN_CHECK: &str = "tollgate.check";

/// Fields of [`SPAN_CHECK`] and of the events. `tollgate.tenant` is in spans only.
pub const FIELDS: [&str; 7] = [
    "tollgate.tenant",
    "tollgate.plan",
    "tollgate.route",
    "tollgate.outcome",
    "tollgate.policy",
    "tollgate.source",
    "tollgate.remaining",
];

/// Event, DEBUG: a request was refused. Not louder: a flood of refusals must not become one of
/// logs.
pub const EVENT_REFUSED: &str = "tollgate.refused";
/// Event, WARN: the store failed or timed out.
pub const EVENT_STORE: &str = "tollgate.store";
/// Event, WARN: the gate decides with less than it should know.
pub const EVENT_DEGRADED: &str = "tollgate.degraded";
/// Event, WARN: a plan file was not loaded; the old catalog stays.
pub const EVENT_RELOAD: &str = "tollgate.reload";
/// Event, INFO: an alert percentage of a quota was passed.
pub const EVENT_ALERT: &str = "tollgate.alert";

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// What kind of number it is.
    pub kind: Kind,
    /// What one of it is: a word of the facade's `Unit`, or empty.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
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
    /// Decisions; `policy` is the limit that refused, or empty.
    Decisions = Counter "tollgate_decisions_total" "count" ["plan" "route" "outcome" "policy"];
    /// Time from the request to its decision, waits for the store included.
    DecisionSeconds = Histogram "tollgate_decision_seconds" "seconds" ["outcome"];
    /// Time of one call to the store.
    StoreSeconds = Histogram "tollgate_store_seconds" "seconds" ["op"];
    /// Calls to the store that failed, by what is known of them.
    StoreErrors = Counter "tollgate_store_errors_total" "count" ["op" "kind"];
    /// Age of the oldest usage that the store has not acknowledged.
    FlushLag = Gauge "tollgate_flush_lag_seconds" "seconds" [];
    /// Rows in one flushed record.
    FlushBatch = Histogram "tollgate_flush_batch_items" "count" [];
    /// Units used that the store has not acknowledged.
    Unflushed = Gauge "tollgate_unflushed_units" "count" ["meter"];
    /// Meter events sent to Stripe, by result.
    StripeEvents = Counter "tollgate_stripe_events_total" "count" ["result"];
    /// Webhook events received, by type and result.
    WebhookEvents = Counter "tollgate_webhook_events_total" "count" ["type" "result"];
    /// Logins whose token was to say what the tenant has, by result.
    Logins = Counter "tollgate_logins_total" "count" ["result"];
    /// Tenants held in memory.
    TenantsCached = Gauge "tollgate_tenants_cached" "count" [];
    /// 1 while the gate decides in this mode for want of the store.
    Degraded = Gauge "tollgate_degraded" "" ["mode"];
    /// 1 for the catalog revision in force.
    CatalogInfo = Gauge "tollgate_catalog_info" "" ["revision"];
    /// Plan files that were not loaded; the old catalog stays.
    ReloadFailed = Counter "tollgate_reload_failures_total" "count" [];
}

/// How an admission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Let through.
    Allowed,
    /// Refused.
    Refused,
    /// Would have been refused, but the plan only watches.
    Shadowed,
}

impl Outcome {
    /// Its word as a label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Shadowed => "shadowed",
        }
    }
}

/// The handles of one (plan, route, outcome, policy), looked up once and kept by their owner.
#[derive(Clone)]
pub struct Decisions {
    #[cfg(feature = "metrics")]
    counter: metrics::Counter,
    #[cfg(feature = "metrics")]
    seconds: metrics::Histogram,
}

impl std::fmt::Debug for Decisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decisions")
    }
}

impl Decisions {
    /// Looks the handles up. One made before the host installs its recorder stays silent.
    pub fn new(plan: &Arc<str>, route: &Arc<str>, outcome: Outcome, policy: &Arc<str>) -> Self {
        backend::decisions(plan, route, outcome, policy)
    }

    /// Counts one.
    #[inline]
    pub fn count(&self) {
        #[cfg(feature = "metrics")]
        self.counter.increment(1);
    }

    /// Tells how long a decision took.
    #[inline]
    pub fn took(&self, seconds: f64) {
        #[cfg(feature = "metrics")]
        self.seconds.record(seconds);
        #[cfg(not(feature = "metrics"))]
        let _ = seconds;
    }
}

/// Counts one decision, looking its counter up. The hot path keeps a [`Decisions`] instead.
pub fn decision(plan: &Arc<str>, route: &Arc<str>, outcome: Outcome, policy: &Arc<str>) {
    Decisions::new(plan, route, outcome, policy).count();
}

/// Tells of a call to the store; `error` is the word of its kind.
pub fn store_call(op: &'static str, seconds: f64, error: Option<&'static str>) {
    backend::histogram(Metric::StoreSeconds, &[("op", op)], seconds);
    if let Some(kind) = error {
        backend::counter(Metric::StoreErrors, &[("op", op), ("kind", kind)]);
    }
}

/// Sets the age of the oldest usage that is not yet acknowledged.
pub fn flush_lag(seconds: f64) {
    backend::gauge(Metric::FlushLag, &[], seconds);
}

/// Tells how many rows a flushed record had.
pub fn flush_batch(rows: usize) {
    backend::histogram(Metric::FlushBatch, &[], rows as f64);
}

/// Sets the whole units of a meter that are not yet acknowledged.
pub fn unflushed(meter: &Arc<str>, units: u64) {
    backend::unflushed(meter, units as f64);
}

/// Counts meter events sent to Stripe: `sent`, `duplicate`, `rejected`, `unknown`.
pub fn stripe_event(result: &'static str) {
    backend::counter(Metric::StripeEvents, &[("result", result)]);
}

/// Counts a webhook event. `kind` is a type this crate knows, or `other`: a sender must not be able
/// to make labels.
pub fn webhook_event(kind: &'static str, result: &'static str) {
    backend::counter(Metric::WebhookEvents, &[("type", kind), ("result", result)]);
}

/// Counts a login: `told` what the tenant has, `unknown` tenant, `failed` to find out.
pub fn login(result: &'static str) {
    backend::counter(Metric::Logins, &[("result", result)]);
}

/// Sets how many tenants are held in memory.
pub fn tenants_cached(tenants: u64) {
    backend::gauge(Metric::TenantsCached, &[], tenants as f64);
}

/// Says that the gate decides in this mode for want of the store, or no longer does.
pub fn degraded(mode: &'static str, is: bool) {
    backend::gauge(Metric::Degraded, &[("mode", mode)], if is { 1.0 } else { 0.0 });
}

/// Says which catalog is in force. The one before it goes to 0.
pub fn catalog_info(revision: u64, before: Option<u64>) {
    if let Some(before) = before.filter(|before| *before != revision) {
        backend::catalog(before, 0.0);
    }
    backend::catalog(revision, 1.0);
}

/// Counts a plan file that was not loaded.
pub fn reload_failed() {
    backend::counter(Metric::ReloadFailed, &[]);
}

/// Hands units and help texts to the recorder. Call it once, after the host installed one.
pub fn describe() {
    Metric::ALL.iter().for_each(|metric| backend::describe(*metric));
}

/// The facade. Handles of the cold path are looked up per call: the recorder caches them.
#[cfg(feature = "metrics")]
mod backend {
    use std::sync::Arc;

    use metrics::{Label, SharedString, Unit};

    use super::{Decisions, Kind, Metric, Outcome};

    type Pairs = [(&'static str, &'static str)];

    pub(super) fn decisions(
        plan: &Arc<str>,
        route: &Arc<str>,
        outcome: Outcome,
        policy: &Arc<str>,
    ) -> Decisions {
        let labels = vec![
            Label::new("plan", SharedString::from(Arc::clone(plan))),
            Label::new("route", SharedString::from(Arc::clone(route))),
            Label::from_static_parts("outcome", outcome.word()),
            Label::new("policy", SharedString::from(Arc::clone(policy))),
        ];
        Decisions {
            counter: metrics::counter!(Metric::Decisions.name, labels),
            seconds: metrics::histogram!(
                Metric::DecisionSeconds.name,
                "outcome" => outcome.word()
            ),
        }
    }

    pub(super) fn counter(metric: Metric, labels: &Pairs) {
        metrics::counter!(metric.name, labels).increment(1);
    }

    pub(super) fn gauge(metric: Metric, labels: &Pairs, to: f64) {
        metrics::gauge!(metric.name, labels).set(to);
    }

    pub(super) fn histogram(metric: Metric, labels: &Pairs, of: f64) {
        metrics::histogram!(metric.name, labels).record(of);
    }

    pub(super) fn unflushed(meter: &Arc<str>, units: f64) {
        let meter = SharedString::from(Arc::clone(meter));
        metrics::gauge!(Metric::Unflushed.name, "meter" => meter).set(units);
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

/// Nothing, inlined.
#[cfg(not(feature = "metrics"))]
mod backend {
    use std::sync::Arc;

    use super::{Decisions, Metric, Outcome};

    type Pairs = [(&'static str, &'static str)];

    #[inline]
    pub(super) fn decisions(_: &Arc<str>, _: &Arc<str>, _: Outcome, _: &Arc<str>) -> Decisions {
        Decisions {}
    }

    #[inline]
    pub(super) fn counter(_: Metric, _: &Pairs) {}

    #[inline]
    pub(super) fn gauge(_: Metric, _: &Pairs, _: f64) {}

    #[inline]
    pub(super) fn histogram(_: Metric, _: &Pairs, _: f64) {}

    #[inline]
    pub(super) fn unflushed(_: &Arc<str>, _: f64) {}

    #[inline]
    pub(super) fn catalog(_: u64, _: f64) {}

    #[inline]
    pub(super) fn describe(_: Metric) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_apart_and_no_label_is_a_tenant() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert!(metric.name.starts_with("tollgate_"), "{}", metric.name);
            let counts = metric.name.ends_with("_total");
            assert_eq!(counts, metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == "seconds");
            for banned in ["tenant", "key", "user", "ip"] {
                assert!(!metric.labels.contains(&banned), "{}", metric.name);
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
            decision(&word, &word, Outcome::Refused, &word);
            store_call("write", 0.01, Some("throttled"));
            flush_lag(1.0);
            flush_batch(3);
            unflushed(&word, 7);
            stripe_event("sent");
            webhook_event("other", "ignored");
            login("told");
            tenants_cached(1);
            degraded("cached", true);
            catalog_info(2, Some(1));
            reload_failed();
        });
        let seen = seen.0.into_inner().unwrap();
        for Metric { name, labels, .. } in Metric::ALL {
            let labels: Vec<_> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert!(seen.contains(&((*name).to_owned(), labels)), "{name} is not among {seen:?}");
        }
        // Both revisions of the catalog are one series each.
        assert_eq!(seen.len(), Metric::ALL.len() + 1);
    }

    /// Names and label keys of every handle that was asked for.
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

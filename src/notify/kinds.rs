//! The kinds of alerts: what each is about, its id, its sentence and its document.
//! `docs/alerts.md` lists them.

use serde_json::{Value, json};

use super::Notification;
use super::queue::{About, Entry};
use crate::clock::time_at;
use crate::ids::Surrogate;
use crate::store::layout::name_hash;

/// The kinds, as a receiver sees them: those of `config::ALERT_KINDS`, with a prefix.
pub(crate) const THRESHOLD: &str = "tallygate.quota.threshold";
pub(crate) const EXHAUSTED: &str = "tallygate.quota.exhausted";
pub(crate) const PLAN_CHANGED: &str = "tallygate.plan.changed";
pub(crate) const PAYMENT: &str = "tallygate.payment.trouble";
pub(crate) const KEY_EXPIRING: &str = "tallygate.key.expiring";
pub(crate) const USAGE_LATE: &str = "tallygate.usage.late";
#[cfg(feature = "stripe")]
pub(crate) const BILLING_LATE: &str = "tallygate.billing.late";
#[cfg(feature = "stripe")]
pub(crate) const BILLING_WAITS: &str = "tallygate.billing.waits";
#[cfg(feature = "stripe")]
pub(crate) const BILLING_OLD: &str = "tallygate.billing.old";
#[cfg(feature = "stripe")]
pub(crate) const BILLING_DRIFT: &str = "tallygate.billing.drift";
/// What `tallygate alerts test` sends; every destination takes it.
pub(crate) const TEST: &str = "tallygate.test";

/// How long before its end a key is about to expire.
pub(crate) const KEY_NOTICE_MS: i64 = 7 * 86_400_000;

/// The name of a kind in a service file.
pub(crate) fn word(kind: &str) -> &str {
    kind.strip_prefix("tallygate.").unwrap_or(kind)
}

/// A use of a limit that was passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitPassed<'a> {
    pub(crate) surrogate: Surrogate,
    pub(crate) tenant: &'a str,
    pub(crate) plan: &'a str,
    pub(crate) limit: &'a str,
    pub(crate) percent: u16,
    /// The use at which it is passed, in atoms: under another limit it is another alert.
    pub(crate) at: i64,
    /// Whole units.
    pub(crate) used: u64,
    pub(crate) limit_units: u64,
    /// Start and end of the window, Unix milliseconds.
    pub(crate) window: (i64, i64),
}

/// A quota has passed a percentage; at 100 it is exhausted.
pub(crate) fn limit_passed(at_ms: i64, of: LimitPassed<'_>) -> Entry {
    let LimitPassed { tenant, plan, limit, percent, used, limit_units, .. } = of;
    let kind = limit_kind(percent);
    let (start_ms, end_ms) = of.window;
    let text = match kind {
        EXHAUSTED => format!("{tenant} has used all of {limit} ({limit_units} on plan {plan})"),
        _ => format!("{tenant} has used {percent} % of {limit} ({limit_units} on plan {plan})"),
    };
    let about = [
        &*of.surrogate.to_string(),
        limit,
        &percent.to_string(),
        &of.at.to_string(),
        &start_ms.to_string(),
    ];
    entry(kind, &about, at_ms, text, About::Fact, || {
        json!({
            "tenant": tenant, "plan": plan, "limit": limit, "percent": percent,
            "used": used, "limit_units": limit_units,
            "window_start": instant(start_ms), "window_end": instant(end_ms),
        })
    })
}

/// The kind of the alert for this percentage.
pub(crate) fn limit_kind(percent: u16) -> &'static str {
    if percent == 100 { EXHAUSTED } else { THRESHOLD }
}

/// A change in a tenant's history, of which an alert is written in advance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeAhead<'a> {
    pub(crate) surrogate: Surrogate,
    pub(crate) tenant: &'a str,
    pub(crate) change: u64,
}

/// A tenant's plan changes; `None`: the default plan.
pub(crate) fn plan_changed(
    at_ms: i64,
    of: ChangeAhead<'_>,
    (from, to): (Option<&str>, Option<&str>),
) -> Entry {
    let named = |plan: Option<&str>| plan.unwrap_or("the default plan").to_owned();
    let text = format!("{} goes from {} to {}", of.tenant, named(from), named(to));
    change(PLAN_CHANGED, at_ms, of, text, || json!({"tenant": of.tenant, "from": from, "to": to}))
}

/// A tenant's payments come to be in this state.
pub(crate) fn payment_trouble(at_ms: i64, of: ChangeAhead<'_>, state: &str) -> Entry {
    let text = format!("the payments of {} are {state}", of.tenant);
    change(PAYMENT, at_ms, of, text, || json!({"tenant": of.tenant, "state": state}))
}

fn change(
    kind: &'static str,
    at_ms: i64,
    of: ChangeAhead<'_>,
    text: String,
    data: impl FnOnce() -> Value,
) -> Entry {
    let about = [&*of.surrogate.to_string(), &of.change.to_string()];
    let on = About::Change { tenant: of.surrogate, change: of.change };
    entry(kind, &about, at_ms, text, on, data)
}

/// A key ends soon. Due [`KEY_NOTICE_MS`] before.
pub(crate) fn key_expiring(
    surrogate: Surrogate,
    tenant: &str,
    (key, name): (&str, &str),
    until_ms: i64,
) -> Entry {
    let at_ms = until_ms.saturating_sub(KEY_NOTICE_MS);
    let ends = instant(until_ms);
    let at = ends.as_deref().unwrap_or_default();
    let text = format!("the key {name} ({key}) of {tenant} ends at {at}");
    let about = [&*surrogate.to_string(), key, &until_ms.to_string()];
    let on = About::Key { tenant: surrogate, key: key.to_owned(), until_ms };
    entry(
        KEY_EXPIRING,
        &about,
        at_ms,
        text,
        on,
        || json!({"tenant": tenant, "key": key, "name": name, "expires": ends}),
    )
}

/// Trouble of the service as a whole, at most once in the period that began then.
pub(crate) fn service_trouble(
    kind: &'static str,
    at_ms: i64,
    period_ms: i64,
    text: String,
    data: Value,
) -> Entry {
    entry(kind, &[&period_ms.to_string()], at_ms, text, About::Fact, || data)
}

/// A test: another one each time.
pub(crate) fn test(at_ms: i64, nonce: u64) -> Entry {
    let text = "a test of tallygate's alerts".to_owned();
    entry(TEST, &[&nonce.to_string()], at_ms, text, About::Fact, || json!({}))
}

/// The id of an alert that is about this.
pub(super) fn id(about: &[&str]) -> String {
    format!("al_{}", name_hash(about))
}

fn entry(
    kind: &'static str,
    about: &[&str],
    at_ms: i64,
    text: String,
    on: About,
    data: impl FnOnce() -> Value,
) -> Entry {
    let parts: Vec<_> = std::iter::once(kind).chain(about.iter().copied()).collect();
    let payload = json!({"type": kind, "timestamp": instant(at_ms), "data": data()});
    let notification = Notification {
        id: id(&parts),
        kind: kind.to_owned(),
        at: time_at(at_ms),
        text,
        payload: payload.to_string(),
    };
    Entry { notification, about: on, refused: None }
}

/// As in a document; an end that is none is `null`.
fn instant(at_ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(at_ms).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ALERT_KINDS;

    #[test]
    fn what_a_service_file_may_name_is_what_is_sent() {
        let ours = [
            THRESHOLD,
            EXHAUSTED,
            PLAN_CHANGED,
            PAYMENT,
            KEY_EXPIRING,
            USAGE_LATE,
            #[cfg(feature = "stripe")]
            BILLING_LATE,
            #[cfg(feature = "stripe")]
            BILLING_WAITS,
            #[cfg(feature = "stripe")]
            BILLING_OLD,
            #[cfg(feature = "stripe")]
            BILLING_DRIFT,
        ];
        let words = Vec::from_iter(ours.iter().map(|kind| word(kind)));
        assert_eq!(words, ALERT_KINDS[..words.len()]);
        let page = include_str!("../../docs/alerts.md");
        for word in ALERT_KINDS.iter().chain([&"test"]) {
            assert!(page.contains(&format!("`tallygate.{word}`")), "docs/alerts.md: {word}");
        }
    }

    #[test]
    fn an_alert_has_one_id_whoever_finds_it_and_another_for_another_use_or_period() {
        let of = LimitPassed {
            surrogate: Surrogate::test(1),
            tenant: "acme",
            plan: "pro",
            limit: "jobs/day",
            percent: 80,
            at: 800,
            used: 801,
            limit_units: 1_000,
            window: (0, 86_400_000),
        };
        let id = |of| limit_passed(1, of).notification.id;
        let one = limit_passed(5, of);
        assert_eq!(one.notification.id, id(LimitPassed { used: 900, tenant: "a", ..of }));
        for other in [
            LimitPassed { percent: 100, ..of },
            LimitPassed { at: 801, ..of },
            LimitPassed { window: (86_400_000, 2), ..of },
            LimitPassed { limit: "jobs/month", ..of },
            LimitPassed { surrogate: Surrogate::test(2), ..of },
        ] {
            assert_ne!(one.notification.id, id(other));
        }
        let payload: Value = serde_json::from_str(&one.notification.payload).unwrap();
        assert_eq!(payload["type"], "tallygate.quota.threshold");
        assert_eq!(payload["timestamp"], "1970-01-01T00:00:00.005Z");
        assert_eq!(payload["data"]["window_end"], "1970-01-02T00:00:00Z");
        assert_eq!(
            limit_passed(1, LimitPassed { percent: 100, ..of }).notification.kind,
            EXHAUSTED
        );
    }
}

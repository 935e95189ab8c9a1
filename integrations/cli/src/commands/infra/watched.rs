//! What is watched: the panels of dashboards, and alarms, each on a metric of the code. A metric
//! that is renamed or dropped does not compile here, or fails the tests below.

use tallygate::telemetry::Metric;

/// A group of panels.
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: &'static [Panel],
}

/// A metric over time.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) metric: Metric,
    /// Labels with a line each.
    pub(super) by: &'static [&'static str],
    /// What its labels have to be.
    pub(super) only: Only,
}

/// Labels and their words.
pub(super) type Only = &'static [(&'static str, &'static str)];

const fn panel(title: &'static str, metric: Metric, by: &'static [&'static str]) -> Panel {
    Panel { title, metric, by, only: &[] }
}

/// The groups, from what callers notice to what only the operator does.
pub(super) const ROWS: &[Row] = &[
    Row {
        title: "Requests",
        panels: &[
            panel("Decisions", Metric::Decisions, &["outcome"]),
            Panel {
                title: "Refusals by plan and limit",
                metric: Metric::Decisions,
                by: &["plan", "policy"],
                only: &[("outcome", "refused")],
            },
            Panel {
                title: "Refusals by reason",
                metric: Metric::Decisions,
                by: &["reason"],
                only: &[("outcome", "refused")],
            },
            panel("Units by meter and plan", Metric::Units, &["meter", "plan", "outcome"]),
            panel("Waits for a lease", Metric::LeaseWait, &["outcome"]),
            panel("Tenants near a limit", Metric::LimitUsed, &["tenant", "limit"]),
        ],
    },
    Row {
        title: "Store",
        panels: &[
            panel("Age of the oldest usage not written", Metric::FlushLag, &[]),
            panel("Rows of a flush", Metric::FlushBatch, &[]),
            panel("Calls to the store", Metric::StoreSeconds, &["op"]),
            panel("Calls that failed", Metric::StoreErrors, &["op", "kind"]),
            panel("What cannot be done", Metric::Degraded, &["mode"]),
            panel("Tenants in memory", Metric::TenantsCached, &[]),
        ],
    },
    Row {
        title: "Billing",
        panels: &[
            panel("Time since the last report", Metric::ReportedAt, &[]),
            panel("Entries without an outcome", Metric::OutboxEntries, &["state"]),
            panel("Age of the oldest of them", Metric::OutboxAge, &[]),
            panel("Meter events", Metric::StripeEvents, &["result"]),
            panel("Webhooks", Metric::WebhookEvents, &["result"]),
        ],
    },
    Row {
        title: "Plans, logins, alerts, logs",
        panels: &[
            panel("Catalog in force", Metric::CatalogInfo, &["revision"]),
            panel("Plan files not loaded", Metric::ReloadFailed, &[]),
            panel("Meters that no plan file has", Metric::UnknownMeter, &["call"]),
            panel("Logins", Metric::Logins, &["result"]),
            panel("Deliveries of alerts", Metric::Alerts, &["result"]),
            panel("Alerts that wait", Metric::AlertsWaiting, &[]),
            panel("Age of the oldest of them", Metric::AlertsAge, &[]),
            panel("Decisions missing in their log", Metric::DecisionsUnlogged, &["cause"]),
        ],
    },
];

/// How the series of a metric come to the number that an alarm compares.
#[derive(Clone, Copy)]
pub(super) enum Over {
    /// The largest.
    Max,
    /// All of them together, in a period.
    Sum,
}

/// A number that an operator has to learn of.
pub(super) struct Alarm {
    /// Its name in the template.
    pub(super) id: &'static str,
    pub(super) metric: Metric,
    pub(super) only: Only,
    pub(super) over: Over,
    /// It is raised above this.
    pub(super) above: u32,
    pub(super) period_s: u32,
    /// Periods in a row.
    pub(super) periods: u32,
    pub(super) says: &'static str,
    /// The heading of docs/runbook.md, as an anchor.
    pub(super) symptom: &'static str,
}

/// The alarms. Those on the table and on the schedule of reports are in `infra template`.
pub(super) const ALARMS: &[Alarm] = &[
    Alarm {
        id: "CallersGet503",
        metric: Metric::Decisions,
        only: &[("outcome", "unavailable")],
        over: Over::Sum,
        above: 10,
        period_s: 60,
        periods: 5,
        says: "Requests are refused because usage cannot be checked",
        symptom: "callers-get-503",
    },
    Alarm {
        id: "UsageNotWritten",
        metric: Metric::FlushLag,
        only: &[],
        over: Over::Max,
        above: 30,
        period_s: 60,
        periods: 5,
        says: "Usage waits in memory to be written to the store",
        symptom: "usage-lags",
    },
    Alarm {
        id: "StoreDegraded",
        metric: Metric::Degraded,
        only: &[],
        over: Over::Max,
        above: 0,
        period_s: 60,
        periods: 5,
        says: "Writes to the store fail",
        symptom: "the-store-is-lost-or-damaged",
    },
    Alarm {
        id: "PlanFileBroken",
        metric: Metric::ReloadFailed,
        only: &[],
        over: Over::Sum,
        above: 0,
        period_s: 300,
        periods: 1,
        says: "A plan file was not loaded: the previous plans are in force",
        symptom: "the-plan-file-is-broken",
    },
    Alarm {
        id: "UnknownMeter",
        metric: Metric::UnknownMeter,
        only: &[],
        over: Over::Sum,
        above: 0,
        period_s: 3_600,
        periods: 1,
        says: "A handler reports a meter that the plan file does not have",
        symptom: "the-plan-file-is-broken",
    },
    Alarm {
        id: "OutboxWaits",
        metric: Metric::OutboxEntries,
        only: &[("state", "waits")],
        over: Over::Max,
        above: 0,
        period_s: 3_600,
        periods: 1,
        says: "Billed usage waits for an operator",
        symptom: "the-outbox-is-old",
    },
    Alarm {
        id: "OutboxOld",
        metric: Metric::OutboxAge,
        only: &[],
        over: Over::Max,
        above: 100_800, // after 24 hours Stripe's sums decide; the next reports ask for them
        period_s: 3_600,
        periods: 1,
        says: "Usage sent to Stripe is without an outcome for more than 28 hours",
        symptom: "the-outbox-is-old",
    },
    Alarm {
        id: "StripeRejects",
        metric: Metric::StripeEvents,
        only: &[("result", "refused")],
        over: Over::Sum,
        above: 0,
        period_s: 3_600,
        periods: 1,
        says: "Stripe refuses meter events",
        symptom: "stripe-rejects",
    },
    Alarm {
        id: "WebhooksWait",
        metric: Metric::WebhookEvents,
        only: &[("result", "waits")],
        over: Over::Sum,
        above: 0,
        period_s: 900,
        periods: 2,
        says: "Stripe's webhooks cannot be applied",
        symptom: "stripe-rejects",
    },
    Alarm {
        id: "AlertsWait",
        metric: Metric::AlertsAge,
        only: &[],
        over: Over::Max,
        above: 900,
        period_s: 300,
        periods: 1,
        says: "Alerts do not arrive at a destination",
        symptom: "alerts-do-not-arrive",
    },
    Alarm {
        id: "DecisionsUnlogged",
        metric: Metric::DecisionsUnlogged,
        only: &[],
        over: Over::Sum,
        above: 0,
        period_s: 300,
        periods: 3,
        says: "Decisions are missing in their log",
        symptom: "the-disk-is-full",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn panels() -> impl Iterator<Item = &'static Panel> {
        ROWS.iter().flat_map(|row| row.panels)
    }

    #[test]
    fn every_metric_has_a_panel() {
        let lacks: Vec<_> =
            Metric::ALL.iter().filter(|it| panels().all(|panel| panel.metric != **it)).collect();
        assert!(lacks.is_empty(), "show in `ROWS`: {lacks:?}");
    }

    #[test]
    fn every_label_is_of_its_metric() {
        let of_panels = panels().map(|it| (it.metric, it.by, it.only));
        let of_alarms = ALARMS.iter().map(|it| (it.metric, &[][..], it.only));
        for (metric, by, only) in of_panels.chain(of_alarms) {
            assert!(Metric::ALL.contains(&metric), "{}", metric.name);
            for label in by.iter().chain(only.iter().map(|(label, _)| label)) {
                assert!(metric.labels.contains(label), "{} has no {label}", metric.name);
            }
        }
    }
}

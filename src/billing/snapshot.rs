//! A subscription as an event shows it: the few fields that decide, read leniently, because events
//! come in the shape of whatever API version they were made under.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a subscription stands, by what it gives the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Status {
    /// Never begun: its first payment is missing.
    Incomplete,
    /// Over: canceled, or never begun in time.
    Ended,
    /// Retries have ended, or a trial did without a payment method.
    Unpaid,
    PastDue,
    Trialing,
    Active,
}

/// See the [module](self). Ordered by what it gives the customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) status: Status,
    /// Lookup keys and quantities, sorted; items without a lookup key are not sold here.
    pub(super) items: Vec<(String, u64)>,
    pub(super) start_s: i64,
    pub(super) anchor_s: i64,
    /// When its current period began.
    pub(super) period_s: i64,
    pub(super) ended_s: Option<i64>,
}

impl Subscription {
    /// `None` if it is no subscription, or in a state that is not known.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let status = match text(object, "status") {
            "incomplete" => Status::Incomplete,
            "canceled" | "incomplete_expired" => Status::Ended,
            "unpaid" | "paused" => Status::Unpaid,
            "past_due" => Status::PastDue,
            "trialing" => Status::Trialing,
            "active" => Status::Active,
            _ => return None,
        };
        if text(object, "id").is_empty() {
            return None;
        }
        let data = object["items"]["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let item = |item: &Value| {
            let key = text(&item["price"], "lookup_key");
            (key.to_owned(), item["quantity"].as_u64().unwrap_or(1))
        };
        let mut items: Vec<(String, u64)> =
            data.iter().map(item).filter(|(key, _)| !key.is_empty()).collect();
        items.sort();
        let second = |object: &Value, field: &str| object[field].as_i64();
        // Since 2025 the period stands with the items, before that with the subscription.
        let period = data.first().and_then(|item| second(item, "current_period_start"));
        let start_s = second(object, "start_date").or(second(object, "created")).unwrap_or(0);
        Some(Self {
            status,
            items,
            start_s,
            anchor_s: second(object, "billing_cycle_anchor").unwrap_or(start_s),
            period_s: period.or(second(object, "current_period_start")).unwrap_or(start_s),
            ended_s: second(object, "ended_at").or(second(object, "canceled_at")),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status == Status::Ended
    }
}

/// A text field, or nothing.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

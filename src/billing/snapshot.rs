//! Subscriptions and invoices from events: the few deciding fields, read in the shape of the API
//! version that the event was made under. Unknown shapes are not read.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Status of a subscription. Ordered by what it gives the customer; stored by its position here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    /// Not begun: its first payment is missing.
    Incomplete,
    /// Over: canceled.
    Ended,
    /// Payment retries have ended, or a trial ended without a payment method.
    Unpaid,
    PastDue,
    Trialing,
    Active,
    /// Over before it began: its first payment never came. It has no effect on its customer.
    Expired,
}

impl Ord for Status {
    fn cmp(&self, other: &Self) -> Ordering {
        let gives = |status: &Self| (*status != Self::Expired).then_some(*status as u8);
        gives(self).cmp(&gives(other))
    }
}

impl PartialOrd for Status {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// See the [module](self). Ordered by what it gives the customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) status: Status,
    /// Ids of prices and quantities, sorted. Not lookup keys: those move from price to price.
    pub(super) items: Vec<(String, u64)>,
    pub(super) start_s: i64,
    pub(super) anchor_s: i64,
    /// When its current period began.
    pub(super) period_s: i64,
    pub(super) ended_s: Option<i64>,
}

impl Subscription {
    /// `None` if it is not a subscription, or in an unknown shape or status.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let status = match text(object, "status") {
            "incomplete" => Status::Incomplete,
            "incomplete_expired" => Status::Expired,
            "canceled" => Status::Ended,
            "unpaid" | "paused" => Status::Unpaid,
            "past_due" => Status::PastDue,
            "trialing" => Status::Trialing,
            "active" => Status::Active,
            _ => return None,
        };
        if text(object, "id").is_empty() {
            return None;
        }
        let data = object["items"]["data"].as_array()?;
        let item = |item: &Value| {
            Some((price_of(item)?.0.to_owned(), item["quantity"].as_u64().unwrap_or(1)))
        };
        let mut items: Vec<(String, u64)> = data.iter().filter_map(item).collect();
        items.sort();
        let second = |object: &Value, field: &str| object[field].as_i64();
        // Since 2025 the period is on the items, before that on the subscription.
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
        matches!(self.status, Status::Expired | Status::Ended)
    }

    /// Moves it to its ended state.
    pub(super) fn end(&mut self) {
        let began = !matches!(self.status, Status::Expired | Status::Incomplete);
        self.status = if began { Status::Ended } else { Status::Expired };
    }

    /// When it ended, if it has.
    pub(super) fn over_s(&self) -> Option<i64> {
        self.has_ended().then(|| self.ended_s.unwrap_or(self.period_s))
    }
}

/// Stage of an invoice: it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum InvoiceStage {
    #[default]
    Draft,
    Open,
    /// Given up, but may still be paid.
    Uncollectible,
    /// Voided; or a draft that was deleted.
    Void,
    Paid,
}

/// An invoice as one object showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvoiceSeen {
    pub(super) stage: InvoiceStage,
    pub(super) subscription: Option<String>,
    pub(super) created_s: i64,
    pub(super) paid_s: Option<i64>,
    /// The lines sold, as far as they are shown, and whether they are complete.
    pub(super) lines: Vec<LineSeen>,
    pub(super) shows_all: bool,
}

/// A line of an invoice that sells something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineSeen {
    /// Its id, which it keeps from the draft on.
    pub(crate) id: String,
    /// The price's id.
    pub(crate) price: String,
    /// The price's lookup key, if the line includes it.
    pub(crate) key: String,
    /// Quantity; never 0.
    pub(crate) quantity: u64,
}

impl InvoiceSeen {
    /// `None` if it is in no known shape. Before 2025-03-31 `subscription` was on the invoice and
    /// `price` on its lines.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let stage = match text(object, "status") {
            "draft" => InvoiceStage::Draft,
            "open" => InvoiceStage::Open,
            "uncollectible" => InvoiceStage::Uncollectible,
            "void" => InvoiceStage::Void,
            "paid" => InvoiceStage::Paid,
            _ => return None,
        };
        let of = match (object.get("parent"), object.get("subscription")) {
            (Some(parent), _) => &parent["subscription_details"]["subscription"],
            (None, Some(subscription)) => subscription,
            (None, None) => return None,
        };
        // A draft's lines may change; only paid lines are read.
        let (mut lines, mut shows_all) = (Vec::new(), true);
        if stage == InvoiceStage::Paid {
            let shown = &object["lines"];
            for line in shown["data"].as_array()? {
                lines.extend(LineSeen::read(line)?);
            }
            shows_all = shown["has_more"] != true;
        }
        Some(Self {
            stage,
            subscription: id_of(of).map(str::to_owned),
            created_s: object["created"].as_i64().unwrap_or(0),
            paid_s: object["status_transitions"]["paid_at"].as_i64(),
            lines,
            shows_all,
        })
    }
}

impl LineSeen {
    /// `None` if it is in no known shape; within it, `None` if it sells nothing: it has no price, a
    /// quantity of 0, costs nothing, refunds money, or is a proration, which charges the rest of a
    /// period for a subscription that has changed.
    #[expect(clippy::option_option, reason = "not known, known and nothing, known")]
    pub(crate) fn read(line: &Value) -> Option<Option<Self>> {
        let (price, key) = if let Some(pricing) = line.get("pricing") {
            let price = &pricing["price_details"]["price"];
            (id_of(price), text(price, "lookup_key"))
        } else if line.get("price").is_some() || line.get("plan").is_some() {
            price_of(line).map_or((None, ""), |(id, key)| (Some(id), key))
        } else {
            return None;
        };
        // Before 2019-12-03 `id` named the line's source object.
        let id = line["unique_id"].as_str().unwrap_or(text(line, "id"));
        if id.is_empty() {
            return None;
        }
        let quantity = line["quantity"].as_u64().unwrap_or(1);
        let is_paid = line["amount"].as_i64().is_none_or(|amount| amount > 0);
        let sells = price.filter(|_| quantity > 0 && is_paid && !is_proration(line));
        Some(sells.map(|price| Self {
            id: id.to_owned(),
            price: price.to_owned(),
            key: key.to_owned(),
            quantity,
        }))
    }
}

/// Whether a line is a proration. Before 2025-03-31 the line itself said so.
fn is_proration(line: &Value) -> bool {
    let details = ["subscription_item_details", "invoice_item_details"];
    let parents = details.iter().map(|details| &line["parent"][details]["proration"]);
    parents.chain([&line["proration"]]).any(|proration| proration == true)
}

/// Id and lookup key of the price of an item or line; before 2020 it had only a `plan`. One without
/// an id is identified by its lookup key.
pub(super) fn price_of(item: &Value) -> Option<(&str, &str)> {
    let price = if item["price"].is_object() { &item["price"] } else { &item["plan"] };
    let key = text(price, "lookup_key");
    let id = price["id"].as_str().filter(|id| !id.is_empty());
    id.or(Some(key).filter(|key| !key.is_empty())).map(|id| (id, key))
}

/// The id of an object that may be expanded.
pub(crate) fn id_of(value: &Value) -> Option<&str> {
    value.as_str().or(value["id"].as_str()).filter(|id| !id.is_empty())
}

/// A text field; empty if missing.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

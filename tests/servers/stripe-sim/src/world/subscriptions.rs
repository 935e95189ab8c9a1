//! Subscriptions and the invoices they make.
//!
//! Simpler than Stripe: no proration, no tiers, no tax, no discounts. A charge succeeds if there is
//! a default payment method, of the subscription or of the customer, that is not
//! [`DECLINED`].

use serde_json::{Value, json};

use super::objects::merge;
use super::{Outcome, PAGING, Params, World, allow, flag, page, required, shape, text, whole};
use crate::answer::Refusal;
use crate::clock;

/// Stripe's test payment method that attaches and is then declined.
const DECLINED: &str = "pm_card_chargeCustomerFail";

/// Between two attempts to collect an invoice.
const RETRY_S: i64 = 3 * 86_400;

const DAY_S: i64 = 86_400;

impl World {
    pub(super) fn create_subscription(&mut self, params: &Params) -> Outcome {
        let known = [
            "customer",
            "items",
            "trial_end",
            "trial_period_days",
            "default_payment_method",
            "collection_method",
            "metadata",
            "cancel_at_period_end",
            "off_session",
            "expand",
        ];
        allow(params, &known)?;
        let customer = self.living_customer(required(params, "customer")?, "customer")?;
        let customer = text(&customer, "id").to_owned();
        let now = self.now();
        let mut subscription = shape(include_str!("../shapes/subscription.json"));
        let id = self.next_id("sub");
        for field in ["created", "start_date", "billing_cycle_anchor"] {
            subscription[field] = json!(now);
        }
        subscription["id"] = json!(id);
        subscription["customer"] = json!(customer);
        merge(&mut subscription, params);
        subscription["cancel_at_period_end"] =
            json!(flag(params, "cancel_at_period_end").unwrap_or(false));
        subscription["items"] = self.items(&id, params)?;
        let trial_days = whole(params, "trial_period_days")?;
        let trial_end = whole(params, "trial_end")?
            .or(trial_days.map(|days| now.saturating_add(days.saturating_mul(DAY_S))));
        if let Some(end) = trial_end.filter(|end| *end > now) {
            subscription["status"] = json!("trialing");
            subscription["trial_start"] = json!(now);
            subscription["trial_end"] = json!(end);
            subscription["billing_cycle_anchor"] = json!(end);
            set_period(&mut subscription, now, end);
            let subscription = self.put("subscription", subscription);
            self.emit("customer.subscription.created", &subscription, None);
            return Ok(subscription);
        }
        self.begin_period(&mut subscription, now);
        let invoice = self.invoice(&mut subscription, "subscription_create", now, now);
        let paid = text(&invoice, "status") == "paid";
        subscription["status"] = json!(if paid { "active" } else { "incomplete" });
        let subscription = self.put("subscription", subscription);
        self.emit("customer.subscription.created", &subscription, None);
        self.announce(&invoice);
        Ok(subscription)
    }

    fn items(&mut self, id: &str, params: &Params) -> Outcome {
        let given = params.get("items").and_then(Value::as_array);
        let given = given.filter(|items| !items.is_empty());
        let mut data = Vec::new();
        for item in given.ok_or_else(|| Refusal::missing("items"))? {
            let item = item.as_object().ok_or_else(|| Refusal::missing("items"))?;
            allow(item, &["price", "quantity", "metadata"])?;
            let price = required(item, "price")?;
            let price = self.find("price", price).cloned();
            let price = price.ok_or_else(|| Refusal::no_such("price", id, "items[0][price]"))?;
            let metered = text(&price["recurring"], "usage_type") == "metered";
            let mut made = shape(include_str!("../shapes/subscription_item.json"));
            made["id"] = json!(self.next_id("si"));
            made["created"] = json!(self.now());
            made["subscription"] = json!(id);
            made["price"] = price;
            if !metered {
                made["quantity"] = json!(whole(item, "quantity")?.unwrap_or(1));
            }
            data.push(made);
        }
        Ok(json!({
            "object": "list",
            "data": data,
            "has_more": false,
            "url": format!("/v1/subscription_items?subscription={id}"),
        }))
    }

    pub(super) fn update_subscription(&mut self, id: &str, params: &Params) -> Outcome {
        let known = [
            "items",
            "default_payment_method",
            "metadata",
            "cancel_at_period_end",
            "trial_end",
            "pause_collection",
            "proration_behavior",
            "expand",
        ];
        allow(params, &known)?;
        let before = self.get("subscription", id)?;
        let mut subscription = before.clone();
        merge(&mut subscription, params);
        if let Some(at_end) = flag(params, "cancel_at_period_end") {
            let end = period_of(&subscription).1;
            subscription["cancel_at_period_end"] = json!(at_end);
            subscription["cancel_at"] = if at_end { json!(end) } else { Value::Null };
        }
        match params.get("pause_collection") {
            Some(Value::String(empty)) if empty.is_empty() => {
                subscription["pause_collection"] = Value::Null;
            }
            Some(Value::Object(pause)) => {
                let behavior = required(pause, "behavior")?;
                subscription["pause_collection"] =
                    json!({ "behavior": behavior, "resumes_at": null });
            }
            _ => {}
        }
        if params.contains_key("items") {
            let (from, until) = period_of(&subscription);
            subscription["items"] = self.items(id, params)?;
            set_period(&mut subscription, from, until);
        }
        if params.get("trial_end").and_then(Value::as_str) == Some("now") {
            subscription["trial_end"] = json!(self.now());
        }
        Ok(self.put_changed(&before, subscription))
    }

    pub(super) fn cancel_subscription(&mut self, id: &str) -> Outcome {
        let before = self.get("subscription", id)?;
        if text(&before, "status") == "canceled" {
            return Err(Refusal::no_such("subscription", id, "id"));
        }
        Ok(self.end_subscription(before, self.now()))
    }

    pub(super) fn end_subscription(&mut self, mut subscription: Value, at: i64) -> Value {
        subscription["status"] = json!("canceled");
        subscription["canceled_at"] = json!(at);
        subscription["ended_at"] = json!(at);
        let subscription = self.put("subscription", subscription);
        self.emit("customer.subscription.deleted", &subscription, None);
        subscription
    }

    pub(super) fn list_subscriptions(&mut self, params: &Params) -> Outcome {
        let own = ["customer", "status", "price"];
        allow(params, &[own.as_slice(), &PAGING].concat())?;
        let ask = |name: &str| params.get(name).and_then(Value::as_str);
        let (customer, status) = (ask("customer"), ask("status"));
        let wanted = self.table("subscription").rev().filter(|subscription| {
            let is = text(subscription, "status");
            customer.is_none_or(|customer| text(subscription, "customer") == customer)
                && match status {
                    // As at Stripe: canceled ones show only when asked for.
                    None => is != "canceled",
                    Some("all") => true,
                    Some(status) => is == status,
                }
        });
        page("/v1/subscriptions", params, wanted.cloned())
    }

    pub(super) fn pay_invoice(&mut self, id: &str) -> Outcome {
        let mut invoice = self.get("invoice", id)?;
        if text(&invoice, "status") != "open" {
            let message = "Invoice is already paid, or not open.".to_owned();
            return Err(Refusal::invalid(Some("invoice_not_open"), None, message));
        }
        let subscription = subscription_of(&invoice).to_owned();
        let subscription = self.find("subscription", &subscription).cloned();
        self.collect(&mut invoice, subscription.as_ref(), self.now());
        self.announce(&invoice);
        if text(&invoice, "status") == "paid"
            && let Some(before) = subscription
        {
            let mut after = before.clone();
            after["status"] = json!("active");
            self.put_changed(&before, after);
        }
        Ok(invoice)
    }

    /// Stores a subscription and says what changed.
    pub(super) fn put_changed(&mut self, before: &Value, after: Value) -> Value {
        let empty = serde_json::Map::new();
        let (old, new) = (before.as_object().unwrap_or(&empty), after.as_object());
        let changed = old
            .iter()
            .filter(|(name, value)| new.is_some_and(|new| new.get(*name) != Some(*value)));
        let previous: Params = changed.map(|(name, v)| (name.clone(), v.clone())).collect();
        let after = self.put("subscription", after);
        if !previous.is_empty() {
            self.emit("customer.subscription.updated", &after, Some(Value::Object(previous)));
        }
        after
    }

    /// Moves its items into the period that begins at, or holds, `at`.
    pub(super) fn begin_period(&self, subscription: &mut Value, at: i64) {
        let anchor = subscription["billing_cycle_anchor"].as_i64().unwrap_or(at);
        let recurring = &subscription["items"]["data"][0]["price"]["recurring"];
        let count = recurring["interval_count"].as_i64().unwrap_or(1);
        let period = clock::period(anchor, text(recurring, "interval"), count, at);
        let (from, until) = period.unwrap_or((at, at.saturating_add(30 * DAY_S)));
        set_period(subscription, from, until);
    }

    /// Makes an invoice for what is due at `at`: licensed items ahead, metered ones for the period
    /// since `metered_from`; finalizes it and tries to collect it. Tells nobody yet.
    pub(super) fn invoice(
        &mut self,
        subscription: &mut Value,
        reason: &str,
        metered_from: i64,
        at: i64,
    ) -> Value {
        let id = self.next_id("in");
        let customer = text(subscription, "customer").to_owned();
        let mut lines = Vec::new();
        let mut total = 0_i64;
        for item in subscription["items"]["data"].as_array().into_iter().flatten() {
            let price = &item["price"];
            let unit = price["unit_amount"].as_i64().unwrap_or(0);
            let quantity = match price["recurring"]["meter"].as_str() {
                Some(meter) => self.metered(meter, &customer, metered_from, at),
                None => item["quantity"].as_i64().unwrap_or(1),
            };
            let amount = unit.saturating_mul(quantity);
            total = total.saturating_add(amount);
            let mut line = shape(include_str!("../shapes/line_item.json"));
            line["id"] = json!(format!("il_{id}_{}", lines.len()));
            line["amount"] = json!(amount);
            line["subtotal"] = json!(amount);
            line["currency"] = price["currency"].clone();
            let (from, until) = period_of(subscription);
            line["period"] = json!({ "start": from, "end": until });
            lines.push(line);
        }
        let mut invoice = shape(include_str!("../shapes/invoice.json"));
        for field in ["amount_due", "amount_remaining", "subtotal", "total"] {
            invoice[field] = json!(total);
        }
        invoice["id"] = json!(id);
        invoice["created"] = json!(at);
        invoice["customer"] = json!(customer);
        invoice["period_start"] = json!(metered_from);
        invoice["period_end"] = json!(at);
        invoice["billing_reason"] = json!(reason);
        invoice["status"] = json!("open");
        invoice["status_transitions"] = transitions(Some(at), None, None);
        invoice["lines"] = json!({
            "object": "list",
            "data": lines,
            "has_more": false,
            "url": format!("/v1/invoices/{id}/lines"),
        });
        invoice["parent"] = json!({
            "quote_details": null,
            "subscription_details": { "metadata": {}, "subscription": subscription["id"] },
            "type": "subscription_details",
        });
        subscription["latest_invoice"] = json!(id);
        self.collect(&mut invoice, Some(subscription), at);
        invoice
    }

    /// Tries to collect an open invoice, and stores it as it stands then.
    pub(super) fn collect(&mut self, invoice: &mut Value, subscription: Option<&Value>, at: i64) {
        let due = invoice["amount_due"].as_i64().unwrap_or(0);
        let attempts = invoice["attempt_count"].as_i64().unwrap_or(0);
        if due == 0 || self.pays(invoice, subscription) {
            invoice["status"] = json!("paid");
            invoice["amount_paid"] = json!(due);
            invoice["amount_remaining"] = json!(0);
            invoice["next_payment_attempt"] = Value::Null;
            invoice["status_transitions"] =
                transitions(invoice["created"].as_i64(), Some(at), None);
        } else if attempts.saturating_add(1) >= i64::from(self.settings.payment_attempts) {
            invoice["next_payment_attempt"] = Value::Null;
        } else {
            invoice["next_payment_attempt"] = json!(at.saturating_add(RETRY_S));
        }
        if due > 0 {
            invoice["attempted"] = json!(true);
            invoice["attempt_count"] = json!(attempts.saturating_add(1));
        }
        self.put("invoice", invoice.clone());
    }

    /// Tells of an invoice as it was just collected, or not.
    pub(super) fn announce(&mut self, invoice: &Value) {
        if invoice["attempt_count"].as_i64().unwrap_or(0) <= 1 {
            self.emit("invoice.created", invoice, None);
            self.emit("invoice.finalized", invoice, None);
        }
        if text(invoice, "status") == "paid" {
            self.emit("invoice.paid", invoice, None);
            self.emit("invoice.payment_succeeded", invoice, None);
        } else {
            self.emit("invoice.payment_failed", invoice, None);
        }
    }

    fn pays(&self, invoice: &Value, subscription: Option<&Value>) -> bool {
        let own = subscription.and_then(|s| s["default_payment_method"].as_str());
        let customer = self.find("customer", text(invoice, "customer"));
        let general =
            customer.and_then(|c| c["invoice_settings"]["default_payment_method"].as_str());
        own.or(general).is_some_and(|method| method != DECLINED)
    }
}

/// The period of a subscription: since 2025 it stands with the items.
pub(super) fn period_of(subscription: &Value) -> (i64, i64) {
    let item = &subscription["items"]["data"][0];
    let bound = |name: &str| item[name].as_i64().unwrap_or(0);
    (bound("current_period_start"), bound("current_period_end"))
}

pub(super) fn set_period(subscription: &mut Value, from: i64, until: i64) {
    for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
        item["current_period_start"] = json!(from);
        item["current_period_end"] = json!(until);
    }
}

/// The subscription that an invoice is for.
pub(super) fn subscription_of(invoice: &Value) -> &str {
    text(&invoice["parent"]["subscription_details"], "subscription")
}

pub(super) fn transitions(
    finalized: Option<i64>,
    paid: Option<i64>,
    uncollectible: Option<i64>,
) -> Value {
    json!({
        "finalized_at": finalized,
        "marked_uncollectible_at": uncollectible,
        "paid_at": paid,
        "voided_at": null,
    })
}

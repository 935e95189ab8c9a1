//! Subscriptions, and the invoices they generate.
//!
//! Simpler than Stripe: no proration, no tiers, no tax, no discounts. A charge succeeds if there is
//! a default payment method, of the subscription or of the customer, other than the one that always
//! declines.

use serde_json::{Value, json};

use super::objects::merge;
use super::{Outcome, PAGING, Params, World, allow, flag, page, required, shape, text, whole};
use crate::answer::Refusal;
use crate::clock;

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
                    // As at Stripe: canceled ones are listed only on request.
                    None => is != "canceled",
                    Some("all") => true,
                    Some(status) => is == status,
                }
        });
        page("/v1/subscriptions", params, wanted.cloned())
    }

    /// Stores a subscription and emits the change.
    pub(super) fn put_changed(&mut self, before: &Value, after: Value) -> Value {
        let empty = serde_json::Map::new();
        let version = self.settings.api_version.clone();
        let (stored, after) = (after.clone(), self.rendered(&after, &version));
        let before = self.rendered(before, &version);
        let (old, new) = (before.as_object().unwrap_or(&empty), after.as_object());
        let changed = old
            .iter()
            .filter(|(name, value)| new.is_some_and(|new| new.get(*name) != Some(*value)));
        let previous: Params = changed.map(|(name, v)| (name.clone(), v.clone())).collect();
        self.put("subscription", stored.clone());
        let after = stored;
        if !previous.is_empty() {
            self.emit("customer.subscription.updated", &after, Some(Value::Object(previous)));
        }
        after
    }

    /// Moves its items into the period that begins at, or contains, `at`.
    pub(super) fn begin_period(&self, subscription: &mut Value, at: i64) {
        let anchor = subscription["billing_cycle_anchor"].as_i64().unwrap_or(at);
        let recurring = &subscription["items"]["data"][0]["price"]["recurring"];
        let count = recurring["interval_count"].as_i64().unwrap_or(1);
        let period = clock::period(anchor, text(recurring, "interval"), count, at);
        let (from, until) = period.unwrap_or((at, at.saturating_add(30 * DAY_S)));
        set_period(subscription, from, until);
    }
}

/// The period of a subscription: since 2025 it is on the items.
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

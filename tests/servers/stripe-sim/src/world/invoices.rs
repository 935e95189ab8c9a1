//! Invoices: of subscriptions, and those that are made by hand. The latter are drafts first, whose
//! items may be changed and taken back; once finalized nothing of an invoice changes but whether it
//! is paid.
//!
//! An object here has all its lines; what is shown of them is in [`super::render`]. Not published
//! by Stripe, and assumed: a past-due subscription is active again once its newest invoice is
//! voided or marked uncollectible by hand.

use serde_json::{Value, json};

use super::objects::merge;
use super::subscriptions::period_of;
use super::{Outcome, Params, World, allow, flag, page, required, shape, text, whole};
use crate::answer::Refusal;

/// Stripe's test payment method that attaches and is then declined.
const DECLINED: &str = "pm_card_chargeCustomerFail";

/// Between two attempts to collect an invoice.
const RETRY_S: i64 = 3 * 86_400;

/// How long a draft that advances by itself stays one. Stripe: about an hour.
const DRAFT_S: i64 = 3_600;

/// A line that an invoice is to have.
struct Line {
    price: Value,
    quantity: i64,
    amount: i64,
    period: (i64, i64),
    parent: Value,
    description: Value,
}

impl World {
    pub(super) fn create_invoice(&mut self, params: &Params) -> Outcome {
        let known = [
            "customer",
            "auto_advance",
            "collection_method",
            "days_until_due",
            "default_payment_method",
            "description",
            "metadata",
            "pending_invoice_items_behavior",
            "subscription",
            "expand",
        ];
        allow(params, &known)?;
        let customer = self.living_customer(required(params, "customer")?, "customer")?;
        let (id, now) = (self.next_id("in"), self.now());
        let mut invoice = blank(&id, text(&customer, "id"), "manual", now);
        merge(&mut invoice, params);
        if let Some(subscription) = params.get("subscription").and_then(Value::as_str) {
            let found = self.find("subscription", subscription);
            let of = found.filter(|s| s["customer"] == customer["id"]);
            let missing = || Refusal::no_such("subscription", subscription, "subscription");
            invoice["parent"] = parent_of(&of.ok_or_else(missing)?["id"]);
        }
        let advances = flag(params, "auto_advance").unwrap_or(false);
        invoice["auto_advance"] = json!(advances);
        if advances {
            invoice["automatically_finalizes_at"] = json!(now.saturating_add(DRAFT_S));
        }
        let behavior = params.get("pending_invoice_items_behavior").and_then(Value::as_str);
        if behavior == Some("include") {
            self.take_pending(&mut invoice);
        }
        let invoice = self.put("invoice", summed(invoice));
        self.emit("invoice.created", &invoice, None);
        Ok(invoice)
    }

    pub(super) fn delete_draft(&mut self, id: &str) -> Outcome {
        let invoice = self.get("invoice", id)?;
        if text(&invoice, "status") != "draft" {
            return Err(not("draft"));
        }
        for table in ["invoice", "invoiceitem"] {
            let all = self.objects.entry(table).or_default();
            all.retain(|key, object| key != id && text(object, "invoice") != id);
        }
        self.emit("invoice.deleted", &invoice, None);
        Ok(json!({ "id": id, "object": "invoice", "deleted": true }))
    }

    /// All lines, by pages.
    pub(super) fn lines(&self, id: &str, path: &str, params: &Params) -> Outcome {
        allow(params, &super::PAGING)?;
        let lines = self.get("invoice", id)?["lines"]["data"].as_array().cloned();
        page(path, params, lines.unwrap_or_default().into_iter())
    }

    pub(super) fn create_invoice_item(&mut self, params: &Params) -> Outcome {
        let known = [
            "customer",
            "invoice",
            "pricing",
            "price",
            "quantity",
            "amount",
            "currency",
            "description",
            "metadata",
            "subscription",
            "expand",
        ];
        allow(params, &known)?;
        let customer = self.living_customer(required(params, "customer")?, "customer")?;
        let mut item = shape(include_str!("../shapes/invoiceitem.json"));
        item["id"] = json!(self.next_id("ii"));
        item["customer"] = customer["id"].clone();
        item["date"] = json!(self.now());
        item["period"] = json!({ "start": self.now(), "end": self.now() });
        merge(&mut item, params);
        self.price_item(&mut item, params)?;
        if let Some(id) = params.get("invoice").and_then(Value::as_str) {
            let mut invoice = self.draft(id)?;
            item["invoice"] = json!(id);
            let line = self.line_of_item(&item);
            self.add_line(&mut invoice, line);
            let invoice = self.put("invoice", summed(invoice));
            self.emit("invoice.updated", &invoice, None);
        }
        let item = self.put("invoiceitem", item);
        self.emit("invoiceitem.created", &item, None);
        Ok(item)
    }

    pub(super) fn update_invoice_item(&mut self, id: &str, params: &Params) -> Outcome {
        let known = ["pricing", "price", "quantity", "amount", "description", "metadata", "expand"];
        allow(params, &known)?;
        let mut item = self.get("invoiceitem", id)?;
        let mut of = match item["invoice"].as_str() {
            Some(invoice) => Some(self.draft(invoice)?),
            None => None,
        };
        merge(&mut item, params);
        self.price_item(&mut item, params)?;
        if let Some(invoice) = &mut of {
            let line = self.line_of_item(&item);
            for known in invoice["lines"]["data"].as_array_mut().into_iter().flatten() {
                if is_of(known, id) {
                    let kept = known["id"].clone();
                    *known = line_item(text(&item, "invoice"), &line);
                    known["id"] = kept;
                }
            }
        }
        if let Some(invoice) = of {
            let invoice = self.put("invoice", summed(invoice));
            self.emit("invoice.updated", &invoice, None);
        }
        Ok(self.put("invoiceitem", item))
    }

    pub(super) fn delete_invoice_item(&mut self, id: &str) -> Outcome {
        let item = self.get("invoiceitem", id)?;
        if let Some(invoice) = item["invoice"].as_str() {
            let mut invoice = self.draft(invoice)?;
            if let Some(lines) = invoice["lines"]["data"].as_array_mut() {
                lines.retain(|line| !is_of(line, id));
            }
            let invoice = self.put("invoice", summed(invoice));
            self.emit("invoice.updated", &invoice, None);
        }
        self.objects.entry("invoiceitem").or_default().remove(id);
        self.emit("invoiceitem.deleted", &item, None);
        Ok(json!({ "id": id, "object": "invoiceitem", "deleted": true }))
    }

    /// Price, quantity and amount of an item, as they are given.
    fn price_item(&self, item: &mut Value, params: &Params) -> Result<(), Refusal> {
        let named = params.get("pricing").and_then(|pricing| pricing.get("price"));
        let named = named.or(params.get("price")).and_then(Value::as_str);
        if let Some(id) = named {
            let price = self.find("price", id).filter(|price| price["recurring"].is_null());
            let price = price.ok_or_else(|| Refusal::no_such("price", id, "pricing[price]"))?;
            item["pricing"] = pricing_of(price);
            item["currency"] = price["currency"].clone();
        }
        let quantity = whole(params, "quantity")?.or(item["quantity"].as_i64()).unwrap_or(1);
        item["quantity"] = json!(quantity);
        item["quantity_decimal"] = json!(quantity.to_string());
        let price = text(&item["pricing"]["price_details"], "price");
        let unit = self.find("price", price).and_then(|price| price["unit_amount"].as_i64());
        let amount = match (whole(params, "amount")?, unit) {
            (Some(amount), None) => amount,
            (None, Some(unit)) => unit.saturating_mul(quantity),
            (None, None) if params.contains_key("quantity") => item["amount"].as_i64().unwrap_or(0),
            _ => return Err(Refusal::missing("amount")),
        };
        item["amount"] = json!(amount);
        item["net_amount"] = json!(amount);
        Ok(())
    }

    fn draft(&self, id: &str) -> Outcome {
        let invoice = self.get("invoice", id)?;
        if text(&invoice, "status") == "draft" { Ok(invoice) } else { Err(not("draft")) }
    }

    fn line_of_item(&self, item: &Value) -> Line {
        let price = text(&item["pricing"]["price_details"], "price");
        let bound = |name: &str| item["period"][name].as_i64().unwrap_or(0);
        Line {
            price: self.find("price", price).cloned().unwrap_or(Value::Null),
            quantity: item["quantity"].as_i64().unwrap_or(1),
            amount: item["amount"].as_i64().unwrap_or(0),
            period: (bound("start"), bound("end")),
            parent: json!({
                "invoice_item_details": {
                    "invoice_item": item["id"],
                    "proration": false,
                    "proration_details": null,
                    "subscription": null,
                },
                "subscription_item_details": null,
                "type": "invoice_item_details",
            }),
            description: item["description"].clone(),
        }
    }

    fn add_line(&mut self, invoice: &mut Value, line: Line) {
        let mut made = line_item(text(invoice, "id"), &line);
        made["id"] = json!(self.next_id("il"));
        if let Some(lines) = invoice["lines"]["data"].as_array_mut() {
            lines.push(made);
        }
    }

    /// Takes the customer's items that wait for an invoice onto this one.
    fn take_pending(&mut self, invoice: &mut Value) {
        let waits =
            |item: &&Value| item["invoice"].is_null() && item["customer"] == invoice["customer"];
        let items: Vec<Value> = self.table("invoiceitem").filter(waits).cloned().collect();
        for mut item in items {
            item["invoice"] = invoice["id"].clone();
            let line = self.line_of_item(&item);
            self.add_line(invoice, line);
            self.put("invoiceitem", item);
        }
    }

    pub(super) fn finalize_invoice(&mut self, id: &str, params: &Params) -> Outcome {
        allow(params, &["auto_advance", "expand"])?;
        let mut invoice = self.draft(id)?;
        if let Some(advances) = flag(params, "auto_advance") {
            invoice["auto_advance"] = json!(advances);
        }
        let advances = invoice["auto_advance"] == json!(true);
        self.finalize(&mut invoice, self.now());
        if advances || invoice["amount_due"] == json!(0) {
            let subscription = self.find("subscription", subscription_of(&invoice)).cloned();
            self.collect(&mut invoice, subscription.as_ref(), self.now());
            self.tell_collected(&invoice);
        }
        Ok(invoice)
    }

    /// A draft becomes open, and says so.
    pub(super) fn finalize(&mut self, invoice: &mut Value, at: i64) {
        invoice["status"] = json!("open");
        invoice["status_transitions"]["finalized_at"] = json!(at);
        invoice["automatically_finalizes_at"] = Value::Null;
        invoice["effective_at"] = json!(at);
        invoice["number"] = json!(format!("SIM-{}", text(invoice, "id")));
        self.put("invoice", invoice.clone());
        self.emit("invoice.finalized", invoice, None);
    }

    pub(super) fn pay_invoice(&mut self, id: &str, params: &Params) -> Outcome {
        allow(params, &["paid_out_of_band", "payment_method", "expand"])?;
        let mut invoice = self.get("invoice", id)?;
        if text(&invoice, "status") == "draft" {
            self.finalize(&mut invoice, self.now());
        }
        if !["open", "uncollectible"].contains(&text(&invoice, "status")) {
            let message = "Invoice is already paid, or not open.".to_owned();
            return Err(Refusal::invalid(Some("invoice_not_open"), None, message));
        }
        let subscription = self.find("subscription", subscription_of(&invoice)).cloned();
        let own = params.get("payment_method").and_then(Value::as_str);
        let pays = flag(params, "paid_out_of_band") == Some(true)
            || own.is_some_and(|method| method != DECLINED);
        if pays {
            self.settle(&mut invoice, self.now());
        } else {
            self.collect(&mut invoice, subscription.as_ref(), self.now());
        }
        self.tell_collected(&invoice);
        if text(&invoice, "status") == "paid" {
            self.revive(subscription);
        }
        Ok(invoice)
    }

    /// Voids an invoice, or gives it up.
    pub(super) fn close_invoice(&mut self, id: &str, params: &Params, status: &str) -> Outcome {
        allow(params, &["expand"])?;
        let mut invoice = self.get("invoice", id)?;
        let is = text(&invoice, "status");
        if !(is == "open" || (is == "uncollectible" && status == "void")) {
            return Err(not("open"));
        }
        let (field, kind) = match status {
            "void" => ("voided_at", "invoice.voided"),
            _ => ("marked_uncollectible_at", "invoice.marked_uncollectible"),
        };
        invoice["status"] = json!(status);
        invoice["status_transitions"][field] = json!(self.now());
        invoice["next_payment_attempt"] = Value::Null;
        let invoice = self.put("invoice", invoice);
        self.emit(kind, &invoice, None);
        let subscription = self.find("subscription", subscription_of(&invoice)).cloned();
        self.revive(subscription.filter(|s| s["latest_invoice"] == invoice["id"]));
        Ok(invoice)
    }

    /// Nothing of a subscription's newest invoice is open any more.
    fn revive(&mut self, subscription: Option<Value>) {
        if let Some(before) = subscription
            && ["past_due", "unpaid", "incomplete"].contains(&text(&before, "status"))
        {
            let mut after = before.clone();
            after["status"] = json!("active");
            self.put_changed(&before, after);
        }
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
        let mut invoice = blank(&id, &customer, reason, at);
        invoice["parent"] = parent_of(&subscription["id"]);
        for item in subscription["items"]["data"].as_array().into_iter().flatten() {
            let price = &item["price"];
            let unit = price["unit_amount"].as_i64().unwrap_or(0);
            let quantity = match price["recurring"]["meter"].as_str() {
                Some(meter) => self.metered(meter, &customer, metered_from, at),
                None => item["quantity"].as_i64().unwrap_or(1),
            };
            let line = Line {
                price: price.clone(),
                quantity,
                amount: unit.saturating_mul(quantity),
                period: period_of(subscription),
                parent: json!({
                    "invoice_item_details": null,
                    "subscription_item_details": {
                        "invoice_item": null,
                        "proration": false,
                        "proration_details": null,
                        "subscription": subscription["id"],
                        "subscription_item": item["id"],
                    },
                    "type": "subscription_item_details",
                }),
                description: Value::Null,
            };
            self.add_line(&mut invoice, line);
        }
        self.take_pending(&mut invoice);
        invoice["period_start"] = json!(metered_from);
        invoice["status"] = json!("open");
        invoice["status_transitions"]["finalized_at"] = json!(at);
        let mut invoice = summed(invoice);
        subscription["latest_invoice"] = json!(id);
        self.collect(&mut invoice, Some(subscription), at);
        invoice
    }

    /// Tries to collect an open invoice, and stores it as it stands then.
    pub(super) fn collect(&mut self, invoice: &mut Value, subscription: Option<&Value>, at: i64) {
        let due = invoice["amount_due"].as_i64().unwrap_or(0);
        let attempts = invoice["attempt_count"].as_i64().unwrap_or(0);
        if due > 0 {
            invoice["attempted"] = json!(true);
            invoice["attempt_count"] = json!(attempts.saturating_add(1));
        }
        if due == 0 || self.pays(invoice, subscription) {
            self.settle(invoice, at);
            return;
        }
        let last = attempts.saturating_add(1) >= i64::from(self.settings.payment_attempts);
        let next = (!last).then(|| at.saturating_add(RETRY_S));
        invoice["next_payment_attempt"] = json!(next);
        self.put("invoice", invoice.clone());
    }

    fn settle(&mut self, invoice: &mut Value, at: i64) {
        invoice["status"] = json!("paid");
        invoice["amount_paid"] = invoice["amount_due"].clone();
        invoice["amount_remaining"] = json!(0);
        invoice["next_payment_attempt"] = Value::Null;
        invoice["status_transitions"]["paid_at"] = json!(at);
        self.put("invoice", invoice.clone());
    }

    /// Tells of a subscription's invoice as it was just made and collected, or not.
    pub(super) fn announce(&mut self, invoice: &Value) {
        if invoice["attempt_count"].as_i64().unwrap_or(0) <= 1 {
            self.emit("invoice.created", invoice, None);
            self.emit("invoice.finalized", invoice, None);
        }
        self.tell_collected(invoice);
    }

    pub(super) fn tell_collected(&mut self, invoice: &Value) {
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

/// The subscription that an invoice is for.
pub(super) fn subscription_of(invoice: &Value) -> &str {
    text(&invoice["parent"]["subscription_details"], "subscription")
}

/// A draft without lines.
fn blank(id: &str, customer: &str, reason: &str, at: i64) -> Value {
    let mut invoice = shape(include_str!("../shapes/invoice.json"));
    invoice["id"] = json!(id);
    invoice["created"] = json!(at);
    invoice["customer"] = json!(customer);
    invoice["period_start"] = json!(at);
    invoice["period_end"] = json!(at);
    invoice["billing_reason"] = json!(reason);
    invoice["status"] = json!("draft");
    invoice["lines"]["url"] = json!(format!("/v1/invoices/{id}/lines"));
    invoice
}

/// With the sums of its lines.
fn summed(mut invoice: Value) -> Value {
    let lines = invoice["lines"]["data"].as_array();
    let amounts = lines.into_iter().flatten().filter_map(|line| line["amount"].as_i64());
    let total = amounts.fold(0_i64, i64::saturating_add);
    invoice["subtotal"] = json!(total);
    invoice["total"] = json!(total);
    for field in ["amount_due", "amount_remaining"] {
        invoice[field] = json!(total.max(0));
    }
    invoice
}

fn line_item(invoice: &str, line: &Line) -> Value {
    let mut made = shape(include_str!("../shapes/line_item.json"));
    made["invoice"] = json!(invoice);
    made["amount"] = json!(line.amount);
    made["subtotal"] = json!(line.amount);
    if line.price["currency"].is_string() {
        made["currency"] = line.price["currency"].clone();
        made["pricing"] = pricing_of(&line.price);
    }
    made["quantity"] = json!(line.quantity);
    made["quantity_decimal"] = json!(line.quantity.to_string());
    made["period"] = json!({ "start": line.period.0, "end": line.period.1 });
    made["subscription"] = line.parent["subscription_item_details"]["subscription"].clone();
    made["parent"] = line.parent.clone();
    made["description"] = line.description.clone();
    made
}

fn pricing_of(price: &Value) -> Value {
    json!({
        "price_details": { "price": price["id"], "product": price["product"] },
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    })
}

fn parent_of(subscription: &Value) -> Value {
    json!({
        "quote_details": null,
        "subscription_details": { "metadata": {}, "subscription": subscription },
        "type": "subscription_details",
    })
}

/// Whether a line is that of this invoice item.
fn is_of(line: &Value, item: &str) -> bool {
    text(&line["parent"]["invoice_item_details"], "invoice_item") == item
}

fn not(status: &str) -> Refusal {
    let message = format!("This invoice is not {status}, so that this cannot be done with it.");
    Refusal::invalid(Some("invoice_not_editable"), None, message)
}

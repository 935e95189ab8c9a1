//! Objects as shown in answers and events: invoices with the first page of their lines, in the
//! shapes of the requested API version and the account's mode.

use serde_json::{Value, json};

use super::{World, text};

/// From this version on an invoice has its origin in `parent`, its lines have `pricing`, and
/// periods of subscriptions are on their items.
const BASIL: &str = "2025-03-31";

/// Lines shown within an invoice. Stripe: ten.
pub(super) const LINES_SHOWN: usize = 10;

impl World {
    pub(crate) fn rendered(&self, value: &Value, version: &str) -> Value {
        let mut shown = value.clone();
        self.render(&mut shown, version < BASIL);
        set_mode(&mut shown, self.settings.livemode);
        shown
    }

    fn render(&self, value: &mut Value, old: bool) {
        match text(value, "object") {
            "invoice" => {
                // A deleted one has none.
                if let Some(lines) = value.get_mut("lines")
                    && let Some(data) = lines["data"].as_array_mut()
                {
                    let more = data.len() > LINES_SHOWN;
                    data.truncate(LINES_SHOWN);
                    lines["has_more"] = json!(more);
                }
                if old {
                    self.old_invoice(value);
                }
            }
            "subscription" if old => old_subscription(value),
            "line_item" if old => self.old_line(value),
            "list" | "search_result" => {
                for one in value["data"].as_array_mut().into_iter().flatten() {
                    self.render(one, old);
                }
            }
            _ => {}
        }
    }

    fn old_invoice(&self, invoice: &mut Value) {
        let of = invoice["parent"]["subscription_details"]["subscription"].clone();
        for line in invoice["lines"]["data"].as_array_mut().into_iter().flatten() {
            self.old_line(line);
        }
        let paid = text(invoice, "status") == "paid";
        if let Some(invoice) = invoice.as_object_mut() {
            invoice.remove("parent");
            invoice.insert("subscription".to_owned(), of);
            invoice.insert("paid".to_owned(), json!(paid));
            for field in ["charge", "payment_intent", "tax"] {
                invoice.insert(field.to_owned(), Value::Null);
            }
        }
    }

    fn old_line(&self, line: &mut Value) {
        let price = text(&line["pricing"]["price_details"], "price").to_owned();
        let price = self.find("price", &price).cloned().unwrap_or(Value::Null);
        let kind = text(&line["parent"], "type").trim_end_matches("_details").to_owned();
        let details = line["parent"][format!("{kind}_details")].clone();
        let kind = if kind == "subscription_item" { "subscription" } else { "invoiceitem" };
        if let Some(line) = line.as_object_mut() {
            line.remove("parent");
            line.remove("pricing");
            line.insert("price".to_owned(), price);
            line.insert("plan".to_owned(), Value::Null);
            line.insert("type".to_owned(), json!(kind));
            line.insert("proration".to_owned(), json!(false));
            for field in ["invoice_item", "subscription_item", "subscription"] {
                line.insert(field.to_owned(), details[field].clone());
            }
        }
    }
}

fn old_subscription(subscription: &mut Value) {
    let (mut from, mut until) = (Value::Null, Value::Null);
    for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            from = item.remove("current_period_start").unwrap_or_default();
            until = item.remove("current_period_end").unwrap_or_default();
        }
    }
    subscription["current_period_start"] = from;
    subscription["current_period_end"] = until;
}

/// Sets `livemode` wherever it occurs.
fn set_mode(value: &mut Value, live: bool) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::Bool(mode) if name == "livemode" => *mode = live,
                    value => set_mode(value, live),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| set_mode(one, live)),
        _ => {}
    }
}

//! Customers, products and prices.
//!
//! Every object that holds a price shows its current state, as at Stripe: once a lookup key has
//! moved, subscriptions of its former price no longer show it.

use serde_json::{Value, json};

use super::{Outcome, PAGING, Params, World, allow, flag, page, required, shape, text, whole};
use crate::answer::Refusal;

/// Parameters of a customer, at creation and later.
const CUSTOMER: [&str; 7] =
    ["name", "email", "description", "phone", "metadata", "invoice_settings", "expand"];

impl World {
    pub(super) fn create_customer(&mut self, params: &Params) -> Outcome {
        allow(params, &CUSTOMER)?;
        let mut customer = shape(include_str!("../shapes/customer.json"));
        customer["id"] = json!(self.next_id("cus"));
        customer["created"] = json!(self.now());
        merge(&mut customer, params);
        let customer = self.put("customer", customer);
        self.emit("customer.created", &customer, None);
        Ok(customer)
    }

    pub(super) fn update_customer(&mut self, id: &str, params: &Params) -> Outcome {
        allow(params, &CUSTOMER)?;
        let mut customer = self.living_customer(id, "id")?;
        merge(&mut customer, params);
        let customer = self.put("customer", customer);
        self.emit("customer.updated", &customer, None);
        Ok(customer)
    }

    pub(super) fn delete_customer(&mut self, id: &str) -> Outcome {
        let customer = self.living_customer(id, "id")?;
        let of = self.table("subscription").filter(|s| {
            text(s, "customer") == id && !["canceled", "incomplete_expired"].contains(&status(s))
        });
        let subscriptions: Vec<String> = of.map(|s| text(s, "id").to_owned()).collect();
        for subscription in subscriptions {
            self.cancel_subscription(&subscription)?;
        }
        let gone = json!({ "id": id, "object": "customer", "deleted": true });
        self.put("customer", gone.clone());
        self.emit("customer.deleted", &customer, None);
        Ok(gone)
    }

    /// `metadata['key']:'value'`, `email:'value'`: the only supported form of Stripe's search.
    pub(super) fn search_customers(&mut self, params: &Params) -> Outcome {
        allow(params, &["query", "limit", "page", "expand"])?;
        let query = required(params, "query")?;
        let (field, value) = search_term(query).ok_or_else(|| {
            let message = format!("Invalid search query: {query}");
            Refusal::invalid(None, Some("query"), message)
        })?;
        let matches = |customer: &&Value| match field {
            Field::Plain(name) => text(customer, name) == value,
            Field::Metadata(key) => text(&customer["metadata"], key) == value,
        };
        let found: Vec<Value> = self.table("customer").rev().filter(matches).cloned().collect();
        Ok(json!({
            "object": "search_result",
            "url": "/v1/customers/search",
            "has_more": false,
            "data": found,
        }))
    }

    /// An existing customer that is not deleted.
    pub(super) fn living_customer(&self, id: &str, param: &str) -> Outcome {
        let customer = self.find("customer", id).filter(|c| c["deleted"] != json!(true));
        customer.cloned().ok_or_else(|| Refusal::no_such("customer", id, param))
    }

    pub(super) fn create_product(&mut self, params: &Params) -> Outcome {
        allow(params, &["name", "description", "metadata", "active", "expand"])?;
        let mut product = shape(include_str!("../shapes/product.json"));
        product["name"] = json!(required(params, "name")?);
        product["id"] = json!(self.next_id("prod"));
        product["created"] = json!(self.now());
        product["updated"] = json!(self.now());
        merge(&mut product, params);
        Ok(self.put("product", product))
    }

    pub(super) fn create_price(&mut self, params: &Params) -> Outcome {
        let known = [
            "currency",
            "product",
            "product_data",
            "unit_amount",
            "lookup_key",
            "recurring",
            "nickname",
            "metadata",
            "transfer_lookup_key",
            "expand",
        ];
        allow(params, &known)?;
        let mut price = shape(include_str!("../shapes/price.json"));
        price["currency"] = json!(required(params, "currency")?);
        price["product"] = json!(self.product_of(params)?);
        let amount = whole(params, "unit_amount")?;
        price["unit_amount"] = json!(amount);
        price["unit_amount_decimal"] = json!(amount.map(|amount| amount.to_string()));
        self.claim_lookup_key(params)?;
        merge(&mut price, params);
        price["recurring"] = self.recurring(params)?;
        price["type"] = json!(if price["recurring"].is_null() { "one_time" } else { "recurring" });
        price["id"] = json!(self.next_id("price"));
        price["created"] = json!(self.now());
        let price = self.put("price", price);
        self.emit("price.created", &price, None);
        Ok(price)
    }

    pub(super) fn update_price(&mut self, id: &str, params: &Params) -> Outcome {
        let known =
            ["active", "lookup_key", "nickname", "metadata", "transfer_lookup_key", "expand"];
        allow(params, &known)?;
        let before = self.get("price", id)?;
        let mut price = before.clone();
        if params.get("lookup_key") != before.get("lookup_key") {
            self.claim_lookup_key(params)?;
        }
        merge(&mut price, params);
        if let Some(active) = flag(params, "active") {
            price["active"] = json!(active);
        }
        self.put_price(&before, price.clone());
        Ok(price)
    }

    /// Stores an existing price wherever it is embedded, and emits the change.
    fn put_price(&mut self, before: &Value, price: Value) {
        let id = text(&price, "id").to_owned();
        let shows = |subscription: &&Value| {
            let items = subscription["items"]["data"].as_array();
            items.is_some_and(|items| items.iter().any(|item| text(&item["price"], "id") == id))
        };
        let held: Vec<Value> = self.table("subscription").filter(shows).cloned().collect();
        for mut subscription in held {
            for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
                if text(&item["price"], "id") == id {
                    item["price"] = price.clone();
                }
            }
            self.put("subscription", subscription);
        }
        let changed = before.as_object().into_iter().flatten();
        let changed = changed.filter(|(name, value)| price.get(name.as_str()) != Some(*value));
        let previous: Params = changed.map(|(name, v)| (name.clone(), v.clone())).collect();
        self.put("price", price.clone());
        if !previous.is_empty() {
            self.emit("price.updated", &price, Some(Value::Object(previous)));
        }
    }

    fn product_of(&mut self, params: &Params) -> Result<String, Refusal> {
        if let Some(data) = params.get("product_data").and_then(Value::as_object) {
            return Ok(text(&self.create_product(data)?, "id").to_owned());
        }
        let id = required(params, "product")?;
        match self.find("product", id) {
            Some(_) => Ok(id.to_owned()),
            None => Err(Refusal::no_such("product", id, "product")),
        }
    }

    /// A lookup key names one active price; with `transfer_lookup_key` it moves to the new one.
    fn claim_lookup_key(&mut self, params: &Params) -> Result<(), Refusal> {
        let Some(key) = params.get("lookup_key").and_then(Value::as_str) else { return Ok(()) };
        let Some(mut holder) = self.table("price").find(|p| text(p, "lookup_key") == key).cloned()
        else {
            return Ok(());
        };
        if flag(params, "transfer_lookup_key") != Some(true) {
            let message =
                format!("A price (`{}`) already uses that lookup key.", text(&holder, "id"));
            return Err(Refusal::invalid(None, Some("lookup_key"), message));
        }
        let before = holder.clone();
        holder["lookup_key"] = Value::Null;
        self.put_price(&before, holder);
        Ok(())
    }

    fn recurring(&self, params: &Params) -> Outcome {
        let Some(given) = params.get("recurring").and_then(Value::as_object) else {
            return Ok(Value::Null);
        };
        allow(given, &["interval", "interval_count", "usage_type", "meter"])?;
        let interval = required(given, "interval")?;
        if !["day", "week", "month", "year"].contains(&interval) {
            return Err(Refusal::missing("recurring[interval]"));
        }
        let meter = given.get("meter").and_then(Value::as_str);
        if let Some(meter) = meter.filter(|meter| self.find("meter", meter).is_none()) {
            return Err(Refusal::no_such("billing meter", meter, "recurring[meter]"));
        }
        let usage = given.get("usage_type").and_then(Value::as_str).unwrap_or("licensed");
        if (usage == "metered") != meter.is_some() {
            let message = "A metered price needs a meter, and only a metered one.".to_owned();
            return Err(Refusal::invalid(None, Some("recurring[meter]"), message));
        }
        Ok(json!({
            "interval": interval,
            "interval_count": whole(given, "interval_count")?.unwrap_or(1),
            "meter": meter,
            "usage_type": usage,
        }))
    }

    pub(super) fn list_prices(&mut self, params: &Params) -> Outcome {
        let own = ["lookup_keys", "active", "product"];
        allow(params, &[own.as_slice(), &PAGING].concat())?;
        let keys = params.get("lookup_keys").and_then(Value::as_array);
        let product = params.get("product").and_then(Value::as_str);
        let active = flag(params, "active");
        let wanted = self.table("price").rev().filter(|price| {
            keys.is_none_or(|keys| keys.contains(&price["lookup_key"]))
                && active.is_none_or(|active| price["active"] == json!(active))
                && product.is_none_or(|product| text(price, "product") == product)
        });
        page("/v1/prices", params, wanted.cloned())
    }
}

enum Field<'a> {
    Plain(&'a str),
    Metadata(&'a str),
}

fn search_term(query: &str) -> Option<(Field<'_>, &str)> {
    let (field, value) = query.split_once(':')?;
    let quoted = |text: &'_ str| -> Option<usize> {
        let inner = text.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"'])?;
        Some(inner.len())
    };
    let value = value.trim();
    let value = &value[1..=quoted(value)?];
    let field = field.trim();
    let Some(key) = field.strip_prefix("metadata[").and_then(|f| f.strip_suffix(']')) else {
        return Some((Field::Plain(field), value));
    };
    Some((Field::Metadata(&key[1..=quoted(key)?]), value))
}

fn status(subscription: &Value) -> &str {
    text(subscription, "status")
}

/// Copies the parameters for which the object has a field; an empty text clears one, as at Stripe.
pub(super) fn merge(object: &mut Value, params: &Params) {
    let Some(object) = object.as_object_mut() else { return };
    for (name, value) in params {
        let Some(field) = object.get_mut(name) else { continue };
        match (field, value) {
            (Value::Object(old), Value::Object(new)) => {
                for (key, value) in new {
                    if value == "" && name == "metadata" {
                        old.remove(key);
                    } else {
                        old.insert(key.clone(), value.clone());
                    }
                }
            }
            (field @ (Value::Null | Value::String(_)), Value::String(new)) => {
                *field = if new.is_empty() { Value::Null } else { json!(new) };
            }
            _ => {}
        }
    }
}

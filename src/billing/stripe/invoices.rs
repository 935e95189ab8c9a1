//! A customer's invoices, and the units of meters on them.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use serde_json::Value;

use super::Stripe;
use super::calls::ApiCall;
use crate::billing::sink::SinkError;
use crate::clock::time_at;

/// Most pages of lines read of an invoice.
const MAX_PAGES: usize = 20;

/// An invoice at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeInvoice {
    /// Its id.
    pub id: String,
    /// Its number, once it is final.
    pub number: Option<String>,
    /// Its status: `draft`, `open`, `paid`, `void`, `uncollectible`.
    pub status: String,
    /// Its total, in the smallest unit of its currency.
    pub total: i64,
    /// The currency.
    pub currency: String,
    /// When it was made.
    pub made: SystemTime,
    /// When the period of its metered units begins.
    pub from: SystemTime,
    /// When that period ends.
    pub until: SystemTime,
    /// Units of that period by the event name of their meter.
    pub units: BTreeMap<String, u64>,
}

impl Stripe {
    /// A customer's invoices, the newest first: at most 100.
    pub(crate) async fn invoices(&self, customer: &str) -> Result<Vec<StripeInvoice>, SinkError> {
        let answer = self.inner.ask(&ApiCall::invoices(customer)).await?;
        let list = answer.body["data"].as_array().cloned().unwrap_or_default();
        let meters = self.all_meters().await?;
        let (mut events, mut invoices) = (HashMap::new(), Vec::new());
        for invoice in &list {
            let text = |name: &str| invoice[name].as_str().map(str::to_owned);
            let id = text("id").unwrap_or_default();
            let mut units = BTreeMap::new();
            for line in self.raw_lines(&id).await? {
                // The first invoice of a subscription has empty lines of what is used later.
                let quantity = line["quantity"].as_u64().unwrap_or(0);
                let Some(price) = price_of(&line).filter(|_| quantity > 0) else { continue };
                let Some(event) = self.event_of(price, &meters, &mut events).await? else {
                    continue;
                };
                let sum: &mut u64 = units.entry(event).or_default();
                *sum = sum.saturating_add(quantity);
            }
            invoices.push(StripeInvoice {
                id,
                number: text("number"),
                status: text("status").unwrap_or_default(),
                total: invoice["total"].as_i64().unwrap_or(0),
                currency: text("currency").unwrap_or_default(),
                made: seconds(&invoice["created"]),
                // Units are billed in arrears: an invoice says in which period they were used.
                from: seconds(&invoice["period_start"]),
                until: seconds(&invoice["period_end"]),
                units,
            });
        }
        Ok(invoices)
    }

    async fn raw_lines(&self, invoice: &str) -> Result<Vec<Value>, SinkError> {
        let mut lines: Vec<Value> = Vec::new();
        let mut call = ApiCall::lines(invoice, None)?;
        for _ in 0..MAX_PAGES {
            let answer = self.inner.ask(&call).await?;
            let page = answer.body["data"].as_array().cloned().unwrap_or_default();
            let last = page.last().and_then(|it| it["id"].as_str()).map(str::to_owned);
            lines.extend(page);
            match last.filter(|_| answer.body["has_more"] == true) {
                Some(last) => call = ApiCall::lines(invoice, Some(&last))?,
                None => return Ok(lines),
            }
        }
        Err(SinkError(format!("the invoice {invoice} has more lines than the limit")))
    }

    /// The event name of a price's meter; `None`: it bills no meter.
    async fn event_of(
        &self,
        price: &str,
        meters: &[Value],
        known: &mut HashMap<String, Option<String>>,
    ) -> Result<Option<String>, SinkError> {
        if let Some(event) = known.get(price) {
            return Ok(event.clone());
        }
        let found = self.inner.find(&ApiCall::price(price)?).await?;
        let meter = found.map(|it| it.body["recurring"]["meter"].clone()).unwrap_or_default();
        let meter = meters.iter().find(|it| it["id"].is_string() && it["id"] == meter);
        let event = meter.and_then(|it| it["event_name"].as_str()).map(str::to_owned);
        known.insert(price.to_owned(), event.clone());
        Ok(event)
    }
}

/// The price of a line, in the shape of this API version or of one before.
fn price_of(line: &Value) -> Option<&str> {
    let price = &line["pricing"]["price_details"]["price"];
    price.as_str().or(price["id"].as_str()).or(line["price"]["id"].as_str())
}

fn seconds(value: &Value) -> SystemTime {
    time_at(value.as_i64().unwrap_or(0).saturating_mul(1_000))
}

//! Every Stripe call in use, spelled with async-stripe's request builders.
//!
//! They supply only method, path, query and form: headers, repeats and the meaning of answers are
//! decided here (docs/billing.md, "What of async-stripe is used").

use std::collections::HashMap;
use std::fmt::Write as _;

use http::Method;
use stripe_billing::InvoiceStatus;
use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterDefaultAggregation,
    CreateBillingMeterDefaultAggregationFormula, ListBillingMeter,
};
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_billing::invoice::{ListInvoice, RetrieveInvoice};
use stripe_billing::invoice_line_item::ListInvoiceInvoiceLineItem;
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionItems, ListSubscription,
    ListSubscriptionStatus, RetrieveSubscription,
};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use stripe_core::customer::{CreateCustomer, SearchCustomer};
use stripe_product::price::{ListPrice, RetrievePrice};

use crate::billing::sink::{MeterEvent, SinkError, Sum};

/// Objects per page: Stripe's maximum.
const PAGE: i64 = 100;

/// Most characters shown of an invalid id.
const MAX_SHOWN: usize = 64;

/// Metadata key under which a tenant or a lookup key is noted on objects created at Stripe.
const NOTE: &str = "tallygate";

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ApiCall {
    pub(super) method: Method,
    /// With the query, if any.
    pub(super) path: String,
    /// Empty for none.
    pub(super) form: String,
}

impl ApiCall {
    pub(super) fn meter_event(event: &MeterEvent) -> Self {
        let payload = [
            ("stripe_customer_id".to_owned(), event.customer.clone()),
            ("value".to_owned(), event.value.to_string()),
        ];
        let request = CreateBillingMeterEvent::new(&event.event, payload)
            .identifier(&event.identifier)
            .timestamp(event.timestamp_s);
        Self::of(&request)
    }

    /// The cheapest question, for the clock in the response headers.
    pub(super) fn one_meter() -> Self {
        Self::of(&ListBillingMeter::new().limit(1))
    }

    pub(super) fn meters(after: Option<&str>) -> Self {
        let request = ListBillingMeter::new().limit(PAGE);
        Self::of(&match after {
            Some(after) => request.starting_after(after),
            None => request,
        })
    }

    /// Stripe's defaults for the rest are where our events have their customer and value.
    pub(super) fn make_meter(event: &str) -> Self {
        let sum = CreateBillingMeterDefaultAggregationFormula::Sum;
        let sum = CreateBillingMeterDefaultAggregation::new(sum);
        Self::of(&CreateBillingMeter::new(sum, event, event))
    }

    pub(super) fn sums(meter: &str, sum: &Sum) -> Result<Self, SinkError> {
        let Sum { customer, from_s, until_s, .. } = sum;
        let meter = checked(meter)?;
        let request = ListIdBillingMeterEventSummary::new(meter, customer, *until_s, *from_s);
        Ok(Self::of(&request.limit(PAGE)))
    }

    pub(super) fn subscription(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrieveSubscription::new(checked(id)?)))
    }

    /// Including ended ones.
    pub(super) fn subscriptions(customer: &str) -> Self {
        let all = ListSubscriptionStatus::All;
        Self::of(&ListSubscription::new().customer(customer).status(all).limit(PAGE))
    }

    pub(super) fn subscribe(customer: &str, price: &str, method: &str, lookup_key: &str) -> Self {
        let mut item = CreateSubscriptionItems::new();
        item.price = Some(price.to_owned());
        let request = CreateSubscription::new()
            .customer(customer)
            .items([item])
            .default_payment_method(method)
            .off_session(true)
            .metadata(note(lookup_key));
        Self::of(&request)
    }

    pub(super) fn cancel(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&CancelSubscription::new(checked(id)?)))
    }

    /// The id may be seller-chosen: Stripe's old plans are prices under their own ids.
    pub(super) fn price(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrievePrice::new(escaped(id)?)))
    }

    pub(super) fn prices(lookup_key: &str) -> Self {
        Self::of(&ListPrice::new().lookup_keys([lookup_key.to_owned()]).active(true))
    }

    pub(super) fn invoice(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrieveInvoice::new(checked(id)?)))
    }

    /// The newest ones.
    pub(super) fn paid_invoices(customer: &str) -> Self {
        let request = ListInvoice::new().customer(customer).status(InvoiceStatus::Paid);
        Self::of(&request.limit(PAGE))
    }

    /// The newest ones, in any state.
    pub(super) fn invoices(customer: &str) -> Self {
        Self::of(&ListInvoice::new().customer(customer).limit(PAGE))
    }

    pub(super) fn lines(invoice: &str, after: Option<&str>) -> Result<Self, SinkError> {
        let request = ListInvoiceInvoiceLineItem::new(checked(invoice)?).limit(PAGE);
        Ok(Self::of(&match after {
            Some(after) => request.starting_after(after),
            None => request,
        }))
    }

    pub(super) fn customers_of(tenant: &str) -> Self {
        Self::of(&SearchCustomer::new(format!("metadata['{NOTE}']:'{tenant}'")))
    }

    pub(super) fn make_customer(tenant: &str, name: &str) -> Self {
        Self::of(&CreateCustomer::new().metadata(note(tenant)).name(name))
    }

    /// Spelled out: async-stripe does not cover `/v2`.
    pub(super) fn thin_event(id: &str) -> Result<Self, SinkError> {
        Ok(Self::get(format!("/v2/core/events/{}", checked(id)?)))
    }

    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, form: String::new() }
    }

    fn of(request: &impl StripeRequest) -> Self {
        let RequestBuilder { method, path, query, body } = request.build();
        let method = match method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut path = format!("/v1{path}");
        // A call without parameters has `Some("")`.
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            path = format!("{path}?{query}");
        }
        Self { method, path, form: body.unwrap_or_default() }
    }
}

fn note(value: &str) -> HashMap<String, String> {
    HashMap::from([(NOTE.to_owned(), value.to_owned())])
}

/// A Stripe-made id as a path segment: the builders put ids into paths unescaped, and this one came
/// from outside.
fn checked(id: &str) -> Result<&str, SinkError> {
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(no_id(id));
    }
    Ok(id)
}

/// A possibly human-chosen id as a path segment.
fn escaped(id: &str) -> Result<String, SinkError> {
    // Servers read `.` and `..` as steps, even escaped; without an id it would be the list.
    if id.bytes().all(|byte| byte == b'.') {
        return Err(no_id(id));
    }
    let mut segment = String::with_capacity(id.len());
    for byte in id.bytes() {
        if plain(byte) || byte == b'.' {
            segment.push(char::from(byte));
        } else {
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    Ok(segment)
}

fn no_id(id: &str) -> SinkError {
    let id: String = id.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    SinkError(format!("`{id}` is not a Stripe id"))
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

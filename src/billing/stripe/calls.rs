//! Every call of Stripe that is made, in the spelling of async-stripe's request builders.
//!
//! Only method, path, query and form are theirs: what goes with a call, how it is repeated and what
//! its answer means is decided here (docs/billing.md, "What of async-stripe is used").

use std::collections::HashMap;
use std::fmt::Write as _;

use http::Method;
use stripe_billing::billing_meter::ListBillingMeter;
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_billing::invoice::RetrieveInvoice;
use stripe_billing::invoice_line_item::ListInvoiceInvoiceLineItem;
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionItems, ListSubscription,
    ListSubscriptionStatus, RetrieveSubscription,
};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use stripe_core::customer::{CreateCustomer, SearchCustomer};
use stripe_product::price::{ListPrice, RetrievePrice};

use crate::billing::sink::{MeterEvent, SinkError, Sum};

/// Objects of a page: as many as Stripe gives.
const PAGE: i64 = 100;

/// Of an id that is none, as many characters are shown.
const MAX_SHOWN: usize = 64;

/// Under what a tenant or a lookup key is noted with what is made at Stripe.
const NOTE: &str = "tallygate";

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ApiCall {
    pub(super) method: Method,
    /// With the query, if there is one.
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

    /// The cheapest question there is, for the clock in its answer's head.
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

    pub(super) fn sums(meter: &str, sum: &Sum) -> Result<Self, SinkError> {
        let Sum { customer, from_s, until_s, .. } = sum;
        let meter = checked(meter)?;
        let request = ListIdBillingMeterEventSummary::new(meter, customer, *until_s, *from_s);
        Ok(Self::of(&request.limit(PAGE)))
    }

    pub(super) fn subscription(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrieveSubscription::new(checked(id)?)))
    }

    /// Ended ones too.
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

    /// The id may be one that the seller chose: Stripe's old plans are prices under their own ids.
    pub(super) fn price(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrievePrice::new(escaped(id)?)))
    }

    pub(super) fn prices(lookup_key: &str) -> Self {
        Self::of(&ListPrice::new().lookup_keys([lookup_key.to_owned()]).active(true))
    }

    pub(super) fn invoice(id: &str) -> Result<Self, SinkError> {
        Ok(Self::of(&RetrieveInvoice::new(checked(id)?)))
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

    /// Spelled here: async-stripe knows nothing of `/v2`.
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
        // One without parameters is `Some("")`.
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            path = format!("{path}?{query}");
        }
        Self { method, path, form: body.unwrap_or_default() }
    }
}

fn note(value: &str) -> HashMap<String, String> {
    HashMap::from([(NOTE.to_owned(), value.to_owned())])
}

/// An id that Stripe made, as a path's segment: the builders put ids into paths as they are, and
/// this one came from outside.
fn checked(id: &str) -> Result<&str, SinkError> {
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(no_id(id));
    }
    Ok(id)
}

/// An id that a person may have chosen, as a path's segment.
fn escaped(id: &str) -> Result<String, SinkError> {
    // Servers read `.` and `..` as steps, escaped too; without an id it were the list.
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
    SinkError(format!("`{id}` is no id of Stripe's"))
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

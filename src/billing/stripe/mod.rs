//! Stripe as a [`BillingSink`]: meter events, their sums, and its clock.
//!
//! "An event already exists with identifier" counts as delivered: it is the answer to our own
//! repeat. A call is repeated only while Stripe allows it (409, 429, 5xx, no answer, or
//! `Stripe-Should-Retry: true`), with jitter, after `Retry-After`; every attempt has an idempotency
//! key of its own, because Stripe replays a key's first answer, even a 500: the identifier is what
//! makes repeats harmless.
//!
//! Live keys are refused unless the mode says live, and test keys unless it says test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::sink::{BillingSink, Delivery, MeterEvent, SEND_WITHIN, SinkError, SinkFuture, Sum};
use crate::config::{Secret, StripeMode};
use crate::https::HttpsError;

mod calls;
mod customers;
mod http;
mod invoices;
mod objects;
mod pace;

use calls::ApiCall;
pub(crate) use customers::Dated;
use http::{Called, Http, HttpResponse, Paces};
pub use invoices::StripeInvoice;
pub use objects::{ObjectKind, StripeObject};

/// Meter events a second in live mode: including the catch-up burst of the schedule, below the
/// 1,000 that Stripe accepts there.
const LIVE_EVENTS: u32 = 900;

/// Other calls a second; in test mode, where Stripe counts them together, all calls: below the 25
/// that it accepts per endpoint, and per sandbox.
const CALLS: u32 = 20;

/// Assumed duration of a call: as many calls run at once as begin in that time.
const UNDER_WAY_MS: u32 = 300;

/// Calls under way at once: the minimum, for a slow Stripe, and the maximum.
const FEWEST_AT_ONCE: usize = 16;
const MOST_AT_ONCE: usize = 256;

/// Most pages of meters read to find one by its event name.
const MAX_PAGES: usize = 20;

/// Prefix of Stripe's answer to a repeated identifier.
const ALREADY: &str = "An event already exists with identifier";

/// Why Stripe cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StripeError {
    /// The key cannot be used. With the reason, but no part of the key.
    #[error("the Stripe key: {0}")]
    Key(&'static str),
    /// The base is neither an `https` URL nor one on this machine.
    #[error("Stripe's base must be an https URL, or http on this machine's loopback")]
    Base,
    /// HTTPS cannot be set up.
    #[error("Stripe: {0}")]
    Https(#[from] HttpsError),
}

/// Settings of a Stripe account.
#[derive(Clone, Debug)]
pub(crate) struct StripeSettings {
    /// The secret key, or a restricted one that may write meter events and read meters.
    pub key: Secret,
    /// The mode whose keys are accepted.
    pub mode: StripeMode,
    /// Name of the Stripe account in identifiers; never to be changed.
    pub account: String,
    /// Base URL of Stripe: its own address, or a simulator's `http://127.0.0.1:P`.
    pub base: String,
    /// Most calls a second, meter events included; `None` for Stripe's limits in this mode.
    pub calls_per_s: Option<u32>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Stripe {
    inner: Arc<ClientInner>,
}

struct ClientInner {
    http: Http,
    account: String,
    at_once: usize,
    /// Ids of meters by their event name, until the next [`BillingSink::time`]: an event counts in
    /// the meter that was active on arrival, and that can be deactivated and replaced.
    meters: Mutex<HashMap<String, Vec<String>>>,
}

impl Stripe {
    /// Sets up the client. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// If the key is of another mode, or not a key; if the base is not trustworthy.
    pub(crate) fn new(settings: StripeSettings) -> Result<Self, StripeError> {
        let StripeSettings { key, mode, account, base, calls_per_s } = settings;
        check_mode(key.expose(), mode)?;
        let word = match mode {
            StripeMode::Test => "test",
            StripeMode::Live => "live",
        };
        let (paces, events_per_s) = match (calls_per_s, mode) {
            (Some(calls), _) => (Paces::shared(calls), calls),
            (None, StripeMode::Test) => (Paces::shared(CALLS), CALLS),
            (None, StripeMode::Live) => (Paces::apart(LIVE_EVENTS, CALLS), LIVE_EVENTS),
        };
        let http = Http::new(&key, &base, paces)?;
        let account = format!("stripe/{account}/{word}");
        let inner =
            ClientInner { http, account, at_once: at_once(events_per_s), meters: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl BillingSink for Stripe {
    fn account(&self) -> String {
        self.inner.account.clone()
    }

    fn at_once(&self) -> usize {
        self.inner.at_once
    }

    fn time(&self) -> SinkFuture<Result<i64, SinkError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let answer = inner.ask(&ApiCall::one_meter()).await?;
            inner.meters().clear(); // a round of reports begins
            answer.date_s.ok_or_else(no_date)
        })
    }

    fn send(&self, event: MeterEvent) -> SinkFuture<Delivery> {
        let inner = self.inner.clone();
        Box::pin(async move {
            match tokio::time::timeout(SEND_WITHIN, inner.send(event)).await {
                Ok(delivery) => delivery,
                Err(_) => Delivery::Unknown(format!("no answer within {SEND_WITHIN:?}")),
            }
        })
    }

    fn sum(&self, sum: Sum) -> SinkFuture<Result<i64, SinkError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let shape = || SinkError("event summaries in an unknown shape".to_owned());
            let mut total = 0_i64;
            for meter in inner.meters_of(&sum.event).await? {
                let answer = inner.ask(&ApiCall::sums(&meter, &sum)?).await?;
                for summary in answer.body["data"].as_array().ok_or_else(shape)? {
                    let value = whole(&summary["aggregated_value"]).ok_or_else(shape)?;
                    total = total.checked_add(value).ok_or_else(shape)?;
                }
            }
            Ok(total)
        })
    }
}

impl ClientInner {
    async fn send(&self, event: MeterEvent) -> Delivery {
        match self.http.post(&ApiCall::meter_event(&event), &event.identifier).await {
            Called::Answer(answer) => judge(&answer),
            Called::Silence(words) => Delivery::Unknown(words),
        }
    }

    /// A question that must be answered with 200.
    async fn ask(&self, call: &ApiCall) -> Result<HttpResponse, SinkError> {
        match self.http.ask(call).await {
            Called::Answer(answer) if answer.status == 200 && !answer.body.is_null() => Ok(answer),
            Called::Answer(answer) => Err(SinkError(answer.words())),
            Called::Silence(words) => Err(SinkError(words)),
        }
    }

    /// The same, for an object that may be missing.
    async fn find(&self, call: &ApiCall) -> Result<Option<HttpResponse>, SinkError> {
        match self.http.ask(call).await {
            Called::Answer(answer) if answer.status == 200 && !answer.body.is_null() => {
                Ok(Some(answer))
            }
            Called::Answer(answer) if answer.status == 404 => Ok(None),
            Called::Answer(answer) => Err(SinkError(answer.words())),
            Called::Silence(words) => Err(SinkError(words)),
        }
    }

    /// The ids of all meters that have had this event name; at most one is active at a time.
    async fn meters_of(&self, event: &str) -> Result<Vec<String>, SinkError> {
        if let Some(ids) = self.meters().get(event).cloned() {
            return Ok(ids);
        }
        let mut found = Vec::new();
        let mut call = ApiCall::meters(None);
        for _ in 0..MAX_PAGES {
            let answer = self.ask(&call).await?;
            let meters = answer.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            for meter in meters.iter().filter(|meter| meter["event_name"] == event) {
                let id = meter["id"].as_str().map(str::to_owned);
                found.extend(id.filter(|id| !found.contains(id)));
            }
            let last = meters.last().and_then(|meter| meter["id"].as_str());
            match last.filter(|_| answer.body["has_more"] == true) {
                Some(last) => call = ApiCall::meters(Some(last)),
                None => break,
            }
        }
        if found.is_empty() {
            return Err(SinkError(format!("there is no meter `{event}`")));
        }
        self.meters().insert(event.to_owned(), found.clone());
        Ok(found)
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of concurrent calls at this rate.
fn at_once(calls_per_s: u32) -> usize {
    let under_way = calls_per_s.saturating_mul(UNDER_WAY_MS) / 1_000;
    usize::try_from(under_way).unwrap_or(MOST_AT_ONCE).clamp(FEWEST_AT_ONCE, MOST_AT_ONCE)
}

fn no_date() -> SinkError {
    SinkError("an answer without a date".to_owned())
}

/// The delivery result of an answer.
fn judge(answer: &HttpResponse) -> Delivery {
    let status = answer.status.as_u16();
    match status {
        200 if !answer.body.is_null() => Delivery::Delivered,
        400 if answer.message().starts_with(ALREADY) => Delivery::Delivered,
        // A problem of the key, not the event: fixed without an operator's decision on each entry.
        401 | 403 => Delivery::Unknown(answer.words()),
        // It may count by an attempt before, which this answer is not about.
        400..500 if answer.repeats => Delivery::Unknown(answer.words()),
        400..500 if !answer.is_temporary() => Delivery::Refused(answer.words()),
        _ => Delivery::Unknown(answer.words()),
    }
}

/// A whole number, written `5` or `5.0`. Digits only, never through a float.
fn whole(value: &Value) -> Option<i64> {
    let text = value.as_number()?.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    part.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok())?
}

fn check_mode(key: &str, mode: StripeMode) -> Result<(), StripeError> {
    let is = |word: &str| {
        let rest = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"));
        rest.is_some_and(|rest| rest.starts_with(word))
    };
    match mode {
        StripeMode::Test if is("live_") => {
            Err(StripeError::Key("it is a live key, but the mode is \"test\""))
        }
        StripeMode::Live if is("test_") => {
            Err(StripeError::Key("it is a test key, but the mode is \"live\""))
        }
        _ if is("live_") || is("test_") => Ok(()),
        _ => Err(StripeError::Key("it begins with neither sk_ nor rk_, test_ or live_")),
    }
}

impl std::fmt::Debug for ClientInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stripe").field("account", &self.account).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire_tests;

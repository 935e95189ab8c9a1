//! HTTP calls to Stripe's API: one pooled client, our own repeats, and answers reduced to what
//! matters.
//!
//! No part of a key is ever in an error, in `Debug` or in a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use super::StripeError;
use super::calls::ApiCall;
use super::pace::RequestPace;
use crate::config::Secret;
use crate::delays::{Delays, jittered};
use crate::https::HttpsClient;

/// The version of Stripe's API whose shapes are read here. Sent explicitly, so that the account's
/// default does not change them.
const VERSION: &str = "2026-08-26.dahlia";

/// Path of meter events, which have their own rate.
pub(super) const EVENTS: &str = "/v1/billing/meter_events";

/// Largest answer read: a page of 100 objects is far below it.
const MAX_BODY: usize = 4 << 20;

/// Longest one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Most attempts of one call.
const ATTEMPTS: u32 = 4;

/// Pauses between attempts, jittered: calls that failed together do not come back together.
const PAUSES: Delays = Delays::doubling(Duration::from_millis(250), Duration::from_secs(1));

/// Longest pause waited out, whatever `Retry-After` says: the next run comes anyway.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Idle connections kept: as many as there are calls under way at most.
const IDLE: usize = super::MOST_AT_ONCE;

/// Most characters kept of an error's message.
const MAX_WORDS: usize = 300;

/// See the [module](self).
pub(super) struct Http {
    client: HttpsClient,
    base: Uri,
    authorization: HeaderValue,
    paces: Paces,
}

/// Rates of calls. Stripe counts meter events separately in live mode, and together with all other
/// calls in test mode.
pub(super) struct Paces {
    pub(super) events: Arc<RequestPace>,
    pub(super) others: Arc<RequestPace>,
}

/// Scope of an idempotency key.
#[derive(Clone, Copy)]
enum IdempotencyKey<'a> {
    OfAttempt(&'a str),
    OfCall(&'a str),
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// The service's clock, Unix seconds.
    pub(super) date_s: Option<i64>,
    pub(super) should_retry: Option<bool>,
    pub(super) retry_after: Option<Duration>,
    /// Whether an earlier attempt of this call may have taken effect: this answer is about the
    /// last attempt alone.
    pub(super) repeats: bool,
}

/// The result of a call.
#[derive(Debug)]
pub(super) enum Called {
    Answer(HttpResponse),
    /// No answer, and no more attempts: it may have taken effect.
    Silence(String),
}

impl Http {
    pub(super) fn new(key: &Secret, base: &str, paces: Paces) -> Result<Self, StripeError> {
        let base: Uri = base.parse().map_err(|_| StripeError::Base)?;
        let secure = base.scheme_str() == Some("https");
        // A key never crosses a network in the clear: plain HTTP is for a local simulator.
        let beside = matches!(base.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
        if base.authority().is_none() || !(secure || beside) {
            return Err(StripeError::Base);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
            .map_err(|_| StripeError::Key("it contains characters that a key cannot have"))?;
        authorization.set_sensitive(true);
        let client = HttpsClient::new(&base, IDLE)?;
        Ok(Self { client, base, authorization, paces })
    }

    /// For calls that read, or are otherwise harmless when repeated.
    pub(super) async fn ask(&self, call: &ApiCall) -> Called {
        self.call(call, None).await
    }

    /// Sends `key` as the idempotency key, with a part that is new in every attempt: Stripe replays
    /// the first answer to a key for a day, even a 500. For calls that their own identifier makes
    /// harmless to repeat.
    pub(super) async fn post(&self, call: &ApiCall, key: &str) -> Called {
        self.call(call, Some(IdempotencyKey::OfAttempt(key))).await
    }

    /// Uses `key` as the idempotency key of every attempt: for objects that must not be created
    /// twice and have no identifier of ours.
    pub(super) async fn post_once(&self, call: &ApiCall, key: &str) -> Called {
        self.call(call, Some(IdempotencyKey::OfCall(key))).await
    }

    async fn call(&self, call: &ApiCall, key: Option<IdempotencyKey<'_>>) -> Called {
        let mut silence = String::new();
        let (mut repeats, mut pauses) = (false, PAUSES);
        let pace = if call.path == EVENTS { &self.paces.events } else { &self.paces.others };
        for attempt in 0..ATTEMPTS {
            pace.turn().await;
            let pause = match self.attempt(call, key).await {
                Ok(answer) => {
                    let waits_long = answer.retry_after.is_some_and(|pause| pause > MAX_PAUSE);
                    if !answer.is_temporary() || attempt + 1 == ATTEMPTS || waits_long {
                        return Called::Answer(HttpResponse { repeats, ..answer });
                    }
                    repeats |= answer.status != StatusCode::TOO_MANY_REQUESTS;
                    answer.retry_after.unwrap_or_default()
                }
                Err(words) => {
                    (silence, repeats) = (words, true);
                    Duration::ZERO
                }
            };
            if attempt + 1 < ATTEMPTS {
                tokio::time::sleep(pause.max(jittered(pauses.step()))).await;
            }
        }
        Called::Silence(silence)
    }

    async fn attempt(
        &self,
        call: &ApiCall,
        key: Option<IdempotencyKey<'_>>,
    ) -> Result<HttpResponse, String> {
        let mut base = self.base.clone().into_parts();
        base.path_and_query = Some(call.path.parse().map_err(|_| "not a path".to_owned())?);
        let uri = Uri::from_parts(base).map_err(|e| e.to_string())?;
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header("stripe-version", VERSION);
        if let Some(key) = key {
            let key = match key {
                IdempotencyKey::OfAttempt(key) => {
                    // It only must differ.
                    format!("{key}-{:016x}", crate::random::u64().unwrap_or_default())
                }
                IdempotencyKey::OfCall(key) => key.to_owned(),
            };
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header("idempotency-key", key);
        }
        let form = Full::new(Bytes::from(call.form.clone()));
        let request = request.body(form).map_err(|e| e.to_string())?;
        let (head, body) = self.client.send(request, ATTEMPT, MAX_BODY).await?.into_parts();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(HttpResponse::new(head.status, &head.headers, body))
    }
}

impl HttpResponse {
    fn new(status: StatusCode, headers: &HeaderMap, body: Value) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let seconds = text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        let date = text(DATE.as_str()).and_then(|d| DateTimeParser::new().parse_timestamp(d).ok());
        Self {
            status,
            body,
            date_s: date.map(|date| date.as_second()),
            should_retry: text("stripe-should-retry").and_then(|value| value.parse().ok()),
            retry_after: seconds.map(Duration::from_secs),
            repeats: false,
        }
    }

    /// Whether a repeat of the call may succeed. Stripe's own advice takes precedence over the
    /// status.
    pub(super) fn is_temporary(&self) -> bool {
        let by_status = self.status.is_server_error()
            || matches!(self.status.as_u16(), 409 | 429)
            // A cut-off answer, or a proxy's: not from Stripe.
            || (self.status.is_success() && self.body.is_null());
        self.should_retry.unwrap_or(by_status)
    }

    /// The error's message, shortened.
    pub(super) fn words(&self) -> String {
        let error = &self.body["error"];
        let part = |name: &str| error[name].as_str().unwrap_or_default();
        let words = format!("{} {} {}", self.status.as_u16(), part("code"), part("message"));
        words.chars().take(MAX_WORDS).collect()
    }

    pub(super) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Paces {
    /// One rate for all calls.
    pub(super) fn shared(calls_per_s: u32) -> Self {
        let pace = Arc::new(RequestPace::new(calls_per_s));
        Self { events: pace.clone(), others: pace }
    }

    pub(super) fn apart(events_per_s: u32, others_per_s: u32) -> Self {
        let pace = |calls_per_s| Arc::new(RequestPace::new(calls_per_s));
        Self { events: pace(events_per_s), others: pace(others_per_s) }
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("base", &self.base).finish_non_exhaustive()
    }
}

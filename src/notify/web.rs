//! Webhooks and Slack messages: one POST each.
//!
//! An answer of 2xx is a delivery, whatever its body. Redirects are not followed: a receiver that
//! moved is an operator's to name. URLs come from the service file alone, never from a caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::response::Parts;
use http::{Request, Uri};
use http_body_util::Full;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::json;

use super::kinds::word;
use super::signature::SigningKeys;
use super::{NotDelivered, Notification, Notifier, NotifierFuture};
use crate::clock::Clock;
use crate::config::{HttpTarget, NotifyConfig, Secret, has_no_such_port};
use crate::https::HttpsClient;

/// Largest answer read: it is thrown away.
const MAX_ANSWER: usize = 64 * 1024;

/// Longest wait for the head of an answer: with the rest, less than a delivery may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);

/// Idle connections kept: one alert is under way at a time.
const IDLE: usize = 1;

/// Pause after an answer of 410: the receiver is gone for good, as far as it knows.
const GONE: Duration = Duration::from_secs(3_600);

const AGENT: &str = concat!("tallygate/", env!("CARGO_PKG_VERSION"));

/// A destination over HTTP.
pub(crate) struct HttpNotifier {
    config: NotifyConfig,
    inner: Arc<Endpoint>,
}

struct Endpoint {
    client: HttpsClient,
    /// May be a secret.
    url: Uri,
    /// `None`: a Slack message.
    keys: Option<SigningKeys>,
    clock: Arc<dyn Clock>,
}

impl HttpNotifier {
    /// Reads its secrets. The error names the key of the service file, and no part of them.
    pub(crate) fn new(
        config: &NotifyConfig,
        to: &HttpTarget,
        env: &dyn Fn(&str) -> Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let (url, keys) = match to {
            HttpTarget::Webhook { url, secret } => {
                let read = secret.resolve(env).map_err(|error| error.to_string())?;
                let keys =
                    SigningKeys::read(&read).map_err(|why| format!("{}: {why}", secret.field))?;
                (url.resolve(env), Some(keys))
            }
            HttpTarget::Slack { url } => (url.resolve(env), None),
        };
        let url = address(&url.map_err(|error| error.to_string())?)?;
        let client = HttpsClient::new(&url, IDLE).map_err(|error| error.to_string())?;
        let inner = Arc::new(Endpoint { client, url, keys, clock });
        Ok(Self { config: config.clone(), inner })
    }
}

/// The URL, if a secret may be sent there. The error has no part of it.
fn address(url: &Secret) -> Result<Uri, &'static str> {
    const WRONG: &str = "notify: a URL begins with https://, or with http:// on this machine";
    // The parser takes any digits for a port.
    if has_no_such_port(url.expose()) {
        return Err("notify: the port in a URL is a number from 1 to 65535");
    }
    let url: Uri = url.expose().parse().map_err(|_| WRONG)?;
    let beside = matches!(url.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let may = match url.scheme_str() {
        Some("https") => true,
        Some("http") => beside,
        _ => false,
    };
    if may && url.authority().is_some() { Ok(url) } else { Err(WRONG) }
}

impl Notifier for HttpNotifier {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn wants(&self, kind: &str) -> bool {
        self.config.wants(word(kind))
    }

    fn deliver(&self, notification: Notification) -> NotifierFuture {
        let inner = self.inner.clone();
        Box::pin(async move { inner.post(&notification).await })
    }
}

impl Endpoint {
    async fn post(&self, notification: &Notification) -> Result<(), NotDelivered> {
        let request = self
            .request(notification)
            .ok_or_else(|| NotDelivered::Refused("the alert makes no valid request".to_owned()))?;
        match self.client.head_of(request, ANSWER_WITHIN, MAX_ANSWER).await {
            Ok(head) => judge(&head, self.clock.now().wall_ms),
            Err(why) => Err(NotDelivered::Later(why)),
        }
    }

    fn request(&self, notification: &Notification) -> Option<Request<Full<Bytes>>> {
        let Notification { id, text, payload, .. } = notification;
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT);
        let body = match &self.keys {
            Some(keys) => {
                let now_s = self.clock.now().wall_ms.div_euclid(1_000);
                let mut signature = HeaderValue::from_str(&keys.sign(id, now_s, payload)).ok()?;
                signature.set_sensitive(true);
                request = request
                    .header("webhook-id", id)
                    .header("webhook-timestamp", now_s)
                    .header("webhook-signature", signature);
                payload.clone()
            }
            None => json!({"text": escaped(text)}).to_string(),
        };
        request.body(Full::new(body.into())).ok()
    }
}

/// Slack's three control characters: a tenant's id must not mention a channel, or link anywhere.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What an answer says about the alert (`Refused`) or about the receiver.
fn judge(head: &Parts, now_ms: i64) -> Result<(), NotDelivered> {
    let status = head.status.as_u16();
    let why = format!("the receiver answered {status}");
    match status {
        200..300 => Ok(()),
        400 | 413 | 415 | 422 => Err(NotDelivered::Refused(why)),
        300..400 => Err(NotDelivered::Later(format!("{why}: redirects are not followed"))),
        410 => {
            let why = format!("{why}: it wants no more, so take it out of the service file");
            Err(NotDelivered::NotBefore(GONE, why))
        }
        _ => Err(match retry_after(&head.headers, now_ms) {
            Some(pause) => NotDelivered::NotBefore(pause, why),
            None => NotDelivered::Later(why),
        }),
    }
}

/// The pause that a receiver asks for, in seconds or until a date.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(text).ok()?;
    let ms = date.as_millisecond().saturating_sub(now_ms);
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

impl std::fmt::Debug for HttpNotifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpNotifier").field("name", &self.config.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "web_tests.rs"]
mod tests;

//! Webhooks as Stripe sends them: signed, retried until answered with 2xx, and as faulty as the
//! script says.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sha2::Sha256;

use crate::faults::FaultKind;
use crate::server::Shared;

/// Time for an endpoint to answer. Stripe's own limit is not published.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a shuffle waits for more events to mix.
const MIX_WITHIN: Duration = Duration::from_millis(300);

/// The `Stripe-Signature` header: `t=` and one `v1=` for each secret.
pub fn signature(secrets: &[String], at: i64, body: &[u8]) -> String {
    let mut header = format!("t={at}");
    for secret in secrets {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes keys of every length");
        mac.update(format!("{at}.").as_bytes());
        mac.update(body);
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        header.push_str(",v1=");
        header.push_str(&hex);
    }
    header
}

/// One attempt to send an event.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Delivery {
    /// The event's id.
    pub event: String,
    /// The event's type.
    pub kind: String,
    /// The endpoint's status; `None` if no answer came.
    pub status: Option<u16>,
}

pub(crate) type Sender = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn sender() -> Sender {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends queued events forever, one after the other; retries run concurrently.
pub(crate) async fn deliver(shared: Arc<Shared>) {
    let sender = sender();
    loop {
        let Some((kind, event)) = shared.next_event() else {
            shared.events_wait().await;
            continue;
        };
        let fault = shared.with(|world| world.script.meet(&format!("webhook {kind}")));
        match fault {
            Some(FaultKind::Drop) => {}
            Some(FaultKind::Duplicate { copies }) => {
                for _ in 0..=copies.min(100) {
                    send_or_repeat(&shared, &sender, &kind, &event).await;
                }
            }
            Some(FaultKind::Delay { ms }) => {
                let (shared, sender) = (shared.clone(), sender.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    send_or_repeat(&shared, &sender, &kind, &event).await;
                });
            }
            Some(FaultKind::Shuffle { of, seed }) => {
                for (kind, event) in mixed(&shared, (kind, event), of, seed).await {
                    send_or_repeat(&shared, &sender, &kind, &event).await;
                }
            }
            _ => send_or_repeat(&shared, &sender, &kind, &event).await,
        }
    }
}

/// `first` and the events after it, in another order.
async fn mixed(
    shared: &Shared,
    first: (String, Value),
    of: usize,
    seed: u64,
) -> Vec<(String, Value)> {
    let mut events = vec![first];
    let until = tokio::time::Instant::now() + MIX_WITHIN;
    while events.len() < of {
        match shared.next_event() {
            Some(event) => events.push(event),
            None => {
                if tokio::time::timeout_at(until, shared.events_wait()).await.is_err() {
                    break;
                }
            }
        }
    }
    let mut state = seed | 1;
    for at in (1..events.len()).rev() {
        // xorshift64: any fixed order by the seed will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = usize::try_from(state % (at as u64 + 1)).unwrap_or(0);
        events.swap(at, other);
    }
    events
}

/// Sends once; if that fails, keeps retrying in the background.
async fn send_or_repeat(shared: &Arc<Shared>, sender: &Sender, kind: &str, event: &Value) {
    if attempt(shared, sender, kind, event).await {
        return;
    }
    let (attempts, pause) =
        shared.with(|w| (w.settings.webhook_attempts, w.settings.webhook_retry_ms));
    let (shared, sender) = (shared.clone(), sender.clone());
    let (kind, event) = (kind.to_owned(), event.clone());
    tokio::spawn(async move {
        for n in 1..attempts {
            let pause = pause.saturating_mul(1 << (n - 1).min(16));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if attempt(&shared, &sender, &kind, &event).await {
                return;
            }
        }
    });
}

/// Sends once. True if it was answered with 2xx, or if no endpoint is set.
async fn attempt(shared: &Shared, sender: &Sender, kind: &str, event: &Value) -> bool {
    let (url, secrets, now) = shared.with(|world| {
        (world.settings.webhook_url.clone(), world.settings.webhook_secrets.clone(), world.now())
    });
    let Some(url) = url else { return true };
    let body = event.to_string();
    let signature = signature(&secrets, now, body.as_bytes());
    let status = post(sender, &url, &signature, body.into()).await;
    let event = event["id"].as_str().unwrap_or_default().to_owned();
    shared.delivered(Delivery { event, kind: kind.to_owned(), status });
    status.is_some_and(|status| (200..300).contains(&status))
}

/// Posts a signed body and returns the status.
pub(crate) async fn post(sender: &Sender, url: &str, signature: &str, body: Bytes) -> Option<u16> {
    let request = hyper::Request::post(url)
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(Full::new(body))
        .ok()?;
    let answer = async {
        let answer = sender.request(request).await.ok()?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.ok()?;
        Some(status)
    };
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_time_and_body() {
        // Computed with `printf '%s' '12345.{}' | openssl dgst -sha256 -hmac whsec_test`.
        let one = signature(&["whsec_test".to_owned()], 12_345, b"{}");
        assert_eq!(one, format!("t=12345,v1={EXPECTED}"));
        let two = signature(&["a".to_owned(), "b".to_owned()], 1, b"");
        assert_eq!(two.matches(",v1=").count(), 2);
    }

    const EXPECTED: &str = "f7d0d6f2476273381fa231a8ba13a821a0c87029e7b1bfae51e93d0240fb7c32";
}

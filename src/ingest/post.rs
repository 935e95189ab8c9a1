//! `POST /usage`: request and response, independent of any framework.
//!
//! The body is one event or a list of them, in the shapes of [`UsageEvent`](super::UsageEvent). The
//! caller is a service of the host's, not a tenant: it presents the token of `[ingest]`.
//!
//! | status | when |
//! |---|---|
//! | 202 | every event is on record, by this call or an earlier one |
//! | 400 | the body is not JSON |
//! | 413 | it is longer than [`MAX_BODY`], or has more than 1,000 events |
//! | 401 | a missing or wrong token, or none configured in `[ingest]`; the body is not read |
//! | 422 | some events can never count; the others are on record |
//! | 503 | some events may count if the same body is sent again; none is counted twice |
//!
//! The answer has one result for each event, in their order:
//! `{"results":[{"id":"e1","status":"counted"},{"id":"e2","status":"duplicate"},
//! {"status":"refused","detail":".."},{"id":"e4","status":"retry","detail":".."}]}`. Where no event
//! was looked at (400, 401, 413) it is a problem (RFC 9457).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Counted, Ingest, MAX_EVENTS, NotCounted, UsageEvent};
use crate::wire::{Reply, plain_problem};

/// Longest body of `POST /usage`, in bytes: 1,000 events of 1 KiB.
pub const MAX_BODY: usize = 1024 * 1024;

impl Ingest {
    /// The answer to `POST /usage` with this `Authorization` and body; `None` for a body longer
    /// than 1 MiB, where an adapter stops reading. For adapters.
    pub async fn reply(&self, authorization: Option<&[u8]>, body: Option<&[u8]>) -> Reply {
        match self.refused(authorization) {
            Some(refused) => refused,
            None => self.reply_to_known(body).await,
        }
    }

    /// The answer to a `POST /usage` without the token of `[ingest]`; `None` if the token is right.
    /// An adapter calls it before it reads the body, so that it holds no bytes for an unknown
    /// client. For adapters.
    pub fn refused(&self, authorization: Option<&[u8]>) -> Option<Reply> {
        if self.knows(authorization) {
            return None;
        }
        let mut reply = plain_problem(
            401,
            "Unknown token",
            "Send the token of [ingest] as `Authorization: Bearer`.",
        );
        reply.headers.push(("www-authenticate", "Bearer".into()));
        Some(reply)
    }

    /// The same for a caller that has presented the token.
    pub(crate) async fn reply_to_known(&self, body: Option<&[u8]>) -> Reply {
        let Some(body) = body.filter(|body| body.len() <= MAX_BODY) else {
            let detail = "The body is longer than 1 MiB: send fewer events.";
            return plain_problem(413, "Body too long", detail);
        };
        let events = match serde_json::from_slice::<Value>(body) {
            Ok(Value::Array(events)) => events,
            Ok(event) => vec![event],
            Err(error) => {
                let detail = format!("The body is not JSON, at column {}.", error.column());
                return plain_problem(400, "Bad body", &detail);
            }
        };
        if events.len() > MAX_EVENTS {
            let detail = "There are more than 1,000 events: send them in parts.";
            return plain_problem(413, "Too many events", detail);
        }
        self.each(&events).await
    }

    async fn each(&self, events: &[Value]) -> Reply {
        let read = events.iter().map(|event| UsageEvent::read(event, self.products()));
        let read: Vec<Result<UsageEvent, _>> = read.collect();
        let legal: Vec<UsageEvent> = read.iter().flatten().cloned().collect();
        let mut counted = self.events(legal).await.into_iter();
        let mut status = 202;
        let result = |event: Result<UsageEvent, super::UnreadableEvent>| {
            let (id, answer) = match event {
                Ok(event) => {
                    let answer = counted.next().unwrap_or(Err(NotCounted::Unavailable));
                    (Some(event.id), answer)
                }
                Err(malformed) => (None, Err(malformed.into())),
            };
            let mut result = match answer {
                Ok(Counted::Now) => json!({ "status": "counted" }),
                Ok(Counted::Before) => json!({ "status": "duplicate" }),
                Err(why) => {
                    let again = why.is_retryable();
                    // Retryable events take precedence: then the whole body is sent again.
                    status = if again || status == 503 { 503 } else { 422 };
                    let word = if again { "retry" } else { "refused" };
                    json!({ "status": word, "detail": why.to_string() })
                }
            };
            if let Some(id) = id {
                result["id"] = id.into();
            }
            result
        };
        let results: Vec<Value> = read.into_iter().map(result).collect();
        let mut reply = json_reply(status, &json!({ "results": results }));
        if status == 503 {
            reply.headers.push(("retry-after", "1".into()));
        }
        reply
    }

    /// Compares hashes, so that timing reveals nothing of the token.
    fn knows(&self, authorization: Option<&[u8]>) -> bool {
        let Some(wanted) = self.0.inner.settings.ingest_token else {
            return false;
        };
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        token.is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == wanted)
    }
}

fn json_reply(status: u16, body: &Value) -> Reply {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
    ];
    Reply { status, headers, body: body.to_string().into_bytes() }
}

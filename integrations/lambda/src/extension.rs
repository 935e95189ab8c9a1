//! In-process Lambda extension: registers, then polls for events one after another ([Extensions
//! API]). The freeze, and shutdown, wait until it has asked for the next event.
//!
//! Uses the client that `lambda_runtime` already includes. `lambda-extension` would do the same but
//! adds servers for the logs and telemetry APIs, which cost a function 0.3 MB.
//!
//! [Extensions API]: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Limited};
use lambda_http::Error;
use lambda_runtime_api_client::body::Body;
use lambda_runtime_api_client::{PooledClient, build_request};
use serde_json::Value;

/// Header with the extension's id.
const ID: &str = "lambda-extension-identifier";

/// Limit on a response, in bytes: an event has a few hundred.
const MAX_ANSWER: usize = 64 * 1024;

/// A registered extension.
pub(crate) struct Extension {
    client: PooledClient,
    id: HeaderValue,
}

impl Extension {
    /// Registers for these events.
    ///
    /// # Errors
    ///
    /// Lambda cannot be reached, or rejects the registration, as it does where no such events
    /// exist.
    ///
    /// # Panics
    ///
    /// Without `AWS_LAMBDA_RUNTIME_API`.
    pub(crate) async fn register(name: &str, events: &[&str]) -> Result<Self, Error> {
        let client = PooledClient::builder().build();
        let events = serde_json::json!({ "events": events });
        let request = build_request()
            .method(Method::POST)
            .uri("/2020-01-01/extension/register")
            .header("lambda-extension-name", name)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(events.to_string()))?;
        let (id, _) = call(&client, request).await?;
        let id = id.ok_or("Lambda gave the extension no id")?;
        Ok(Self { client, id })
    }

    /// Waits for the next event, possibly for hours. Returns an invocation's deadline in Unix
    /// milliseconds, `None` for other events.
    pub(crate) async fn next(&self) -> Result<Option<u64>, Error> {
        let request = build_request()
            .uri("/2020-01-01/extension/event/next")
            .header(ID, &self.id)
            .body(Body::empty())?;
        let (_, event) = call(&self.client, request).await?;
        let event: Value = serde_json::from_slice(&event)?;
        deadline_of(&event)
    }
}

/// Fails if an invocation lacks its deadline: treated as no invocation, its flush would wait for
/// the next answer.
fn deadline_of(event: &Value) -> Result<Option<u64>, Error> {
    if event["eventType"] != "INVOKE" {
        return Ok(None);
    }
    let deadline_ms = event["deadlineMs"].as_u64();
    Ok(Some(deadline_ms.ok_or("Lambda sent an invocation without a deadline")?))
}

/// Id and body of a response. The body is read to its end, so that the connection is reused.
async fn call(
    client: &PooledClient,
    request: Request<Body>,
) -> Result<(Option<HeaderValue>, Bytes), Error> {
    let path = request.uri().path().to_owned();
    let (head, body) = client.call(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    if !head.status.is_success() {
        return Err(format!("{path}: Lambda answered {}", head.status).into());
    }
    Ok((head.headers.get(ID).cloned(), body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invocation_has_a_deadline_and_nothing_else_passes_for_one() {
        let told = json!({ "eventType": "INVOKE", "deadlineMs": 7, "requestId": "r" });
        assert_eq!(deadline_of(&told).unwrap(), Some(7));
        assert_eq!(
            deadline_of(&json!({ "eventType": "SHUTDOWN", "deadlineMs": 7 })).unwrap(),
            None
        );
        for broken in
            [json!({ "eventType": "INVOKE" }), json!({ "eventType": "INVOKE", "deadlineMs": "7" })]
        {
            assert!(deadline_of(&broken).is_err(), "{broken}");
        }
    }
}

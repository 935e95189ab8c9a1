//! An extension within the function's own process: it registers, and asks for one event after
//! another ([Extensions API]). The freeze, and the end, wait until it has asked for the next.
//!
//! Over the client that `lambda_runtime` has too. `lambda-extension` would do the same and brings
//! the servers of the logs and telemetry APIs, which a function pays for with 0.3 MB.
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

/// The header of an extension's own id.
const ID: &str = "lambda-extension-identifier";

/// Most bytes of an answer: an event has a few hundred.
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
    /// Lambda cannot be reached or says no, as it does where there are no such events.
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

    /// The next event: the deadline of an invocation, in milliseconds of Unix time; `None` for one
    /// of another kind. It may be hours away.
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

/// An invocation without a deadline must not pass for no invocation: its flush would wait for the
/// answer to the next.
fn deadline_of(event: &Value) -> Result<Option<u64>, Error> {
    if event["eventType"] != "INVOKE" {
        return Ok(None);
    }
    let deadline_ms = event["deadlineMs"].as_u64();
    Ok(Some(deadline_ms.ok_or("Lambda told of an invocation without its deadline")?))
}

/// The id and the body of an answer, read to its end so that its connection is used again.
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

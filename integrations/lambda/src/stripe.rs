//! Billing on Lambda: Stripe's webhook as one function, and the report to Stripe as another,
//! invoked by a schedule (feature `stripe`).
//!
//! A sandbox is frozen most of the time, and with it the task that reports in a server: a schedule
//! takes its place. Functions that only serve an API need no `[stripe]` in their service file and
//! no Stripe key: usage is in the table, where the reporting function finds it.
//!
//! # Laws
//!
//! 1. A webhook is verified over the bytes that Stripe sent: a body that the front door has encoded
//!    is decoded before its signature is checked, and none is parsed before that.
//! 2. Both functions may be invoked twice, concurrently, or cut off at any line.

use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use lambda_http::lambda_runtime::{LambdaEvent, Runtime, service_fn};
use lambda_http::{Body, Error};
use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::billing::report::Report;
use tallygate::wire::Reply;

use crate::flush::left_until;
use crate::run::{run, serve};

/// Serves a function that takes Stripe's webhooks, until SIGTERM has closed the gate: behind a
/// function URL, an API Gateway or a load balancer, at any path.
///
/// ```no_run
/// #[tokio::main]
/// async fn main() -> Result<(), lambda_http::Error> {
///     let gate = tallygate_lambda::builder("tallygate.toml").open().await?;
///     tallygate_lambda::run_stripe_webhook(&gate).await
/// }
/// ```
///
/// In the function of an axum API, merge the route `tallygate_axum::stripe_router` instead.
///
/// # Errors
///
/// As [`run`].
///
/// # Panics
///
/// As [`run`].
pub async fn run_stripe_webhook(gate: &Gate) -> Result<(), Error> {
    let webhooks = gate.clone();
    let take = service_fn(move |request: Request<Body>| {
        let gate = webhooks.clone();
        async move { Ok::<_, Infallible>(stripe_webhook(&gate, &request).await) }
    });
    run(gate, take).await
}

/// Takes one webhook: 200 once its effect is durable, 4xx if it is not genuine, 503 if Stripe
/// should send it again ([`Gate::stripe_webhook`]). For functions that have other routes.
///
/// ```
/// use lambda_http::http::StatusCode;
/// use lambda_http::{Body, Request, Response};
/// use tallygate::Gate;
///
/// async fn route(gate: &Gate, request: Request) -> Response<Body> {
///     if request.uri().path() == "/webhooks/stripe" {
///         return tallygate_lambda::stripe_webhook(gate, &request).await;
///     }
///     let mut answer = Response::default();
///     *answer.status_mut() = StatusCode::NOT_FOUND;
///     answer
/// }
/// ```
pub async fn stripe_webhook(gate: &Gate, request: &Request<Body>) -> Response<Body> {
    let signature = request.headers().get("stripe-signature");
    let signature = signature.map_or(&b""[..], HeaderValue::as_bytes);
    // `lambda_http` has undone the front door's encoding.
    response(gate.stripe_webhook(signature, request.body()).await)
}

/// Serves a function that reports to Stripe at every invocation, until SIGTERM has closed the gate.
/// Let an EventBridge schedule invoke it as often as `stripe.report-every` would.
///
/// ```no_run
/// #[tokio::main]
/// async fn main() -> Result<(), lambda_http::Error> {
///     let gate = tallygate_lambda::builder("tallygate.toml").open().await?;
///     tallygate_lambda::run_stripe_report(&gate).await
/// }
/// ```
///
/// A report that the function's timeout would cut off fails before that; the next one continues
/// with the rest.
///
/// # Errors
///
/// As [`run`].
///
/// # Panics
///
/// As [`run`].
pub async fn run_stripe_report(gate: &Gate) -> Result<(), Error> {
    let reporting = gate.clone();
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let gate = reporting.clone();
        async move { report_within(&gate, left_until(event.context.deadline)).await }
    });
    serve(gate, Runtime::new(handler)).await
}

/// Sends everything owed by now to Stripe ([`Gate::report_now`]), and summarizes it. For functions
/// that do more than this.
///
/// The summary is `{"sent", "units", "verified", "open", "stopped", "doubtful", "too_old"}`, all
/// counts; the last three need an operator ([`Gate::audit`] lists the entries) and are also logged
/// as an error.
///
/// # Errors
///
/// Nothing could be sent, or an item was not finished: a retry may succeed, and Lambda retries
/// scheduled invocations.
pub async fn stripe_report(gate: &Gate) -> Result<Value, Error> {
    let Report { sent, units, verified, open, stopped, doubtful, too_old, failed, .. } =
        gate.report_now().await?;
    let (stopped, doubtful, too_old) = (stopped.len(), doubtful.len(), too_old.len());
    if stopped + doubtful + too_old > 0 {
        tracing::error!(stopped, doubtful, too_old, "entries at Stripe wait for an operator");
    }
    if let Some((_, why)) = failed.first() {
        let items = failed.len();
        return Err(format!("sent {sent}, and {items} items failed, the first: {why}").into());
    }
    Ok(json!({
        "sent": sent, "units": units, "verified": verified, "open": open,
        "stopped": stopped, "doubtful": doubtful, "too_old": too_old,
    }))
}

async fn report_within(gate: &Gate, within: Duration) -> Result<Value, Error> {
    let reported = tokio::time::timeout(within, stripe_report(gate)).await;
    reported.unwrap_or_else(|_| Err("out of time: the next report goes on with it".into()))
}

/// The gate's reply as a response.
fn response(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use tallygate::GateBuilder;
    use tallygate::store::Memory;

    use super::*;

    #[tokio::test]
    async fn a_report_that_has_no_time_left_is_an_error_before_it_is_killed() {
        // Accepts connections and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("key");
        std::fs::write(&key, "sk_test_x").unwrap();
        let service = format!(
            "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-tenant\"\n\
             [proxy]\ntrust = [\"127.0.0.0/8\"]\n[flush]\nmode = \"fast\"\n\
             [stripe]\nkey = {{ file = \"{}\" }}\napi-base = \"http://{}\"\n",
            key.display(),
            silent.local_addr().unwrap(),
        );
        let plans = "default-plan = \"a\"\n[plan.a]\n";
        let builder = GateBuilder::from_text(&service).plans(plans).store(Memory::new());
        let gate = builder.open().await.unwrap();
        let late = report_within(&gate, Duration::from_millis(50)).await.unwrap_err();
        assert!(late.to_string().contains("out of time"), "{late}");
    }
}

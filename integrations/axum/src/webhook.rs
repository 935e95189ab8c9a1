//! The route that Stripe calls: it identifies nobody, and is genuine by its signature alone.

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use tallygate::Gate;
use tallygate::billing::webhook::MAX_BODY;

use crate::routes::{gated_fallback, response};

/// `POST /webhooks/stripe`: what to enter at Stripe as the endpoint is this path of your host.
///
/// Merge it **after** `.layer(GateLayer::new(&gate))`, as
/// [`usage_router`](crate::usage_router). Merged before, the plan file must name the route, or
/// Stripe is a caller like any other:
///
/// ```toml
/// [route.stripe]
/// match = "POST /webhooks/stripe"
/// auth  = "none"
/// ```
///
/// For another path write a handler around [`Gate::stripe_webhook`], which wants the raw body.
pub fn stripe_router<S: Clone + Send + Sync + 'static>(gate: &Gate) -> Router<S> {
    let router = gated_fallback(gate);
    let gate = gate.clone();
    router.route("/webhooks/stripe", post(move |request| take(gate, request)))
}

async fn take(gate: Gate, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Too long, or broken off, where nobody hears the answer.
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let signature = parts.headers.get("stripe-signature").map_or(&b""[..], |v| v.as_bytes());
    response(gate.stripe_webhook(signature, &body).await)
}

//! Stripe's webhook route: not identified by a credential, but authenticated by its signature.

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use tallygate::Gate;
use tallygate::billing::webhook::MAX_BODY;

use crate::GateLayer;
use crate::routes::{gated_fallback, response};

/// The route `POST /webhooks/stripe` for Stripe's webhooks: enter this path of your host as the
/// endpoint at Stripe. `docs/billing.md` lists the events to subscribe to.
///
/// Merge it **after** `.layer(GateLayer::new(&gate))`, as [`usage_router`](crate::usage_router). If
/// it is merged before, the plan file must name the route; otherwise Stripe is an ordinary caller:
///
/// ```toml
/// [route.stripe]
/// match = "POST /webhooks/stripe"
/// auth  = "none"
/// ```
///
/// For another path, write a handler around [`Gate::stripe_webhook`], which needs the raw body.
///
/// It takes the gate or the layer, as [`usage_router`](crate::usage_router) does.
pub fn stripe_router<S: Clone + Send + Sync + 'static>(gate: impl Into<GateLayer>) -> Router<S> {
    let layer = gate.into();
    let gate = layer.gate().clone();
    let router = gated_fallback(layer);
    router.route("/webhooks/stripe", post(move |request| take(gate, request)))
}

async fn take(gate: Gate, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Too long, or broken off, in which case the client is gone.
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let signature = parts.headers.get("stripe-signature").map_or(&b""[..], |v| v.as_bytes());
    response(gate.stripe_webhook(signature, &body).await)
}

//! Stripe's webhook route, and a demo route that reports on request.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tallygate::Gate;
use tallygate_axum::stripe_router;

use crate::stripe;

/// `POST /webhooks/stripe`, and `POST /demo/report`, which sends what is owed now.
pub(crate) fn routes(gate: &Gate) -> Router {
    if !stripe::is_on() {
        return Router::new();
    }
    let report = Router::new().route("/demo/report", post(report)).with_state(gate.clone());
    stripe_router(gate).merge(report)
}

async fn report(State(gate): State<Gate>) -> (StatusCode, Json<Value>) {
    match stripe::report(&gate).await {
        Ok(sent) => (StatusCode::OK, Json(sent)),
        Err(error) => (StatusCode::BAD_GATEWAY, Json(error)),
    }
}

//! docs/operations.md.

use axum::extract::State;
use axum::http::StatusCode;
use tallygate::Gate;

async fn ready(State(gate): State<Gate>) -> (StatusCode, String) {
    let health = gate.health();
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health.to_string()) // `healthy`, or a line for each trouble
}

//! docs/plans.md.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use tallygate::{Error, Gate};
use tallygate_axum::{GateLayer, Usage};

fn meters(gate: Gate, usage: Usage) -> Result<(), Error> {
    let tokens = gate.meter("output-tokens")?;
    usage.add(&tokens, 412);
    Ok(())
}

fn routes(gate: Gate) -> Result<(), Error> {
    const ROUTES: [&str; 2] = ["POST /v1/chat", "GET /files/{*path}"];
    gate.check_routes(ROUTES)?;
    Ok(())
}

async fn chat() {}

async fn search() {}

async fn session(request: Request, next: Next) -> Response {
    next.run(request).await
}

fn named(gate: Gate) -> Result<Router, Error> {
    let authenticate = from_fn(session);
    let chat = post(chat).layer(GateLayer::new(&gate).route("chat")?);
    let app = Router::new()
        .route("/v1/search", get(search))
        .layer(GateLayer::new(&gate))
        .route("/v1/chat", chat)
        .layer(authenticate);
    Ok(app)
}

//! Chat completions, streamed as server-sent events and charged by the token.

use std::error::Error;

use axum::Router;
use axum::routing::post;
use tallygate_axum::tallygate::Gate;
use tallygate_axum::{GateLayer, serve, usage_router};
use tokio::net::TcpListener;

use crate::chat::Chat;

mod at_the_end;
mod chat;
mod demo;
mod provider;

/// The routes that the plan file may name.
const ROUTES: [&str; 2] = ["POST /v1/chat", "POST /demo/at-the-end"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    demo::log();
    let gate = Gate::open("tallygate.toml").await?;
    gate.check_routes(ROUTES)?;
    let chat = Chat::new(&gate)?; // checks the names of its meters
    demo::seed(&gate).await?;

    let app = Router::new()
        .route("/v1/chat", post(chat::chat))
        .route("/demo/at-the-end", post(at_the_end::chat))
        .with_state(chat)
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate));
    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, app, &gate).await?; // at its end, streams that are open have 20 s
    Ok(())
}

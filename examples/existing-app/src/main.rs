//! A service for notes, with users of its own: `before.rs` as it was, `main.rs` with plans.

use std::error::Error;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, Response};
use axum::routing::{any, get, post};
use tallygate_axum::tallygate::Gate;
use tallygate_axum::{Caller, GateLayer, Usage, usage_router};
use tower_http::trace::TraceLayer;

use crate::tables::Tables;

mod notes;
mod serving;
mod sessions;
mod tables;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    serving::log();
    let gate = Gate::open("tallygate.toml").await?;
    let listener = serving::listen().await?;
    serving::run(listener, app(Tables::demo(), &gate)).await?;
    gate.close().await?;
    Ok(())
}

fn app(tables: Tables, gate: &Gate) -> Router {
    let gate = GateLayer::new(gate).caller(|extensions| {
        let user = extensions.get::<tables::User>()?;
        Some(Caller::new(&user.organisation).user(&user.name).plan(&user.plan))
    });
    let api = Router::new()
        .route("/me", get(sessions::me))
        .route("/upgrade", post(sessions::upgrade))
        .nest("/notes", notes::routes())
        .route("/events", get(notes::events))
        .route("/ws", any(ws))
        .fallback(not_found)
        .layer(gate.clone())
        .merge(usage_router(&gate))
        .layer(from_fn_with_state(tables.clone(), sessions::require));
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/healthz", get("ok\n"))
        .route("/login", post(sessions::log_in))
        .nest("/api", api)
        .fallback(not_found)
        .layer(serving::cors())
        .layer(TraceLayer::new_for_http())
        .with_state(tables)
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there is nothing here\n")
}

async fn ws(usage: Usage, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| echo(socket, usage))
}

/// Sends back what comes, until the client goes away.
async fn echo(mut socket: WebSocket, usage: Usage) {
    while let Some(Ok(message)) = socket.recv().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue; // axum answers pings and the close by itself
        }
        if usage.take("messages", 1).await.is_err() {
            return;
        }
        usage.add("messages", 1); // before the send: a client that leaves meanwhile had the work
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

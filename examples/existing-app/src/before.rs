//! A service for notes, with users of its own: `before.rs` as it was, `main.rs` with plans.

use std::error::Error;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, Response};
use axum::routing::{any, get, post};
use tower_http::trace::TraceLayer;

use crate::tables::Tables;

mod notes;
mod serving;
mod sessions;
mod tables;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    serving::log();
    let listener = serving::listen().await?;
    serving::run(listener, app(Tables::demo())).await?;
    Ok(())
}

fn app(tables: Tables) -> Router {
    let api = Router::new()
        .route("/me", get(sessions::me))
        .route("/upgrade", post(sessions::upgrade))
        .nest("/notes", notes::routes())
        .route("/events", get(notes::events))
        .route("/ws", any(ws))
        .fallback(not_found)
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

async fn ws(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

/// Sends back what comes, until the client goes away.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue; // axum answers pings and the close by itself
        }
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

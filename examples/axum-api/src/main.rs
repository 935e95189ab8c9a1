//! A sellable API behind tallygate, in one file.
//!
//! Runs in the folder of its `tallygate.toml`: this example's when started by cargo, else the
//! current one. `PORT` (3000) and `PLANS` (another plan file) are read from the environment, and so
//! is every key of `tallygate.toml` (`TALLYGATE__STORE__PATH=..`).

use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tallygate::Gate;
use tallygate_axum::{GateLayer, Plan, Tenant, admin_router, serve, usage_router};
use tokio::net::TcpListener;

#[cfg(test)]
mod allocations;
#[cfg(feature = "stripe")]
mod billing;
mod demo;
#[cfg(feature = "stripe")]
mod stripe;
#[cfg(feature = "dynamodb")]
mod table;

/// Limit on the chunks of one streamed response.
const MAX_CHUNKS: usize = 100_000;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum-api cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    demo::log();
    let plans = std::env::var_os("PLANS").map(std::path::absolute).transpose()?;
    demo::go_home()?;

    let mut builder = Gate::builder("tallygate.toml");
    if let Some(plans) = plans {
        builder = builder.plans_file(plans);
    }
    #[cfg(feature = "dynamodb")]
    let builder = table::hand_in(builder).await?;
    #[cfg(feature = "stripe")]
    let builder = stripe::hand_in(builder);
    let gate = builder.open().await?;
    demo::seed(&gate).await?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?.to_string();
    demo::print_tour(&address);
    demo::print_operator(&gate, &address).await?;
    #[cfg(feature = "stripe")]
    stripe::seed(&gate).await?;
    serve(listener, app(&gate), &gate).await?; // at its end usage is in the store, leases are back
    Ok(())
}

fn app(gate: &Gate) -> Router {
    let app = routes().layer(GateLayer::new(gate)).merge(usage_router(gate));
    let app = app.nest("/admin", admin_router(gate)); // the console, for operators' tokens
    #[cfg(feature = "stripe")]
    let app = app.merge(billing::routes(gate)); // POST /webhooks/stripe
    app
}

fn routes() -> Router {
    Router::new()
        .route("/v1/search", get(search))
        .route("/v1/accounts/{account}/exports", post(export))
        .route("/v1/upload", post(upload))
        .route("/v1/stream", get(stream))
        .route("/healthz", get(async || "ok\n"))
        // Named here, so that it stays behind the gate whatever is merged after the layer.
        .fallback(async || StatusCode::NOT_FOUND)
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

async fn search(tenant: Tenant, plan: Plan, Query(search): Query<Search>) -> Json<Value> {
    let found = format!("{} is a word", search.q);
    Json(json!({ "tenant": &*tenant, "plan": &*plan.name, "results": [found] }))
}

async fn export(tenant: Tenant, Path(account): Path<String>) -> (StatusCode, Json<Value>) {
    let body = json!({ "tenant": &*tenant, "account": account, "export": "started" });
    (StatusCode::ACCEPTED, Json(body))
}

async fn upload(tenant: Tenant, body: Bytes) -> Json<Value> {
    Json(json!({ "tenant": &*tenant, "received": body.len() }))
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default = "Stream::one")]
    chunks: usize,
}

impl Stream {
    fn one() -> usize {
        1
    }
}

/// Lines of 1 kB. They are counted as they leave, so a disconnecting client pays for what it got.
async fn stream(Query(Stream { chunks }): Query<Stream>) -> Body {
    let line = Bytes::from(".".repeat(999) + "\n");
    let lines = std::iter::repeat_n(line, chunks.min(MAX_CHUNKS));
    Body::from_stream(tokio_stream::iter(lines.map(Ok::<_, Infallible>)))
}

//! The API of `axum-api` as a Lambda function: the same router, layer and plans.
//!
//! `--seed` creates the table and the demo's tenants, and exits. Without it this is a function,
//! which needs the environment that Lambda, or AWS's emulator of it, gives a `bootstrap`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::store::DynamoDb;
use tallygate_axum::{GateLayer, Plan, Tenant, usage_router};

mod demo;

/// Limit on the chunks of one response: a function returns at most 6 MB in one piece.
const MAX_CHUNKS: usize = 5_000;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    demo::log();
    let seed = std::env::args().any(|arg| arg == "--seed");
    let gate = open(seed).await?;
    if seed {
        demo::seed(&gate).await?;
        gate.close().await?;
        return Ok(());
    }
    if std::env::var_os("RESPONSE_STREAM").is_some() {
        // Behind a front door that takes answers piece by piece, as template.yaml's function URL.
        return tallygate_lambda::run_streaming(&gate, app(&gate)).await;
    }
    tallygate_lambda::run(&gate, app(&gate)).await
}

/// Opens the gate on the table named in `tallygate.toml`.
async fn open(create_table: bool) -> Result<Gate, Error> {
    let builder = tallygate_lambda::builder("tallygate.toml");
    let Some(table) = builder.dynamodb_table()? else {
        return Err("sandboxes share no file: write [store] kind = \"dynamodb\"".into());
    };
    let client = tallygate_lambda::dynamodb_client()?;
    if create_table {
        DynamoDb::create_table(&client, &table, None).await?;
    }
    Ok(builder.store(DynamoDb::new(client, table)).open().await?)
}

fn app(gate: &Gate) -> Router {
    Router::new()
        .route("/v1/search", get(search))
        .route("/v1/accounts/{account}/exports", post(export))
        .route("/v1/upload", post(upload))
        .route("/v1/stream", get(stream))
        .route("/healthz", get(async || "ok\n"))
        .layer(GateLayer::new(gate))
        .merge(usage_router(gate))
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

/// Lines of 1 kB, counted as they leave.
async fn stream(Query(Stream { chunks }): Query<Stream>) -> Body {
    let line = Bytes::from(".".repeat(999) + "\n");
    let lines = std::iter::repeat_n(line, chunks.min(MAX_CHUNKS));
    Body::from_stream(tokio_stream::iter(lines.map(Ok::<_, Infallible>)))
}

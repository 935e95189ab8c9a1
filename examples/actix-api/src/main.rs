//! A sellable API behind tallygate, in one file: `axum-api` again, in actix-web.
//!
//! Runs in the folder of its `tallygate.toml`: this example's when started by cargo, else the
//! current one. `PORT` (3000) and `PLANS` (another plan file) are read from the environment, and so
//! is every key of `tallygate.toml` (`TALLYGATE__STORE__PATH=..`).

use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;

use actix_web::web::{self, Bytes, Json, Path, PayloadConfig, Query, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer};
use serde::Deserialize;
use serde_json::{Value, json};
use tallygate::Gate;
use tallygate_actix_web::{GateMiddleware, Plan, Tenant, admin_routes, usage_routes};

#[cfg(feature = "stripe")]
mod billing;
#[path = "../../axum-api/src/demo.rs"]
mod demo;
#[cfg(feature = "stripe")]
#[path = "../../axum-api/src/stripe.rs"]
mod stripe;

/// Time for requests in flight after SIGTERM: less than the 30 s that platforms grant.
const DRAIN_SECONDS: u64 = 20;

/// Limit on the chunks of one streamed response.
const MAX_CHUNKS: usize = 100_000;

/// Limit on one upload, in bytes.
const MAX_UPLOAD: usize = 2 * 1024 * 1024;

#[actix_web::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actix-api cannot run: {error}");
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
    #[cfg(feature = "stripe")]
    let builder = stripe::hand_in(builder);
    let gate = builder.open().await?;
    demo::seed(&gate).await?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse::<u16>())?;
    serve(&gate, port).await?;
    gate.close().await?; // usage is in the file, leases are given back
    Ok(())
}

/// Serves until ctrl-c, or until the SIGTERM that platforms stop a process with; then finishes the
/// requests in flight.
async fn serve(gate: &Gate, port: u16) -> Result<(), Box<dyn Error>> {
    let shared = gate.clone();
    let app = move || {
        let app = App::new()
            .wrap(GateMiddleware::new(&shared)) // one gate, shared by all workers
            .configure(usage_routes(&shared))
            .configure(admin_routes(&shared, "/admin")) // the console, for operators' tokens
            .configure(api);
        #[cfg(feature = "stripe")]
        let app = app.configure(billing::routes(&shared)); // POST /webhooks/stripe
        app
    };
    let server = HttpServer::new(app)
        .shutdown_timeout(DRAIN_SECONDS)
        .tcp_nodelay(true) // small answers go out at once
        .h1_allow_half_closed(false) // notices a disconnected client at once
        .bind(("127.0.0.1", port))?;
    for address in server.addrs() {
        demo::print_tour(&address.to_string());
        demo::print_operator(gate, &address.to_string()).await?;
    }
    #[cfg(feature = "stripe")]
    stripe::seed(gate).await?;
    server.run().await?;
    Ok(())
}

fn api(config: &mut ServiceConfig) {
    config
        .app_data(PayloadConfig::new(MAX_UPLOAD))
        .route("/v1/search", web::get().to(search))
        .route("/v1/search", web::head().to(search))
        .route("/v1/accounts/{account}/exports", web::post().to(export))
        .route("/v1/upload", web::post().to(upload))
        .route("/v1/stream", web::get().to(stream))
        .route("/healthz", web::get().to(async || "ok\n"));
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

async fn search(tenant: Tenant, plan: Plan, search: Query<Search>) -> Json<Value> {
    let found = format!("{} is a word", search.q);
    Json(json!({ "tenant": &*tenant, "plan": &*plan.name, "results": [found] }))
}

async fn export(tenant: Tenant, account: Path<String>) -> HttpResponse {
    let body = json!({ "tenant": &*tenant, "account": *account, "export": "started" });
    HttpResponse::Accepted().json(body)
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
async fn stream(wanted: Query<Stream>) -> HttpResponse {
    let line = Bytes::from(".".repeat(999) + "\n");
    let lines = std::iter::repeat_n(line, wanted.chunks.min(MAX_CHUNKS));
    HttpResponse::Ok().streaming(tokio_stream::iter(lines.map(Ok::<_, Infallible>)))
}

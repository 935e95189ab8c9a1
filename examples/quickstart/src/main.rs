//! The README's program: an axum router, a gate in front, one more route.

use axum::Router;
use axum::routing::get;
use tallygate_axum::tallygate::Gate;
use tallygate_axum::{GateLayer, Tenant, serve, usage_router};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gate = Gate::open("tallygate.toml").await?; // a missing one is empty
    let acme = gate.directory().tenant("acme").save().await?;
    if let Some(key) = acme.ensure_key("laptop").await? {
        println!("{}", key.expose()); // shown once, stored as a hash
    }

    let app = Router::new()
        .route("/v1/hello", get(hello))
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate)); // GET /usage, its history, a page for people
    let port = std::env::var("PORT").unwrap_or("3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    serve(listener, app, &gate).await?; // until ctrl-c or SIGTERM; drains, then closes the gate
    Ok(())
}

async fn hello(tenant: Tenant) -> String {
    format!("hello {tenant}\n")
}

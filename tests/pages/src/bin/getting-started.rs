//! The program of docs/getting-started.md: README's, which bills.

use axum::Router;
use axum::routing::get;
use tallygate_axum::tallygate::Gate;
use tallygate_axum::{GateLayer, Tenant, serve, stripe_router, usage_router};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gate = Gate::open("tallygate.toml").await?;
    let acme = gate.directory().tenant("acme").save().await?;
    if let Some(key) = acme.ensure_key("laptop").await? {
        println!("{}", key.expose());
    }
    println!("{}", gate.ensure_customer("acme").await?); // made at Stripe once, and linked

    let app = Router::new()
        .route("/v1/hello", get(hello))
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate))
        .merge(stripe_router(&gate)); // POST /webhooks/stripe
    let port = std::env::var("PORT").unwrap_or("3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    serve(listener, app, &gate).await?; // at its end what is owed is sent
    Ok(())
}

async fn hello(tenant: Tenant) -> String {
    format!("hello {tenant}\n")
}

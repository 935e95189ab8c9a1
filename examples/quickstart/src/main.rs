//! The lines of the README as a program: an axum router, a gate in front, one more route.

use axum::Router;
use axum::routing::get;
use tollgate::Gate;
use tollgate_axum::{Tenant, TollgateLayer, usage_router};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gate = Gate::open("tollgate.toml").await?;
    let tenant = gate.directory().tenant("acme").note("first customer");
    let key = tenant.save().await?.new_key("laptop").await?; // shown once, stored as a hash
    println!("curl -i localhost:3000/v1/hello -H 'x-api-key: {}'", key.expose());

    let app = Router::new()
        .route("/v1/hello", get(hello))
        .layer(TollgateLayer::new(&gate))
        .merge(usage_router(&gate));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    gate.close().await?; // flushes what was counted, gives leases back
    Ok(())
}

async fn hello(tenant: Tenant) -> String {
    format!("hello {tenant}\n")
}

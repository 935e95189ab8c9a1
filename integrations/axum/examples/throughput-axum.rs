//! A server that says one word, bare or behind a gate: what `benches/throughput/run` measures.
//! Runs where `tollgate.toml` is, on one worker, and prints its address.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tollgate::Gate;
use tollgate_axum::TollgateLayer;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_gated = std::env::args().nth(1).is_some_and(|word| word == "gated");
    let gate = Gate::open("tollgate.toml").await?;
    let app = Router::new().route("/", get(async || "found"));
    let app = if is_gated { app.layer(TollgateLayer::new(&gate)) } else { app };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, app).await?)
}

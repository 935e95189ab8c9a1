//! A server that says one word, `bare`, `gated`, or behind a gate that is `silent` (it writes no
//! limit headers): what `benches/throughput/run` measures. Runs where `tallygate.toml` is, on one
//! worker, and prints its address.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tallygate::Gate;
use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate_axum::GateLayer;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let how = std::env::args().nth(1).unwrap_or_default();
    let style = if how == "silent" { HeaderStyle::Off } else { HeaderStyle::Draft11 };
    let wire = WireOptions { style, ..WireOptions::default() };
    let gate = Gate::builder("tallygate.toml").wire(wire).open().await?;
    let app = Router::new().route("/", get(async || "found"));
    let app = if how == "bare" { app } else { app.layer(GateLayer::new(&gate)) };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, app).await?)
}

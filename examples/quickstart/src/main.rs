//! The README's example as a program: an axum router, a gate in front, one more route.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use tallygate::Gate;
use tallygate_axum::{GateLayer, Tenant, usage_router};
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init(); // a broken plan file is logged
    let gate = Gate::open("tallygate.toml").await?;
    let acme = gate.directory().tenant("acme").note("first customer").save().await?;
    if acme.keys().await?.is_empty() {
        println!("{}", acme.new_key("laptop").await?.expose()); // shown once, stored as a hash
    }

    let app = Router::new()
        .route("/v1/hello", get(hello))
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate)); // GET /usage, its history, a page for people
    let port = std::env::var("PORT").unwrap_or("3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let listener = listener.tap_io(|it| drop(it.set_nodelay(true))); // small answers go out at once
    let mut term = signal(SignalKind::terminate())?; // as docker and Kubernetes send it
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        tokio::select! { _ = ctrl_c() => {}, _ = term.recv() => {} }
        let _ = stopping.send(());
    };
    let late = async {
        let _ = stopped.await;
        sleep(Duration::from_secs(20)).await; // then what is still open is cut
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(stop);
    tokio::select! { served = server => served?, () = late => {} }
    gate.close().await?; // flushes what was counted, gives leases back
    Ok(())
}

async fn hello(tenant: Tenant) -> String {
    format!("hello {tenant}\n")
}

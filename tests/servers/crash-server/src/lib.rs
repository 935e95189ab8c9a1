//! Shared parts of the servers that are killed in tests: their table, and how they serve.
//!
//! The table is in the tests' DynamoDB, at `AWS_ENDPOINT_URL_DYNAMODB` and without TLS.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::serve::ListenerExt;
use tallygate::store::DynamoDb;
use test_support::dynamodb::client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The table of this name, at the endpoint set in the environment.
///
/// # Errors
///
/// If it is not set.
pub fn table(name: &str) -> Result<DynamoDb, std::env::VarError> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_DYNAMODB")?;
    Ok(DynamoDb::new(client(&endpoint), name))
}

/// Serves on a free loopback port, which is printed, until SIGTERM; earlier requests are answered
/// first.
///
/// # Errors
///
/// If there is no port, or SIGTERM cannot be handled.
pub async fn serve(app: Router) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    // Without it a small answer may wait for the acknowledgement of the previous one.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let mut term = signal(SignalKind::terminate())?;
    let stop = async move {
        term.recv().await;
    };
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    Ok(())
}

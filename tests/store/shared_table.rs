//! A DynamoDB within the test's process, and clients without TLS.

use std::io;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};

/// Serves this database on a free port for as long as the test's runtime lives.
pub(crate) async fn serve(db: dynoxide::Database) -> io::Result<String> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(dynoxide::server::serve_on(listener, db));
    Ok(format!("http://{address}"))
}

/// A client of this endpoint.
pub(crate) fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("x", "y", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

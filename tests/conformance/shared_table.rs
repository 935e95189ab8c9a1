//! A DynamoDB table for tests: clients without TLS, and what only a table can be asked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use tollgate::store::DynamoDb;

use crate::Subject;

/// Serves this database on a free port, as long as the test's runtime lives.
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

/// A new table there.
pub(crate) async fn subject(endpoint: &str, table: &str) -> Result<Subject, String> {
    let client = client(endpoint);
    let made = DynamoDb::create_table(&client, table, None).await;
    made.map_err(|error| error.to_string())?;
    let table = table.to_owned();
    // A thousand writes at once on a busy machine take longer than the service ever does.
    let patient = Duration::from_secs(60);
    let open = move || DynamoDb::new(client.clone(), table.clone()).within(patient);
    Ok(Subject::new(move || Arc::new(open())))
}

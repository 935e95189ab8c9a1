//! A DynamoDB within the test's process.

use std::io;

/// Serves this database on a free port for as long as the test's runtime lives.
pub(crate) async fn serve(db: dynoxide::Database) -> io::Result<String> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(dynoxide::server::serve_on(listener, db));
    Ok(format!("http://{address}"))
}

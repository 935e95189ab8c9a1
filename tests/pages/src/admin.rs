//! docs/admin.md: the operator's routes.

use axum::Router;
use tallygate::Gate;
use tallygate::directory::Role;
use tallygate_axum::{GateLayer, admin_router, admin_socket, serve};
use tokio::net::TcpListener;

/// The API, with the operator's routes under `/admin`.
pub fn with_admin(gate: &Gate, api: Router) -> Router {
    api.layer(GateLayer::new(gate)).nest("/admin", admin_router(gate))
}

/// Serves the API, and the operator's routes on a unix socket for the command `tallygate`.
pub async fn serve_with_socket(gate: &Gate, api: Router) -> Result<(), Box<dyn std::error::Error>> {
    let socket = admin_socket(gate, "/run/acme/tallygate.sock").await?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    serve(listener, api, gate).await?; // closes the gate, with which the socket ends
    socket.close().await;
    Ok(())
}

/// Prints a new operator's token.
async fn print_token(gate: &Gate) -> Result<(), Box<dyn std::error::Error>> {
    let token = gate.directory().new_operator("kim@example.com", Role::Write).await?;
    println!("your token, shown once: {}", token.expose());
    Ok(())
}

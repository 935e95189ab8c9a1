//! docs/admin.md: the operator's routes.

use axum::Router;
use tallygate::Gate;
use tallygate::directory::Role;
use tallygate_axum::{GateLayer, admin_router};

/// The API, with the operator's routes under `/admin`.
pub fn with_admin(gate: &Gate, api: Router) -> Router {
    api.layer(GateLayer::new(gate)).nest("/admin", admin_router(gate))
}

/// Prints a new operator's token.
async fn print_token(gate: &Gate) -> Result<(), Box<dyn std::error::Error>> {
    let token = gate.directory().new_operator("kim@example.com", Role::Write).await?;
    println!("your token, shown once: {}", token.expose());
    Ok(())
}

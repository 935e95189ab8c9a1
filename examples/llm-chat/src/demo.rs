//! Demo parts that would not be in your service: tenants with well-known keys.

use std::error::Error;

use sha2::{Digest, Sha256};
use tallygate_axum::tallygate::Gate;
use tallygate_axum::tallygate::directory::Grant;
use tracing_subscriber::EnvFilter;

/// Logs to stderr; `RUST_LOG` sets the level.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}

/// Creates a tenant on each plan, once: your later changes to them stay.
pub(crate) async fn seed(gate: &Gate) -> Result<(), Box<dyn Error>> {
    for plan in ["free", "pro", "prepaid"] {
        let id = format!("{plan}-co");
        if gate.directory().find(&id).await?.is_some() {
            continue;
        }
        let mut tenant = gate.directory().tenant(&id).plan(plan);
        if plan == "prepaid" {
            // Yours is paid for: a `[topup]`, through Stripe or your own checkout.
            tenant = tenant.grant(Grant::new("welcome", "credits", 4));
        }
        // Yours come from `tenant.ensure_key(name)`: random, shown once.
        let hash = Sha256::digest(format!("tg_demo_{plan}"));
        tenant.save().await?.import_key_sha256("demo", hash.into()).await?;
    }
    Ok(())
}

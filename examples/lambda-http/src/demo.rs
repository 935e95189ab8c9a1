//! Demo parts that would not be in your function: tenants with well-known keys.

use sha2::{Digest, Sha256};
use tallygate::Gate;
use tallygate::directory::PaymentState;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::Error;

/// Logs to stderr, where Lambda collects it; `RUST_LOG` sets the level.
pub(crate) fn log() {
    let said = std::env::var("RUST_LOG").ok().and_then(|said| said.parse::<Targets>().ok());
    let filter = said.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time(); // Lambda stamps each line
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// Creates the demo's tenants, each once: your later changes to them stay.
pub(crate) async fn seed(gate: &Gate) -> Result<(), Error> {
    let tenants = [
        ("acme", Some("team"), PaymentState::Good),
        ("solo", None, PaymentState::Good),
        ("late", Some("team"), PaymentState::Unpaid),
    ];
    for (id, plan, payment) in tenants {
        if gate.directory().find(id).await?.is_some() {
            continue;
        }
        let tenant = gate.directory().tenant(id).payment(payment).note("demo");
        let tenant = match plan {
            Some(plan) => tenant.plan(plan).save().await?,
            None => tenant.save().await?,
        };
        // Yours come from `tenant.new_key(name)`: random, shown once.
        let hash = Sha256::digest(format!("tg_demo_{id}"));
        tenant.import_key_sha256("demo", hash.into()).await?;
    }
    Ok(())
}

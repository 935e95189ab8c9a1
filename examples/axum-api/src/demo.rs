//! Demo parts that would not be in your API: tenants with well-known keys, and a tour printed at
//! startup. `actix-api` is the same demo.

use std::error::Error;

use sha2::{Digest, Sha256};
use tallygate::Gate;
use tallygate::directory::{PaymentState, Role};
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

/// Changes to this example's folder if run by cargo, so that it finds its files from anywhere.
pub(crate) fn go_home() -> std::io::Result<()> {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(home) => std::env::set_current_dir(home),
        None => Ok(()),
    }
}

/// Creates the demo's tenants, each once: your later changes to them stay.
pub(crate) async fn seed(gate: &Gate) -> Result<(), Box<dyn Error>> {
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
        #[cfg(feature = "stripe")]
        let tenant = crate::stripe::begun_yesterday(tenant);
        let tenant = match plan {
            Some(plan) => tenant.plan(plan).save().await?,
            None => tenant.save().await?,
        };
        // Yours come from `tenant.ensure_key(name)`: random, shown once.
        let hash = Sha256::digest(format!("tg_demo_{id}"));
        tenant.import_key_sha256("demo", hash.into()).await?;
    }
    Ok(())
}

/// Makes an operator once, and prints the token: what the store keeps is a hash.
pub(crate) async fn print_operator(gate: &Gate, address: &str) -> Result<(), Box<dyn Error>> {
    if !gate.directory().operators().await?.is_empty() {
        return Ok(());
    }
    let token = gate.directory().new_operator("demo", Role::Write).await?;
    let token = token.expose();
    println!(
        "\
the operator's console: http://{address}/admin
its token, shown this once: {token}

  curl http://{address}/admin/tenants -H 'authorization: Bearer {token}'
  TALLYGATE_OPERATOR_TOKEN={token} \\
    cargo run -p tallygate-cli -- tenant list --url http://{address}/admin
"
    );
    Ok(())
}

/// Prints what to try.
pub(crate) fn print_tour(address: &str) {
    let name = env!("CARGO_PKG_NAME");
    println!(
        "\
{name} listens on http://{address}

  curl -i 'http://{address}/v1/search?q=tide' -H 'authorization: Bearer tg_demo_acme'
  curl -i -X POST http://{address}/v1/accounts/7/exports -H 'x-api-key: tg_demo_acme'   # spends 25
  curl -i -X POST http://{address}/v1/accounts/7/exports -H 'x-api-key: tg_demo_solo'   # 403
  curl -i 'http://{address}/v1/search?q=tide' -H 'x-api-key: tg_demo_late'              # 402
  curl -i http://{address}/v1/upload -H 'x-api-key: tg_demo_acme' --data-binary @Cargo.lock
  curl 'http://{address}/v1/stream?chunks=100' -H 'x-api-key: tg_demo_acme' | wc -c
  for i in $(seq 31); do curl -s -o /dev/null -w '%{{http_code}} ' \\
    'http://{address}/v1/search?q=tide' -H 'x-api-key: tg_demo_solo'; done          # 429 at last
  curl http://{address}/usage -H 'x-api-key: tg_demo_acme'

usage page, for the same keys: http://{address}/usage-page
"
    );
}

//! Billing, if the environment has a Stripe key, for any framework: the demo's tenants get
//! customers, and a report can be requested. Your API gets both elsewhere: customers from your
//! sign-up, reports automatically every `stripe.report-every`.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use tallygate::billing::StripeConfig;
use tallygate::directory::TenantEdit;
use tallygate::{Clock, Gate, GateBuilder, SystemClock};

/// The billed tenants.
const BILLED: [&str; 2] = ["acme", "solo"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bills to the account of `STRIPE_SECRET_KEY`, if set. A service would write `[stripe]` into its
/// `tallygate.toml` instead.
pub(crate) fn hand_in(builder: GateBuilder) -> GateBuilder {
    match from_environment() {
        Some(stripe) => builder.stripe(stripe),
        None => builder,
    }
}

/// Whether billing is on.
pub(crate) fn is_on() -> bool {
    from_environment().is_some()
}

/// Each report needs a minute of its own, and a billing period that has just begun has few: so the
/// periods of the demo's tenants begin the day before they are made.
pub(crate) fn begun_yesterday(tenant: TenantEdit) -> TenantEdit {
    let yesterday = SystemClock::new().now().wall() - DAY;
    if is_on() { tenant.anchor(yesterday) } else { tenant }
}

/// Creates the demo's customers, each once, and prints which customer is which tenant.
pub(crate) async fn seed(gate: &Gate) -> Result<(), Box<dyn Error>> {
    if !is_on() {
        return Ok(());
    }
    for tenant in BILLED {
        let customer = gate.ensure_customer(tenant).await?;
        println!("{tenant} is Stripe's customer {customer}");
    }
    Ok(())
}

/// Sends what is owed now, and returns a summary.
pub(crate) async fn report(gate: &Gate) -> Result<Value, Value> {
    match gate.report_now().await {
        Ok(report) => Ok(json!({
            "events": report.sent, "units": report.units, "open": report.open,
            "stopped": report.stopped.len(), "failed": report.failed.len(),
        })),
        Err(error) => Err(json!({ "error": error.to_string() })),
    }
}

fn from_environment() -> Option<StripeConfig> {
    StripeConfig::from_env(&|name| std::env::var(name).ok())
}

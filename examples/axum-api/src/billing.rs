//! Billing, where the environment has a Stripe key: the demo's tenants get customers, and a report
//! can be asked for. In your API both come from elsewhere: customers from your sign-up, reports by
//! themselves every `stripe.report-every`.

use std::error::Error;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tollgate::config::StripeConfig;
use tollgate::{Gate, GateBuilder};
use tollgate_axum::stripe_router;

/// Who is billed.
const BILLED: [&str; 2] = ["acme", "solo"];

/// Bills into the account of `STRIPE_SECRET_KEY`, if there is one. A service would write `[stripe]`
/// into its `tollgate.toml` instead.
pub(crate) fn hand_in(builder: GateBuilder) -> GateBuilder {
    match from_environment() {
        Some(stripe) => builder.stripe(stripe),
        None => builder,
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Makes the demo's customers, each once, and says who is who.
pub(crate) async fn seed(gate: &Gate) -> Result<(), Box<dyn Error>> {
    if from_environment().is_none() {
        return Ok(());
    }
    for tenant in BILLED {
        let known = gate.directory().find(tenant).await?;
        if let Some(known) = known.filter(|known| known.record().account.is_none()) {
            // Each report takes a minute of its own, and a period that has just begun has few: the
            // demo's tenants have been there since yesterday.
            let yesterday = known.record().anchor_ms - DAY_MS;
            known.edit().anchor(yesterday).note("demo").save().await?;
        }
        let customer = gate.ensure_customer(tenant).await?;
        println!("{tenant} is Stripe's customer {customer}");
    }
    Ok(())
}

/// `POST /webhooks/stripe`, and `POST /demo/report`: what is owed is sent now.
pub(crate) fn routes(gate: &Gate) -> Router {
    if from_environment().is_none() {
        return Router::new();
    }
    let report = Router::new().route("/demo/report", post(report)).with_state(gate.clone());
    stripe_router(gate).merge(report)
}

async fn report(State(gate): State<Gate>) -> (StatusCode, Json<Value>) {
    match gate.report_now().await {
        Ok(report) => (
            StatusCode::OK,
            Json(json!({
                "events": report.sent, "units": report.units, "open": report.open,
                "stopped": report.stopped.len(), "failed": report.failed.len(),
            })),
        ),
        Err(error) => (StatusCode::BAD_GATEWAY, Json(json!({ "error": error.to_string() }))),
    }
}

fn from_environment() -> Option<StripeConfig> {
    StripeConfig::from_env(&|name| std::env::var(name).ok())
}

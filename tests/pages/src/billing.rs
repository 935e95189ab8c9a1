//! docs/billing.md.

use std::error::Error;

use axum::Router;
use tallygate::Gate;
use tallygate::billing::SentSinceCopy;
use tallygate_axum::GateLayer;

fn webhooks(app: Router, gate: Gate) -> Router {
    let app = app.layer(GateLayer::new(&gate)).merge(tallygate_axum::stripe_router(&gate));
    app
}

async fn webhook(gate: Gate, signature: &[u8], body: Vec<u8>) -> u16 {
    let reply = gate.stripe_webhook(signature, &body).await;
    reply.status
}

async fn customers(gate: Gate) -> Result<(), Box<dyn Error>> {
    let customer = gate.ensure_customer("acme").await?;
    gate.link_customer("acme", "cus_..").await?;
    Ok(())
}

async fn restored(gate: Gate) -> Result<(), Box<dyn Error>> {
    gate.audit().await?;
    gate.resume_reports(SentSinceCopy::AskStripe).await?;
    Ok(())
}

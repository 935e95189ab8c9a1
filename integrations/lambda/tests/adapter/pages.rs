//! What docs/identity.md and docs/billing.md show of functions: it compiles. Only Lambda runs them.

#![allow(dead_code, reason = "main functions of programs")]

use tallygate::{Error, Gate};
use tallygate_lambda::Cognito;

async fn open() -> Result<Gate, Error> {
    Gate::open("tallygate.toml").await
}

async fn users_are_tenants() -> Result<(), lambda_http::Error> {
    Cognito::new(open).run().await
}

async fn an_attribute_names_the_tenant() -> Result<(), lambda_http::Error> {
    Cognito::new(open).tenant_attribute("custom:tenant").run().await
}

async fn webhook(gate: Gate) -> Result<(), lambda_http::Error> {
    tallygate_lambda::run_stripe_webhook(&gate).await
}

async fn report(gate: Gate) -> Result<(), lambda_http::Error> {
    tallygate_lambda::run_stripe_report(&gate).await
}

//! docs/migrating.md.

use std::error::Error;

use axum::Router;
use sha2::{Digest, Sha256};
use tallygate::directory::DirectoryError;
use tallygate::ingest::UsageEvent;
use tallygate::{Ask, Gate, Refusal};
use tallygate_axum::GateLayer;
use tokio::net::TcpListener;

pub async fn serve(listener: TcpListener, routes: Router) -> Result<(), Box<dyn Error>> {
    let gate = Gate::open("tallygate.toml").await?;
    let app = routes.layer(GateLayer::new(&gate));
    tallygate_axum::serve(listener, app, &gate).await?;
    Ok(())
}

pub async fn may_export(gate: &Gate, tenant: &str) -> Result<Result<(), Refusal>, Box<dyn Error>> {
    let acme = gate.tenant(tenant).await?;
    let asked = gate.admit(Ask::new(&acme, "export").cost("exports", 1)).await;
    Ok(asked.map(|permit| permit.settle()))
}

pub async fn used_so_far(gate: &Gate, tenant: &str, exports: u64) -> bool {
    let id = format!("redis-2026-11-{tenant}");
    let event = UsageEvent::new(&id, tenant, "exports", exports);
    gate.ingest().events(vec![event]).await.iter().all(Result::is_ok)
}

pub async fn import(
    gate: &Gate,
    tenant: &str,
    name: &str,
    key: &str,
) -> Result<(), DirectoryError> {
    let hash = Sha256::digest(key.as_bytes()).into();
    let tenant = gate.directory().tenant(tenant).plan("basic").note("from API Gateway");
    tenant.save().await?.import_key_sha256(name, hash).await?;
    Ok(())
}

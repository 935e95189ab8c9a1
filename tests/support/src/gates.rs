//! Gates within the test's process: their service files and callers, and what was used.

use std::path::Path;

use tallygate::identity::{Caller, Identify, Identity, RequestView};
use tallygate::{Gate, GateBuilder, testing};

use crate::plans;

/// A service file with a store in memory, whose tenants name themselves by a header and are made at
/// first sight; `flush` is the mode of recording.
pub fn service(flush: &str) -> String {
    format!(
        r#"
        [store]
        kind = "memory"
        [[identify]]
        header = "x-tenant"
        [identity]
        unknown = "create"
        [proxy]
        trust = ["127.0.0.0/8"]
        [flush]
        mode = "{flush}"
        "#
    )
}

/// The last table of a service file: a Stripe at this address. Its secrets are written to `folder`.
pub fn stripe_table(folder: &Path, key: &str, secret: &str, address: &str) -> String {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        format!("{{ file = {path:?} }}")
    };
    let (key, secret) = (file("key", key), file("secret", secret));
    format!("\n[stripe]\nkey = {key}\nwebhook-secret = {secret}\napi-base = {address:?}\n")
}

/// The service file of a gate that bills the tenants it has through the Stripe at this address.
pub fn billed(folder: &Path, key: &str, secret: &str, address: &str) -> String {
    service("fast").replace("create", "reject") + &stripe_table(folder, key, secret, address)
}

/// The token of [`with_ingest`].
pub const INGEST_TOKEN: &str = "t0ken-of-sixteen";

/// A gate with [`plans::MINUTES`] and the tenant `acme` that takes reported usage.
pub async fn with_ingest() -> Gate {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, INGEST_TOKEN).unwrap();
    let service = format!("{}\n[ingest]\ntoken = {{ file = {token:?} }}\n", service("fast"));
    let gate = GateBuilder::from_text(&service).plans(plans::MINUTES).open().await.unwrap();
    gate.directory().tenant("acme").note("test").save().await.unwrap();
    gate
}

/// Everybody is `acme`.
#[derive(Clone, Copy, Debug)]
pub struct Acme;

impl Identify for Acme {
    fn identify(&self, _: &dyn RequestView) -> Identity {
        Identity::Tenant(Caller::new("acme"))
    }
}

/// A caller is the tenant that its `x-tenant` names, from any address.
#[derive(Clone, Copy, Debug)]
pub struct ByHeader;

impl Identify for ByHeader {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let tenant = view.header("x-tenant").and_then(|name| std::str::from_utf8(name).ok());
        tenant.map_or(Identity::Absent, |name| Identity::Tenant(Caller::new(name)))
    }
}

/// `(used, held)` of a meter of `acme`.
pub async fn meter(gate: &Gate, name: &str) -> (u64, u64) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.iter().find(|meter| &*meter.name == name).unwrap();
    (meter.used.whole(), meter.held.whole())
}

//! Secrets are in no log, no error and no `Debug`: a session in which everything fails that may,
//! heard in full. A process of its own, because others that log nothing would close its ears.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed, and says where; the bench has more than is used here"
)]

use std::sync::{Arc, Mutex};

#[path = "billing/bench.rs"]
mod bench;

use bench::{Bench, KEY, SECRET};

/// Everything that is logged, in full.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let line = format!("{}={value:?}\n", field.name());
        self.0.lock().unwrap().push_str(&line);
    }
}

#[test]
fn secrets_are_in_no_log_no_error_and_no_debug() {
    let log = Log::default();
    let said = tracing::subscriber::with_default(log.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(session())
    });
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("a webhook was refused"), "it has been listening");
    assert!(logged.len() > 1_000);
    for secret in [KEY, SECRET, "thekeythat", "thesecretthat"] {
        assert!(!logged.contains(secret), "a secret is in the log");
        assert!(!said.contains(secret), "a secret is in an error or in Debug");
    }
}

/// A session in which everything fails that may: what was said of it.
async fn session() -> String {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.use_("acme", "requests", 1).await;
    let mut said = format!("{:?}\n", bench.gate);
    for what in ["\"cut\"", "\"lose\"", "\"truncate\"", r#"{"status": {"code": 401}}"#] {
        for on in ["POST /v1/billing/meter_events", "GET /v1/billing/meters"] {
            let fault = format!(r#"{{"on": "{on}", "times": 4, "do": {what}}}"#);
            bench.sim.fault(serde_json::from_str(&fault).unwrap());
            said += &format!("{:?}\n", bench.gate.report_now().await);
            bench.sim.heal();
        }
    }
    let cut = r#"{"on": "POST /v1/customers", "times": 9, "do": "cut"}"#;
    bench.sim.fault(serde_json::from_str(cut).unwrap());
    bench.tenant("globex").await;
    said += &format!("{:?}\n", bench.gate.ensure_customer("globex").await);
    let reply = bench.gate.stripe_webhook(b"t=1,v1=00", b"{}").await;
    said += &String::from_utf8_lossy(&reply.body);
    said += &format!("{:?}\n", bench.gate.close().await);
    said
}

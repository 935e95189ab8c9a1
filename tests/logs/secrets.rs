//! Secrets appear in no log, no error and no `Debug`: a session in which everything fails that can,
//! logged in full.

#![allow(dead_code, reason = "the bench has more than is used here")]

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::format::FmtSpan;

#[path = "../billing/bench.rs"]
mod bench;

use bench::{Bench, KEY, SECRET};

/// Everything that is logged, spans with their fields too.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn secrets_are_in_no_log_no_error_and_no_debug() {
    let _turn = crate::turn();
    let log = Log::default();
    let writer = log.clone();
    let all = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let said = tracing::subscriber::with_default(all.finish(), || {
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

#[test]
fn a_secret_in_the_service_file_is_in_no_log_and_no_error() {
    let log = crate::floods::Log::default();
    log.over(async {
        for service in [
            "[stripe]\nkey = \"thekeythat9\"",
            "[ingest]\ntoken = { value = \"thekeythat9\" }",
            "[[identify]]\njwt = { secret = \"thekeythat9\", issuer = 5 } # thekeythat9",
            "[stripe]\nkey = \"thekeythat9",
        ] {
            let builder = tallygate::GateBuilder::from_text(service);
            let opened = builder.plans("default-plan = \"a\"\n[plan.a]").open().await;
            let error = opened.expect_err(service);
            let said = format!("{error} {error:?}");
            assert!(said.contains("***") && !said.contains("thekeythat9"), "{said}");
        }
    });
    assert!(!log.has("thekeythat9"));
}

/// Runs a session in which everything fails that can. Returns all of its output.
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

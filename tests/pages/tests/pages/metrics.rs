//! docs/metrics.md: what its recorders make of a gate's metrics.

use std::io::Write as _;

use axum::extract::State;
use pages::metrics::cloudwatch::Named;
use pages::metrics::prometheus;
use tallygate::telemetry::Metric;
use tallygate::{Ask, testing};

/// The recorder is that of the whole process: the other tests' gates are in it as well.
#[tokio::test]
async fn prometheus_scrapes_what_a_gate_has_counted() {
    let handle = prometheus::recorder().unwrap();
    let (gate, _clock) = testing::gate(
        "default-plan = \"scraped\"\n[meter.jobs]\n[plan.scraped]\nquota.jobs = \"9/day\"",
    );
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "job").cost("jobs", 3)).await.unwrap().settle();
    gate.flush_now().await.unwrap();
    let page = prometheus::page(State(handle)).await;
    let has = |text: &str| assert!(page.contains(text), "{text}: {page}");
    has("tallygate_units_total{meter=\"jobs\",plan=\"scraped\",outcome=\"used\"} 3");
    has("plan=\"scraped\",route=\"default\",outcome=\"allowed\",reason=\"\",policy=\"\"} 1");
    has(&format!("# HELP {} {}", Metric::Units.name, Metric::Units.help));
    has("tallygate_lease_wait_seconds_bucket{outcome=\"answered\",le=\"0.25\"}");
    has("tallygate_flush_batch_items_bucket{le=\"10\"}");
    assert!(!page.contains("acme"), "a tenant is in no label: {page}");
    gate.close().await.unwrap();
}

#[test]
fn no_dimension_of_cloudwatch_is_empty() {
    let mut written = Vec::new();
    let mut named = Named(&mut written, Vec::new());
    for part in ["{\"plan\":\"free\",\"pol", "icy\":", "\"\"", ",\"n\":1}\n"] {
        named.write_all(part.as_bytes()).unwrap();
    }
    drop(named);
    let line = String::from_utf8(written).unwrap();
    assert_eq!(line, "{\"plan\":\"free\",\"policy\":\"none\",\"n\":1}\n");
}

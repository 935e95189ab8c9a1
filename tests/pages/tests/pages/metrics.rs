//! docs/metrics.md: what its recorders make of a gate's metrics.

use std::io::{self, Write as _};
use std::time::Duration;

use axum::extract::State;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use pages::metrics::cloudwatch::{self, Named};
use pages::metrics::{opentelemetry, prometheus};
use serde_json::Value;
use tallygate::telemetry::Metric;
use tallygate::{Ask, testing};
use test_support::processes::printed_alone;

/// A gate that has used 3 of 9 jobs, and written it.
async fn use_three() {
    let (gate, _clock) = testing::gate(
        "default-plan = \"scraped\"\n[meter.jobs]\n[plan.scraped]\nquota.jobs = \"9/day\"",
    );
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "job").cost("jobs", 3)).await.unwrap().settle();
    gate.flush_now().await.unwrap();
    gate.close().await.unwrap();
}

/// The recorder is that of the whole process: the other tests' gates are in it as well.
#[tokio::test]
async fn prometheus_scrapes_what_a_gate_has_counted() {
    let handle = prometheus::recorder().unwrap();
    use_three().await;
    let page = prometheus::page(State(handle)).await;
    let has = |text: &str| assert!(page.contains(text), "{text}: {page}");
    has("tallygate_units_total{meter=\"jobs\",plan=\"scraped\",outcome=\"used\"} 3");
    has("plan=\"scraped\",route=\"default\",outcome=\"allowed\",reason=\"\",policy=\"\"} 1");
    has(&format!("# HELP {} {}", Metric::Units.name, Metric::Units.help));
    has("tallygate_lease_wait_seconds_bucket{outcome=\"answered\",le=\"0.25\"}");
    has("tallygate_flush_batch_items_bucket{le=\"10\"}");
    assert!(!page.contains("acme"), "a tenant is in no label: {page}");
}

/// Sums as lines: `name key=value,.. 3`.
struct Lines;

impl PushMetricExporter for Lines {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { continue };
            for point in sum.data_points() {
                let labels = point.attributes().map(|it| format!("{}={}", it.key, it.value));
                let mut labels: Vec<_> = labels.collect();
                labels.sort();
                println!("{} {} {}", metric.name(), labels.join(","), point.value());
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[test]
fn opentelemetry_exports_what_a_gate_has_counted() {
    let test = "metrics::opentelemetry_exports_what_a_gate_has_counted";
    let Some(out) = printed_alone(test) else { return export_three() };
    assert!(!out.contains("acme"), "a tenant is in no label: {out}");
    for line in [
        "tallygate_units_total meter=jobs,outcome=used,plan=scraped 3",
        "tallygate_decisions_total outcome=allowed,plan=scraped,policy=,reason=,route=default 1",
    ] {
        assert!(out.lines().any(|it| it == line), "{line}: {out}");
    }
}

#[tokio::main]
async fn export_three() {
    let provider = opentelemetry::recorder(Lines).unwrap();
    use_three().await;
    provider.shutdown().unwrap();
}

#[test]
fn cloudwatch_reads_what_a_gate_has_counted() {
    let test = "metrics::cloudwatch_reads_what_a_gate_has_counted";
    let Some(out) = printed_alone(test) else { return log_three() };
    assert!(!out.contains("acme"), "a tenant is in no label: {out}");
    let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line.is_object()).collect();
    let of = |metric: &str| {
        let found = lines.iter().find(|line| !line[metric].is_null());
        found.unwrap_or_else(|| panic!("{metric}: {out}"))
    };
    let units = of(Metric::Units.name);
    assert_eq!(units[Metric::Units.name], 3, "{units}");
    assert_eq!((&units["meter"], &units["plan"]), (&"jobs".into(), &"scraped".into()), "{units}");
    let emf = &units["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(emf["Namespace"], "tallygate", "{units}");
    assert!(emf["Dimensions"][0].as_array().unwrap().contains(&"outcome".into()), "{units}");
    let decided = of(Metric::Decisions.name);
    assert_eq!((&decided[Metric::Decisions.name], &decided["policy"]), (&1.into(), &"none".into()));
    let took = of(Metric::LeaseWait.name);
    assert_eq!(took["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Unit"], "Seconds", "{took}");
}

#[tokio::main]
async fn log_three() {
    let collector = cloudwatch::recorder().unwrap();
    use_three().await;
    println!();
    collector.flush(Named(io::stdout(), Vec::new())).unwrap();
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

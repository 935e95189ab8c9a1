//! A page that Prometheus scrapes.

use axum::extract::State;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Call it before the first `Gate::open`.
pub fn recorder() -> Result<PrometheusHandle, BuildError> {
    let rows = Matcher::Full("tallygate_flush_batch_items".to_owned());
    let handle = PrometheusBuilder::new()
        // Buckets can be summed over processes; quantiles, the default, cannot.
        .set_buckets(&[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0])?
        .set_buckets_for_metric(rows, &[1.0, 10.0, 100.0, 1_000.0, 10_000.0])?
        .install_recorder()?;
    tallygate::telemetry::describe(); // the help texts
    Ok(handle)
}

/// `GET /metrics`, on a port of its own, outside of the layer.
pub async fn page(State(handle): State<PrometheusHandle>) -> String {
    handle.run_upkeep();
    handle.render()
}

//! Metrics for OpenTelemetry.

use metrics_exporter_opentelemetry::Recorder;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Call it before the first `Gate::open`; `provider.shutdown()` after `gate.close()`.
pub fn recorder(exporter: impl PushMetricExporter) -> Result<SdkMeterProvider, Problem> {
    let recorder = Recorder::builder("tallygate");
    let (provider, _) = recorder
        .with_meter_provider(|provider| provider.with_periodic_exporter(exporter)) // once a minute
        .install()?;
    Ok(provider)
}

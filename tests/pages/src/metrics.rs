//! docs/metrics.md: the recorders of three exporters.

pub mod cloudwatch;
pub mod opentelemetry;
pub mod prometheus;

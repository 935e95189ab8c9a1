//! Metrics for CloudWatch, as lines of a log in its Embedded Metric Format.

use std::io::{self, Write};
use std::time::Duration;

use metrics_cloudwatch_embedded::{Builder, Collector};

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Call it within the runtime, before the first `Gate::open`.
pub fn recorder() -> Result<&'static Collector, Problem> {
    let collector = Builder::new()
        .cloudwatch_namespace("tallygate")
        // At most 100 values of a histogram are kept in between.
        .with_auto_flush_writer(Duration::from_secs(5), || Named(io::stdout(), Vec::new()))
        .init()?;
    tallygate::telemetry::describe(); // the units
    Ok(collector)
}

/// CloudWatch refuses a metric with a dimension that is empty, such as the `policy` of a decision
/// that no limit refused.
pub struct Named<W: Write>(pub W, pub Vec<u8>);

impl<W: Write> Write for Named<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.1).replace(":\"\"", ":\"none\"");
        self.1.clear();
        self.0.write_all(text.as_bytes())?;
        self.0.flush()
    }
}

impl<W: Write> Drop for Named<W> {
    fn drop(&mut self) {
        let _ = self.flush(); // standard output is closed
    }
}

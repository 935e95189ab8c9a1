//! What the library logs, on standard error: warnings, and more with `-v`. Plain, even at a
//! terminal.

use tracing_subscriber::filter::LevelFilter;

/// Begins the log of this process; `verbose` is how often `-v` was written.
pub(crate) fn begin(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}

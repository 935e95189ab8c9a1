//! Clocks of gates under test.

use tallygate::{Clock, Now, testing};
use tokio::time::Instant;

/// The time of the paused runtime.
#[derive(Clone, Copy, Debug)]
pub struct Paused(Instant);

impl Paused {
    /// A clock that begins at [`testing::START_MS`].
    pub fn now() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Paused {
    fn now(&self) -> Now {
        let since = Instant::now().saturating_duration_since(self.0);
        let wall_ms = testing::START_MS + since.as_millis() as i64;
        Now { mono_ns: (1 << 62) + since.as_nanos() as u64, wall_ms }
    }
}

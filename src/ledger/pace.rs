//! The pace of records: `flush.max-write-units`, for stores that charge by units written.
//!
//! A bucket of what records cost. It drains by the units a second of the service file, and holds
//! one second's worth. While it is fuller, the next flush waits, for at most [`LONGEST`]: use that
//! stands in memory alone grows old, and could be lost. Rows that wait are written together later,
//! as one total each, so waiting itself makes them cheaper.
//!
//! Records that requests wait for (a ceiling that is reached) fill the bucket and do not wait, nor
//! do leases, which are not in it: what is bounded is the cost of recording, not that of admitting.

use std::time::Duration;

use tokio::time::Instant;

/// Longest wait of a record: as long as the longest flush interval, which the loss bounds allow.
const LONGEST: Duration = crate::config::MAX_FLUSH_EVERY;

const NANOS: u128 = 1_000_000_000;

/// See the [module](self). Amounts are in billionths of a unit: a rate of one a second drains one
/// each nanosecond.
#[derive(Debug)]
pub(crate) struct WritePace {
    per_second: u128,
    level: u128,
    at: Option<Instant>,
}

impl WritePace {
    /// At most this many units a second, at least 1.
    pub(crate) fn new(max_write_units: u32) -> Self {
        Self { per_second: max_write_units.max(1).into(), level: 0, at: None }
    }

    /// How long the next flush waits.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.drain(now);
        let wait = self.level.saturating_sub(self.per_second * NANOS) / self.per_second;
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)).min(LONGEST)
    }

    /// A record costs this much.
    pub(crate) fn charge(&mut self, units: u64, now: Instant) {
        self.drain(now);
        // Never so full that emptying it takes longer than a flush may wait.
        let most = self.per_second * (NANOS + LONGEST.as_nanos());
        self.level = (self.level + u128::from(units) * NANOS).min(most);
    }

    fn drain(&mut self, now: Instant) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let drained = since.as_nanos().saturating_mul(self.per_second);
        (self.level, self.at) = (self.level.saturating_sub(drained), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_passes_at_once_and_then_the_pace_holds() {
        let mut pace = WritePace::new(10);
        let begun = Instant::now();
        for _ in 0..10 {
            pace.charge(1, begun);
            assert_eq!(pace.wait(begun), Duration::ZERO);
        }
        pace.charge(1, begun);
        assert_eq!(pace.wait(begun), Duration::from_millis(100));
        let later = begun + Duration::from_millis(100);
        assert_eq!(pace.wait(later), Duration::ZERO);
        pace.charge(3, later);
        assert_eq!(pace.wait(later), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn no_record_is_so_dear_that_the_next_waits_longer_than_the_bound() {
        let mut pace = WritePace::new(1);
        let begun = Instant::now();
        pace.charge(1_000_000, begun);
        assert_eq!(pace.wait(begun), LONGEST);
        assert_eq!(pace.wait(begun + LONGEST), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_silence_saves_nothing_up() {
        let mut pace = WritePace::new(10);
        let begun = Instant::now();
        assert_eq!(pace.wait(begun), Duration::ZERO);
        let later = begun + Duration::from_secs(3_600);
        pace.charge(30, later);
        assert_eq!(pace.wait(later), Duration::from_secs(2));
    }
}

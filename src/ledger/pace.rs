//! The pace of records: `flush.max-write-units`, for stores that charge by units written.
//!
//! A bucket for the cost of records. It drains by the service file's units per second, and holds
//! one second's worth. While it is fuller, the next flush waits, for at most [`LONGEST`]: usage
//! that is only in memory ages, and could be lost. Waiting rows are later written together, as one
//! total each, so waiting itself makes them cheaper.
//!
//! Records that requests wait for (a ceiling that is reached) fill the bucket and do not wait.
//! Leases are not counted, and do not wait either: the bound is on the cost of recording, not of
//! admitting.

use std::time::Duration;

use tokio::time::Instant;

/// Longest delay of a record: the longest flush interval, which the loss bounds allow.
const LONGEST: Duration = crate::config::MAX_FLUSH_EVERY;

const NANOS: u128 = 1_000_000_000;

/// See the [module](self). Amounts are in billionths of a unit: a rate of one per second drains one
/// each nanosecond.
#[derive(Debug)]
pub(crate) struct WritePace {
    per_second: u128,
    level: u128,
    at: Option<Instant>,
}

impl WritePace {
    /// At most this many units per second, at least 1.
    pub(crate) fn new(max_write_units: u32) -> Self {
        Self { per_second: max_write_units.max(1).into(), level: 0, at: None }
    }

    /// How long the next flush has to wait.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.drain(now);
        let wait = self.level.saturating_sub(self.per_second * NANOS) / self.per_second;
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)).min(LONGEST)
    }

    /// Charges the cost of a record.
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

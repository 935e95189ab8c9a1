//! The pace of records: `flush.max-write-units`, for stores that charge by units written.
//!
//! A bucket over what the store says it was charged, for records, leases and changes alike. It
//! drains by the units a second of the service file, and holds one second's worth. While it is
//! fuller, records wait: nothing else does, since a lease that waits is a request that waits. They
//! wait for at most [`LONGEST`], whatever the others cost: use that stands in memory alone grows
//! old, and could be lost. Rows that wait are written together later, as one total each, so waiting
//! itself makes them cheaper.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Units;

/// Longest wait of a record: as long as the longest flush interval, which the loss bounds allow.
const LONGEST: Duration = crate::config::MAX_FLUSH_EVERY;

const NANOS: u128 = 1_000_000_000;

/// See the [module](self). Amounts are in billionths of a unit: a rate of one a second drains one
/// each nanosecond.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: u128,
    level: u128,
    seen: u64,
    at: Option<Instant>,
}

impl Pace {
    /// At most this many units a second, at least 1.
    pub(crate) fn new(max_write_units: u32) -> Self {
        Self { per_second: max_write_units.max(1).into(), level: 0, seen: 0, at: None }
    }

    /// How long the next record waits, given what the store was charged by now.
    pub(crate) fn wait(&mut self, charged: Units, now: Instant) -> Duration {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let news = u128::from(charged.write.saturating_sub(self.seen)) * NANOS;
        let drained = since.as_nanos().saturating_mul(self.per_second);
        // Never so full that emptying it takes longer than a record may wait.
        let one_second = self.per_second * NANOS;
        let most = one_second + self.per_second * LONGEST.as_nanos();
        self.level = (self.level.saturating_sub(drained) + news).min(most);
        (self.seen, self.at) = (charged.write, Some(now));
        let wait = self.level.saturating_sub(one_second) / self.per_second;
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(write: u64) -> Units {
        Units { read: 0, write }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_passes_at_once_and_then_the_pace_holds() {
        let mut pace = Pace::new(10);
        let begun = Instant::now();
        for charged in 0..=10 {
            assert_eq!(pace.wait(units(charged), begun), Duration::ZERO);
        }
        assert_eq!(pace.wait(units(11), begun), Duration::from_millis(100));
        let later = begun + Duration::from_millis(100);
        assert_eq!(pace.wait(units(11), later), Duration::ZERO);
        assert_eq!(pace.wait(units(14), later), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_were_charged_never_holds_a_record_for_longer_than_the_bound() {
        let mut pace = Pace::new(1);
        let begun = Instant::now();
        assert_eq!(pace.wait(units(1_000_000), begun), LONGEST);
        assert_eq!(pace.wait(units(1_000_000), begun + LONGEST), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_silence_saves_nothing_up() {
        let mut pace = Pace::new(10);
        let begun = Instant::now();
        pace.wait(units(0), begun);
        let later = begun + Duration::from_secs(3_600);
        assert_eq!(pace.wait(units(30), later), Duration::from_secs(2));
    }
}

//! The ceiling of a lease: "I stop at this total until my next record is acknowledged". Units above
//! it are provably unserved, so a process that has sealed a dead writer's log can take them back.
//! It moves with the usage log: proposed when a record is made, in force once the record is in the
//! store.

use std::time::Duration;

use crate::clock::Now;

/// Shortest span over which demand is measured: between two records in quick succession a few
/// requests look like thousands a second.
const MEASURED_OVER: Duration = Duration::from_millis(250);

/// Ceiling and demand, as far as known.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    /// The highest ceiling in the log.
    pub(super) logged: u64,
    /// Demand in atoms a second, and the total and the time from which it is being measured.
    rate: u64,
    seen_total: u64,
    seen_ns: u64,
    /// The span of demand a ceiling leaves room for.
    pub(super) ahead: Duration,
    /// Whether the lease waits for a higher ceiling.
    pub(super) wanted: bool,
}

impl Ceiling {
    /// Notes that all of this was used before the lease began, or that a record allows it.
    pub(super) fn raise(&mut self, ceiling: u64) {
        self.logged = self.logged.max(ceiling);
    }

    /// Demand over the span that a ceiling leaves room for, in atoms.
    pub(super) fn demand(&self) -> u64 {
        let demand = u128::from(self.rate) * self.ahead.as_millis() / 1_000;
        u64::try_from(demand).unwrap_or(u64::MAX)
    }

    /// Updates the demand rate from the total: rises at once, falls slowly.
    pub(super) fn measure(&mut self, total: u64, now: Now) {
        if self.seen_ns == 0 {
            (self.seen_total, self.seen_ns) = (total, now.mono_ns);
            return;
        }
        let least_ns = MEASURED_OVER.as_nanos() as u64; // a constant that fits
        let since_ns = now.mono_ns.saturating_sub(self.seen_ns);
        let used = u128::from(total.saturating_sub(self.seen_total));
        let rate = used * 1_000_000_000 / u128::from(since_ns.max(least_ns));
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        if since_ns < least_ns {
            self.rate = self.rate.max(rate);
            return;
        }
        let eased = self.rate.saturating_mul(7).saturating_add(rate.saturating_mul(3)) / 10;
        self.rate = rate.max(eased);
        (self.seen_total, self.seen_ns) = (total, now.mono_ns);
    }
}

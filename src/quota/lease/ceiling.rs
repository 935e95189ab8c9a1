//! The ceiling of a lease: "I stop at this total until my next record is acknowledged". Units above
//! it are provably unserved, so a process that has sealed a dead writer's log can take them back.
//! It moves with the usage log: proposed when a record is made, in force once the record is in the
//! store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cold, FIRST_ASKS, Lease, LeaseCall, Op, signed};
use crate::clock::Now;

/// Shortest span over which demand is measured: between two records in quick succession a few
/// requests look like thousands a second.
const MEASURED_OVER: Duration = Duration::from_millis(250);

/// Room for at least this many asks: a tenant that calls now and then never waits.
const AHEAD_ASKS: u64 = 4;

/// Ceiling and demand, as far as known.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    /// The highest ceiling in the log.
    logged: u64,
    /// Demand in atoms a second, and the total and the time from which it is being measured.
    rate: u64,
    seen_total: u64,
    seen_ns: u64,
    /// The span of demand a ceiling leaves room for.
    ahead: Duration,
    /// Whether the lease waits for a higher ceiling.
    pub(super) wanted: bool,
}

impl Ceiling {
    /// The highest ceiling in the log.
    pub(super) fn logged(&self) -> u64 {
        self.logged
    }

    /// Notes that all of an entry was used before this lease began.
    pub(super) fn was_used(&mut self, held: u64) {
        self.logged = self.logged.max(held);
    }
}

impl Cold {
    /// What may be served: the first law of leases.
    pub(super) fn bound(&self) -> u64 {
        let mine = self.view.and_then(|view| view.mine);
        mine.map_or(0, |mine| mine.held.min(mine.preauthorised.max(self.ceiling.logged)))
    }

    /// Demand over that span, in atoms; all of a first lease, since its demand is unknown.
    pub(super) fn ahead(&self) -> u64 {
        let demand = u128::from(self.ceiling.rate) * self.ceiling.ahead.as_millis() / 1_000;
        let demand = u64::try_from(demand).unwrap_or(u64::MAX);
        let asks = if self.view.is_none() { FIRST_ASKS } else { AHEAD_ASKS };
        demand.max(self.first_ask.saturating_mul(asks))
    }

    /// A generous estimate of use while a record or a grant is on its way. A larger one would
    /// trigger records that the flush is about to write anyway.
    pub(super) fn soon(&self) -> u64 {
        let ahead = self.ahead();
        (ahead / 8).max(self.first_ask.saturating_mul(2)).min(ahead / 2)
    }

    /// Updates the demand rate from the total: rises at once, falls slowly.
    fn measure(&mut self, total: u64, now: Now) {
        let seen = &mut self.ceiling;
        if seen.seen_ns == 0 {
            (seen.seen_total, seen.seen_ns) = (total, now.mono_ns);
            return;
        }
        let least_ns = MEASURED_OVER.as_nanos() as u64; // a constant that fits
        let since_ns = now.mono_ns.saturating_sub(seen.seen_ns);
        let used = u128::from(total.saturating_sub(seen.seen_total));
        let rate = used * 1_000_000_000 / u128::from(since_ns.max(least_ns));
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        if since_ns < least_ns {
            seen.rate = seen.rate.max(rate);
            return;
        }
        let eased = seen.rate.saturating_mul(7).saturating_add(rate.saturating_mul(3)) / 10;
        seen.rate = rate.max(eased);
        (seen.seen_total, seen.seen_ns) = (total, now.mono_ns);
    }
}

impl Lease {
    /// Sets when its pool may be deleted.
    pub(crate) fn forgotten_at(self, ttl: Option<i64>) -> Self {
        Self { ttl, ..self }
    }

    /// Marks it as a lease of a slot of a strict rate: it is over in seconds, so nothing of it is
    /// logged, all of it may be served at once, and none of it is reclaimed.
    pub(crate) fn of_slot(self, of_slot: bool) -> Self {
        Self { of_slot, ..self }
    }

    pub(crate) fn is_of_slot(&self) -> bool {
        self.of_slot
    }

    /// The ceiling for the record being made: current use plus this much time of demand. `None`:
    /// the one in force has room for that.
    pub(crate) fn propose_ceiling(&self, now: Now, ahead: Duration) -> Option<u64> {
        let mut cold = self.cold();
        (cold.ceiling.wanted, cold.ceiling.ahead) = (false, ahead);
        cold.measure(self.total(), now);
        let wanted = self.wanted.load(Ordering::SeqCst).max(self.waiting.load(Ordering::SeqCst));
        let ceiling = self.used(&cold).saturating_add(wanted.max(cold.ahead())).min(cold.held());
        (ceiling > cold.bound() && !cold.sealed).then_some(ceiling)
    }

    /// A record with this ceiling is in the store. For a closed entry that comes too late: its
    /// bound, and `left` with it, stay as they were.
    pub(crate) fn ceiling_logged(&self, ceiling: u64) {
        let mut cold = self.cold();
        if cold.sealed {
            return;
        }
        let before = cold.bound();
        cold.ceiling.logged = cold.ceiling.logged.max(ceiling);
        let more = cold.bound().saturating_sub(before);
        // Units on their way back are not served again; the answer to that call finds the ceiling
        // here.
        let leaving = |open: &(Op, LeaseCall)| matches!(open.0, Op::Give(_) | Op::Fold);
        let is_leaving = cold.in_flight.as_deref().is_some_and(leaving);
        if more > 0 && !is_leaving {
            let _moving = self.moving();
            self.release(more);
            self.free_seen.fetch_sub(signed(more), Ordering::AcqRel);
            self.changed.notify_waiters();
        }
    }

    /// Units held that only the ceiling keeps from being served.
    #[cfg(test)]
    pub(crate) fn capped(&self) -> u64 {
        let cold = self.cold();
        cold.held() - cold.bound()
    }

    /// Whether other processes could reclaim units of it if they took this one for dead: it holds
    /// units above its bound.
    pub(crate) fn may_be_reclaimed(&self) -> bool {
        let cold = self.cold();
        !cold.sealed && cold.held() > cold.bound()
    }

    /// Settled use and open holds.
    pub(super) fn used(&self, cold: &Cold) -> u64 {
        cold.used(self.left.load(Ordering::Acquire))
    }

    /// Open holds alone.
    pub(super) fn open_of(&self, cold: &Cold) -> u64 {
        self.used(cold).saturating_sub(self.total())
    }
}

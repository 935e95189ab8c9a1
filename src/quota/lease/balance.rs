//! What requests draw from: the units of a lease, as atomics that no request locks.
//!
//! The negotiation with the store never sees them. It works on a [`Balance`], read before a step
//! and [applied](AtomicBalance::apply) after it as differences, because requests draw and release
//! meanwhile. Steps are made one at a time, under the lease's lock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::clock::Now;

/// Largest total of a lease or a use row, in atoms, so that sums of several stay in range. Anything
/// beyond it is a reporting mistake.
pub(crate) const MOST: u64 = 1 << 60;

/// The balance of a lease at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Atoms that may still be taken; negative is a debt.
    pub(super) left: i64,
    /// Atoms settled.
    pub(super) total: u64,
    /// Free units when the pool was last seen.
    pub(super) free: i64,
    /// Renew when `left` falls below this.
    pub(super) low: i64,
    /// Largest ask since the last answer, and the sum of the asks waiting now.
    pub(super) wanted: u64,
    pub(super) waiting: u64,
    /// Until then, asks whose shortfall against what is left of the pool is at least
    /// `refused_short` are refused without asking it. Requests that give units back lower the
    /// shortfall.
    pub(super) refused_until_ns: u64,
    pub(super) refused_short: i64,
    /// Whether anything of its pool is owed, and whether the pool was ever read.
    pub(super) is_in_debt: bool,
    pub(super) is_seen: bool,
    /// Whether the limit was changed within the window.
    pub(super) has_moved: bool,
    /// Whether a request waits for a read of the pool, because its limit may have been changed
    /// elsewhere.
    pub(super) is_looked_for: bool,
    /// Whether requests that wait for units are to look again.
    pub(super) wakes: bool,
}

impl Balance {
    /// Atoms of the whole limit that are still available, as far as this process knows: its own,
    /// and what was free when the pool last answered. Negative: used beyond all there are.
    pub(super) fn of_all(&self) -> i64 {
        self.left.saturating_add(self.free)
    }

    /// What is missing here for `asked`.
    pub(super) fn lacks(&self, asked: u64) -> u64 {
        u64::try_from(signed(asked).saturating_sub(self.left)).unwrap_or(0)
    }

    /// The larger of what one request asks for and what all that wait do.
    pub(super) fn asked(&self) -> u64 {
        self.wanted.max(self.waiting)
    }

    /// How far `n` atoms exceed [all](Self::of_all); negative: they are available.
    pub(super) fn lacking(&self, n: u64) -> i64 {
        signed(n).saturating_sub(self.of_all())
    }

    pub(super) fn is_refused(&self, n: u64, now: Now) -> bool {
        now.mono_ns < self.refused_until_ns && self.lacking(n) >= self.refused_short
    }

    pub(super) fn release(&mut self, n: u64) {
        self.left = self.left.saturating_add(signed(n));
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct AtomicBalance {
    left: AtomicI64,
    total: AtomicU64,
    /// `total` as last written to the usage log; set by the flush alone.
    logged: AtomicU64,
    free: AtomicI64,
    low: AtomicI64,
    wanted: AtomicU64,
    waiting: AtomicU64,
    refused_until_ns: AtomicU64,
    refused_short: AtomicI64,
    /// Counts up before and after a step, in which units move between `left` and `free`: odd while
    /// they may.
    steps: AtomicU32,
    is_in_debt: AtomicBool,
    is_seen: AtomicBool,
    has_moved: AtomicBool,
    is_looked_for: AtomicBool,
    /// Wakes requests that wait for units.
    changed: Notify,
}

impl AtomicBalance {
    /// Of its total nothing is missing in the log.
    pub(super) fn new(balance: Balance) -> Self {
        Self {
            left: balance.left.into(),
            total: balance.total.into(),
            logged: balance.total.into(),
            free: balance.free.into(),
            low: balance.low.into(),
            wanted: balance.wanted.into(),
            waiting: balance.waiting.into(),
            refused_until_ns: balance.refused_until_ns.into(),
            refused_short: balance.refused_short.into(),
            steps: AtomicU32::new(0),
            is_in_debt: balance.is_in_debt.into(),
            is_seen: balance.is_seen.into(),
            has_moved: balance.has_moved.into(),
            is_looked_for: balance.is_looked_for.into(),
            changed: Notify::new(),
        }
    }

    /// The balance as it is now.
    pub(super) fn load(&self) -> Balance {
        Balance {
            left: self.left(),
            total: self.total(),
            free: self.free.load(Ordering::Acquire),
            low: self.low.load(Ordering::Relaxed),
            wanted: self.wanted(),
            waiting: self.waiting.load(Ordering::SeqCst),
            refused_until_ns: self.refused_until_ns.load(Ordering::Acquire),
            refused_short: self.refused_short.load(Ordering::Relaxed),
            is_in_debt: self.is_in_debt(),
            is_seen: self.is_seen(),
            has_moved: self.has_moved(),
            is_looked_for: self.is_looked_for(),
            wakes: false,
        }
    }

    /// Begins a step: the balance as it stays here meanwhile, and as the step sees it. If units may
    /// be given back, what is left is taken out until the step is applied, so that no request draws
    /// what goes back.
    pub(super) fn begin(&self, gives_back: bool) -> (Balance, Balance) {
        self.steps.fetch_add(1, Ordering::AcqRel);
        let seen = self.load();
        if !gives_back {
            return (seen, seen);
        }
        let take_out = |left: i64| Some(left.min(0));
        let left = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take_out);
        let left = left.unwrap_or_else(|left| left);
        (Balance { left: left.min(0), wakes: left > 0, ..seen }, Balance { left, ..seen })
    }

    /// Ends a step: adds to `left` and to `total` what it has changed, and sets the rest.
    pub(super) fn apply(&self, before: Balance, after: Balance) {
        self.is_seen.store(after.is_seen, Ordering::Release);
        self.has_moved.store(after.has_moved, Ordering::Relaxed);
        self.is_looked_for.store(after.is_looked_for, Ordering::Release);
        let adopted = after.total.saturating_sub(before.total);
        if adopted > 0 {
            self.total.fetch_add(adopted, Ordering::Relaxed);
            // A record of use since then left that out, and the log has more: the sum is recorded
            // again.
            if self.logged.load(Ordering::Relaxed) == 0 {
                self.logged.store(adopted, Ordering::Relaxed);
            }
        }
        self.refused_short.store(after.refused_short, Ordering::Relaxed);
        self.refused_until_ns.store(after.refused_until_ns, Ordering::Release);
        self.low.store(after.low, Ordering::Relaxed);
        self.left.fetch_add(after.left.saturating_sub(before.left), Ordering::AcqRel);
        self.free.store(after.free, Ordering::Release);
        self.is_in_debt.store(after.is_in_debt, Ordering::Release);
        self.steps.fetch_add(1, Ordering::AcqRel);
        if after.wanted > before.wanted {
            self.want(after.wanted);
        } else if after.wanted < before.wanted {
            // Answered. A larger ask that arrived meanwhile stays.
            let (asked, rest) = (before.wanted, after.wanted);
            _ = self.wanted.compare_exchange(asked, rest, Ordering::AcqRel, Ordering::Relaxed);
        }
        // What was taken out and is here again may be what a request has missed meanwhile.
        if after.wakes || before.wakes && after.left > before.left {
            self.changed.notify_waiters();
        }
    }

    /// Takes `n` atoms if they are here: one compare-and-swap. Returns what is left then.
    #[inline]
    pub(super) fn take(&self, n: u64) -> Option<i64> {
        let ask = signed(n);
        let mut left = self.left.load(Ordering::Relaxed);
        loop {
            if left < ask {
                return None;
            }
            let next = left - ask;
            let swapped =
                self.left.compare_exchange_weak(left, next, Ordering::AcqRel, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Some(next),
                Err(seen) => left = seen,
            }
        }
    }

    /// Takes `n` atoms even below zero, down to `floor`.
    pub(super) fn take_down_to(&self, n: u64, floor: i64) -> bool {
        let ask = signed(n);
        let taken = self.left.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| {
            let next = left.saturating_sub(ask);
            (next >= floor.min(0)).then_some(next)
        });
        taken.is_ok()
    }

    pub(super) fn release(&self, n: u64) {
        self.left.fetch_add(signed(n), Ordering::AcqRel);
    }

    pub(super) fn settle(&self, n: u64) {
        self.total.fetch_add(n, Ordering::SeqCst); // see `Lease::mark_dirty`
    }

    /// Returns how much of it was settled: a total stops at [`MOST`].
    pub(super) fn settle_late(&self, n: u64) -> u64 {
        let n = n.min(MOST.saturating_sub(self.total()));
        self.left.fetch_sub(signed(n), Ordering::AcqRel);
        self.settle(n);
        n
    }

    pub(super) fn left(&self) -> i64 {
        self.left.load(Ordering::Acquire)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Whether it is time to ask for more with this much left.
    #[inline]
    pub(super) fn is_low(&self, left: i64) -> bool {
        left < self.low.load(Ordering::Relaxed)
    }

    /// [`Balance::of_all`], unless a step is being made: units that it moves would be counted
    /// twice, or not at all.
    pub(super) fn of_all(&self) -> Option<i64> {
        let before = self.steps.load(Ordering::Acquire);
        let free = self.free.load(Ordering::Acquire);
        let all = self.left().saturating_add(free);
        let is_still = before.is_multiple_of(2) && self.steps.load(Ordering::Acquire) == before;
        is_still.then_some(all)
    }

    /// The shortfall from which on asks are refused now; `None`: none is.
    pub(super) fn refused_from(&self, now: Now) -> Option<i64> {
        let is_refusing = now.mono_ns < self.refused_until_ns.load(Ordering::Acquire);
        is_refusing.then(|| self.refused_short.load(Ordering::Relaxed))
    }

    pub(super) fn want(&self, n: u64) {
        self.wanted.fetch_max(n, Ordering::SeqCst);
    }

    pub(super) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Counts an ask among the waiting ones while the result lives.
    pub(super) fn wait_for(&self, n: u64) -> WaitingAsk<'_> {
        self.waiting.fetch_add(n, Ordering::AcqRel);
        WaitingAsk(self, n)
    }

    /// Notified when units may have come.
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// `total`, if it has risen since it was last logged; marks it as logged.
    pub(super) fn unlogged(&self) -> Option<u64> {
        let total = self.total();
        (self.logged.swap(total, Ordering::Relaxed) != total).then_some(total)
    }

    /// Whether the log lacks some of the total.
    pub(super) fn is_unlogged(&self) -> bool {
        self.logged.load(Ordering::Relaxed) != self.total()
    }

    pub(super) fn is_in_debt(&self) -> bool {
        self.is_in_debt.load(Ordering::Acquire)
    }

    pub(super) fn is_seen(&self) -> bool {
        self.is_seen.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Relaxed)
    }

    pub(super) fn is_looked_for(&self) -> bool {
        self.is_looked_for.load(Ordering::Acquire)
    }
}

/// See [`AtomicBalance::wait_for`].
pub(super) struct WaitingAsk<'a>(&'a AtomicBalance, u64);

impl Drop for WaitingAsk<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::AcqRel);
    }
}

pub(super) fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

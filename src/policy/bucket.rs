//! The token bucket that shapes bursts: governor's GCRA behind a cell of one word.
//!
//! The word is the *theoretical arrival time* (TAT, ITU-T I.371): the instant on the monotonic
//! clock at which the bucket is full again. Taking `n` moves it on by `n` times the interval; a
//! request fits while it stays within the burst of now. So one number holds a bucket, and an idle
//! bucket is a number in the past.
//!
//! Where several nodes share a rate each has a part of it: an equal one, which is then the node's
//! rule ([`BucketRule::among`]), or, for a limit under pressure, one of its own, kept in the bucket
//! ([`BucketRule::set_share`]). Either way rate and burst are cut alike, so that an empty bucket
//! fills in the configured time.
//!
//! A rate of a meter with finely divided units is counted in cells of several atoms
//! ([`BucketRule::cells`]), because governor has 32 bits for a burst. All numbers of units here are
//! of such cells.
//!
//! This adds what governor lacks: giving back, charging use learned late, and keeping a bucket over
//! a change of its rate. None of them ever mints: after any history, no span of time admits more
//! than burst + span x rate, except for what [`BucketRule::charge`] took past the burst.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};

mod cell;

use cell::{Argument, InCell, at};

use crate::catalog::common_divisor;

/// One bucket. A new one is full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Its TAT in nanoseconds on the monotonic clock.
    tat: AtomicU64,
    /// Nanoseconds per unit, if it has a share of its own; 0: its rule's. Kept beside the TAT,
    /// which every take reads anyway.
    interval_ns: AtomicU64,
    /// Lower bits: units asked for since this was last read, all of them if it has a share of its
    /// own, otherwise only the refused ones. Above them the slot in which it was last reported as
    /// under pressure.
    asked: AtomicU64,
}

/// The lowest bit of the slot in [`Bucket::asked`], and the most units that fit below it.
const SLOT_AT: u32 = 48;
const MOST_ASKED: u64 = (1 << SLOT_AT) - 1;

/// Longest time for a burst to fill or a unit to come, 146 years, and the latest TAT. They keep
/// governor's unchecked sums in range: it adds to a TAT what a burst is worth at most.
const LONGEST_NS: u64 = 1 << 62;
const LATEST_NS: u64 = u64::MAX - LONGEST_NS;

/// The arithmetic of one rate, shared by all its buckets.
pub(crate) struct BucketRule {
    limiter: RateLimiter<Bucket, InCell, Argument, NoOpMiddleware<Nanos>>,
    /// Nanoseconds per unit, rounded up, so that rounding never admits more.
    interval_ns: u64,
    burst: u32,
    /// The same for the whole rate, of which this may be a part.
    whole_interval_ns: u64,
    whole_burst: u32,
    /// Its units are leased per slot: buckets have no shares of their own.
    is_leased: bool,
    /// Atoms per unit here.
    grain: u64,
}

/// A refused take: time until it would fit, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBefore {
    pub(crate) wait_ns: u64,
}

/// Pace of a rule's units: nanoseconds per unit here, and over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval_ns: u64,
    pub(crate) whole_interval_ns: u64,
    /// Atoms per unit of its rule.
    pub(crate) grain: u64,
}

/// The fill level of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) remaining: u64,
    /// Time until the burst is whole again.
    pub(crate) full_in_ns: u64,
}

impl Bucket {
    /// Whether its whole burst is available.
    pub(crate) fn is_full(&self, now_ns: u64) -> bool {
        self.tat.load(Ordering::Relaxed) <= now_ns
    }
}

impl BucketRule {
    /// `amount` units per `per`, at most `burst` at once.
    #[cfg(test)]
    pub(crate) fn new(amount: u64, per: Duration, burst: u64) -> Self {
        Self::in_grains(amount, per, burst, 1)
    }

    /// `amount` atoms per `per`, at most `burst` at once, which are asked for in multiples of
    /// `grain`. The catalog has checked that the interval is at least a nanosecond and that burst
    /// times interval fits; values out of range are clamped to what admits less.
    pub(crate) fn in_grains(amount: u64, per: Duration, burst: u64, grain: u64) -> Self {
        let grain = grain.max(1);
        let interval_ns =
            per.as_nanos().saturating_mul(grain.into()).div_ceil(amount.max(1).into());
        let interval_ns = u64::try_from(interval_ns).unwrap_or(u64::MAX).clamp(1, LONGEST_NS);
        let burst = u32::try_from(burst / grain).unwrap_or(u32::MAX).max(1);
        Self { grain, ..Self::part(interval_ns, interval_ns, burst) }
    }

    /// Atoms as units of this rule. Amounts asked for under another plan file may not be whole
    /// units.
    #[inline]
    pub(crate) fn cells(&self, atoms: u64) -> u64 {
        if self.grain == 1 { atoms } else { atoms.div_ceil(self.grain) }
    }

    /// Units of this rule as atoms.
    pub(crate) fn atoms(&self, cells: u64) -> u64 {
        cells.saturating_mul(self.grain)
    }

    /// The same for a rate whose units are also leased per slot: the whole rate, whatever share a
    /// bucket had before.
    #[must_use]
    pub(crate) fn leased(self) -> Self {
        Self { is_leased: true, ..self }
    }

    /// The part of each of `nodes` nodes.
    #[must_use]
    pub(crate) fn among(self, nodes: usize) -> Self {
        let nodes = u64::try_from(nodes.max(1)).unwrap_or(u64::MAX);
        match nodes {
            1 => self,
            _ => self.at(self.whole_interval_ns.saturating_mul(nodes)),
        }
    }

    /// A part of a rate with this interval per unit.
    fn part(interval_ns: u64, whole_interval_ns: u64, whole_burst: u32) -> Self {
        let interval_ns = interval_ns.clamp(1, LONGEST_NS);
        let fills_ns = whole_interval_ns.saturating_mul(u64::from(whole_burst)).min(LONGEST_NS);
        let burst = u32::try_from(fills_ns / interval_ns).unwrap_or(whole_burst).max(1);
        let cells = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(interval_ns))
            .expect("an interval of at least 1 ns is a period")
            .allow_burst(cells);
        let limiter = at(0, || RateLimiter::new(quota, InCell, Argument));
        let (is_leased, grain) = (false, 1);
        Self { limiter, interval_ns, burst, whole_interval_ns, whole_burst, is_leased, grain }
    }

    fn at(&self, interval_ns: u64) -> Self {
        let part = Self::part(interval_ns, self.whole_interval_ns, self.whole_burst);
        Self { grain: self.grain, ..part }
    }

    /// The rule of a bucket with a share of its own.
    fn own(&self, bucket: &Bucket) -> Option<Self> {
        let interval_ns = bucket.interval_ns.load(Ordering::Relaxed);
        (interval_ns != 0 && !self.is_leased).then(|| self.at(interval_ns))
    }

    /// Nanoseconds per unit of the whole rate.
    pub(crate) fn whole_interval_ns(&self) -> u64 {
        self.whole_interval_ns
    }

    /// The pace of its units.
    pub(crate) fn pace(&self) -> Pace {
        let Self { interval_ns, whole_interval_ns, grain, .. } = *self;
        Pace { interval_ns, whole_interval_ns, grain }
    }

    /// The most units at once, over all nodes.
    pub(crate) fn burst(&self) -> u64 {
        u64::from(self.whole_burst)
    }

    /// The time in which an empty bucket fills.
    pub(crate) fn refill(&self) -> Duration {
        Duration::from_nanos(self.whole_interval_ns.saturating_mul(self.burst()))
    }

    /// Takes `n` units if they fit now.
    #[inline]
    pub(crate) fn take(&self, bucket: &Bucket, n: u64, now_ns: u64) -> Result<(), NotBefore> {
        if bucket.interval_ns.load(Ordering::Relaxed) != 0 {
            return self.take_of_share(bucket, n, now_ns);
        }
        self.take_here(bucket, n, now_ns)
    }

    /// Under pressure, asks are counted.
    #[cold]
    fn take_of_share(&self, bucket: &Bucket, n: u64, now_ns: u64) -> Result<(), NotBefore> {
        bucket.count(n);
        let own = self.own(bucket);
        own.as_ref().unwrap_or(self).take_here(bucket, n, now_ns)
    }

    fn take_here(&self, bucket: &Bucket, n: u64, now_ns: u64) -> Result<(), NotBefore> {
        let Some(cells) = u32::try_from(n).ok().map(NonZeroU32::new) else {
            return Err(NotBefore { wait_ns: self.wait_for(bucket, n, now_ns) });
        };
        let Some(cells) = cells else {
            return Ok(());
        };
        // Before governor sees it: its product of cells and interval is unchecked.
        let answer = match cells.get() <= self.burst {
            true => at(now_ns, || self.limiter.check_key_n(bucket, cells)).ok(),
            false => None,
        };
        match answer {
            Some(Ok(())) => Ok(()),
            Some(Err(not_until)) => {
                let wait = not_until.wait_time_from(Nanos::from(now_ns));
                Err(NotBefore { wait_ns: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX) })
            }
            // More than a part's burst, but not more than the whole: allowed once the bucket is
            // full, and paid for by waiting.
            None if n <= self.burst() && self.take_full(bucket, n, now_ns) => Ok(()),
            // More than the burst can never fit. The catalog refuses such a plan; a hold that a
            // handler asks for may still be too large, and waits for a full bucket at most.
            None => Err(NotBefore { wait_ns: self.wait_for(bucket, n, now_ns) }),
        }
    }

    fn take_full(&self, bucket: &Bucket, n: u64, now_ns: u64) -> bool {
        let next = now_ns.saturating_add(self.interval_ns.saturating_mul(n)).min(LATEST_NS);
        let taken = bucket.tat.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| {
            (tat <= now_ns).then_some(next)
        });
        taken.is_ok()
    }

    /// Gives back `n` units taken at `taken_ns`: only what has not been replenished since, because
    /// the replenished part was available to others all along.
    pub(crate) fn give_back(&self, bucket: &Bucket, n: u64, taken_ns: u64, now_ns: u64) {
        let worth = self.interval_of(bucket).saturating_mul(n);
        let owed = worth.saturating_sub(now_ns.saturating_sub(taken_ns));
        bucket.update(|tat| tat.saturating_sub(owed));
    }

    /// Charges `n` units learned late, whether they fit or not: the debt is paid by waiting.
    pub(crate) fn charge(&self, bucket: &Bucket, n: u64, now_ns: u64) {
        bucket.charge(self.interval_of(bucket), n, now_ns);
    }

    /// The level of an unused bucket.
    pub(crate) fn full(&self) -> Level {
        Level { remaining: self.burst(), full_in_ns: 0 }
    }

    /// How full the bucket is; for a part, what the whole would have if all parts were alike.
    pub(crate) fn level(&self, bucket: &Bucket, now_ns: u64) -> Level {
        let own = self.own(bucket);
        let rule = own.as_ref().unwrap_or(self);
        let ahead = bucket.tat.load(Ordering::Relaxed).saturating_sub(now_ns);
        let left = u64::from(rule.burst).saturating_sub(ahead.div_ceil(rule.interval_ns));
        let remaining = match rule.burst {
            part if part == self.whole_burst => left,
            part => left.saturating_mul(self.burst()) / u64::from(part),
        };
        Level { remaining, full_in_ns: ahead }
    }

    /// A bucket of this rule that is as far from full, in units, as `bucket` was under `old`.
    pub(crate) fn adopt(&self, bucket: &Bucket, old: &BucketRule, now_ns: u64) -> Bucket {
        let bucket = bucket.clone();
        self.take_over(&bucket, old.pace(), now_ns);
        bucket
    }

    /// Converts a bucket filled at the `old` pace to this rule: as far from full, in units, as it
    /// was. Its own share is a share of the whole rate, and is dropped when that changes.
    pub(crate) fn take_over(&self, bucket: &Bucket, old: Pace, now_ns: u64) {
        let before = bucket.interval_or(old.interval_ns);
        let is_same = (old.whole_interval_ns, old.grain) == (self.whole_interval_ns, self.grain);
        if !is_same || self.is_leased {
            bucket.interval_ns.store(0, Ordering::Relaxed);
        }
        let after = self.interval_of(bucket);
        let by = |interval: u64, grain: u64| u128::from(interval) * u128::from(grain);
        // Nanoseconds per atom, before and after.
        let (before, after) = (by(before, self.grain), by(after, old.grain));
        bucket.update(|tat| moved(tat, before, after, now_ns));
    }

    /// Gives the bucket a share of its own, in millionths of the whole rate, or none.
    pub(crate) fn set_share(&self, bucket: &Bucket, millionths: Option<u32>, now_ns: u64) {
        let whole = u128::from(self.whole_interval_ns) * 1_000_000;
        let interval = |share: u32| u64::try_from(whole.div_ceil(u128::from(share.max(1))));
        let own = millionths.map_or(0, |share| interval(share).unwrap_or(u64::MAX).min(LONGEST_NS));
        let before = self.interval_of(bucket);
        bucket.interval_ns.store(own, Ordering::Relaxed);
        let after = self.interval_of(bucket);
        if before != after {
            bucket.update(|tat| moved(tat, before.into(), after.into(), now_ns));
        }
    }

    /// Notes units refused in a slot, whose number is not 0. True once per slot: that caller
    /// reports the bucket.
    #[cold]
    pub(crate) fn refused(&self, bucket: &Bucket, n: u64, slot: u16) -> bool {
        // With a share of its own it is already counted and reported.
        bucket.interval_ns.load(Ordering::Relaxed) == 0 && bucket.count_refused(n, slot)
    }

    fn interval_of(&self, bucket: &Bucket) -> u64 {
        bucket.interval_or(self.interval_ns)
    }

    fn wait_for(&self, bucket: &Bucket, n: u64, now_ns: u64) -> u64 {
        let level = self.level(bucket, now_ns);
        let beyond_burst = n.saturating_sub(self.burst()).saturating_mul(self.interval_of(bucket));
        level.full_in_ns.saturating_add(beyond_burst).max(1)
    }
}

impl std::fmt::Debug for BucketRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketRule")
            .field("interval_ns", &self.interval_ns)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Charges `n` units learned late, at this interval if the bucket has no share of its own.
    pub(crate) fn charge(&self, interval_ns: u64, n: u64, now_ns: u64) {
        let worth = self.interval_or(interval_ns).saturating_mul(n);
        self.update(|tat| tat.max(now_ns).saturating_add(worth).min(LATEST_NS));
    }

    /// Nanoseconds per unit: its own, or those of its rule.
    fn interval_or(&self, of_rule_ns: u64) -> u64 {
        match self.interval_ns.load(Ordering::Relaxed) {
            0 => of_rule_ns,
            own => own,
        }
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        // The closure always answers `Some`, so the update cannot fail.
        let of = &self.tat;
        let _ = of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(change(tat)));
    }

    /// Counts units asked for.
    fn count(&self, n: u64) {
        let more = |asked: u64| {
            let units = (asked & MOST_ASKED).saturating_add(n).min(MOST_ASKED);
            Some(asked & !MOST_ASKED | units)
        };
        let _ = self.asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The same for refused units. True: the first time in this slot.
    fn count_refused(&self, n: u64, slot: u16) -> bool {
        let is_told = self.asked.load(Ordering::Relaxed) >> SLOT_AT == u64::from(slot);
        if is_told {
            self.count(n);
            return false;
        }
        // Two callers at once may both report, which counts as once. Nothing is left of a slot that
        // had no room for the report.
        self.asked.store(u64::from(slot) << SLOT_AT | n.min(MOST_ASKED), Ordering::Relaxed);
        true
    }

    /// Units asked for since the last call.
    pub(crate) fn take_asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed) & MOST_ASKED
    }
}

impl Clone for Bucket {
    fn clone(&self) -> Self {
        let copy = |of: &AtomicU64| AtomicU64::new(of.load(Ordering::Relaxed));
        let (tat, interval_ns) = (copy(&self.tat), copy(&self.interval_ns));
        Self { tat, interval_ns, asked: copy(&self.asked) }
    }
}

/// The TAT that is as many units ahead at the new interval as at the old one.
fn moved(tat: u64, before_ns: u128, after_ns: u128, now_ns: u64) -> u64 {
    let by = common_divisor(before_ns, after_ns);
    let ahead = u128::from(tat.saturating_sub(now_ns)).checked_mul(after_ns / by);
    let moved = ahead.map_or(u128::MAX, |ahead| ahead / (before_ns / by).max(1));
    let moved = u64::try_from(moved).unwrap_or(u64::MAX);
    if moved == 0 { 0 } else { now_ns.saturating_add(moved).min(LATEST_NS) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1 << 62;
    const SECOND: u64 = 1_000_000_000;

    fn rule(amount: u64, per_s: u64, burst: u64) -> BucketRule {
        BucketRule::new(amount, Duration::from_secs(per_s), burst)
    }

    /// The textbook bucket: a level in unit-nanoseconds that refills up to the burst.
    struct Model {
        interval: u128,
        cap: u128,
        level: u128,
        at: u64,
    }

    impl Model {
        fn new(rule: &BucketRule) -> Self {
            let interval = u128::from(rule.interval_ns);
            let cap = interval * u128::from(rule.burst);
            Self { interval, cap, level: cap, at: START }
        }

        fn take(&mut self, n: u64, now: u64) -> Result<(), u64> {
            self.level = (self.level + u128::from(now - self.at)).min(self.cap);
            self.at = now;
            let worth = self.interval * u128::from(n);
            if worth <= self.level {
                self.level -= worth;
                Ok(())
            } else {
                Err((worth - self.level) as u64)
            }
        }
    }

    proptest! {
        #[test]
        fn takes_as_the_textbook_bucket_does(
            amount in 1u64..5_000, per_s in 1u64..3_600, burst in 1u64..500,
            steps in prop::collection::vec((0u64..30 * SECOND, 1u64..50), 1..200),
        ) {
            let rule = rule(amount, per_s, burst);
            let (bucket, mut model, mut now) = (Bucket::default(), Model::new(&rule), START);
            for (gap, n) in steps {
                now += gap;
                let n = n.min(burst);
                let ours = rule.take(&bucket, n, now).map_err(|e| e.wait_ns);
                prop_assert_eq!(ours, model.take(n, now));
            }
        }

        #[test]
        fn refuses_until_the_promised_instant_and_allows_at_it(
            amount in 1u64..5_000, burst in 1u64..100, n in 1u64..100, gap in 0u64..SECOND,
        ) {
            let (rule, bucket, n) = (rule(amount, 1, burst), Bucket::default(), n.min(burst));
            let mut now = START;
            let wait = loop {
                match rule.take(&bucket, n, now) {
                    Ok(()) => now += gap % rule.interval_ns,
                    Err(NotBefore { wait_ns }) => break wait_ns,
                }
            };
            prop_assert!(wait > 0);
            prop_assert!(rule.take(&bucket, n, now + wait - 1).is_err());
            prop_assert!(rule.take(&bucket, n, now + wait).is_ok());
        }

        /// Whatever is taken, given back and carried over a changed rate, no span admits more than
        /// the burst and what the fastest of the rates in force refills.
        #[test]
        fn giving_back_and_changing_the_rate_never_mint(
            steps in prop::collection::vec((0u64..3 * SECOND, 1u64..8, 0u8..10), 1..150),
        ) {
            let rates = [rule(4, 1, 8), rule(30, 60, 8), rule(50, 1, 8)];
            let (mut which, mut bucket, mut now) = (0, Bucket::default(), START);
            let mut open: Vec<(u64, u64)> = Vec::new();
            // Units in millionths: capacity refills at the rate in force and is spent by net takes.
            let mut budget = 8_000_000i128;
            for (gap, n, kind) in steps {
                now += gap;
                let refill = i128::from(gap) * 1_000_000 / i128::from(rates[which].interval_ns);
                budget = (budget + refill + 1).min(8_000_001);
                match kind {
                    0 => {
                        let next = (which + 1) % rates.len();
                        bucket = rates[next].adopt(&bucket, &rates[which], now);
                        which = next;
                        open.clear(); // a refund under another interval is the sheet's concern
                    }
                    1..=3 if !open.is_empty() => {
                        let (taken, at) = open.swap_remove(0);
                        rates[which].give_back(&bucket, taken, at, now);
                        // The holder of a refund may see it admitted again: what it gave back,
                        // less what has refilled since.
                        let worth = i128::from(taken) * 1_000_000;
                        let since = i128::from(now - at) * 1_000_000
                            / i128::from(rates[which].interval_ns);
                        budget = (budget + (worth - since).max(0)).min(8_000_001);
                    }
                    _ => if rates[which].take(&bucket, n, now).is_ok() {
                        budget -= i128::from(n) * 1_000_000;
                        // A nanosecond of rounding per unit at most.
                        prop_assert!(budget >= -1_000, "minted {}", -budget);
                        open.push((n, now));
                    }
                }
            }
        }
    }

    /// Ordinary numbers, and those at the edges of what fits.
    fn extreme() -> impl Strategy<Value = u64> {
        let edges = [0u64, 1, 1 << 31, 1 << 32, 3_074_457_347, 1 << 62, 1 << 63, u64::MAX];
        let near = (prop::sample::select(edges.to_vec()), 0u64..4, any::<bool>());
        let near = near.prop_map(|(edge, by, below)| match below {
            true => edge.saturating_sub(by),
            false => edge.saturating_add(by),
        });
        prop_oneof![1u64..1_000, near, any::<u64>()]
    }

    proptest! {
        /// Whatever the rate, its burst, its parts and the costs: nothing overflows, no span of
        /// time admits more than the burst and what refills in it, and a refusal names a wait.
        #[test]
        fn no_cost_is_so_large_that_it_is_let_through(
            amount in extreme(), per_ns in extreme(), burst in extreme(), nodes in 1usize..40,
            share in prop::option::of(0u32..=1_000_000),
            steps in prop::collection::vec((extreme(), 0u64..1 << 58, 0u8..8), 1..40),
        ) {
            let rule = BucketRule::new(amount, Duration::from_nanos(per_ns), burst).among(nodes);
            let (bucket, mut now) = (Bucket::default(), START);
            rule.set_share(&bucket, share, now);
            let mut admitted = 0u128;
            for (n, gap, kind) in steps {
                now += gap / 40;
                match kind {
                    0 => rule.charge(&bucket, n, now),
                    1 => drop(rule.refused(&bucket, n, 1)),
                    _ => match rule.take(&bucket, n, now) {
                        Ok(()) => admitted += u128::from(n),
                        Err(NotBefore { wait_ns }) => prop_assert!(wait_ns > 0),
                    },
                }
                let level = rule.level(&bucket, now);
                prop_assert!(level.remaining <= rule.burst());
                let refilled = u128::from(now - START) / u128::from(rule.interval_of(&bucket));
                let most = u128::from(rule.burst()) + refilled + 1;
                prop_assert!(admitted <= most, "{} of {}", admitted, most);
            }
        }
    }

    #[test]
    fn a_bucket_is_told_of_once_a_slot() {
        let (rule, bucket) = (rule(10, 1, 10), Bucket::default());
        assert!(rule.refused(&bucket, 3, 1));
        assert!(!rule.refused(&bucket, u64::MAX, 1));
        assert!(rule.refused(&bucket, 4, 2), "there was no room to tell of it");
        assert_eq!(bucket.take_asked(), 4);
        assert!(rule.refused(&bucket, 5, 2));
        assert_eq!(bucket.take_asked(), 5);
    }

    #[test]
    fn a_raised_rate_acts_at_once_on_an_empty_bucket() {
        let (slow, fast) = (rule(30, 60, 30), rule(50, 1, 100));
        let bucket = Bucket::default();
        slow.take(&bucket, 30, START).unwrap();
        let NotBefore { wait_ns } = slow.take(&bucket, 1, START).unwrap_err();
        assert_eq!(wait_ns, 2 * SECOND);
        let moved = fast.adopt(&bucket, &slow, START);
        assert_eq!(fast.level(&moved, START).remaining, 70);
        assert!(fast.take(&moved, 70, START).is_ok());
    }

    #[test]
    fn a_charge_goes_past_the_burst_and_is_paid_by_waiting() {
        let (rule, bucket) = (rule(10, 1, 10), Bucket::default());
        rule.charge(&bucket, 25, START);
        assert_eq!(rule.level(&bucket, START).remaining, 0);
        let NotBefore { wait_ns } = rule.take(&bucket, 1, START).unwrap_err();
        assert_eq!(wait_ns, 16 * SECOND / 10);
    }

    #[test]
    fn more_than_the_burst_names_a_wait_and_never_fits() {
        let (rule, bucket) = (rule(10, 1, 10), Bucket::default());
        assert!(rule.take(&bucket, 11, START).is_err());
        assert!(rule.take(&bucket, u64::MAX, START).is_err());
        assert_eq!(rule.level(&bucket, START).remaining, 10, "a refusal takes nothing");
    }

    /// `amount` atoms a second, in units of ten.
    fn in_tens(amount: u64, burst: u64) -> BucketRule {
        BucketRule::in_grains(amount, Duration::from_secs(1), burst, 10)
    }

    #[test]
    fn a_rate_whose_units_have_many_parts_admits_what_was_written() {
        let (rule, bucket) = (in_tens(1_000, 500), Bucket::default());
        assert_eq!(rule.atoms(rule.full().remaining), 500);
        assert_eq!(rule.refill(), Duration::from_millis(500));
        rule.take(&bucket, rule.cells(500), START).unwrap();
        let NotBefore { wait_ns } = rule.take(&bucket, rule.cells(1), START).unwrap_err();
        assert_eq!(wait_ns, SECOND / 100);
    }

    #[test]
    fn each_of_four_nodes_has_a_quarter_of_a_rate_and_of_its_burst() {
        let (rule, bucket) = (in_tens(1_000, 400).among(4), Bucket::default());
        assert_eq!(rule.atoms(rule.full().remaining), 400, "the rate as a whole is shown");
        assert_eq!(rule.level(&bucket, START).remaining, rule.full().remaining);
        rule.take(&bucket, rule.cells(100), START).unwrap();
        let NotBefore { wait_ns } = rule.take(&bucket, rule.cells(10), START).unwrap_err();
        assert_eq!(wait_ns, 4 * SECOND / 100);
        let half = rule.level(&bucket, START + SECOND / 5);
        assert_eq!((rule.atoms(half.remaining), half.full_in_ns), (200, SECOND / 5));
    }

    #[test]
    fn a_call_larger_than_a_nodes_part_is_let_through_when_it_is_full_and_paid_by_waiting() {
        let (rule, bucket) = (rule(40, 1, 40).among(4), Bucket::default());
        rule.take(&bucket, 30, START).unwrap();
        let full = START + 3 * SECOND;
        let NotBefore { wait_ns } = rule.take(&bucket, 30, START + SECOND).unwrap_err();
        assert_eq!(wait_ns, 2 * SECOND);
        assert!(rule.take(&bucket, 30, full - 1).is_err());
        rule.take(&bucket, 30, full).unwrap();
        let NotBefore { wait_ns } = rule.take(&bucket, 41, full).unwrap_err();
        assert_eq!(wait_ns, 3 * SECOND + SECOND / 10, "more than the rate's burst");
    }

    #[test]
    fn a_nodes_own_share_of_a_rate_lasts_until_the_rate_changes_or_is_leased_by_the_slot() {
        let (whole, bucket) = (rule(40, 1, 40), Bucket::default());
        whole.set_share(&bucket, Some(250_000), START);
        whole.take(&bucket, 10, START).unwrap();
        assert!(whole.take(&bucket, 1, START).is_err());
        let level = |rule: BucketRule| {
            let bucket = rule.adopt(&bucket, &whole, START);
            let level = rule.level(&bucket, START);
            (level.remaining, level.full_in_ns)
        };
        assert_eq!(level(rule(40, 1, 40).among(2)), (0, SECOND), "other nodes, the same rate");
        assert_eq!(level(rule(80, 1, 80)), (70, SECOND / 8));
        assert_eq!(level(rule(40, 1, 40).leased()), (30, SECOND / 4));
    }

    #[test]
    fn what_is_missing_of_a_burst_is_missing_however_its_units_are_counted() {
        let (tens, bucket) = (in_tens(1_000, 400), Bucket::default());
        tens.take(&bucket, tens.cells(100), START).unwrap();
        for grain in [1, 20, 25] {
            let next = BucketRule::in_grains(1_000, Duration::from_secs(1), 400, grain);
            let level = next.level(&next.adopt(&bucket, &tens, START), START);
            assert_eq!(next.atoms(level.remaining), 300, "in {grain}s");
        }
    }
}

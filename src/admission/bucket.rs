//! The token bucket that shapes bursts: governor's GCRA behind a cell of one word.
//!
//! The word is the *theoretical arrival time* (TAT, ITU-T I.371): the instant on the monotonic
//! clock at which the bucket is full again. Taking `n` moves it on by `n` times the interval; a
//! request fits while it stays within the burst of now. So one number holds a bucket, and a bucket
//! nobody uses is a number in the past.
//!
//! Where several nodes share a rate each has a part of it: the same for all, which is then the rule
//! of the node ([`BucketRule::among`]), or for a limit under pressure one of its own, which stands
//! in the bucket ([`BucketRule::set_share`]). Either way rate and burst are cut alike, so that the
//! time in which an empty bucket fills stays what was written.
//!
//! What governor does not have is here: giving back, charging what was learned late, and keeping a
//! bucket over a change of its rate. None of them ever mints: after any history, no span of time
//! admits more than burst + span x rate, except for what [`BucketRule::charge`] took past the
//! burst.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};

mod cell;

use cell::{Argument, InCell, at};

/// One bucket. A new one is full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Its TAT in nanoseconds on the monotonic clock.
    tat: AtomicU64,
    /// Nanoseconds per unit, where it has a share of its own; 0: as its rule says. It stands beside
    /// the TAT, which every take reads anyway.
    interval_ns: AtomicU64,
    /// Units asked for since this was last looked at: all of them where it has a share of its own,
    /// and else those that were refused. The highest bit: it has been told of.
    asked: AtomicU64,
}

/// Of [`Bucket::asked`].
const TOLD: u64 = 1 << 63;

/// The arithmetic of one rate, shared by all buckets that it rules.
pub(crate) struct BucketRule {
    limiter: RateLimiter<Bucket, InCell, Argument, NoOpMiddleware<Nanos>>,
    /// Nanoseconds per unit, rounded up, so that rounding never admits more.
    interval_ns: u64,
    burst: u32,
    /// The same of the whole rate, of which this may be a part.
    whole_interval_ns: u64,
    whole_burst: u32,
}

/// A refused take: how long until it would fit, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBefore {
    pub(crate) wait_ns: u64,
}

/// How fast the units of a rule come: in nanoseconds per unit here, and over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval_ns: u64,
    pub(crate) whole_interval_ns: u64,
}

/// How a bucket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) remaining: u64,
    /// Until the burst is whole again.
    pub(crate) full_in_ns: u64,
}

impl Bucket {
    /// Whether all of its burst is there.
    pub(crate) fn is_full(&self, now_ns: u64) -> bool {
        self.tat.load(Ordering::Relaxed) <= now_ns
    }
}

impl BucketRule {
    /// `amount` units per `per`, at most `burst` at once. The catalog has checked that the interval
    /// is at least a nanosecond and that burst times interval fits; out of range is clamped.
    pub(crate) fn new(amount: u64, per: Duration, burst: u64) -> Self {
        let per_ns = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval_ns = per_ns.div_ceil(amount.max(1)).max(1);
        let burst = u32::try_from(burst).unwrap_or(u32::MAX).max(1);
        Self::part(interval_ns, interval_ns, burst)
    }

    /// The part of each of so many nodes.
    #[must_use]
    pub(crate) fn among(self, nodes: usize) -> Self {
        let nodes = u64::try_from(nodes.max(1)).unwrap_or(u64::MAX);
        match nodes {
            1 => self,
            _ => self.at(self.whole_interval_ns.saturating_mul(nodes)),
        }
    }

    /// A part of a rate, whose units come at this interval.
    fn part(interval_ns: u64, whole_interval_ns: u64, whole_burst: u32) -> Self {
        let fills_ns = whole_interval_ns.saturating_mul(u64::from(whole_burst));
        let burst = u32::try_from(fills_ns / interval_ns).unwrap_or(whole_burst).max(1);
        let cells = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(interval_ns))
            .expect("an interval of at least 1 ns is a period")
            .allow_burst(cells);
        let limiter = at(0, || RateLimiter::new(quota, InCell, Argument));
        Self { limiter, interval_ns, burst, whole_interval_ns, whole_burst }
    }

    fn at(&self, interval_ns: u64) -> Self {
        Self::part(interval_ns.max(1), self.whole_interval_ns, self.whole_burst)
    }

    /// The rule of a bucket that has a share of its own.
    fn own(&self, bucket: &Bucket) -> Option<Self> {
        let interval_ns = bucket.interval_ns.load(Ordering::Relaxed);
        (interval_ns != 0).then(|| self.at(interval_ns))
    }

    /// Nanoseconds per unit of the whole rate.
    pub(crate) fn whole_interval_ns(&self) -> u64 {
        self.whole_interval_ns
    }

    /// How fast its units come.
    pub(crate) fn pace(&self) -> Pace {
        Pace { interval_ns: self.interval_ns, whole_interval_ns: self.whole_interval_ns }
    }

    /// Most units at once, over all nodes.
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

    /// Under pressure what is asked for is counted.
    #[cold]
    fn take_of_share(&self, bucket: &Bucket, n: u64, now_ns: u64) -> Result<(), NotBefore> {
        bucket.asked.fetch_add(n, Ordering::Relaxed);
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
        match at(now_ns, || self.limiter.check_key_n(bucket, cells)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(Nanos::from(now_ns));
                Err(NotBefore { wait_ns: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX) })
            }
            // More than a part's burst, but not more than the whole: once the bucket is full, and
            // paid for by waiting.
            Err(_) if n <= self.burst() && self.take_full(bucket, n, now_ns) => Ok(()),
            // More than the burst can never fit. The catalog refuses such a plan; a hold that a
            // handler asks for may still be too large, and waits for a full bucket at most.
            Err(_) => Err(NotBefore { wait_ns: self.wait_for(bucket, n, now_ns) }),
        }
    }

    fn take_full(&self, bucket: &Bucket, n: u64, now_ns: u64) -> bool {
        let next = now_ns.saturating_add(self.interval_ns.saturating_mul(n));
        let taken = bucket.tat.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| {
            (tat <= now_ns).then_some(next)
        });
        taken.is_ok()
    }

    /// Gives back `n` units taken at `taken_ns`: only what has not been replenished since, because
    /// the replenished part was free for others all along.
    pub(crate) fn give_back(&self, bucket: &Bucket, n: u64, taken_ns: u64, now_ns: u64) {
        let worth = self.interval_of(bucket).saturating_mul(n);
        let owed = worth.saturating_sub(now_ns.saturating_sub(taken_ns));
        bucket.update(|tat| tat.saturating_sub(owed));
    }

    /// Charges `n` units that were learned late, whether they fit or not: the debt is paid by
    /// waiting.
    pub(crate) fn charge(&self, bucket: &Bucket, n: u64, now_ns: u64) {
        bucket.charge(self.interval_of(bucket), n, now_ns);
    }

    /// How a bucket stands that nobody has used.
    pub(crate) fn full(&self) -> Level {
        Level { remaining: self.burst(), full_in_ns: 0 }
    }

    /// How full the bucket is; of a part what the whole would have, were all parts alike.
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

    /// Makes the bucket, which was filled at `old` pace, one of this rule: as far from full, in
    /// units, as it was. A share of its own is one of the whole rate, and goes when that changes.
    pub(crate) fn take_over(&self, bucket: &Bucket, old: Pace, now_ns: u64) {
        let before = bucket.interval_or(old.interval_ns);
        if old.whole_interval_ns != self.whole_interval_ns {
            bucket.interval_ns.store(0, Ordering::Relaxed);
        }
        let after = self.interval_of(bucket);
        bucket.update(|tat| moved(tat, before, after, now_ns));
    }

    /// Gives the bucket a share of its own, in millionths of the whole rate, or none.
    pub(crate) fn set_share(&self, bucket: &Bucket, millionths: Option<u32>, now_ns: u64) {
        let whole = u128::from(self.whole_interval_ns) * 1_000_000;
        let interval = |share: u32| u64::try_from(whole.div_ceil(u128::from(share.max(1))));
        let own = millionths.map_or(0, |share| interval(share).unwrap_or(u64::MAX));
        let before = self.interval_of(bucket);
        bucket.interval_ns.store(own, Ordering::Relaxed);
        let after = self.interval_of(bucket);
        if before != after {
            bucket.update(|tat| moved(tat, before, after, now_ns));
        }
    }

    /// Notes units that were refused. True once in a while: whoever gets it tells of the bucket.
    #[cold]
    pub(crate) fn refused(&self, bucket: &Bucket, n: u64) -> bool {
        // With a share of its own it has been counted, and told of.
        let is_shared = bucket.interval_ns.load(Ordering::Relaxed) != 0;
        !is_shared && bucket.asked.fetch_add(n, Ordering::Relaxed) & TOLD == 0 && bucket.tell()
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
    /// Charges `n` units that were learned late, for a bucket without a share of its own at this
    /// interval.
    pub(crate) fn charge(&self, interval_ns: u64, n: u64, now_ns: u64) {
        let worth = self.interval_or(interval_ns).saturating_mul(n);
        self.update(|tat| tat.max(now_ns).saturating_add(worth));
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

    fn tell(&self) -> bool {
        self.asked.fetch_or(TOLD, Ordering::Relaxed) & TOLD == 0
    }

    /// Units asked for since this was last asked.
    pub(crate) fn take_asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed) & !TOLD
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
fn moved(tat: u64, before_ns: u64, after_ns: u64, now_ns: u64) -> u64 {
    let ahead = u128::from(tat.saturating_sub(now_ns));
    let moved = ahead * u128::from(after_ns) / u128::from(before_ns);
    let moved = u64::try_from(moved).unwrap_or(u64::MAX);
    if moved == 0 { 0 } else { now_ns.saturating_add(moved) }
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

    /// The bucket as the textbook has it: a level in unit-nanoseconds that refills up to the burst.
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
}

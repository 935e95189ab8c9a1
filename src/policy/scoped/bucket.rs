//! A bucket within a tenant, across changes of its rate: what is missing from its burst stays
//! missing in units, as in a tenant's own buckets.
//!
//! No sheet carries it over, so it keeps the rule it was filled under, and the first request with
//! another rule converts it. What belongs to an older rule never mints: it is charged at the rate
//! in force, and not given back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::Now;
use crate::policy::bucket::{Bucket, BucketRule, Level, Pace};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ScopedBucket {
    bucket: Bucket,
    /// The pace of the rule it was filled under.
    interval_ns: AtomicU64,
    whole_interval_ns: AtomicU64,
    grain: AtomicU64,
    /// Held while it is converted to another rule.
    moving: Mutex<()>,
}

impl ScopedBucket {
    /// A full bucket.
    pub(super) fn new(rule: &BucketRule) -> Self {
        let Pace { interval_ns, whole_interval_ns, grain } = rule.pace();
        Self {
            bucket: Bucket::default(),
            interval_ns: interval_ns.into(),
            whole_interval_ns: whole_interval_ns.into(),
            grain: grain.into(),
            moving: Mutex::new(()),
        }
    }

    /// The bucket, converted to this rule.
    #[inline]
    pub(crate) fn under(&self, rule: &BucketRule, now_ns: u64) -> &Bucket {
        if !self.is_under(rule) {
            self.follow(rule, now_ns);
        }
        &self.bucket
    }

    /// Its level under this rule. Reading converts nothing: a response may come long after its rule
    /// was replaced.
    pub(crate) fn level(&self, rule: &BucketRule, now_ns: u64) -> Level {
        if self.is_under(rule) {
            return rule.level(&self.bucket, now_ns);
        }
        let seen = self.bucket.clone();
        rule.take_over(&seen, self.pace(), now_ns);
        rule.level(&seen, now_ns)
    }

    /// Gives back `n` atoms that were taken under this rule.
    pub(crate) fn give_back(&self, rule: &BucketRule, n: u64, taken_at: Now, now: Now) {
        if self.is_under(rule) {
            rule.give_back(&self.bucket, rule.cells(n), taken_at.mono_ns, now.mono_ns);
        }
    }

    /// Charges `n` atoms learned late, whatever rule they were asked for under.
    pub(crate) fn charge(&self, n: u64, now: Now) {
        let Pace { interval_ns, grain, .. } = self.pace();
        self.bucket.charge(interval_ns, n.div_ceil(grain), now.mono_ns);
    }

    /// Whether its whole burst is available: dropped earlier, it would be full too early.
    pub(super) fn is_full(&self, now_ns: u64) -> bool {
        self.bucket.is_full(now_ns)
    }

    fn is_under(&self, rule: &BucketRule) -> bool {
        let pace = rule.pace();
        self.interval_ns.load(Ordering::Acquire) == pace.interval_ns
            && self.grain.load(Ordering::Relaxed) == pace.grain
    }

    fn pace(&self) -> Pace {
        Pace {
            interval_ns: self.interval_ns.load(Ordering::Acquire),
            whole_interval_ns: self.whole_interval_ns.load(Ordering::Relaxed),
            grain: self.grain.load(Ordering::Relaxed).max(1),
        }
    }

    #[cold]
    fn follow(&self, rule: &BucketRule, now_ns: u64) {
        let _one = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_under(rule) {
            return;
        }
        rule.take_over(&self.bucket, self.pace(), now_ns);
        self.whole_interval_ns.store(rule.pace().whole_interval_ns, Ordering::Relaxed);
        self.grain.store(rule.pace().grain, Ordering::Relaxed);
        self.interval_ns.store(rule.pace().interval_ns, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(mono_ns: u64) -> Now {
        Now { mono_ns: (1 << 62) + mono_ns, wall_ms: 0 }
    }

    fn take(bucket: &ScopedBucket, rule: &BucketRule, n: u64, now: Now) -> bool {
        rule.take(bucket.under(rule, now.mono_ns), n, now.mono_ns).is_ok()
    }

    #[test]
    fn what_is_missing_stays_missing_over_a_change_of_the_rate() {
        let slow = BucketRule::new(10, Duration::from_secs(3_600), 10);
        let fast = BucketRule::new(100, Duration::from_secs(3_600), 100);
        let bucket = ScopedBucket::new(&slow);
        assert!(take(&bucket, &slow, 10, at(0)));
        assert!(take(&bucket, &fast, 90, at(0)), "ten of a hundred are gone");
        assert!(!take(&bucket, &fast, 1, at(35 * SECOND)), "one comes in 36 s");
        assert!(take(&bucket, &fast, 1, at(36 * SECOND)));
        assert!(!take(&bucket, &slow, 1, at(36 * SECOND)), "a hundred of ten");
    }

    #[test]
    fn a_look_by_an_older_rule_changes_nothing() {
        let fast = BucketRule::new(1_000, Duration::from_secs(1), 10);
        let slow = BucketRule::new(10, Duration::from_secs(3_600), 10);
        let bucket = ScopedBucket::new(&fast);
        assert!(take(&bucket, &slow, 10, at(0)));
        assert_eq!(bucket.level(&slow, at(0).mono_ns).remaining, 0);
        assert_eq!(bucket.level(&fast, at(0).mono_ns).remaining, 0);
        assert!(!take(&bucket, &slow, 1, at(SECOND)), "one comes in six minutes");
    }

    #[test]
    fn what_belongs_to_an_older_rule_mints_nothing() {
        let fast = BucketRule::new(1_000, Duration::from_secs(1), 10);
        let slow = BucketRule::new(10, Duration::from_secs(3_600), 10);
        let bucket = ScopedBucket::new(&fast);
        assert!(take(&bucket, &fast, 10, at(0)));
        // All of it is available again when the rate changes, and is taken again.
        assert!(take(&bucket, &slow, 10, at(SECOND)));
        bucket.give_back(&fast, 10, at(0), at(SECOND));
        assert!(!take(&bucket, &slow, 1, at(SECOND)), "what was replenished went to others");
        // A number learned late costs what it costs now.
        bucket.charge(10, at(SECOND));
        assert!(!take(&bucket, &slow, 1, at(3_600 * SECOND)));
    }
}

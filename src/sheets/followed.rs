//! How far this process has followed the changes of the directory. A tenant that was read before,
//! and of which no change was announced since, need not be read again: it is as good as read then.
//!
//! A change may have been made whose process died before it was announced. So each is announced
//! before it is made, too: a tenant of which one has begun is not vouched for a while, and is read
//! again by its age.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Now, nanos};
use crate::ids::Surrogate;

/// For so long a change that has begun may be made: far longer than its maker tries.
const BEGUN: Duration = Duration::from_secs(120);

/// Most tenants of which changes have begun. Past it nothing is vouched for, until all of them are
/// over.
const MAX_BEGUN: usize = 4_096;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Followed {
    /// Since when no announcement was missed, and up to when, on the monotonic clock.
    since_ns: AtomicU64,
    until_ns: AtomicU64,
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    /// Until when a change that has begun may be made.
    until_ns: HashMap<Surrogate, u64>,
    /// The same for changes of unknown tenants.
    of_any_ns: u64,
}

impl Default for Followed {
    fn default() -> Self {
        let (until_ns, begun) = Default::default();
        Self { since_ns: u64::MAX.into(), until_ns, begun }
    }
}

impl Followed {
    /// All that was announced before `then_ns` is known.
    pub(crate) fn up_to(&self, then_ns: u64) {
        self.since_ns.fetch_min(then_ns, Ordering::AcqRel);
        self.until_ns.store(then_ns, Ordering::Release);
    }

    /// Announcements were missed: what was read so far is vouched for no more.
    pub(crate) fn lost(&self) {
        self.until_ns.store(0, Ordering::Release);
        self.since_ns.store(u64::MAX, Ordering::Release);
    }

    /// A change of this tenant has begun.
    pub(crate) fn begins(&self, tenant: Surrogate, now: Now) {
        let mut begun = self.begun();
        begun.until_ns.retain(|_, until_ns| *until_ns > now.mono_ns);
        if begun.until_ns.len() >= MAX_BEGUN {
            begun.until_ns.clear();
            begun.of_any_ns = now.mono_ns.saturating_add(nanos(BEGUN));
        }
        begun.until_ns.insert(tenant, now.mono_ns.saturating_add(nanos(BEGUN)));
    }

    /// Changes of unknown tenants have begun.
    pub(crate) fn any_begins(&self, now: Now) {
        self.begun().of_any_ns = now.mono_ns.saturating_add(nanos(BEGUN));
    }

    /// Up to when what was read of this tenant at `read_ns` is as good as read then, if that is
    /// later.
    pub(crate) fn vouches_for(&self, tenant: Surrogate, read_ns: u64, now: Now) -> Option<u64> {
        // In this order: see `up_to`.
        let until_ns = self.until_ns.load(Ordering::Acquire);
        let since_ns = self.since_ns.load(Ordering::Acquire);
        if read_ns < since_ns || until_ns <= read_ns {
            return None;
        }
        let begun = self.begun();
        let of_tenant_ns = begun.until_ns.get(&tenant).copied().unwrap_or(0);
        (of_tenant_ns.max(begun.of_any_ns) <= now.mono_ns).then_some(until_ns)
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: Surrogate = Surrogate::test(1);

    fn at(seconds: u64) -> Now {
        Now { mono_ns: seconds * 1_000_000_000, wall_ms: 0 }
    }

    fn vouched(it: &Followed, tenant: Surrogate, read_s: u64, now_s: u64) -> Option<u64> {
        let until_ns = it.vouches_for(tenant, at(read_s).mono_ns, at(now_s));
        until_ns.map(|until_ns| until_ns / 1_000_000_000)
    }

    #[test]
    fn what_was_read_while_nothing_was_missed_is_vouched_for() {
        let it = Followed::default();
        assert_eq!(vouched(&it, TENANT, 5, 5), None, "nothing is followed");
        it.up_to(at(10).mono_ns);
        assert_eq!(vouched(&it, TENANT, 9, 11), None, "read before the first look");
        it.up_to(at(20).mono_ns);
        assert_eq!(vouched(&it, TENANT, 11, 21), Some(20));
        assert_eq!(vouched(&it, TENANT, 20, 21), None, "no older than the look");
        it.lost();
        assert_eq!(vouched(&it, TENANT, 11, 21), None);
        it.up_to(at(22).mono_ns);
        it.up_to(at(23).mono_ns);
        assert_eq!(vouched(&it, TENANT, 11, 24), None, "read before something was missed");
        assert_eq!(vouched(&it, TENANT, 22, 24), Some(23));
    }

    #[test]
    fn a_tenant_of_which_a_change_has_begun_is_not_vouched_for() {
        let (it, other) = (Followed::default(), Surrogate::test(2));
        it.up_to(0);
        it.up_to(at(20).mono_ns);
        it.begins(TENANT, at(20));
        assert_eq!(vouched(&it, TENANT, 1, 21), None);
        assert_eq!(vouched(&it, other, 1, 21), Some(20));
        it.up_to(at(200).mono_ns);
        assert_eq!(vouched(&it, TENANT, 1, 20 + BEGUN.as_secs()), Some(200));
        for n in 0..=MAX_BEGUN {
            it.begins(Surrogate::test(100 + n as u128), at(200));
        }
        assert_eq!(vouched(&it, other, 1, 201), None, "too many");
        it.any_begins(at(400));
        assert_eq!(vouched(&it, other, 1, 401), None);
        assert_eq!(vouched(&it, other, 1, 400 + BEGUN.as_secs()), Some(200));
    }
}

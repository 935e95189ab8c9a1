//! Negative cache: unknown credentials, remembered for [`UnknownCache::TTL`]: a flood of invented
//! keys costs memory accesses, not store reads.
//!
//! The table has a fixed size and forgets by overwriting: it never grows, never allocates after
//! creation, and never blocks. It errs on the side of asking the store again. It wrongly reports a
//! credential as unknown only if 56 bits of two probes agree (16 choose the slot, 40 are compared),
//! and probes are keyed per process, so that a collision cannot be aimed at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::CredentialKey;
use crate::clock::{Now, nanos};

/// A power of two: half a megabyte.
const SLOTS: usize = 65_536;
/// The rest of a slot is the time: seconds modulo 2^24, which wraps around after 194 days.
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The negative cache.
pub(crate) struct UnknownCache {
    slots: Box<[AtomicU64]>,
    /// Recently created names, unrelated to probes, with their times; oldest first.
    made: Mutex<VecDeque<(u128, u64)>>,
    /// Whether there are any, so that a flood need not take the lock to find out.
    has_made: AtomicBool,
}

/// Most names created within [`MADE_FOR`] that are tracked. One more clears the whole table, and
/// everything is looked up anew.
const MADE: usize = 256;

/// How long a newly created name may still be in the table: the lifetime of an entry, plus a
/// look-up that found nothing and has yet to add its entry.
const MADE_FOR: Duration = Duration::from_secs(60);

impl UnknownCache {
    /// How long a credential stays unknown: the longest wait for a key created in another process,
    /// if it was tried before its creation.
    pub(crate) const TTL: Duration = Duration::from_secs(30);

    /// An empty table.
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, made: Mutex::default(), has_made: AtomicBool::new(false) }
    }

    /// Remembers that this credential is unknown.
    pub(crate) fn insert(&self, probe: CredentialKey, now: Now) {
        self.slot(probe).store(tag(probe) | seconds(now), Ordering::Relaxed);
    }

    /// Whether this credential was found to be unknown less than [`Self::TTL`] ago.
    pub(crate) fn contains(&self, probe: CredentialKey, now: Now) -> bool {
        let held = self.slot(probe).load(Ordering::Relaxed);
        let age = seconds(now).wrapping_sub(held) & TIME;
        held != 0 && held & !TIME == tag(probe) && age < Self::TTL.as_secs()
    }

    /// Records that this name was just created. From now on credentials remembered as unknown must
    /// be checked by name ([`was_made`](Self::was_made)): the table cannot be searched.
    pub(crate) fn made(&self, name: u128, now: Now) {
        let mut made = self.locked();
        if made.len() >= MADE {
            made.clear();
            self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        }
        made.push_back((name, now.mono_ns));
        self.has_made.store(true, Ordering::Release);
    }

    /// Whether any name was created recently.
    pub(crate) fn has_made(&self) -> bool {
        self.has_made.load(Ordering::Acquire)
    }

    /// Whether this name was created recently.
    pub(crate) fn was_made(&self, name: u128, now: Now) -> bool {
        let mut made = self.locked();
        while made.front().is_some_and(|(_, at)| now.mono_ns.saturating_sub(*at) > nanos(MADE_FOR))
        {
            made.pop_front();
        }
        if made.is_empty() {
            self.has_made.store(false, Ordering::Release);
        }
        made.iter().any(|(known, _)| *known == name)
    }

    /// Clears everything: each credential is looked up anew.
    pub(crate) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<(u128, u64)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, probe: CredentialKey) -> &AtomicU64 {
        &self.slots[probe.0 as usize % SLOTS]
    }
}

impl Default for UnknownCache {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for UnknownCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unknown").field("slots", &self.slots.len()).finish()
    }
}

/// The 40 highest bits, none of which select the slot.
fn tag(probe: CredentialKey) -> u64 {
    (probe.0 >> 64) as u64 & !TIME
}

fn seconds(now: Now) -> u64 {
    (now.mono_ns / 1_000_000_000) & TIME
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now { mono_ns: 1 << 62, wall_ms: 0 };

    #[test]
    fn holds_for_30_seconds() {
        let unknown = UnknownCache::new();
        let probe = CredentialKey(7 << 90 | 5);
        assert!(!unknown.contains(probe, START));
        unknown.insert(probe, START);
        assert!(unknown.contains(probe, START.after(Duration::from_secs(29))));
        assert!(!unknown.contains(probe, START.after(Duration::from_secs(30))));
        assert!(!unknown.contains(probe, START.after(Duration::from_secs(1 << 23))));
    }

    #[test]
    fn ten_million_inserts_change_nothing_but_the_slots() {
        let unknown = UnknownCache::new();
        let before = unknown.slots.as_ptr();
        let mut last = 0;
        for n in 0..10_000_000_u128 {
            last = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            unknown.insert(CredentialKey(last), START);
        }
        assert_eq!((unknown.slots.as_ptr(), unknown.slots.len()), (before, SLOTS));
        assert!(unknown.contains(CredentialKey(last), START));
    }

    proptest! {
        #[test]
        fn a_different_probe_in_the_same_slot_is_no_hit(a: u64, b: u64, low: u64) {
            prop_assume!(a & !TIME != b & !TIME);
            let at = |high: u64| CredentialKey(u128::from(high) << 64 | u128::from(low));
            let unknown = UnknownCache::new();
            unknown.insert(at(a), START);
            prop_assert!(unknown.contains(at(a), START));
            prop_assert!(!unknown.contains(at(b), START));
        }
    }
}

//! Credentials that were looked up and are nobody's, remembered for [`Unknown::TTL`]: a flood of
//! invented keys costs memory accesses, not store reads.
//!
//! The table has a fixed size and forgets by overwriting: it never grows, never allocates after it
//! was made, and never blocks. It errs on the side of asking the store again. It says "unknown" of
//! a credential that is not only if 56 bits of two probes agree (16 choose the slot, 40 are
//! compared), and probes are keyed per process, so that nobody can aim.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Probe;
use crate::clock::Now;

/// A power of two: half a megabyte.
const SLOTS: usize = 65_536;
/// The rest of a slot is the time: seconds modulo 2^24, which come round after 194 days.
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The negative cache.
pub struct Unknown {
    slots: Box<[AtomicU64]>,
}

impl Unknown {
    /// How long a credential stays unknown: what a key made in another process waits at most,
    /// if it was tried before it was made.
    pub const TTL: Duration = Duration::from_secs(30);

    /// An empty table.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Remembers that this credential is nobody's.
    pub fn insert(&self, probe: Probe, now: Now) {
        self.slot(probe).store(tag(probe) | seconds(now), Ordering::Relaxed);
    }

    /// Whether this credential was found to be nobody's less than [`Self::TTL`] ago.
    pub fn contains(&self, probe: Probe, now: Now) -> bool {
        let held = self.slot(probe).load(Ordering::Relaxed);
        let age = seconds(now).wrapping_sub(held) & TIME;
        held != 0 && held & !TIME == tag(probe) && age < Self::TTL.as_secs()
    }

    /// Forgets a credential, because it has just been made here.
    pub fn forget(&self, probe: Probe) {
        let slot = self.slot(probe);
        let held = slot.load(Ordering::Relaxed);
        if held & !TIME == tag(probe) {
            // If another credential came in between, its entry stays.
            let _ = slot.compare_exchange(held, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn slot(&self, probe: Probe) -> &AtomicU64 {
        &self.slots[probe.0 as usize % SLOTS]
    }
}

impl Default for Unknown {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unknown").field("slots", &self.slots.len()).finish()
    }
}

/// The 40 highest bits, none of which choose the slot.
fn tag(probe: Probe) -> u64 {
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
        let unknown = Unknown::new();
        let probe = Probe(7 << 90 | 5);
        assert!(!unknown.contains(probe, START));
        unknown.insert(probe, START);
        assert!(unknown.contains(probe, START.after(Duration::from_secs(29))));
        assert!(!unknown.contains(probe, START.after(Duration::from_secs(30))));
        assert!(!unknown.contains(probe, START.after(Duration::from_secs(1 << 23))));
    }

    #[test]
    fn ten_million_inserts_change_nothing_but_the_slots() {
        let unknown = Unknown::new();
        let before = unknown.slots.as_ptr();
        let mut last = 0;
        for n in 0..10_000_000_u128 {
            last = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            unknown.insert(Probe(last), START);
        }
        assert_eq!((unknown.slots.as_ptr(), unknown.slots.len()), (before, SLOTS));
        assert!(unknown.contains(Probe(last), START));
    }

    #[test]
    fn is_forgotten_when_made_and_leaves_a_neighbour_alone() {
        let unknown = Unknown::new();
        let (probe, neighbour) = (Probe(1 << 100 | 9), Probe(2 << 100 | 9));
        unknown.insert(probe, START);
        unknown.forget(neighbour);
        assert!(unknown.contains(probe, START));
        unknown.forget(probe);
        assert!(!unknown.contains(probe, START));
    }

    proptest! {
        #[test]
        fn a_different_probe_in_the_same_slot_is_no_hit(a: u64, b: u64, low: u64) {
            prop_assume!(a & !TIME != b & !TIME);
            let at = |high: u64| Probe(u128::from(high) << 64 | u128::from(low));
            let unknown = Unknown::new();
            unknown.insert(at(a), START);
            prop_assert!(unknown.contains(at(a), START));
            prop_assert!(!unknown.contains(at(b), START));
        }
    }
}

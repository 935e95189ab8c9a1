//! Lease sizing: slow start, and a share of what is free, so that leases shrink as a pool runs out.

use std::time::Duration;

use super::balance::{Balance, signed};
use super::negotiation::Negotiation;
use crate::clock::Now;

/// A lease that lasts less than this is too small. The next is so much larger that it would have
/// lasted as long, within these bounds: a first lease says little of what is needed.
const SHORT: Duration = Duration::from_secs(60);
const LARGER: (u64, u64) = (2, 8);

/// One that lasts longer than this is halved.
const LONG: Duration = Duration::from_secs(240);

/// No lease takes more than one part in this of what is free (5 %), so that leases shrink as a pool
/// runs out and the last units are shared.
const SHARE_OF_FREE: i64 = 20;

/// The same for a shard, which has the units of eight leases.
const SHARE_OF_SHARD: i64 = 8;

impl Negotiation {
    /// How much to take: the usual size plus waiting asks, within a share of what is free. 0: the
    /// pool cannot cover the ask, so taking would only keep units from others.
    pub(super) fn more(&self, at: &Balance, free: i64) -> u64 {
        let free = free.max(0);
        // Units held above the ceiling are ours all the same: the entry being written covers what
        // is waited for.
        let missing = at.wanted.saturating_sub(self.unused(at));
        let one = signed(at.lacks(at.wanted).min(missing));
        if one > free {
            return 0;
        }
        let share = if self.shard.is_some() { SHARE_OF_SHARD } else { SHARE_OF_FREE };
        let usual = signed(self.size).min(free / share);
        let all = signed(at.lacks(at.waiting)).min(free);
        usual.max(one).max(all).max(i64::from(free > 0)).unsigned_abs()
    }

    /// A usual lease, or as much as all waiting asks need.
    pub(super) fn wish(&self, at: &Balance) -> u64 {
        self.size.max(at.lacks(at.asked()))
    }

    /// Slow start: a lease used up quickly is enlarged by how quickly, one that lasted is halved.
    pub(super) fn resize(&mut self, granted: u64, now: Now) {
        self.granted = granted;
        // A cap may have cut it: the size it had counts, not the size it might have had.
        self.size = self.size.min(granted.max(1));
        let lasted = Duration::from_nanos(now.mono_ns.saturating_sub(self.granted_ns));
        if self.granted_ns != 0 && lasted < SHORT {
            self.size = self.size.saturating_mul(larger(lasted));
        } else if self.granted_ns != 0 && lasted > LONG {
            self.size = (self.size / 2).max(1);
        }
        self.granted_ns = now.mono_ns;
    }
}

/// How many times larger a lease is to be than one that lasted so long.
fn larger(lasted: Duration) -> u64 {
    let times = SHORT.as_nanos() / lasted.as_nanos().max(1);
    u64::try_from(times).unwrap_or(u64::MAX).clamp(LARGER.0, LARGER.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_grows_by_how_short_it_was() {
        let after = |ms| larger(Duration::from_millis(ms));
        assert_eq!([59_999, 30_000, 15_000, 7_500, 0].map(after), [2, 2, 4, 8, 8]);
    }
}

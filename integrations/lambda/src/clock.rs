//! The clock of a process that is frozen between requests.
//!
//! The monotonic clock may stop while the sandbox is frozen, and a wall clock derived from it would
//! lag by the length of the freeze. So both clocks are read each time, and any gain of the wall
//! clock on the monotonic one counts as elapsed time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tallygate::{Clock, Now};

/// A clock for [`Gate::builder`](tallygate::Gate::builder)`(..).clock(..)`;
/// [`builder`](crate::builder) sets it.
///
/// - The wall clock is the system's at each reading: windows turn over on time after a thaw.
/// - The monotonic clock never goes back, and advances by the larger of the two elapsed times that
///   the system's clocks report: data read before a freeze has its true age afterwards, and rates
///   have refilled. Stepping the wall clock forward has the same effect as a freeze.
#[derive(Debug)]
pub struct WallClock {
    last: Mutex<Reading>,
}

/// The system's readings, and the monotonic time reported from them.
#[derive(Clone, Copy, Debug)]
struct Reading {
    mono: Instant,
    wall_ms: i64,
    told_ns: u64,
}

/// Reported time starts here, so that times "long ago" are still positive.
const BEGIN_NS: u64 = 1 << 62;

impl WallClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        let (mono, wall_ms) = system();
        Self { last: Mutex::new(Reading { mono, wall_ms, told_ns: BEGIN_NS }) }
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for WallClock {
    fn now(&self) -> Now {
        // Locked before the system clocks are read, so that readings are in order.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (mono, wall_ms) = system();
        *last = last.at(mono, wall_ms);
        Now { mono_ns: last.told_ns, wall_ms }
    }
}

impl Reading {
    /// The next reading, given the system's clocks.
    fn at(self, mono: Instant, wall_ms: i64) -> Self {
        let ran = mono.saturating_duration_since(self.mono).as_nanos();
        let ran = u64::try_from(ran).unwrap_or(u64::MAX);
        let gained_ms = u64::try_from(wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0);
        // The wall clock is read in milliseconds: below two of them its gain may be rounding.
        let gained = gained_ms.saturating_sub(2).saturating_mul(1_000_000);
        let told_ns = self.told_ns.saturating_add(ran.max(gained));
        Self { mono, wall_ms, told_ns }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is a clock")]
fn system() -> (Instant, i64) {
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    (Instant::now(), wall)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_freeze_in_which_the_monotonic_clock_stood_still_has_passed() {
        let (mono, wall_ms) = system();
        let before = Reading { mono, wall_ms, told_ns: BEGIN_NS };
        let after = before.at(mono + Duration::from_millis(3), wall_ms + HOUR_MS);
        assert_eq!(after.told_ns - BEGIN_NS, (HOUR_MS as u64 - 2) * 1_000_000);
        let next = after.at(mono + Duration::from_millis(10), wall_ms + HOUR_MS + 7);
        assert_eq!(next.told_ns - after.told_ns, 7_000_000, "it counts once");
    }

    #[test]
    fn a_wall_clock_that_is_set_back_moves_nothing_back() {
        let (mono, wall_ms) = system();
        let before = Reading { mono, wall_ms, told_ns: BEGIN_NS };
        let after = before.at(mono + Duration::from_secs(1), wall_ms - HOUR_MS);
        assert_eq!(after.told_ns - BEGIN_NS, 1_000_000_000);
        assert_eq!(after.wall_ms, wall_ms - HOUR_MS, "windows follow the wall clock");
    }

    #[test]
    fn readings_never_fall() {
        let clock = WallClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now.mono_ns >= last.mono_ns);
            last = now;
        }
    }
}

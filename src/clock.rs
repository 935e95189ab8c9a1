//! Time as an argument: a reading holds the wall clock (for windows) and the monotonic clock (for
//! rates and waits).
//!
//! Nothing else in the crate reads a clock. A reading costs one monotonic read; the wall clock is
//! the anchor plus the time elapsed since, and the anchor is renewed every
//! [`SystemClock::REANCHOR`], so that a stepped system clock is followed within that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One reading of both clocks. [`Clock::now`] returns it. Spans are measured on the monotonic
/// clock, windows on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds on the monotonic clock, from an arbitrary start. Never goes back.
    pub mono_ns: u64,
    /// Milliseconds since the Unix epoch, UTC. May step forward or back.
    pub wall_ms: i64,
}

impl Now {
    /// The wall clock's reading.
    pub fn wall(self) -> SystemTime {
        time_at(self.wall_ms)
    }

    /// This reading, advanced by `by` on both clocks.
    pub fn after(self, by: Duration) -> Self {
        Self {
            mono_ns: self.mono_ns.saturating_add(nanos(by)),
            wall_ms: self.wall_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// A span on the monotonic clock.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A source of time, for [`GateBuilder::clock`](crate::GateBuilder::clock). Included are
/// [`SystemClock`] and [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// The time now, on both clocks.
    fn now(&self) -> Now;
}

/// The clocks of this machine. The default; give [`GateBuilder::clock`](crate::GateBuilder::clock)
/// another for tests.
#[derive(Debug)]
pub struct SystemClock {
    source: quanta::Clock,
    start: u64,
    /// Wall milliseconds minus monotonic milliseconds.
    offset_ms: AtomicI64,
    anchored_ns: AtomicU64,
}

impl SystemClock {
    /// How long a wall-clock anchor is trusted before the system clock is read again.
    pub const REANCHOR: Duration = Duration::from_millis(500);

    /// Monotonic readings start here, so that times "long ago" are still positive.
    const EPOCH_NS: u64 = 1 << 62;

    /// A clock anchored now.
    pub fn new() -> Self {
        let source = quanta::Clock::new();
        let start = source.raw();
        let clock =
            Self { source, start, offset_ms: AtomicI64::new(0), anchored_ns: AtomicU64::new(0) };
        clock.anchor(Self::EPOCH_NS);
        clock
    }

    fn anchor(&self, mono_ns: u64) {
        self.offset_ms.store(wall_ms() - (mono_ns / 1_000_000) as i64, Ordering::Relaxed);
        self.anchored_ns.store(mono_ns, Ordering::Relaxed);
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono_ns = Self::EPOCH_NS + self.source.delta_as_nanos(self.start, self.source.raw());
        let age = mono_ns.saturating_sub(self.anchored_ns.load(Ordering::Relaxed));
        if age > Self::REANCHOR.as_nanos() as u64 {
            self.anchor(mono_ns);
        }
        let wall_ms = (mono_ns / 1_000_000) as i64 + self.offset_ms.load(Ordering::Relaxed);
        Now { mono_ns, wall_ms }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn wall_ms() -> i64 {
    unix_ms(SystemTime::now())
}

/// Unix milliseconds of a time, rounded towards the epoch; of one beyond their range, the last.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// The time at these Unix milliseconds; where the system has no such time, the epoch.
pub(crate) fn time_at(unix_ms: i64) -> SystemTime {
    let away = Duration::from_millis(unix_ms.unsigned_abs());
    let time =
        if unix_ms < 0 { UNIX_EPOCH.checked_sub(away) } else { UNIX_EPOCH.checked_add(away) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A clock that only moves on request. Clones share one time.
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
/// use tallygate::{Clock, ManualClock};
///
/// let clock = ManualClock::at_unix_ms(1_000);
/// clock.clone().advance(Duration::from_secs(2));
/// assert_eq!(clock.now().wall_ms, 3_000);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<(AtomicU64, AtomicI64)>);

impl ManualClock {
    /// A clock set to this Unix time, in milliseconds.
    pub fn at_unix_ms(wall_ms: i64) -> Self {
        Self(Arc::new((AtomicU64::new(SystemClock::EPOCH_NS), AtomicI64::new(wall_ms))))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.0.0.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.step_wall(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Steps only the wall clock, forward or back, as an operator or NTP would.
    pub fn step_wall(&self, by_ms: i64) {
        self.0.1.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        Now { mono_ns: self.0.0.load(Ordering::Relaxed), wall_ms: self.0.1.load(Ordering::Relaxed) }
    }
}

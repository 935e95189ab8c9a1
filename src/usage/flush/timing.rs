//! When the flush task acts: its ticks, and its pauses after a failure.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

pub(super) fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.reset();
    ticker
}

/// Half to all of the delay, so that nodes that failed together do not come back together.
pub(super) fn jittered(delay: Duration) -> Duration {
    let mut byte = [0u8];
    // Without randomness the full delay is still right.
    let share = crate::random::fill(&mut byte).map_or(255, |()| byte[0]);
    delay / 2 + delay / 2 * u32::from(share) / 255
}

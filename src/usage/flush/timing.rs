//! When the flush task acts: its ticks, and its pauses after a failure.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Order, Task};

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

impl Task {
    /// How long the pace holds the next flush back.
    pub(super) fn wait_for_pace(&mut self) -> Duration {
        match self.store.units() {
            Some(_) => self.pace.wait(Instant::now()),
            None => Duration::ZERO, // it charges nothing
        }
    }

    /// Waits until it is the next record's turn, or somebody waits for it.
    pub(super) async fn keep_pace(
        &mut self,
        inbox: &mut mpsc::Receiver<Order>,
        waiting: &mut Vec<Order>,
    ) {
        let mut collect = ticker(self.collect_every());
        let until = Instant::now() + self.wait_for_pace();
        while waiting.is_empty() && Instant::now() < until {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = collect.tick() => self.collect(),
                Some(order) = inbox.recv() => waiting.push(order),
            }
        }
    }
}

//! Rate limiting of calls: a schedule, not a tick, so that a busy machine loses no turns.
//!
//! Within any span of `t` at most `t` times the rate go out, plus what [`SLACK`] holds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far the schedule may fall behind: turns missed within it are made up for at once. The rates
/// leave room for a twentieth more in a second.
const SLACK: Duration = Duration::from_millis(50);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct RequestPace {
    every: Duration,
    /// Time of the next turn.
    next: Mutex<Option<Instant>>,
}

impl RequestPace {
    /// At most so many calls a second.
    pub(super) fn new(calls_per_s: u32) -> Self {
        Self { every: Duration::from_secs(1) / calls_per_s.max(1), next: Mutex::default() }
    }

    /// Returns when it is this call's turn. An abandoned turn is lost.
    pub(super) async fn turn(&self) {
        let turn = self.take(Instant::now());
        tokio::time::sleep_until(turn).await;
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let turn = next.unwrap_or(now).max(earliest);
        *next = Some(turn + self.every);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_rate_and_a_twentieth() {
        let pace = RequestPace::new(900);
        let begun = Instant::now();
        let mut turns = Vec::new();
        for n in 0..5_000_u64 {
            // A machine that stalls for a while, repeatedly.
            if n % 700 == 0 {
                tokio::time::advance(Duration::from_millis(n % 400)).await;
            }
            pace.turn().await;
            turns.push(begun.elapsed());
        }
        let second = Duration::from_secs(1);
        for (at, first) in turns.iter().enumerate() {
            let within = turns[at..].iter().take_while(|turn| **turn - *first < second).count();
            assert!(within <= 946, "{within} from {first:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_was_lost_for_a_moment_is_made_up_for() {
        let pace = RequestPace::new(1_000);
        let begun = Instant::now();
        for _ in 0..100 {
            // 40 ms without a call, then 100 calls.
            tokio::time::advance(Duration::from_millis(40)).await;
            for _ in 0..100 {
                pace.turn().await;
            }
        }
        assert!(begun.elapsed() < Duration::from_millis(10_100), "{:?}", begun.elapsed());
    }
}

//! Time limits on waits for the store. They measure the store's silence, and neither how far behind
//! this process is nor how long the line before a call is.
//!
//! A timer measures the wall clock. In a burst, with threads half a second behind, an answer that
//! came after a millisecond is noticed half a second later, and a timer alone would take the store
//! for silent. So a limit consists of steps, and a step that is noticed late counts as one step.
//! While the line before a call moves, or its own calls are answered, the limit begins anew: that
//! many times and no more.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Steps of a limit: enough turns of a busy runtime for a call and its answer, few enough that
/// thousands of waits do not wake up for nothing.
const STEPS: u32 = 8;

/// How far the work that is waited for has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its call has not begun: others are before it.
    pub(crate) is_in_line: bool,
    /// Answers to calls of the same kind so far.
    pub(crate) of_line: u64,
    /// Answers to its own calls so far.
    pub(crate) own: u64,
}

impl Progress {
    fn is_beyond(self, before: Self) -> bool {
        match self.is_in_line {
            true => self.of_line != before.of_line,
            false => before.is_in_line || self.own != before.own,
        }
    }
}

/// Waits for `work` until it has made no progress for `limit`; `None`: in vain. No longer than
/// `most` limits in all. Also: how many limits were begun.
pub(crate) async fn while_it_moves<T>(
    limit: Duration,
    most: u32,
    progress: impl Fn() -> Progress,
    work: impl Future<Output = T>,
) -> (Option<T>, u32) {
    let (mut work, step) = (pin!(work), limit / STEPS);
    let mut deadline = Instant::now();
    // Leaving the line is progress only after a step in it: a call that begins at once has one
    // limit.
    let mut before = Progress { is_in_line: false, ..progress() };
    let (mut still, mut steps) = (0, 0);
    while still < STEPS && steps < STEPS.saturating_mul(most) {
        deadline += step;
        let now = Instant::now();
        if deadline < now {
            deadline = now + step; // this process is behind by more than a step
        }
        if let Ok(done) = timeout_at(deadline, &mut work).await {
            return (Some(done), limits(steps));
        }
        let reached = progress();
        still = if reached.is_beyond(before) { 0 } else { still + 1 };
        (before, steps) = (reached, steps + 1);
    }
    (None, limits(steps))
}

fn limits(steps: u32) -> u32 {
    (steps / STEPS).max(1)
}

/// Waits for `work` as long as the limit says.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    while_it_moves(limit, 1, Progress::default, work).await.0
}

/// The same work for who begins it no later than `limit` from now; `None`: too late.
pub(crate) fn begun_within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    let latest = Instant::now() + limit;
    async move { if Instant::now() <= latest { Some(work.await) } else { None } }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(250);

    async fn never() {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_in_vain_takes_the_limit() {
        for limit in [Duration::ZERO, LIMIT, Duration::from_secs(2)] {
            let begun = Instant::now();
            assert!(within(limit, never()).await.is_none());
            let over = begun.elapsed() - limit;
            assert!(over <= Duration::from_millis(2), "{over:?} beyond {limit:?}");
        }
    }

    /// In real time: the thread is kept from its tasks, as by thousands of others.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a thread that is busy is what is tested")]
    async fn an_answer_that_a_busy_thread_notices_late_is_no_silence() {
        let busy = tokio::spawn(async {
            for _ in 0..30 {
                std::thread::sleep(Duration::from_millis(60));
                tokio::task::yield_now().await;
            }
        });
        // Four calls one after the other, each answered after a millisecond.
        let calls = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let begun = Instant::now();
        assert!(within(Duration::from_millis(100), calls).await.is_some());
        assert!(begun.elapsed() > Duration::from_millis(100), "it was not kept from anything");
        busy.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_moves_is_waited_in_and_a_silent_call_is_not() {
        let (answers, calls) = (Cell::new(0), Cell::new(false));
        let progress = || Progress { is_in_line: !calls.get(), of_line: answers.get(), own: 0 };
        let line = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 3).await;
                answers.set(answers.get() + 1);
            }
        };
        let turn = async {
            line.await;
            calls.set(true);
            tokio::time::sleep(LIMIT * 4 / 5).await;
        };
        let (done, limits) = while_it_moves(LIMIT, 24, progress, turn).await;
        assert!(done.is_some() && limits > 4, "{limits}");

        let begun = Instant::now();
        let others = async {
            loop {
                tokio::time::sleep(LIMIT / 3).await;
                answers.set(answers.get() + 1);
            }
        };
        calls.set(true);
        let (done, _) = while_it_moves(LIMIT, 24, progress, async {
            let () = others.await;
        })
        .await;
        assert!(done.is_none(), "answers to others are none of its own");
        assert!(begun.elapsed() < LIMIT + LIMIT / 4, "{:?}", begun.elapsed());

        calls.set(false);
        let begun = Instant::now();
        let others = async {
            loop {
                tokio::time::sleep(LIMIT / 3).await;
                answers.set(answers.get() + 1);
            }
        };
        let (done, limits) = while_it_moves(LIMIT, 4, progress, async {
            let () = others.await;
        })
        .await;
        assert_eq!((done, limits), (None, 4), "no line is waited in forever");
        assert!(begun.elapsed() <= LIMIT * 4 + Duration::from_millis(2));
    }
}

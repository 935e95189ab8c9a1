//! Delays between repeats: doubling up to a limit, and their random parts.

use std::time::Duration;

/// Delays that double up to a limit. They have no end: repeats that are bounded take so many.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    next: Duration,
    most: Duration,
}

impl Delays {
    pub(crate) const fn doubling(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The delay that is due. The one after it is twice as long.
    pub(crate) fn step(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.most);
        due
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.step())
    }
}

/// Half to all of the delay, so that processes that failed together do not repeat together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay / 2 + delay / 2 * share() / 255
}

/// A random instant of the span, before its end, so that processes started together do not go on
/// together.
pub(crate) fn within(span: Duration) -> Duration {
    span * share() / 256
}

/// 0 to 255: the latter where there is no randomness.
fn share() -> u32 {
    let mut byte = [0];
    crate::random::fill(&mut byte).map_or(255, |()| byte[0].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_double_up_to_their_limit() {
        let mut delays = Delays::doubling(25 * MS, 150 * MS);
        let first: Vec<_> = delays.by_ref().take(5).map(|delay| delay.as_millis()).collect();
        assert_eq!(first, [25, 50, 100, 150, 150]);
        assert_eq!(delays.step(), 150 * MS);
    }

    #[test]
    fn a_jittered_delay_is_half_to_all_of_it() {
        let all: Vec<_> = (0..2_000).map(|_| jittered(100 * MS)).collect();
        assert!(all.iter().all(|it| (50 * MS..=100 * MS).contains(it)), "{all:?}");
        let near = |at: Duration| all.iter().any(|it| it.abs_diff(at) <= 2 * MS);
        assert!(near(50 * MS) && near(75 * MS) && near(100 * MS));
        assert!((0..2_000).all(|_| within(100 * MS) < 100 * MS));
    }
}

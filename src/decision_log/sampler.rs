//! Which admissions are recorded: one in so many, counted on several lines so that the threads of a
//! server do not write to one place in memory.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Lines that are counted by themselves: about as many as a server has threads. Each takes its
/// first admission, and then every n-th.
const LINES: usize = 16;

/// One line of counting, alone in what processors fetch at once.
#[repr(align(128))]
#[derive(Debug, Default)]
struct CacheLine(AtomicU32);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sampler {
    every: u32,
    /// `2^64 / every`, rounded up (0 for 1): a number is a multiple of `every` exactly if its
    /// product with this, modulo 2^64, is less than this (D. Lemire, "Faster remainder by direct
    /// computation", 2019). A division would cost more than all the rest.
    inverse: u64,
    lines: [CacheLine; LINES],
}

thread_local! {
    /// The line of this thread, from 1; 0: none yet.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

/// The next thread's.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Sampler {
    /// `every`: 0 takes none, 1 takes all.
    pub(super) fn one_in(every: u32) -> Self {
        let inverse = u64::MAX.checked_div(u64::from(every)).map_or(0, |it| it.wrapping_add(1));
        Self { every, inverse, lines: Default::default() }
    }

    pub(super) fn every(&self) -> u32 {
        self.every
    }

    /// Counts an admission, and says whether it is one to record.
    #[inline]
    pub(super) fn takes(&self) -> bool {
        match self.every {
            0 => false,
            1 => true,
            _ => {
                let line = &self.lines[line() % LINES];
                let n = u64::from(line.0.fetch_add(1, Ordering::Relaxed));
                n.wrapping_mul(self.inverse) < self.inverse
            }
        }
    }
}

#[inline]
fn line() -> usize {
    match MINE.get() {
        0 => first(),
        mine => mine,
    }
}

#[cold]
fn first() -> usize {
    let mine = NEXT.fetch_add(1, Ordering::Relaxed) % LINES + 1;
    MINE.set(mine);
    mine
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_thread_has_every_nth(every in 0_u32..1_000, admissions in 0_u32..5_000) {
            let sampler = Sampler::one_in(every);
            let taken = (0..admissions).filter(|_| sampler.takes()).count();
            let expected = if every == 0 { 0 } else { admissions.div_ceil(every) };
            prop_assert_eq!(taken, expected as usize);
        }
    }

    #[test]
    fn threads_together_have_one_in_n_and_at_most_one_more_each() {
        let sampler = Sampler::one_in(100);
        let taken = std::thread::scope(|scope| {
            let count = || (0..10_050).filter(|_| sampler.takes()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum::<usize>()
        });
        assert!((804..=804 + LINES).contains(&taken), "{taken}");
    }
}

//! Which admissions are recorded: one in so many, counted on several lines so that the threads of a
//! server do not write to one place in memory, and the first of them need no locked instruction.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Lines that are counted by themselves, each of which takes its first admission and then every
/// n-th. The first threads of a process, about as many as a server has, have one each.
const OWNED: usize = 32;

/// Those that the threads after them share.
const SHARED: usize = 8;

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
    owned: [CacheLine; OWNED],
    shared: [CacheLine; SHARED],
}

thread_local! {
    /// The number of this thread, plus 1; 0: it has none yet.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

/// The next thread's number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Sampler {
    /// `every`: 0 takes none, 1 takes all.
    pub(super) fn one_in(every: u32) -> Self {
        let inverse = u64::MAX.checked_div(u64::from(every)).map_or(0, |it| it.wrapping_add(1));
        let (owned, shared) = (std::array::from_fn(|_| CacheLine::default()), Default::default());
        Self { every, inverse, owned, shared }
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
            _ => u64::from(self.count()).wrapping_mul(self.inverse) < self.inverse,
        }
    }

    /// How many were counted on this thread's line before.
    #[inline]
    fn count(&self) -> u32 {
        let mine = thread_number();
        match self.owned.get(mine) {
            Some(CacheLine(counted)) => {
                let n = counted.load(Ordering::Relaxed);
                counted.store(n.wrapping_add(1), Ordering::Relaxed);
                n
            }
            None => self.shared[mine % SHARED].0.fetch_add(1, Ordering::Relaxed),
        }
    }
}

#[inline]
fn thread_number() -> usize {
    match MINE.get() {
        0 => first_call(),
        number => number - 1,
    }
}

#[cold]
fn first_call() -> usize {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    MINE.set(number + 1);
    number
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

    /// More than have a line of their own.
    #[test]
    fn threads_together_have_one_in_n_and_at_most_one_more_for_each_line() {
        let sampler = Sampler::one_in(100);
        let taken = std::thread::scope(|scope| {
            let count = || (0..10_050).filter(|_| sampler.takes()).count();
            let threads: Vec<_> = (0..60).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum::<usize>()
        });
        assert!((6_030..=6_030 + OWNED + SHARED).contains(&taken), "{taken}");
    }
}

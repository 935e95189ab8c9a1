//! governor over a cell and a time that are passed as arguments.

use std::cell::Cell as ThreadCell;
use std::sync::atomic::Ordering;

use governor::clock::Clock;
use governor::nanos::Nanos;
use governor::state::StateStore;

use super::Bucket;

/// governor's keyed limiter wants keys it could put into a map. Ours never are: the key *is* the
/// cell, handed in by reference.
impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Bucket {}

impl std::hash::Hash for Bucket {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::ptr::hash(self, state);
    }
}

/// governor's state store, over the cell passed as the key.
pub(super) struct InCell;

impl StateStore for InCell {
    type Key = Bucket;

    fn measure_and_replace<T, F, E>(&self, key: &Bucket, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut seen = key.tat.load(Ordering::Relaxed);
        loop {
            // 0 needs no `None`: a TAT in the past is a full bucket, whatever it is.
            let (answer, next) = f(Some(Nanos::from(seen)))?;
            let swapped = key.tat.compare_exchange_weak(
                seen,
                next.into(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(answer),
                Err(now) => seen = now,
            }
        }
    }
}

/// governor's clock, showing the time of the call in progress on this thread.
pub(super) struct Argument;

thread_local! {
    static NOW_NS: ThreadCell<u64> = const { ThreadCell::new(0) };
}

pub(super) fn at<T>(now_ns: u64, call: impl FnOnce() -> T) -> T {
    NOW_NS.set(now_ns);
    call()
}

impl Clock for Argument {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(NOW_NS.get())
    }
}

impl Clone for Argument {
    fn clone(&self) -> Self {
        Argument
    }
}

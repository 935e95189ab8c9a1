//! How many reads of the directory are in flight at once.
//!
//! A flood of credentials that nobody knows must not become a flood of store reads. What finds no
//! slot is refused as unavailable at once; nothing queues here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Semaphore>);

/// One read in flight; dropped when it is done.
#[derive(Debug)]
pub struct ReadSlot {
    _permit: OwnedSemaphorePermit,
}

impl Reads {
    /// Most reads in flight in one process: at 10 ms a read, 6,400 new callers a second.
    pub const MAX: usize = 64;

    /// All slots free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(Self::MAX)))
    }

    /// A slot, if one is free.
    pub fn try_slot(&self) -> Option<ReadSlot> {
        let permit = self.0.clone().try_acquire_owned().ok()?;
        Some(ReadSlot { _permit: permit })
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_64_slots_and_takes_them_back() {
        let reads = Reads::new();
        let mut held: Vec<_> = (0..64).map(|_| reads.try_slot().unwrap()).collect();
        assert!(reads.clone().try_slot().is_none());
        held.pop();
        assert!(reads.try_slot().is_some());
    }
}

//! Values that a test changes for its thread. In any other build they are what the caller gives.

/// Silence after which a writer is sealed. Safety does not depend on it, and a simulation seals
/// live writers more often than usual.
pub(crate) fn patience(usual: std::time::Duration) -> std::time::Duration {
    #[cfg(any(test, feature = "testing"))]
    if let Some(ms) = in_thread::PATIENCE.get() {
        return std::time::Duration::from_millis(ms);
    }
    usual
}

/// Number of writers at which a pool is split. Configurable because a test has few writers.
pub(crate) fn split_at(usual: usize) -> usize {
    #[cfg(any(test, feature = "testing"))]
    if let Some((at, _)) = in_thread::SPLIT.get() {
        return at;
    }
    usual
}

/// Number of sub-pools of a split pool. See [`split_at`].
pub(crate) fn shards(usual: u16) -> u16 {
    #[cfg(any(test, feature = "testing"))]
    if let Some((_, shards)) = in_thread::SPLIT.get() {
        return shards;
    }
    usual
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod in_thread {
    use std::cell::Cell;

    thread_local! {
        /// Overrides the silence after which a writer is sealed, in milliseconds.
        pub(crate) static PATIENCE: Cell<Option<u64>> = const { Cell::new(None) };
        /// Overrides the number of writers beyond which a pool is split, and the number of
        /// sub-pools.
        pub(crate) static SPLIT: Cell<Option<(usize, u16)>> = const { Cell::new(None) };
    }
}

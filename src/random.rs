//! The crate's only source of randomness: the operating system.
//!
//! Under the feature `testing` a thread may have its own seed
//! ([`testing::seed_this_thread`](crate::testing::seed_this_thread)), so that a simulation can be
//! reproduced; a thread without one draws from the system as usual.

pub(crate) use getrandom::Error;

/// Fills `bytes`.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    #[cfg(any(test, feature = "testing"))]
    if seeded::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}

/// Whether this thread draws from a seed.
pub(crate) fn is_seeded() -> bool {
    #[cfg(any(test, feature = "testing"))]
    return seeded::is_seeded();
    #[cfg(not(any(test, feature = "testing")))]
    false
}

/// A uniformly distributed number.
pub(crate) fn u64() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Seeds this thread; `None` returns it to the system's randomness.
    pub(crate) fn seed(seed: Option<u64>) {
        STATE.set(seed);
    }

    pub(super) fn is_seeded() -> bool {
        STATE.get().is_some()
    }

    /// Returns false if this thread has no seed.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let Some(mut state) = STATE.get() else {
            return false;
        };
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
        STATE.set(Some(state));
        true
    }
}

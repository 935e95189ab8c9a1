//! Waits for something that another process, thread or task does.

use std::time::{Duration, Instant};

/// Longest wait for something that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until something is so. Panics with `what` if that takes longer than [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    found(what, || is().then_some(()));
}

/// Waits until something is there, as [`until`] does.
#[track_caller]
pub fn found<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    found_within(PATIENCE, look).unwrap_or_else(|| panic!("never: {what}"))
}

/// What is found within this time; at least one look is taken.
#[allow(clippy::disallowed_methods, reason = "another process has no timer of ours")]
pub fn found_within<T>(most: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begun.elapsed() > most {
            return found;
        }
        std::thread::sleep(LOOK);
    }
}

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

/// Waits past the end of a minute that is nearly over. Use is sent to Stripe under a minute that
/// has begun, and that of a period which begins in the last second of one has none before the next.
#[allow(clippy::disallowed_methods, reason = "Stripe's minutes are those of the wall clock")]
pub fn past_a_minutes_end() {
    const ROOM: u64 = 5;
    let second = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap_or_default().as_secs() % 60
    };
    until("a minute begins", || second() < 60 - ROOM);
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

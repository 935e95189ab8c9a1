//! What is logged, and that nothing of it is secret or endless. A process of its own, and one test
//! after another: where a thread without a subscriber is the first to come by a line of the log,
//! `tracing` takes it for one that nothing listens to.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod floods;
mod secrets;
mod spans;

/// Held by each test while it runs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

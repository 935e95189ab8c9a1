//! What is logged, and that none of it is secret or unbounded. A process of its own, with one test
//! after another: if a thread without a subscriber is the first to reach a log line, `tracing`
//! takes the line for one without listeners.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod callers;
mod closing;
mod floods;
mod opening;
mod secrets;
mod spans;

/// Held by each test while it runs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The example as a function, seen from Lambda's side. One binary, for each links all of the
//! example.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another process is waited for"
)]

mod cold_start;
mod emulator;
mod managed;
mod support;

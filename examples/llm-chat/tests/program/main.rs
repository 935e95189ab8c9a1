//! The program over real HTTP: what its streams deliver is what they cost, however they end.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod streams;
mod support;
mod units;

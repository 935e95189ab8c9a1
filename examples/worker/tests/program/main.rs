//! The program as a process, with jobs as its files: what it does with them, and what of that is
//! charged, whenever it dies.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod ends;
mod limits;
mod support;

//! Both programs over real HTTP, and the difference between them. One binary, for each links all of
//! the example.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod changes;
mod limits;
mod own_rules;
mod streams;
mod support;

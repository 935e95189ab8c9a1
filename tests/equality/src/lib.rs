//! One trace of requests through every adapter: the same status, headers and body for each step,
//! and the same ledger afterwards.
//!
//! | module | what it is |
//! |---|---|
//! | [`trace`] | 500 steps, the same for the same seed: what is asked, and when |
//! | [`api`] | what is behind the gate: one handler's worth of behaviour, without a framework |
//! | [`front`] | what an adapter's server does to take part, and how a trace is run through it |
//! | [`client`] | an HTTP/1.1 client over a socket, for servers that listen |
//! | [`answer`] | what came back, and which headers are a framework's own |
//!
//! A new adapter joins with one file beside `tests/adapters/trace/axum.rs` that implements
//! [`front::Front`], and one line in `tests/adapters/trace.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "this package is one test: a panic is a failure, and says where"
)]

pub mod answer;
pub mod api;
pub mod client;
pub mod front;
pub mod trace;

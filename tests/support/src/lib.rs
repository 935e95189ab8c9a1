//! What the tests of several packages share: each helper once, in a file named after its subject.
//! A helper that one test file uses stays in that file.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "parts of tests: a panic is a failure, and says where"
)]

#[cfg(feature = "bodies")]
pub mod bodies;
#[cfg(feature = "browser")]
pub mod browser;
#[cfg(feature = "gate")]
pub mod clocks;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod examples;
#[cfg(feature = "gate")]
pub mod gates;
pub mod http;
pub mod lives;
pub mod plans;
pub mod processes;
#[cfg(feature = "gate")]
pub mod requests;
#[cfg(feature = "dynamodb")]
mod rights;
pub mod skips;
#[cfg(feature = "gate")]
pub mod stores;
#[cfg(feature = "tls")]
pub mod tls;
pub mod waits;

#[cfg(feature = "gate")]
#[doc(hidden)]
pub use tallygate;

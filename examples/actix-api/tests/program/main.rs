//! The example as a program: what `axum-api` is held to, word for word, and what differs.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[cfg(feature = "stripe")]
#[path = "../../../axum-api/tests/program/billing.rs"]
mod billing;
mod differences;
#[path = "../../../axum-api/tests/program/isolation.rs"]
mod isolation;
#[path = "../../../axum-api/tests/program/over_http.rs"]
mod over_http;
#[path = "../../../axum-api/tests/program/support.rs"]
mod support;

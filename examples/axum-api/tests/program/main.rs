//! The example as a program, over real HTTP. One binary, for each links all of the example.
//! `actix-api` includes the files of what both are held to.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[cfg(feature = "stripe")]
mod billing;
mod isolation;
mod over_http;
mod routing;
#[cfg(feature = "dynamodb")]
mod shared_table;
mod support;

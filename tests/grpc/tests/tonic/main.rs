//! The layer between a tonic server and a tonic client.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod refusals;
mod spellings;

//! The adapter in a tonic server, and a tonic client, over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a test that panics has failed, and says where; the error is tonic's"
)]

mod calls;
mod charges;

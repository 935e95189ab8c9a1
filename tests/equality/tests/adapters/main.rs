//! Every adapter answers, records and routes as the others do.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod routes;
mod trace;

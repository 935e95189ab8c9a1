//! The pages of `docs/`: every block of TOML is read as what it is, and what the pages say that
//! comes of their plans and handlers is seen to.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod admin;
mod blocks;
mod cookbook;
mod deploy;
mod existing_app;
mod getting_started;
mod hanging_up;
mod many_tenants;
mod metrics;
mod migrating;
mod openapi;
mod support;
mod testing_your_limits;

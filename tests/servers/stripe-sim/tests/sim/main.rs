//! The simulator, through its API: what it keeps, what it refuses, what it does wrong on command,
//! and whether its shapes are Stripe's.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod billing;
mod calls;
mod client;
mod meters;
mod published;
mod schema;
mod truth;
mod webhooks;

//! The functions that answer Cognito and Stripe, and the replay of what was fuzzed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod cognito;
mod corpus;
mod pages;
mod stripe;

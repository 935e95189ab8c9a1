//! Whole gates through the public API: who is let in, what is decided, charged and recorded, and
//! what callers are shown. A file for each subject. Time is in hand, or made up.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod balances;
mod decisions;
mod directory_lookups;
mod durable_answers;
mod fuzz_corpus;
mod idempotency;
mod identification;
mod late_usage;
mod limit_headers;
mod metrics;
mod middleware;
mod opening;
mod payers;
mod propagation;
mod scopes;
mod settlement;
mod shared_rates;
mod store_outages;
mod subpools;
mod usage_page;
mod usage_records;
mod usage_report;

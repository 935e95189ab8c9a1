//! Whole gates through the public API: identification, decisions, charges, records, and reports.
//! One file per subject. Time is manual, or simulated.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod alerts;
mod app_routes;
mod backups;
mod balances;
mod bursts;
mod capacity;
mod decisions;
mod directory_lookups;
mod durable_answers;
mod fuzz_corpus;
mod health;
mod host_callers;
mod host_tables;
mod huge;
mod idempotency;
mod identification;
mod key_uses;
mod late_usage;
mod limit_headers;
mod long_jobs;
mod meter_names;
mod metered_rates;
mod metrics;
mod middleware;
mod open_holds;
mod opening;
mod payers;
mod permissions;
mod plan_files;
mod propagation;
mod quiet;
mod readings;
mod resets;
mod scopes;
mod settlement;
mod shared_rates;
#[cfg(unix)]
mod stalled_journal;
mod store_outages;
mod subpools;
mod usage_records;
mod usage_report;
mod work;
mod work_once;
mod wrong_clocks;

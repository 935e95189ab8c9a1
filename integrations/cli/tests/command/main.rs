//! The command as it is run: every command, both kinds of output, every exit code.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod alert_rights;
#[cfg(feature = "notify-aws")]
mod alerts_aws;
#[cfg(feature = "stripe")]
mod billing;
mod conflicts;
mod copies;
mod dlq;
mod doctor;
mod documented;
mod dry_run;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod exit_codes;
mod explain;
mod export;
mod far;
mod home;
mod hostile;
mod import;
mod import_sources;
mod infra;
mod prepared;
#[cfg(feature = "dynamodb")]
mod recorder;
mod runbook;
mod session;
mod sessions;
mod simulate;
mod simulate_page;
#[cfg(feature = "stripe")]
mod stripe_events;
#[cfg(feature = "dynamodb")]
mod table;
#[cfg(feature = "dynamodb")]
mod table_sessions;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(feature = "top")]
mod top;

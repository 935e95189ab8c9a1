//! Quotas: the durable units of a limit, and those that this process has taken in advance.
//!
//! A [`pool`] has the units of one limit in one window; if many processes lease from it, it is
//! split into [`subpool`]s. A [`lease`] is this process's part of it: admission draws from it by
//! compare-and-swap, and `crate::renewal` makes its calls. An [`alert`] reports how much of a quota
//! is used.

pub(crate) mod alert;
pub(crate) mod lease;
#[cfg(test)]
mod lowered_tests;
pub(crate) mod pool;
pub(crate) mod subpool;
#[cfg(test)]
mod subpool_tests;

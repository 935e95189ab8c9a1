//! Quotas: the durable units of a limit, and those that this process has taken in advance.
//!
//! A [`pool`] has the units of one limit in one window; if many processes lease from it, it is
//! split into [`subpool`]s. A [`lease`] is this process's part of it: admission draws from it by
//! compare-and-swap, and `crate::renewal` makes its calls, in the order of the [`renewals`]; its
//! [`demand`] is what it wants of a sub-pool. What
//! this process holds belongs to its [`incarnation`]; [`raises`] and [`retired`] have leases that
//! wait for the recorder, and for their end. An [`alert`] reports how much of a quota is used.

pub(crate) mod alert;
pub(crate) mod demand;
pub(crate) mod first_reads;
pub(crate) mod idle_units;
pub(crate) mod incarnation;
pub(crate) mod lease;
#[cfg(test)]
mod lowered_tests;
pub(crate) mod pool;
pub(crate) mod raises;
pub(crate) mod renewals;
pub(crate) mod retired;
pub(crate) mod subpool;
#[cfg(test)]
mod subpool_tests;

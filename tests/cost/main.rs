//! Costs: allocations of a request, memory of a tenant, units of a table, time to open, and
//! invariants at scale.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod allocations;
mod load;
mod memory;
mod opening;
mod table;

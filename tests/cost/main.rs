//! What it costs: allocations of a request, bytes of a tenant, units of a table, and what must hold
//! where there is much of everything.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod allocations;
mod load;
mod memory;
mod table;

//! Invariants under load: many leases, many tenants, many limits, a slow store. Whole gates, in
//! simulated time.

#[cfg(target_os = "linux")] // a thread's share of the processor is asked for
mod hour;
mod in_doubt;
mod rates;
mod support;

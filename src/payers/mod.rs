//! Payers of a unit, in one order: what quotas include, grants, `over`, a debt.
//!
//! [`purse`] draws from one limit, [`lanes`] splits a cost among those of its meter, and [`late`]
//! charges use that no hold covers and pays the debts of a tenant; `narrow` does so for quotas of
//! keys, users and addresses.

pub(crate) mod lanes;
pub(crate) mod late;
#[cfg(test)]
mod late_tests;
mod narrow;
pub(crate) mod purse;

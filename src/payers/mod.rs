//! Payers of a unit, in one order: what quotas include, grants, `over`, a debt.
//!
//! [`purse`] draws from one limit, [`lanes`] splits a cost among those of its meter, and [`late`]
//! charges use that no hold covers and pays the debts of a tenant.

pub(crate) mod lanes;
pub(crate) mod late;
pub(crate) mod purse;

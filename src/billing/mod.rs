//! Billing: what was recorded reaches the billing service exactly once, and what the service says
//! about payment decides plans.
//!
//! | part | does |
//! |---|---|
//! | [`outbox`] | what is owed for one account, tenant, meter and period, without I/O |

pub mod outbox;

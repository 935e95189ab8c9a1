//! Billing: what was recorded reaches the billing service exactly once, and what the service says
//! about payment decides plans.
//!
//! | part | does |
//! |---|---|
//! | [`sink`] | the service as billing sees it: send, sum, time |
//! | [`outbox`] | what is owed for one account, tenant, meter and period, without I/O |
//! | [`report`] | the reporter: from the ledger through the outbox to the service |

mod item;
pub mod outbox;
pub mod report;
pub mod sink;

pub use item::ItemId;

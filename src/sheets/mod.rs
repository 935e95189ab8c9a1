//! The current state of a tenant: its [`sheet`] (limits, buckets and leases of the present windows)
//! with the [`use_row`] that counts its use, the use that is still [`unpaid`], and the [`hub`] of
//! what all tenants share: the queues of background tasks, such as what is [`unrecorded`] and what
//! waits for [`answers`].

pub(crate) mod answers;
pub(crate) mod capacity;
pub(crate) mod followed;
pub(crate) mod hub;
pub(crate) mod sheet;
pub(crate) mod tenant_core;
pub(crate) mod unpaid;
pub(crate) mod unrecorded;
pub(crate) mod use_row;

//! Tenants and their callers in memory: looked up by each request, and packed into a few bytes
//! while they are idle.

pub(crate) mod caller;
pub(crate) mod compact;
pub(crate) mod tenant;

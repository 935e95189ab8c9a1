//! The DynamoDB store beyond the laws of every store: on a wire that cuts, delays and repeats, and
//! with unexpected tables and items.
//!
//! The server is dynoxide, within the test's process, and Amazon's DynamoDB Local for rates,
//! sub-pools and permissions. They cannot produce throttling and 5xx, which come from the proxy.

mod gates;
mod permissions;
mod proxy;
mod rates;
mod table;
mod wire;

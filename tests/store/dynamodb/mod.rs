//! What the DynamoDB store does beyond the laws of every store: on a wire that cuts, delays and
//! repeats, and with tables and items that are not as they should be.
//!
//! The server is dynoxide, within the test's process, and Amazon's DynamoDB Local for rates and
//! sub-pools. What they cannot show: throttling and 5xx come from the proxy's own hand.

mod gates;
mod proxy;
mod rates;
mod table;
mod wire;

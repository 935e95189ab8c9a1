//! Stores: the laws of `tallygate::store`, run against each, and DynamoDB's behaviour beyond them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod conformance;
mod dynamodb;
mod listing;
mod routes;
mod shared_table;

//! The adapter in actix-web's own apps and servers. One binary, for each links all of the crate.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod admin;
mod claims;
mod console;
mod cors;
mod handlers;
mod host_callers;
mod ingest;
mod layers;
mod once;
mod over_http2;
mod over_sockets;
mod own_keys;
mod routes;
mod support;
mod upgrades;
mod webhook;

//! The adapter in axum's own routers and servers. One binary, for each links all of the crate.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod admin;
#[cfg(unix)]
mod admin_socket;
mod console;
mod cors;
mod handlers;
mod host_callers;
mod ingest;
mod keys_tab;
mod layer;
mod meters;
mod named_routes;
mod once;
mod over_sockets;
mod own_keys;
mod routes;
mod support;
mod upgrades;
mod web_sockets;

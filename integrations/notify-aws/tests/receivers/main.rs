//! SNS and EventBridge as servers on loopback: what they are sent, and what comes of each answer.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod eventbridge;
mod gates;
mod page;
mod rights;
mod server;
mod service_file;
mod sns;

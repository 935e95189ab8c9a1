//! What README.md and the pages of `docs/` show as Rust: a module for each page. `tests/tidy.rs`
//! finds each block of a page in here word by word, or in another file that is compiled; so a block
//! compiles as long as this does. What pages say that comes of it is in `tests/`.

#![allow(
    missing_docs,
    missing_debug_implementations,
    dead_code,
    unused_variables,
    clippy::let_and_return,
    clippy::unused_async,
    clippy::disallowed_methods,
    reason = "parts of programs that the pages explain"
)]

pub mod admin;
mod alerts;
mod billing;
pub mod cookbook;
pub mod existing_app;
pub mod hanging_up;
mod http;
mod identity;
pub mod metrics;
pub mod migrating;
pub mod model;
mod operations;
mod plans;
mod readme;
mod storage;
mod work;

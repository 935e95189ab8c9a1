//! docs/cookbook.md: a file for each recipe that has a handler.

pub mod credits;
pub mod graphql;
pub mod llm;
pub mod seats;

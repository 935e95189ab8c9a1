//! The reference store.
/// A store in memory.
#[derive(Debug)]
pub struct Memory;

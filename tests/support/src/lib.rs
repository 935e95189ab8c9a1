//! What the tests of several packages share: each helper once, in a file named after its subject.
//! A helper that one test file uses stays in that file.

pub mod clocks;
pub mod requests;
pub mod stores;

#[doc(hidden)]
pub use tallygate;

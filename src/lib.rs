//! placeholder crate doc
mod clock;
pub mod catalog;
pub mod decision;
pub mod directory;
pub mod identity;
pub mod config;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use clock::{Clock, ManualClock, Now, SystemClock};

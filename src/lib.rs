//! placeholder crate doc
pub mod catalog;
mod clock;
pub mod decision;
pub mod directory;
pub mod identity;
pub mod store;

pub use clock::{Clock, ManualClock, Now, SystemClock};

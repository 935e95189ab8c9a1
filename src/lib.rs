//! placeholder crate doc
mod clock;
pub mod catalog;
pub mod decision;
pub mod directory;
pub mod identity;
pub mod store;

pub use clock::{Clock, ManualClock, Now, SystemClock};

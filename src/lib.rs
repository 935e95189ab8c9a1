//! placeholder crate doc
pub mod catalog;
mod clock;
pub mod decision;
pub mod directory;
pub mod identity;
pub mod report;
pub mod store;
pub mod telemetry;
pub mod wire;

pub use clock::{Clock, ManualClock, Now, SystemClock};

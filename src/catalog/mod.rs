//! The plan file: parsed, checked and lowered into a [`Catalog`] that is legal because it exists.
//!
//! Everything here is data and arithmetic: no clock, no I/O but the reading of a file handed in as
//! text. The small languages and the words of each table are described in `docs/plans.md`.

use std::sync::Arc;
use std::time::Duration;

mod model;

pub use model::*;

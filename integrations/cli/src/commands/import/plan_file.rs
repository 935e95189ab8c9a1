//! The plan file that an import makes of limits elsewhere.

use std::time::SystemTime;

use tallygate::catalog::{Catalog, PlanErrors};

/// Whether the library reads this plan file. It names no instant.
pub(super) fn legal(toml: &str) -> Result<Catalog, PlanErrors> {
    Catalog::parse("the plan file", toml, SystemTime::UNIX_EPOCH)
}

//! The directory: tenants, their plan, exceptions and credentials. Written with history, read
//! through a cache that the gate owns.
//!
//! Stored keys hold a tenant's [`Surrogate`], never its outer id: erasing a person touches this
//! directory alone, and no outer id can forge the key of another tenant's counters.

use serde::{Deserialize, Serialize};

/// A tenant's name in the ledger: 128 random bits, drawn when the tenant is made. Only the
/// directory makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Surrogate(pub(in crate::directory) u128);

impl Surrogate {
    /// The bytes that scopes are hashed with.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    #[cfg(test)]
    pub(crate) fn test(n: u128) -> Self {
        Self(n)
    }
}

impl std::fmt::Display for Surrogate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for Surrogate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Surrogate({self})")
    }
}

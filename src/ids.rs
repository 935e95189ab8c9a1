//! Ids used in stored keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A tenant's id in the ledger: 128 random bits, drawn when the tenant is created. Only the
/// directory makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Surrogate(u128);

impl Surrogate {
    /// For the directory only (enforced by `tests/tidy.rs`): any other value names no tenant.
    pub(crate) const fn new(drawn: u128) -> Self {
        Self(drawn)
    }

    /// The bytes to hash scopes with.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads back an id from its bytes.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub(crate) fn as_u128(self) -> u128 {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn test(n: u128) -> Self {
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

/// Identifies a limit: a tenant's rate, for one value of its scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LimitId {
    pub(crate) tenant: Surrogate,
    pub(crate) rate: Arc<str>,
    /// Hash of the key, user or address; 0 for the whole tenant.
    pub(crate) scope: u128,
}

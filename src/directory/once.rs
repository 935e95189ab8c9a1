//! The idempotency key of a request that makes a key.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{DirectoryError, Surrogate};
use crate::identity::hex;

/// Hex digits of an id, as in those of other keys.
const ID_DIGITS: usize = 16;

/// Most characters of an idempotency key.
const MAX_ONCE: usize = 255;

/// An idempotency key, and whose requests it tells apart: a tenant and its operator each choose
/// their own, and what one of them has chosen is no word about the other's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Once {
    by: Cow<'static, str>,
    key: String,
}

impl Once {
    /// Of the operator, or of a program of its own.
    pub(super) fn of_operator(key: impl Into<String>) -> Self {
        Self { by: "once".into(), key: key.into() }
    }

    /// Of the operator, for the key that takes the place of this one. The same idempotency key at
    /// another key is another request: what it has made is in no place of that one.
    pub(super) fn of_rotation(of: &str, key: impl Into<String>) -> Self {
        Self { by: format!("rotation of {of} once").into(), key: key.into() }
    }

    /// Of the operator, for a quota that begins anew.
    pub(super) fn of_reset(key: impl Into<String>) -> Self {
        Self { by: "reset once".into(), key: key.into() }
    }

    /// Of the tenant itself.
    pub(super) fn of_tenant(key: impl Into<String>) -> Self {
        Self { by: "own once".into(), key: key.into() }
    }

    /// Accepts visible characters, as a header can carry them.
    pub(super) fn check(&self) -> Result<(), DirectoryError> {
        let is_legal = self.key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_legal && (1..=MAX_ONCE).contains(&self.key.len()) {
            return Ok(());
        }
        Err(DirectoryError::Once { most: MAX_ONCE })
    }

    /// The id of the key that the request with this idempotency key makes.
    pub(super) fn id(&self, tenant: Surrogate) -> String {
        let digest = Sha256::digest(format!("{tenant} {} {}", self.by, self.key));
        format!("k{}", &hex(&digest)[..ID_DIGITS])
    }
}

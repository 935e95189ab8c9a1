//! Digest of a request's body, for requests that count once.

use sha2::{Digest, Sha256};

/// A digest of a request's body and its length, which a layer that has read the body leaves among
/// the request's extensions: a request with the same idempotency key and another body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyDigest {
    hash: [u8; 32],
    length: u64,
}

impl BodyDigest {
    /// The digest of a whole body.
    pub fn of(body: &[u8]) -> Self {
        Self { hash: Sha256::digest(body).into(), length: body.len() as u64 }
    }

    /// SHA-256 of the body.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Length of the body in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

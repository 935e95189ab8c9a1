//! Ids used in stored keys.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::random;

/// A tenant's id in the ledger: 128 random bits, drawn when the tenant is created. Only the
/// directory makes one. [`Directory::get`](crate::directory::Directory::get) finds its tenant.
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

/// A writer: a process as its log knows it, 128 random bits. A process that finds its log sealed
/// goes on as another writer.
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "the simulation names it"))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriterId(u128);

impl WriterId {
    /// No writer: what only reads, and what is not leased, has this one.
    pub(crate) const NONE: Self = Self(0);

    /// Another writer.
    ///
    /// # Errors
    ///
    /// The operating system has no randomness.
    pub(crate) fn draw() -> Result<Self, random::Error> {
        let mut bytes = [0; 16];
        random::fill(&mut bytes)?;
        Ok(Self::from_stored_bytes(bytes))
    }

    /// Reads back an id from its text in a key or an item: for `store/layout.rs` only (enforced by
    /// `tests/tidy.rs`).
    pub(crate) fn from_stored_text(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// Reads back an id from its bytes in a file: for the journal only, as above.
    pub(crate) fn from_stored_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// The bytes of a file.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Which of `shards` parts is this writer's. Ids are random, so writers spread evenly.
    pub(crate) fn shard(self, shards: u16) -> SubPoolNumber {
        // Less than the number of shards, so it fits.
        SubPoolNumber((self.0 % u128::from(shards)) as u16)
    }

    #[cfg(test)]
    pub(crate) const fn test(n: u128) -> Self {
        Self(n)
    }
}

/// As it is stored.
impl std::fmt::Display for WriterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for WriterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriterId({self})")
    }
}

/// The number of one of a pool's sub-pools.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct SubPoolNumber(u16);

impl SubPoolNumber {
    /// The numbers that the sub-pools of a pool may have, if there are at most so many.
    pub(crate) fn below(end: u16) -> impl Iterator<Item = Self> + Clone {
        (0..end).map(Self)
    }

    /// The one after it.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Reads one back from the name of an attribute or a key.
    pub(crate) fn read(text: &str) -> Option<Self> {
        u16::from_str_radix(text, 16).ok().map(Self)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn test(n: u16) -> Self {
        Self(n)
    }
}

/// As it is stored.
impl std::fmt::Display for SubPoolNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// A node: a process among those that share a store, named by the writer that it began as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(WriterId);

impl NodeId {
    /// The node that began as this writer.
    pub(crate) fn of_first(writer: WriterId) -> Self {
        Self(writer)
    }

    /// As [`WriterId::from_stored_text`].
    pub(crate) fn from_stored_text(text: &str) -> Option<Self> {
        WriterId::from_stored_text(text).map(Self)
    }

    #[cfg(test)]
    pub(crate) const fn test(n: u128) -> Self {
        Self(WriterId::test(n))
    }
}

/// As it is stored.
impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
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

/// For maps by 128 bits that no caller chooses, random ones or a keyed hash: the low ones are their
/// place.
pub(crate) type ByRandomBits = BuildHasherDefault<LowBits>;

/// See [`ByRandomBits`].
#[derive(Debug, Default)]
pub(crate) struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, bits: u128) {
        self.0 ^= bits as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_stored_as_the_number_that_it_is() {
        let (number, writer) = (0xabc << 64 | 7, WriterId::test(0xabc << 64 | 7));
        assert_eq!(writer.to_string(), format!("{number:032x}"));
        assert_eq!(WriterId::from_stored_text(&writer.to_string()), Some(writer));
        assert_eq!(WriterId::from_stored_bytes(writer.to_bytes()), writer);
        let stored = |it: u128| postcard::to_stdvec(&it).unwrap();
        assert_eq!(postcard::to_stdvec(&writer).unwrap(), stored(number));
        assert_eq!(NodeId::of_first(writer).to_string(), writer.to_string());
    }
}

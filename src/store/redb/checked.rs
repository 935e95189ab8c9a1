//! Damage detection: a checksum behind each item, and a tally of all keys.
//!
//! redb checks the pages of a file when it repairs one that was not closed, and at no other time: a
//! flipped bit in a value yields another value, and one in a page of its tree hides items silently.
//!
//! # Laws
//!
//! 1. The bytes of an item end with a checksum of its key and of all preceding bytes.
//! 2. The number of items and the sum of their keys' hashes are stored in the same transaction as
//!    the items. A file whose items do not match has lost some, or has some twice.
//!
//! Not promised: protection against a party that can write the file. The hashes have no secret.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::super::{Item, StoreError, StoreErrorKind};

const SUM_BYTES: usize = 8;

/// The number of items, and the sum of their keys' hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) items: u64,
    pub(super) sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, key: (&str, &str)) {
        self.items = self.items.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, &[]));
    }

    pub(super) fn remove(&mut self, key: (&str, &str)) {
        self.items = self.items.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, &[]));
    }
}

pub(super) fn encode(key: (&str, &str), item: &Item) -> Result<Vec<u8>, StoreError> {
    let mut bytes = postcard::to_allocvec(item).map_err(|error| {
        StoreError::new(StoreErrorKind::Invalid, format!("an item cannot be encoded: {error}"))
    })?;
    let sum = hash(key, &bytes).to_le_bytes();
    bytes.extend_from_slice(&sum);
    Ok(bytes)
}

/// Whether the checksum matches key and bytes.
pub(super) fn is_whole(key: (&str, &str), bytes: &[u8]) -> bool {
    split(key, bytes).is_some()
}

/// The checksum of an item; `None` if it does not match key and bytes.
pub(super) fn checksum(key: (&str, &str), bytes: &[u8]) -> Option<u64> {
    let (_, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    is_whole(key, bytes).then_some(u64::from_le_bytes(*sum))
}

/// Reads all of the bytes or none: leftover bytes would be undetected damage.
pub(super) fn decode(key: (&str, &str), bytes: &[u8]) -> Result<Item, StoreError> {
    match split(key, bytes).map(postcard::take_from_bytes) {
        Some(Ok((item, []))) => Ok(item),
        _ => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "an item in the store file is damaged: restore it from a copy, and check the disk",
        )),
    }
}

fn split<'a>(key: (&str, &str), bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    (hash(key, bytes).to_le_bytes() == *sum).then_some(bytes)
}

fn hash(key: (&str, &str), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in [key.0.as_bytes(), key.1.as_bytes(), bytes] {
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::Value;
    use super::*;

    /// Files of builds before this one are read.
    #[test]
    fn an_item_is_stored_in_these_bytes() {
        let item = Item(BTreeMap::from([
            ("a".into(), Value::Bytes(vec![7, 0, 255])),
            ("b".into(), Value::Int(-1)),
            ("c".into(), Value::Text("é".into())),
        ]));
        let bytes = encode(("pk", "sk"), &item).unwrap();
        let (stored, _) = bytes.split_last_chunk::<SUM_BYTES>().unwrap();
        let expected = [3, 1, b'a', 2, 3, 7, 0, 255, 1, b'b', 0, 1, 1, b'c', 1, 2, 0xc3, 0xa9];
        assert_eq!(stored, expected);
        assert_eq!(decode(("pk", "sk"), &bytes).unwrap(), item);
    }
}

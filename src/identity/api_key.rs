//! API keys in our own format: `tg_`, 43 random base62 characters (256 bits) and a checksum of 6.
//!
//! With the checksum a mistyped or invented key is refused without asking the store. It is not
//! secret and proves nothing. Foreign keys are not checked, even with our prefix, unless the rest
//! is base62 throughout: `tg_demo_1` may be a valid foreign key.

use sha2::{Digest, Sha256};

/// Prefix of our keys: greppable, and recognised by secret scanners.
pub(crate) const KEY_PREFIX: &str = "tg_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256.
const BODY: usize = 43;
const CHECK: usize = 6;
/// Bytes at or above this would favour the first characters of the alphabet: 4 * 62.
const FAIR: u8 = 248;

/// A freshly generated API key, in plain text. It is hashed for the store and shown once. To give a
/// tenant a key use [`Tenant::new_key`](crate::directory::Tenant::new_key), which stores it as
/// well.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Generates a key.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn draw() -> Result<Self, crate::random::Error> {
        let mut key = String::with_capacity(KEY_PREFIX.len() + BODY + CHECK);
        key.push_str(KEY_PREFIX);
        let mut random = [0; 64];
        while key.len() < KEY_PREFIX.len() + BODY {
            crate::random::fill(&mut random)?;
            let missing = KEY_PREFIX.len() + BODY - key.len();
            let fair = random.iter().filter(|byte| **byte < FAIR).take(missing);
            key.extend(fair.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
        }
        let check = checksum(key.as_bytes());
        key.extend(check.map(char::from));
        Ok(Self(key))
    }

    /// The key in plain text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Whether the key claims our format but fails its checksum.
pub(super) fn is_broken(key: &[u8]) -> bool {
    let ours = key.strip_prefix(KEY_PREFIX.as_bytes());
    if !ours.is_some_and(|rest| rest.iter().all(u8::is_ascii_alphanumeric)) {
        return false;
    }
    let body = KEY_PREFIX.len() + BODY;
    key.len() != body + CHECK || checksum(&key[..body]) != key[body..]
}

fn checksum(key: &[u8]) -> [u8; CHECK] {
    let digest = Sha256::digest(key);
    let mut rest = digest[..8].iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    std::array::from_fn(|_| {
        let digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
        digit
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_distinct_well_formed_and_hidden() {
        let keys: HashSet<String> =
            (0..200).map(|_| ApiKey::draw().unwrap().expose().to_owned()).collect();
        assert_eq!(keys.len(), 200);
        for key in &keys {
            assert_eq!(key.len(), 52);
            assert!(!is_broken(key.as_bytes()));
        }
        assert_eq!(format!("{:?}", ApiKey::draw().unwrap()), "ApiKey(..)");
    }

    #[test]
    fn one_changed_character_is_seen() {
        let key = ApiKey::draw().unwrap().expose().to_owned();
        for at in KEY_PREFIX.len()..key.len() {
            let mut broken = key.clone().into_bytes();
            broken[at] = if broken[at] == b'x' { b'y' } else { b'x' };
            assert!(is_broken(&broken), "at {at}");
        }
        assert!(is_broken(b"tg_") && is_broken(&key.as_bytes()[..51]));
    }

    #[test]
    fn foreign_keys_are_not_checked() {
        assert!(!is_broken(b"sk_live_123") && !is_broken(b"") && !is_broken(&[0xff; 9]));
        assert!(!is_broken(b"tg_demo_acme"));
    }
}

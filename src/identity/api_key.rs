//! API keys in our own format: a prefix (`tg_`, or the service's own), 43 random base62 characters
//! (256 bits) and a checksum of 6.
//!
//! With the checksum a mistyped or invented key is refused without asking the store. It is not
//! secret and proves nothing. Foreign keys are not checked, even with our prefix, unless the rest
//! is base62 throughout: `tg_demo_1` may be a valid foreign key.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Permissions;

/// Prefix of our keys where a service has none of its own: greppable, and recognised by secret
/// scanners.
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

/// The form of the keys that a service makes.
#[derive(Clone, Debug)]
pub(crate) struct KeyForm {
    prefix: Arc<str>,
    /// What a key may do that was made without permissions of its own.
    pub(crate) unlisted: Permissions,
}

impl Default for KeyForm {
    fn default() -> Self {
        Self::with_prefix(KEY_PREFIX)
    }
}

impl KeyForm {
    pub(crate) fn with_prefix(prefix: &str) -> Self {
        Self { prefix: prefix.into(), unlisted: Permissions::default() }
    }

    /// The same where a key without permissions of its own has these.
    pub(crate) fn unlisted(self, unlisted: Permissions) -> Self {
        Self { unlisted, ..self }
    }

    /// Generates a key. Fails if the system has no randomness.
    pub(crate) fn draw(&self) -> Result<ApiKey, crate::random::Error> {
        let length = self.prefix.len() + BODY;
        let mut key = String::with_capacity(length + CHECK);
        key.push_str(&self.prefix);
        let mut random = [0; 64];
        while key.len() < length {
            crate::random::fill(&mut random)?;
            let fair = random.iter().filter(|byte| **byte < FAIR).take(length - key.len());
            key.extend(fair.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
        }
        let check = checksum(key.as_bytes());
        key.extend(check.map(char::from));
        Ok(ApiKey(key))
    }

    /// Whether the key claims our format, with this prefix or the common one, but fails its
    /// checksum.
    pub(crate) fn is_broken(&self, key: &[u8]) -> bool {
        [&self.prefix, KEY_PREFIX].into_iter().any(|prefix| is_broken(key, prefix))
    }
}

impl ApiKey {
    /// Generates a key with the prefix `tg_`.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn draw() -> Result<Self, crate::random::Error> {
        KeyForm::default().draw()
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

fn is_broken(key: &[u8], prefix: &str) -> bool {
    let ours = key.strip_prefix(prefix.as_bytes());
    if !ours.is_some_and(|rest| rest.iter().all(u8::is_ascii_alphanumeric)) {
        return false;
    }
    let body = prefix.len() + BODY;
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

    fn is_broken(key: &[u8]) -> bool {
        KeyForm::default().is_broken(key)
    }

    #[test]
    fn a_prefix_of_the_service_is_checked_and_the_common_one_still_is() {
        let form = KeyForm::with_prefix("acme_live_");
        let own = form.draw().unwrap().expose().to_owned();
        assert_eq!((own.len(), own.starts_with("acme_live_")), (59, true));
        assert!(!form.is_broken(own.as_bytes()) && form.is_broken(&own.as_bytes()[..58]));
        let common = ApiKey::draw().unwrap().expose().to_owned();
        assert!(!form.is_broken(common.as_bytes()) && form.is_broken(&common.as_bytes()[..51]));
        assert!(!form.is_broken(b"acme_test_1"), "another service's");
    }

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

//! Stored form of a credential: HMAC-SHA256 under a pepper, never plain text.
//!
//! A stolen table is useless without the pepper, which is configuration and never in the store.
//! Peppers have ids and an order, newest first: new credentials are hashed under the first, and a
//! lookup tries each, so that one can be rotated without reissuing keys. Plain SHA-256 comes last,
//! for tables imported from a system that hashed so: it is only as strong as the keys are long.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The scheme of credentials imported as plain SHA-256.
pub(crate) const SCHEME_SHA256: &str = "sha256";

/// Fewest bytes of a pepper: below it a stolen table could be searched.
const MIN_PEPPER: usize = 16;
/// Most peppers at once: each costs one read of the store per unknown credential.
const MAX_PEPPERS: usize = 4;
/// Longest pepper id: it is part of a table key.
const MAX_PEPPER_ID: usize = 32;

/// The key under which a credential is stored and looked up.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CredentialHash {
    /// `hmac-ID` with the id of the pepper, or [`SCHEME_SHA256`].
    pub scheme: Arc<str>,
    /// The digest.
    pub hash: [u8; 32],
}

impl CredentialHash {
    /// A plain SHA-256 digest from another system.
    pub(crate) fn sha256(hash: [u8; 32]) -> Self {
        Self { scheme: SCHEME_SHA256.into(), hash }
    }
}

impl std::fmt::Debug for CredentialHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CredentialHash({}, ..)", self.scheme)
    }
}

/// A secret key of the credential hash.
#[derive(Clone)]
pub(crate) struct Pepper {
    scheme: Arc<str>,
    empty: Hmac<Sha256>,
}

impl Pepper {
    /// A pepper with its id (1 to 32 of `a-z A-Z 0-9 _ -`) and its secret (at least 16 bytes).
    /// The error says what is wrong, without the secret.
    pub(crate) fn new(id: &str, secret: &[u8]) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if id.is_empty() || id.len() > MAX_PEPPER_ID || !id.chars().all(legal) {
            return Err(format!(
                "the pepper id {id:?} must be 1 to {MAX_PEPPER_ID} letters, digits, '_' or '-'"
            ));
        }
        if secret.len() < MIN_PEPPER {
            return Err(format!(
                "the pepper {id:?} has {} bytes and needs at least {MIN_PEPPER}: make one with \
                 `openssl rand -hex 32`",
                secret.len()
            ));
        }
        let empty = Hmac::new_from_slice(secret).map_err(|e| e.to_string())?;
        Ok(Self { scheme: Self::scheme_of(id).into(), empty })
    }

    /// The scheme of hashes under the pepper with this id.
    pub(crate) fn scheme_of(id: &str) -> String {
        format!("hmac-{id}")
    }

    /// The hash of a constant under this pepper: equal for equal peppers. The constant is never a
    /// credential.
    pub(crate) fn check_value(&self) -> CredentialHash {
        self.hash(b"tallygate: which pepper is this?")
    }

    /// The hash of a credential under this pepper.
    pub(crate) fn hash(&self, credential: &[u8]) -> CredentialHash {
        let digest = self.empty.clone().chain_update(credential).finalize().into_bytes();
        CredentialHash { scheme: self.scheme.clone(), hash: digest.into() }
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pepper({}, ..)", self.scheme)
    }
}

/// The peppers, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peppers(Vec<Pepper>);

impl Peppers {
    /// Peppers, newest first: at most 4, each with its own id.
    pub(crate) fn new(peppers: Vec<Pepper>) -> Result<Self, String> {
        if peppers.len() > MAX_PEPPERS {
            return Err(format!("{} peppers: at most {MAX_PEPPERS} are allowed", peppers.len()));
        }
        for (n, pepper) in peppers.iter().enumerate() {
            if peppers[..n].iter().any(|other| other.scheme == pepper.scheme) {
                return Err(format!("two peppers have the same id ({})", pepper.scheme));
            }
        }
        Ok(Self(peppers))
    }

    /// The pepper for new credentials.
    pub(crate) fn newest(&self) -> Option<&Pepper> {
        self.0.first()
    }

    /// All of them, newest first.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Pepper> {
        self.0.iter()
    }

    /// All possible stored hashes of a credential, in lookup order.
    pub(crate) fn hashes(&self, credential: &[u8]) -> Vec<CredentialHash> {
        let mut hashes: Vec<_> = self.0.iter().map(|pepper| pepper.hash(credential)).collect();
        hashes.push(CredentialHash::sha256(Sha256::digest(credential).into()));
        hashes
    }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pepper(id: &str) -> Pepper {
        Pepper::new(id, format!("0123456789abcdef{id}").as_bytes()).unwrap()
    }

    #[test]
    fn hashes_as_rfc_4231_says() {
        // Test case 6 of RFC 4231: its shortest key that is long enough for a pepper.
        let hash = Pepper::new("t", &[0xaa; 131])
            .unwrap()
            .hash(b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(
            hex(&hash.hash),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(&*hash.scheme, "hmac-t");
    }

    #[test]
    fn looks_up_newest_pepper_first_and_sha256_last() {
        let peppers = Peppers::new(vec![pepper("2"), pepper("1")]).unwrap();
        let hashes = peppers.hashes(b"key");
        let schemes: Vec<&str> = hashes.iter().map(|hash| &*hash.scheme).collect();
        assert_eq!(schemes, ["hmac-2", "hmac-1", "sha256"]);
        assert_ne!(hashes[0].hash, hashes[1].hash);
        assert_eq!(
            hex(&hashes[2].hash),
            "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
        );
    }

    #[test]
    fn refuses_weak_unnamed_and_doubled_peppers_without_showing_them() {
        assert!(Pepper::new("1", b"short-secret").unwrap_err().contains("12 bytes"));
        assert!(!Pepper::new("1", b"short-secret").unwrap_err().contains("short-secret"));
        assert!(Pepper::new("a#b", &[1; 32]).is_err() && Pepper::new("", &[1; 32]).is_err());
        assert!(Peppers::new(vec![pepper("1"), pepper("1")]).is_err());
        let shown = format!("{:?}{:?}", pepper("1"), pepper("1").hash(b"key"));
        assert_eq!(shown, "Pepper(hmac-1, ..)CredentialHash(hmac-1, ..)");
    }
}

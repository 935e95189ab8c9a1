//! Signatures of webhooks, as [Standard Webhooks](https://www.standardwebhooks.com) has them:
//! `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.payload`, under a key that is shared as
//! `whsec_` and its base64.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// Lengths of a key, in bytes, as the standard has them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most keys at once: two, while one is rolled, and some.
const MAX_KEYS: usize = 4;

/// The keys of one destination. Every webhook is signed under each of them.
pub(super) struct SigningKeys(Vec<Vec<u8>>);

impl SigningKeys {
    /// Reads keys that are separated by spaces. The error holds no part of them.
    pub(super) fn read(secret: &Secret) -> Result<Self, &'static str> {
        let mut keys = Vec::new();
        for key in secret.expose().split_whitespace() {
            let Some(key) = key.strip_prefix("whsec_") else {
                return Err("a signing secret begins with `whsec_`");
            };
            match BASE64_STANDARD.decode(key) {
                Ok(key) if KEY_BYTES.contains(&key.len()) => keys.push(key),
                _ => return Err("a signing secret is `whsec_` and the base64 of 24 to 64 bytes"),
            }
        }
        match keys.len() {
            1..=MAX_KEYS => Ok(Self(keys)),
            0 => Err("the signing secret is empty"),
            _ => Err("more than four signing secrets"),
        }
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp_s: i64, payload: &str) -> String {
        let signed = self.0.iter().filter_map(|key| {
            // HMAC takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            mac.update(format!("{id}.{timestamp_s}.{payload}").as_bytes());
            Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
        });
        Vec::from_iter(signed).join(" ")
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the standard's own libraries are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn sign(secret: &str) -> String {
        let keys = SigningKeys::read(&Secret::new(secret)).unwrap();
        keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#)
    }

    #[test]
    fn the_standards_own_example_has_its_signature() {
        assert_eq!(sign(SECRET), SIGNED);
    }

    #[test]
    fn while_a_key_is_rolled_there_is_a_signature_under_each() {
        let other = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
        let both = sign(&format!("{other} {SECRET}"));
        assert_eq!(both, format!("{} {SIGNED}", sign(&other)));
        assert_ne!(sign(&other), SIGNED);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", BASE64_STANDARD.encode([7; 65]));
        let many = [SECRET; 5].join(" ");
        for wrong in ["", " ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%", &short, &long, &many]
        {
            let error = SigningKeys::read(&Secret::new(wrong)).unwrap_err();
            assert!(!error.contains("MfKQ"), "{error}");
        }
        let keys = SigningKeys::read(&Secret::new(SECRET)).unwrap();
        assert_eq!(format!("{keys:?}"), "SigningKeys(1)");
    }
}

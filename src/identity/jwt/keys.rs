//! The verification keys of one issuer.

use serde::Deserialize;
use serde_json::Value;

use super::JwtError;
use super::jwk::Jwk;
use super::key::VerifyingKey;

/// Most keys of one issuer: real ones have two or three.
const MAX_KEYS: usize = 64;
/// Most keys tried for one token, which may be without a `kid`, or of a `kid` that many keys have:
/// each costs a signature check.
const MAX_TRIES: usize = 4;

/// Keys, each with its `kid`.
pub(super) struct KeySet(Vec<(Option<String>, VerifyingKey)>);

impl KeySet {
    /// An empty set.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// One shared secret for HS256. The error does not show it.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, String> {
        Ok(Self(vec![(None, VerifyingKey::secret(secret)?)]))
    }

    /// The keys of a JWKS (RFC 7517) that are for signatures of a supported kind. Others are
    /// skipped, as section 5 says; none at all is an error.
    pub(super) fn parse(jwks: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_slice(jwks).map_err(|e| format!("not a JWKS: {e}"))?;
        let listed = document.keys.len();
        let read = |value: Value| serde_json::from_value(value).ok().and_then(Jwk::key);
        let keys: Vec<_> = document.keys.into_iter().filter_map(read).take(MAX_KEYS).collect();
        if keys.is_empty() {
            return Err(format!(
                "none of its {listed} keys is for signatures of a supported algorithm"
            ));
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys made this signature.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        alg: &str,
        signed: &str,
        signature: &[u8],
    ) -> Result<(), JwtError> {
        let may_be = |own: &Option<String>| kid.is_none() || own.is_none() || own.as_deref() == kid;
        let mut error = JwtError::UnknownKey;
        let mut tries = 0;
        for (_, key) in self.0.iter().filter(|(own, _)| may_be(own)) {
            if key.alg() != alg {
                error = error.max(JwtError::Algorithm);
                continue;
            }
            if tries == MAX_TRIES {
                break;
            }
            tries += 1;
            if key.made(signed, signature) {
                return Ok(());
            }
            error = JwtError::Signature;
        }
        Err(error)
    }
}

//! Verification keys of tokens, each pinned to one algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::JwtError;

/// Most keys of one issuer: real ones have two or three.
const MAX_KEYS: usize = 64;
/// Most keys tried for a token without a `kid`: each costs a signature check.
const MAX_TRIES: usize = 4;
/// Fewest bytes of a shared secret (RFC 7518 section 3.2).
const MIN_SECRET: usize = 32;
/// Fewest and most bytes of an RSA modulus: 2,048 bits (RFC 7518 section 3.3), and a size still
/// verified in microseconds.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1_024;

/// The keys of one issuer.
pub(super) struct KeySet(Vec<VerifyingKey>);

struct VerifyingKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    /// An empty set.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// One shared secret for HS256. The error does not show it.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!(
                "the JWT secret has {} bytes and needs at least {MIN_SECRET}",
                secret.len()
            ));
        }
        let key = DecodingKey::from_secret(secret);
        Ok(Self(vec![VerifyingKey { kid: None, algorithm: Algorithm::HS256, key }]))
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
        let keys: Vec<VerifyingKey> =
            document.keys.into_iter().filter_map(read).take(MAX_KEYS).collect();
        if keys.is_empty() {
            return Err(format!(
                "none of its {listed} keys is for RS256, ES256 or EdDSA signatures"
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
        let may_be =
            |key: &&VerifyingKey| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid;
        let mut error = JwtError::UnknownKey;
        let mut tries = 0;
        for key in self.0.iter().filter(may_be) {
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

impl VerifyingKey {
    fn alg(&self) -> &'static str {
        match self.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
            // No key has any other algorithm.
            _ => "",
        }
    }

    fn made(&self, signed: &str, signature: &[u8]) -> bool {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.key);
        verifier.is_ok_and(|it| it.verify(signed.as_bytes(), &signature.to_vec()).is_ok())
    }
}

/// The parts of a JWK (RFC 7517 and 7518 section 6) that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn key(self) -> Option<VerifyingKey> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref()?).ok();
        let coordinate = |part| bytes(part).is_some_and(|bytes| bytes.len() == 32);
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes(&self.n)?, bytes(&self.e)?);
                let modulus = n.iter().skip_while(|byte| **byte == 0).count();
                let fits = MODULUS.contains(&modulus) && e.len() <= 8;
                let key = fits.then(|| DecodingKey::from_rsa_raw_components(&n, &e))?;
                (Algorithm::RS256, key)
            }
            ("EC", Some("P-256")) if coordinate(&self.x) && coordinate(&self.y) => {
                let key = DecodingKey::from_ec_components(self.x.as_ref()?, self.y.as_ref()?);
                (Algorithm::ES256, key.ok()?)
            }
            ("OKP", Some("Ed25519")) if coordinate(&self.x) => {
                let key = DecodingKey::from_ed_components(self.x.as_ref()?);
                (Algorithm::EdDSA, key.ok()?)
            }
            // Shared secrets do not come over the network.
            _ => return None,
        };
        let key = VerifyingKey { kid: self.kid, algorithm, key };
        // A key that names another algorithm is for that one only.
        self.alg.is_none_or(|alg| alg == key.alg()).then_some(key)
    }
}

//! A JWK (RFC 7517, RFC 7518 section 6) read as a key for signatures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::key::VerifyingKey;

/// The parts of a JWK that matter here.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key with its `kid`; `None`: it is for something other than signatures, or for those of
    /// an algorithm that is not supported.
    pub(super) fn key(self) -> Option<(Option<String>, VerifyingKey)> {
        let is_verify = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(is_verify);
        if !for_signatures {
            return None;
        }
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref()?).ok();
        let alg = self.alg.as_deref();
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => VerifyingKey::rsa(&bytes(&self.n)?, &bytes(&self.e)?, alg),
            ("EC", Some("P-256")) => VerifyingKey::p256(&bytes(&self.x)?, &bytes(&self.y)?),
            ("EC", Some("P-384")) => VerifyingKey::p384(&bytes(&self.x)?, &bytes(&self.y)?),
            ("OKP", Some("Ed25519")) => VerifyingKey::ed25519(bytes(&self.x)?),
            // Shared secrets do not come over the network.
            _ => None,
        }?;
        // A key that names another algorithm is for that one only.
        alg.is_none_or(|alg| alg == key.alg()).then_some((self.kid, key))
    }
}

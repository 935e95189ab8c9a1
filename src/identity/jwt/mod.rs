//! JWTs as credentials (RFC 7519): verified here, synchronously, against keys in memory.
//!
//! - A key is for one algorithm. The token's `alg` chooses nothing: it must match its key's. So
//!   `none` has no key, and an RSA public key never verifies an HMAC.
//! - `exp`, `iss` and `aud` must be present and right; `nbf` is respected; [`LEEWAY`] is granted
//!   for skewed clocks. A `crit` header is refused (RFC 7515 section 4.1.11: we know no extension).
//! - The signature is checked before any claim is trusted, by ring (`key.rs`). What is written here
//!   is the frame of JOSE alone. `jsonwebtoken` would bring a backend that is chosen by features,
//!   and those of a host add to ours: with two on, it panics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Caller, Permissions, is_tenant_id};

mod jwk;
mod key;
mod keys;
mod source;

use keys::KeySet;
pub(crate) use source::Jwks;

/// Largest difference between the clocks of issuer and host.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);

/// Longest user id or name of a plan accepted.
const MAX_NAME: usize = 1_024;
/// Where identity providers put what a caller may do: RFC 9068 (section 2.2.3), and others.
const SCOPE_CLAIMS: [&str; 2] = ["scope", "scp"];

/// Requirements on a token, and its claims for tenant and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRules {
    /// `iss` must be this.
    pub issuer: String,
    /// `aud` must contain one of these; an empty list accepts no token.
    pub audience: Vec<String>,
    /// The claim with the tenant's outer id, text or a whole number.
    pub tenant: String,
    /// The claim with the user.
    pub user: Option<String>,
    /// The claim with the plan that the tenant is on.
    pub plan: Option<String>,
    /// The claim with what the caller may do; `None`: the one where identity providers put it.
    pub permissions: Option<String>,
}

/// Verifies the tokens of one issuer. Clones share the keys.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    claims: Arc<TokenRules>,
    keys: KeySource,
}

#[derive(Clone)]
enum KeySource {
    Secret(Arc<KeySet>),
    Jwks(Arc<Jwks>),
}

/// A valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The tenant's outer id.
    pub tenant: String,
    /// The user.
    pub user: Option<String>,
    /// The plan that the tenant is on.
    pub plan: Option<String>,
    /// What the caller may do.
    pub permissions: Permissions,
    /// End of its cache lifetime, Unix milliseconds.
    pub until_ms: i64,
}

impl Verified {
    /// The caller named by the token.
    pub(crate) fn caller(self) -> Caller {
        let mut caller = Caller { permissions: self.permissions, ..Caller::new(self.tenant) };
        if let Some(user) = self.user {
            caller = caller.user(user);
        }
        match self.plan {
            Some(plan) => caller.plan(plan),
            None => caller,
        }
    }
}

/// Reasons to refuse a token, in the order of the checks: a later one means it came further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JwtError {
    /// Not a JWT, or one with a critical extension.
    #[error("the token is not a readable JWT")]
    Malformed,
    /// No key has this `kid`: the issuer may have a new one, and a refresh was requested.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The key is for another algorithm.
    #[error("the token's algorithm does not match its key")]
    Algorithm,
    /// The signature does not match.
    #[error("the token's signature is invalid")]
    Signature,
    /// The token is from another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// The token is for another audience.
    #[error("the token is for another audience")]
    Audience,
    /// No `exp`, or it has passed.
    #[error("the token has expired, or has no expiry")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// It names no tenant, or an invalid tenant id.
    #[error("the token names no tenant")]
    NoTenant,
}

impl Verifier {
    /// With a shared secret (HS256), of at least 32 bytes (RFC 7518 section 3.2).
    pub(crate) fn hs256(claims: TokenRules, secret: &[u8]) -> Result<Self, String> {
        let keys = KeySource::Secret(Arc::new(KeySet::secret(secret)?));
        Ok(Self { claims: Arc::new(claims), keys })
    }

    /// With the public keys of a JWKS, which the host of this verifier refreshes.
    pub(crate) fn jwks(claims: TokenRules, jwks: Arc<Jwks>) -> Self {
        Self { claims: Arc::new(claims), keys: KeySource::Jwks(jwks) }
    }

    /// The key source, if it needs refreshing.
    pub(crate) fn source(&self) -> Option<&Arc<Jwks>> {
        match &self.keys {
            KeySource::Secret(_) => None,
            KeySource::Jwks(jwks) => Some(jwks),
        }
    }

    /// Verifies a token at this wall-clock time, Unix milliseconds.
    pub(crate) fn verify(&self, token: &str, now_ms: i64) -> Result<Verified, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        if payload.contains('.') {
            return Err(JwtError::Malformed); // three parts, no more
        }
        let header: Header = decode(header)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
        let kid = header.kid.as_deref();
        match &self.keys {
            KeySource::Secret(keys) => keys.verify(kid, &header.alg, signed, &signature)?,
            KeySource::Jwks(jwks) => jwks.verify(kid, &header.alg, signed, &signature)?,
        }
        self.claims.check(&decode(payload)?, now_ms)
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Secret(_) => f.write_str("Secret(..)"),
            KeySource::Jwks(jwks) => jwks.fmt(f),
        }
    }
}

impl TokenRules {
    fn check(&self, token: &Map<String, Value>, now_ms: i64) -> Result<Verified, JwtError> {
        if token.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(JwtError::Issuer);
        }
        let for_us = |aud: &Value| self.audience.iter().any(|ours| aud.as_str() == Some(ours));
        let is_for_us = match token.get("aud") {
            Some(Value::Array(many)) => many.iter().any(for_us),
            Some(one) => for_us(one),
            None => false,
        };
        if !is_for_us {
            return Err(JwtError::Audience);
        }
        let leeway_ms = LEEWAY.as_millis() as i64;
        let exp_ms = token.get("exp").and_then(numeric_date_ms).ok_or(JwtError::Expired)?;
        let until_ms = exp_ms.saturating_add(leeway_ms);
        if now_ms >= until_ms {
            return Err(JwtError::Expired);
        }
        if let Some(nbf) = token.get("nbf") {
            let nbf_ms = numeric_date_ms(nbf).ok_or(JwtError::NotYet)?;
            if now_ms < nbf_ms.saturating_sub(leeway_ms) {
                return Err(JwtError::NotYet);
            }
        }
        let tenant = token.get(&self.tenant).and_then(name).filter(|id| is_tenant_id(id));
        let filled = |claim: &Option<String>| {
            let value = claim.as_ref().and_then(|claim| token.get(claim)).and_then(name);
            value.filter(|value| !value.is_empty() && value.len() <= MAX_NAME)
        };
        Ok(Verified {
            tenant: tenant.ok_or(JwtError::NoTenant)?,
            user: filled(&self.user),
            plan: filled(&self.plan),
            permissions: self.permissions(token),
            until_ms,
        })
    }

    /// What the token lets its caller do: a text with spaces (RFC 8693, section 4.2) or a list.
    fn permissions(&self, token: &Map<String, Value>) -> Permissions {
        let usual = || SCOPE_CLAIMS.iter().find_map(|claim| token.get(*claim));
        let claim = match &self.permissions {
            Some(claim) => token.get(claim),
            None => usual(),
        };
        match claim {
            Some(Value::String(text)) => Permissions::of(text),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                // A name with a space in it would be two others.
                let names = names.filter(|name| !name.contains(char::is_whitespace));
                names.fold(Permissions::default(), |all, name| all.and(name))
            }
            _ => Permissions::default(),
        }
    }
}

/// A JOSE header; other fields are ignored.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, JwtError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| JwtError::Malformed)
}

/// Seconds since the epoch, with or without a fraction (RFC 7519 section 2), in milliseconds.
fn numeric_date_ms(value: &Value) -> Option<i64> {
    match value.as_i64() {
        Some(seconds) => Some(seconds.saturating_mul(1_000)),
        // `as` saturates; a fraction of a second is far below the leeway.
        None => value.as_f64().map(|seconds| (seconds as i64).saturating_mul(1_000)),
    }
}

/// Text, or a whole number as text.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) if n.is_i64() || n.is_u64() => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! One key of one algorithm, and its check of a signature, by ring: a library without a
//! process-wide choice of backend, so that no feature that a host switches on changes what is
//! checked here, or makes it panic.

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// Fewest bytes of a shared secret (RFC 7518 section 3.2).
const MIN_SECRET: usize = 32;
/// Fewest and most bytes of an RSA modulus: 2,048 bits (RFC 7518 section 3.3), and a size still
/// verified in microseconds.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Most bytes of an RSA exponent: ring takes up to 33 bits, and 3 or 65,537 are what is used.
const MAX_EXPONENT: usize = 5;

/// Algorithms of RSA keys. A key whose JWK names none is for the first.
const RSA: [(&str, &RsaParameters); 6] = [
    ("RS256", &RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &RSA_PKCS1_2048_8192_SHA512),
    ("PS256", &RSA_PSS_2048_8192_SHA256),
    ("PS384", &RSA_PSS_2048_8192_SHA384),
    ("PS512", &RSA_PSS_2048_8192_SHA512),
];

/// A key, pinned to one algorithm. It has no `Debug`: it may be a secret.
pub(super) struct VerifyingKey {
    alg: &'static str,
    material: Material,
}

enum Material {
    Hmac(hmac::Key),
    Rsa { n: Vec<u8>, e: Vec<u8>, padding: &'static RsaParameters },
    Curve(UnparsedPublicKey<Vec<u8>>),
}

impl VerifyingKey {
    /// A shared secret for HS256. The error does not show it.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!(
                "the JWT secret has {} bytes and needs at least {MIN_SECRET}",
                secret.len()
            ));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { alg: "HS256", material: Material::Hmac(key) })
    }

    /// An RSA public key for this algorithm, big-endian; `None`: of another size, or no algorithm
    /// of RSA keys.
    pub(super) fn rsa(n: &[u8], e: &[u8], alg: Option<&str>) -> Option<Self> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let fits = MODULUS.contains(&n.len()) && e.len() <= MAX_EXPONENT;
        let named = |(name, _): &&(&str, _)| alg.is_none_or(|alg| alg == *name);
        let (alg, padding) = *RSA.iter().find(named).filter(|_| fits)?;
        Some(Self { alg, material: Material::Rsa { n: n.into(), e: e.into(), padding } })
    }

    /// A point on P-256 for ES256.
    pub(super) fn p256(x: &[u8], y: &[u8]) -> Option<Self> {
        let point = uncompressed(x, y, 32)?;
        Some(Self::curve("ES256", &ECDSA_P256_SHA256_FIXED, point))
    }

    /// A point on P-384 for ES384.
    pub(super) fn p384(x: &[u8], y: &[u8]) -> Option<Self> {
        let point = uncompressed(x, y, 48)?;
        Some(Self::curve("ES384", &ECDSA_P384_SHA384_FIXED, point))
    }

    /// A public key on Ed25519 for EdDSA.
    pub(super) fn ed25519(x: Vec<u8>) -> Option<Self> {
        (x.len() == 32).then(|| Self::curve("EdDSA", &ED25519, x))
    }

    fn curve(alg: &'static str, by: &'static dyn VerificationAlgorithm, point: Vec<u8>) -> Self {
        Self { alg, material: Material::Curve(UnparsedPublicKey::new(by, point)) }
    }

    /// The one algorithm, as in a header's `alg`.
    pub(super) fn alg(&self) -> &'static str {
        self.alg
    }

    /// Whether the signature of this text is by this key.
    pub(super) fn made(&self, signed: &str, signature: &[u8]) -> bool {
        let signed = signed.as_bytes();
        let checked = match &self.material {
            Material::Hmac(key) => hmac::verify(key, signed, signature),
            Material::Rsa { n, e, padding } => {
                RsaPublicKeyComponents { n, e }.verify(padding, signed, signature)
            }
            Material::Curve(key) => key.verify(signed, signature),
        };
        checked.is_ok()
    }
}

/// A number as ring takes it: some issuers write a leading zero byte before it.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// A point as SEC 1 section 2.3.3 writes it, of coordinates that are whole (RFC 7518 section
/// 6.2.1.2).
fn uncompressed(x: &[u8], y: &[u8], coordinate: usize) -> Option<Vec<u8>> {
    let whole = x.len() == coordinate && y.len() == coordinate;
    whole.then(|| [&[4], x, y].concat())
}

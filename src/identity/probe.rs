//! The name of a credential in memory: 128 bits under a key drawn when the process starts.
//!
//! It is what the hot caches are keyed by, so that a known credential costs one SipHash and no
//! cryptographic one, and so that neither a heap dump's map keys nor a caller's choice of bytes
//! tells or steers anything. It is worth nothing outside this process and is never stored.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// A credential's name in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CredentialKey(pub u128);

impl std::fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe(..)")
    }
}

/// Makes [`CredentialKey`]s under one random key.
#[derive(Clone)]
pub(crate) struct CredentialHasher {
    hasher: SipHasher13,
}

impl CredentialHasher {
    /// A prober under a fresh random key. Fails if the system has no randomness.
    pub(crate) fn new() -> Result<Self, crate::random::Error> {
        let mut key = [0; 16];
        crate::random::fill(&mut key)?;
        Ok(Self { hasher: SipHasher13::new_with_key(&key) })
    }

    /// The probe of what the source with this index presented. Two sources never share one: an API
    /// key that reads like a tenant id is not that tenant.
    #[inline]
    pub(crate) fn probe(&self, source: u16, presented: &[u8]) -> CredentialKey {
        of_source(source, self.hasher.hash(presented).as_u128())
    }

    /// The same of a tenant's id with a user's. A byte that is in no text stands between them.
    pub(crate) fn probe_named(
        &self,
        source: u16,
        tenant: &[u8],
        user: Option<&[u8]>,
    ) -> CredentialKey {
        let Some(user) = user else {
            return self.probe(source, tenant);
        };
        let mut hasher = self.hasher;
        hasher.write(tenant);
        hasher.write_u8(0xFF);
        hasher.write(user);
        of_source(source, hasher.finish128().as_u128())
    }
}

/// The source is laid over the hash: what it hashes to under two sources differs for certain, and
/// nobody without the key can aim at anything else.
fn of_source(source: u16, hash: u128) -> CredentialKey {
    CredentialKey(hash ^ u128::from(source) << 112)
}

impl std::fmt::Debug for CredentialHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_for_the_same_and_differs_by_source_bytes_and_process() {
        let prober = CredentialHasher::new().unwrap();
        let probe = prober.probe(0, b"key");
        assert_eq!(probe, prober.clone().probe(0, b"key"));
        assert_ne!(probe, prober.probe(1, b"key"));
        assert_ne!(probe, prober.probe(0, b"kez"));
        assert_ne!(probe, CredentialHasher::new().unwrap().probe(0, b"key"));
    }
}

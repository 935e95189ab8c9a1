//! In-memory names of credentials: 128 bits under a key drawn when the process starts.
//!
//! The hot caches use them as keys, so that a known credential costs one SipHash and no
//! cryptographic hash, and so that map keys in a heap dump reveal nothing and callers' bytes cannot
//! steer the cache. They are worthless outside this process and never stored.

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

    /// The probe of a credential from the source with this index. Two sources never share one: an
    /// API key that reads like a tenant id is not that tenant.
    #[inline]
    pub(crate) fn probe(&self, source: u16, presented: &[u8]) -> CredentialKey {
        of_source(source, self.hasher.hash(presented).as_u128())
    }

    /// The same for a tenant's id with a user's and what they may do. A byte that occurs in no text
    /// separates them.
    pub(crate) fn probe_named(
        &self,
        source: u16,
        tenant: &[u8],
        user: Option<&[u8]>,
        permissions: Option<&str>,
    ) -> CredentialKey {
        if user.is_none() && permissions.is_none() {
            return self.probe(source, tenant);
        }
        let mut hasher = self.hasher;
        hasher.write(tenant);
        hasher.write_u8(0xFF);
        hasher.write(user.unwrap_or_default());
        if let Some(permissions) = permissions {
            hasher.write_u8(0xFF);
            hasher.write(permissions.as_bytes());
        }
        of_source(source, hasher.finish128().as_u128())
    }
}

/// Combines the source with the hash: the same hash under two sources always differs, and without
/// the key a collision cannot be aimed at.
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

    #[test]
    fn a_name_differs_by_its_user_and_permissions() {
        let prober = CredentialHasher::new().unwrap();
        let (some, none) = (Some(&b"x"[..]), None);
        let names = [(none, None), (some, None), (none, Some("x")), (some, Some("x"))];
        let probes: std::collections::BTreeSet<_> =
            names.map(|(user, may)| prober.probe_named(0, b"acme", user, may)).into();
        assert_eq!(probes.len(), names.len());
    }
}

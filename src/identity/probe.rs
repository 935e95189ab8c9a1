//! The name of a credential in memory: 128 bits under a key drawn when the process starts.
//!
//! It is what the hot caches are keyed by, so that a known credential costs one SipHash and no
//! cryptographic one, and so that neither a heap dump's map keys nor a caller's choice of bytes
//! tells or steers anything. It is worth nothing outside this process and is never stored.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// A credential's name in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe(pub u128);

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe(..)")
    }
}

/// Makes [`Probe`]s under one random key.
#[derive(Clone)]
pub struct Prober {
    empty: SipHasher13,
}

impl Prober {
    /// A prober under a fresh random key. Fails if the system has no randomness.
    pub fn new() -> Result<Self, crate::random::Error> {
        let mut key = [0; 16];
        crate::random::fill(&mut key)?;
        Ok(Self { empty: SipHasher13::new_with_key(&key) })
    }

    /// The probe of what the source with this index presented. Two sources never share one: an API
    /// key that reads like a tenant id is not that tenant.
    pub fn probe(&self, source: u16, presented: &[u8]) -> Probe {
        let mut hasher = self.empty;
        hasher.write_u16(source);
        hasher.write(presented);
        Probe(hasher.finish128().as_u128())
    }

    /// The same of a tenant's id with a user's. A byte that is in no text stands between them.
    pub fn probe_named(&self, source: u16, tenant: &[u8], user: Option<&[u8]>) -> Probe {
        let mut hasher = self.empty;
        hasher.write_u16(source);
        hasher.write(tenant);
        if let Some(user) = user {
            hasher.write_u8(0xFF);
            hasher.write(user);
        }
        Probe(hasher.finish128().as_u128())
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_for_the_same_and_differs_by_source_bytes_and_process() {
        let prober = Prober::new().unwrap();
        let probe = prober.probe(0, b"key");
        assert_eq!(probe, prober.clone().probe(0, b"key"));
        assert_ne!(probe, prober.probe(1, b"key"));
        assert_ne!(probe, prober.probe(0, b"kez"));
        assert_ne!(probe, Prober::new().unwrap().probe(0, b"key"));
    }
}

//! The scopes of a request within its tenant, and their hashes for stored keys.
//!
//! No caller-chosen text enters a key unhashed: a scope's value is hashed with the tenant's
//! surrogate and the scope's name. The hash is the same in every process and for all time, because
//! pools are found by it, and reveals nothing across tenants: the surrogate is random.
//!
//! An IPv6 caller is its /64: a single line holds all of its 2^64 addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Caller;
use crate::catalog::Scope;
use crate::ids::Surrogate;

/// Prefix of the hashed data, so that it cannot collide with our other hashes.
const DOMAIN: &[u8] = b"tallygate scope 1";

/// A scope of one tenant, as used in a stored key: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeHash(pub [u8; 16]);

impl ScopeHash {
    /// The hash as a number, in the order of its bytes.
    pub(crate) fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The hash of `value` in the scope called `kind` (`key`, `user`, `ip`, or the host's name with
    /// a dot in front) of this tenant.
    pub(crate) fn new(tenant: Surrogate, kind: &str, value: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(tenant.to_bytes())
            // The length distinguishes `("a", "bc")` from `("ab", "c")`.
            .chain_update((kind.len() as u64).to_le_bytes())
            .chain_update(kind)
            .chain_update(value)
            .finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

impl std::fmt::Display for ScopeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl std::fmt::Debug for ScopeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScopeHash({self})")
    }
}

/// All scopes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes {
    /// The credential's id.
    pub key: Option<Arc<str>>,
    /// The user.
    pub user: Option<Arc<str>>,
    /// The caller's address, as [`Proxies::peer`](super::Proxies::peer) found it.
    pub ip: Option<IpAddr>,
    /// Host-defined scopes, by name.
    pub named: Vec<(Arc<str>, Arc<str>)>,
}

impl Scopes {
    /// The scopes of a caller at an address.
    pub(crate) fn of(caller: Caller, ip: Option<IpAddr>) -> Self {
        Self { key: caller.key, user: caller.user, ip, named: caller.named }
    }

    /// The hash of one scope for a stored key; `None` if the request has no such scope, and for
    /// [`Scope::Tenant`], which needs none.
    pub(crate) fn hash(&self, tenant: Surrogate, scope: &Scope) -> Option<ScopeHash> {
        let text = |kind: &str, value: &Option<Arc<str>>| {
            value.as_ref().map(|value| ScopeHash::new(tenant, kind, value.as_bytes()))
        };
        match scope {
            Scope::Tenant => None,
            Scope::Key => text("key", &self.key),
            Scope::User => text("user", &self.user),
            Scope::Ip => self.ip.map(|ip| match line(ip) {
                IpAddr::V4(ip) => ScopeHash::new(tenant, "ip", &ip.octets()),
                IpAddr::V6(ip) => ScopeHash::new(tenant, "ip", &ip.octets()),
            }),
            Scope::Named(name) => {
                let (_, value) = self.named.iter().find(|(other, _)| other == name)?;
                Some(ScopeHash::new(tenant, &format!(".{name}"), value.as_bytes()))
            }
        }
    }
}

/// The address that stands for all callers on the same line.
pub(crate) fn line(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn at(ip: &str) -> Scopes {
        Scopes { ip: Some(ip.parse().unwrap()), ..Scopes::default() }
    }

    #[test]
    fn is_stable_over_processes() {
        // A changed value here would lose every pool of a narrower scope: it is part of the layout.
        let hash = ScopeHash::new(Surrogate::test(1), "user", b"7");
        assert_eq!(hash.to_string(), "7746ffd7763af013beb17549dd1f8df0");
    }

    #[test]
    fn differs_by_tenant_kind_and_value() {
        let one = Surrogate::test(1);
        let caller = Caller::new("acme").key("7").user("7").scope("user", "7").scope("key", "7");
        let scopes = Scopes::of(caller, None);
        let hashes: HashSet<_> = [
            scopes.hash(one, &Scope::Key),
            scopes.hash(one, &Scope::User),
            scopes.hash(one, &Scope::Named("user".into())),
            scopes.hash(one, &Scope::Named("key".into())),
            scopes.hash(Surrogate::test(2), &Scope::Key),
            Some(ScopeHash::new(one, "ke", b"y7")),
        ]
        .into_iter()
        .map(Option::unwrap)
        .collect();
        assert_eq!(hashes.len(), 6);
        assert_eq!(scopes.hash(one, &Scope::Tenant), None);
        assert_eq!(scopes.hash(one, &Scope::Ip), None);
        assert_eq!(scopes.hash(one, &Scope::Named("team".into())), None);
    }

    #[test]
    fn an_ipv6_caller_is_its_64_and_a_mapped_one_its_ipv4() {
        let one = Surrogate::test(1);
        let hash = |ip: &str| at(ip).hash(one, &Scope::Ip).unwrap();
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:1.2.3.4"), hash("1.2.3.4"));
        assert_ne!(hash("1.2.3.4"), hash("1.2.3.5"));
    }
}

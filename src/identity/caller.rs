//! Identification by the host's own code, and what any identification ends in.

use std::sync::Arc;

use super::RequestView;

/// Says who calls, before `[[identify]]` is asked.
///
/// It is synchronous and asks nobody: what needs the network (a session table, an introspection
/// endpoint) belongs in a layer of the host's in front, which leaves its finding as a claim.
///
/// ```
/// use tallygate::identity::{Caller, Identify, Identity, RequestView};
///
/// /// The layer in front has verified the session and left `org` and `sub`.
/// struct Session;
///
/// impl Identify for Session {
///     fn identify(&self, view: &dyn RequestView) -> Identity {
///         let Some(org) = view.claim("org") else { return Identity::Nobody };
///         let caller = Caller::new(org.into_owned());
///         Identity::Tenant(match view.claim("sub") {
///             Some(user) => caller.user(user.into_owned()),
///             None => caller,
///         })
///     }
/// }
/// ```
pub trait Identify: Send + Sync + 'static {
    /// Who calls.
    fn identify(&self, view: &dyn RequestView) -> Identity;
}

/// What an identification ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This tenant's caller. Whether there is such a tenant, the directory says. An id that begins
    /// with `~` is the gate's own, and refused.
    Tenant(Caller),
    /// The request presents nothing that this code knows: the `[[identify]]` tables are asked. Only
    /// what they do not know either is without a caller, and the route's `auth` and `[identity]
    /// unknown` say what becomes of it.
    Nobody,
    /// The request presents something that is wrong: it is refused, also where a credential is
    /// optional.
    Refused,
}

/// A caller: the tenant, and what scopes of it this request is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant's outer id.
    pub tenant: Arc<str>,
    /// The credential's id, for limits of scope `key`.
    pub key: Option<Arc<str>>,
    /// The user, for limits of scope `user`.
    pub user: Option<Arc<str>>,
    /// Scopes with a name of the host's: `("workspace", "7")`.
    pub named: Vec<(Arc<str>, Arc<str>)>,
}

impl Caller {
    /// A caller of this tenant, in no narrower scope.
    pub fn new(tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), key: None, user: None, named: Vec::new() }
    }

    /// With this credential.
    #[must_use]
    pub fn key(mut self, id: impl Into<Arc<str>>) -> Self {
        self.key = Some(id.into());
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<Arc<str>>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Within this scope of the host's own; the last value of a name counts.
    #[must_use]
    pub fn scope(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.named.retain(|(other, _)| *other != name);
        self.named.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_named_scope_counts() {
        let caller = Caller::new("acme").scope("team", "1").scope("app", "x").scope("team", "2");
        let named: Vec<_> = caller.named.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(named, [("app", "x"), ("team", "2")]);
    }
}

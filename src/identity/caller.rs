//! Identification by the host's own code, and the result of any identification.

use std::sync::Arc;

use super::{Permissions, RequestView};

/// The host's own identification of callers, tried before the `[[identify]]` tables. Pass it to
/// [`GateBuilder::identify`](crate::GateBuilder::identify).
///
/// It is synchronous and makes no calls: lookups over the network (a session table, an
/// introspection endpoint) belong in the host's own layer in front, which leaves its result as a
/// claim.
///
/// ```
/// use tallygate::identity::{Caller, Identify, Identity, RequestView};
///
/// /// The layer in front has verified the session and left `org` and `sub`.
/// struct Session;
///
/// impl Identify for Session {
///     fn identify(&self, view: &dyn RequestView) -> Identity {
///         let Some(org) = view.claim("org") else { return Identity::Absent };
///         let caller = Caller::new(org.into_owned());
///         Identity::Tenant(match view.claim("sub") {
///             Some(user) => caller.user(user.into_owned()),
///             None => caller,
///         })
///     }
/// }
/// ```
pub trait Identify: Send + Sync + 'static {
    /// Identifies the caller of this request. Called for each request, so it must not block.
    fn identify(&self, view: &dyn RequestView) -> Identity;
}

/// The result of an identification. [`Identify::identify`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// A caller of this tenant; the directory decides whether the tenant exists. An id that begins
    /// with `~` is reserved for the gate, and refused.
    Tenant(Caller),
    /// The request presents nothing that this code knows: the `[[identify]]` tables go next. If
    /// they find nothing either, the request has no caller, and the route's `auth` and `[identity]
    /// unknown` decide its treatment.
    Absent,
    /// The request presents something invalid: it is refused, even where a credential is optional.
    Refused,
}

/// A caller: its tenant, and its scopes within that tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The tenant's outer id.
    pub tenant: Arc<str>,
    /// The credential's id, for limits of scope `key`.
    pub key: Option<Arc<str>>,
    /// The user, for limits of scope `user`.
    pub user: Option<Arc<str>>,
    /// The plan that the host says this tenant is on; `None`: as the directory has it.
    pub plan: Option<Arc<str>>,
    /// Scopes with host-defined names: `("workspace", "7")`.
    pub named: Vec<(Arc<str>, Arc<str>)>,
    /// What it may do, where a route asks for a permission.
    pub(crate) permissions: Permissions,
}

impl Caller {
    /// A caller of this tenant, without a narrower scope.
    pub fn new(tenant: impl AsRef<str>) -> Self {
        let tenant = tenant.as_ref().into();
        let (named, permissions) = (Vec::new(), Permissions::default());
        Self { tenant, key: None, user: None, plan: None, named, permissions }
    }

    /// Sets the credential's id, for limits of scope `key`.
    #[must_use]
    pub fn key(mut self, id: impl AsRef<str>) -> Self {
        self.key = Some(id.as_ref().into());
        self
    }

    /// Sets the user, for limits of scope `user`.
    #[must_use]
    pub fn user(mut self, user: impl AsRef<str>) -> Self {
        self.user = Some(user.as_ref().into());
        self
    }

    /// Sets the plan that the host says this tenant is on. The directory keeps it as the tenant's
    /// assigned plan: a tenant that the directory does not know is made on it, and another plan
    /// than the request before named is assigned before this request is decided. What was used
    /// stays used. Exceptions of the plan file and of operators, and a live Stripe subscription,
    /// take precedence, as over every assigned plan.
    ///
    /// With [`GateBuilder::tenants`](crate::GateBuilder::tenants) it has no effect: the source says
    /// it.
    ///
    /// A name that the plan file lacks means the default plan, with an error in the log, until the
    /// file has it; so does a name that no plan can have, as an empty one. At most ten changes of a
    /// tenant's plan at once and one a minute are made from what its callers name; above that the
    /// last one stays, with a warning in the log.
    #[must_use]
    pub fn plan(mut self, name: impl AsRef<str>) -> Self {
        self.plan = Some(name.as_ref().into());
        self
    }

    /// Adds a value of a host-defined scope; the last value of a name counts.
    #[must_use]
    pub fn scope(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        self.named.retain(|(other, _)| **other != *name);
        self.named.push((name.into(), value.as_ref().into()));
        self
    }

    /// Adds a permission, or several with spaces between them, as a token's `scope` has them. A
    /// route with `needs-permission` in the plan file refuses a caller without the one that it
    /// names; a caller has none unless they are added here.
    ///
    /// ```
    /// use tallygate::identity::Caller;
    ///
    /// let scope = "reports:read reports:write"; // of a verified token
    /// let caller = Caller::new("acme").user("7").permission(scope);
    /// assert!(caller.may("reports:write") && !caller.may("reports"));
    /// ```
    #[must_use]
    pub fn permission(mut self, name: impl AsRef<str>) -> Self {
        self.permissions = self.permissions.and(name.as_ref());
        self
    }

    /// Whether it has this permission.
    pub fn may(&self, permission: &str) -> bool {
        self.permissions.has(permission)
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

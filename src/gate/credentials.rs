//! How callers are known by what they present.

use std::net::IpAddr;
use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::catalog::Scope;
use crate::identity::{
    Caller, CredentialHasher, CredentialKey, Identifier, Identify, RequestView, ScopeHash, Scopes,
};
use crate::notice::notice;
use crate::sheets::sheet::Sheet;

/// See the [module](self).
pub(crate) struct Credentials {
    pub(crate) identifier: Identifier,
    /// The host's own code, asked first.
    pub(crate) custom: Option<Arc<dyn Identify>>,
    /// Makes the keys of callers that a trusted source has named.
    pub(crate) hasher: CredentialHasher,
    /// Whether it was logged that a request had no caller where only the layer names them.
    pub(crate) said_no_caller: AtomicBool,
    /// Where API keys go, for the text of a 401; `None` where there are none.
    pub(crate) keys_go_in: Option<Arc<str>>,
    /// Whether it was logged how to make a key, or is no longer to be.
    pub(super) said_no_key: AtomicBool,
}

impl Credentials {
    /// Logs the first request without a caller where nothing but the layer names one: to the host
    /// its own mistake looks like a client's.
    #[cold]
    pub(super) fn hint_at_no_caller(&self) {
        if self.custom.is_some() || self.identifier.has_sources() {
            return;
        }
        if !self.said_no_caller.swap(true, Ordering::Relaxed) {
            notice!(
                warn,
                "a request has no caller, and gets 401: only the layer finds one here. If its user \
                 is signed in, the layer that authenticates stands within the gate's instead of \
                 around it, or a router was given the gate instead of the layer. This is logged \
                 once"
            );
        }
    }

    /// Logs how to make a key, at the first request without a known one in a process that knows no
    /// caller yet: in a new app there may be none.
    #[cold]
    pub(super) fn hint_at_no_key(&self, knows_callers: impl FnOnce() -> bool) {
        let Some(headers) = &self.keys_go_in else { return };
        if self.said_no_key.swap(true, Ordering::Relaxed) || knows_callers() {
            return;
        }
        notice!(
            info,
            "a request has no known API key, and gets 401. A key goes into {headers}. If there is \
             none yet, `gate.directory().tenant(\"acme\").save().await?.ensure_key(\"laptop\")\
             .await?` makes one and returns it, once. This is logged once"
        );
    }

    /// The name in memory of a caller named by a trusted source. Its parts are separated by a byte
    /// that is in none of them.
    pub(super) fn probe_of(&self, caller: &Caller) -> CredentialKey {
        let mut name = Vec::with_capacity(64);
        let mut push = |kind: u8, text: &str| {
            name.push(0xFF);
            name.push(kind);
            name.extend_from_slice(text.as_bytes());
        };
        push(0, &caller.tenant);
        caller.key.iter().for_each(|key| push(1, key));
        caller.user.iter().for_each(|user| push(2, user));
        // Callers that name a plan are apart from those that do not: these may be unknown, and
        // those are not. The plan itself is no part of the name: it may change at any time.
        caller.plan.iter().for_each(|_| push(5, ""));
        if !caller.permissions.is_empty() {
            push(6, caller.permissions.as_str());
        }
        for (scope, value) in &caller.named {
            push(3, scope);
            push(4, value);
        }
        self.hasher.probe(u16::MAX, &name)
    }

    /// The hash of the caller's address, if a limit is by address.
    #[inline]
    pub(super) fn ip_scope(&self, sheet: &Sheet, view: &dyn RequestView) -> Option<NonZeroU128> {
        if sheet.policy.uses_ip { hashed_ip(sheet, self.identifier.peer(view)) } else { None }
    }
}

/// The hash of an address within a tenant.
pub(super) fn hashed_ip(sheet: &Sheet, ip: Option<IpAddr>) -> Option<NonZeroU128> {
    let scopes = Scopes { ip, ..Scopes::default() };
    let hash = scopes.hash(sheet.tenant.surrogate, &Scope::Ip)?;
    NonZeroU128::new(ScopeHash::as_u128(hash))
}

//! Checks, at start, that identification can yield the scopes that limits use. A scope for which no
//! caller can have a value, unless the program names it, is logged; a named scope, which only the
//! host's code can yield, is an error without such code.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Place, Scope};
use crate::config::{Config, IdentifyTable, NoScope};
use crate::error::Error;
use crate::notice::notice;
use crate::policy::scoped::told;

/// What the identification of a gate can yield.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yields {
    key: bool,
    user: bool,
    named: bool,
    /// Whether there are requests whose address a server has to say.
    requests: bool,
    no_scope: NoScope,
}

impl Yields {
    /// There are no requests: work names the scopes that it is done for.
    pub(super) fn of_work(config: &Config) -> Self {
        Self { requests: false, ..Self::of(config, true) }
    }

    /// `by_code`: the host identifies callers itself, by what it likes. So it does where the
    /// service
    /// file has no way.
    pub(super) fn of(config: &Config, by_code: bool) -> Self {
        let by_code = by_code || config.identify.is_empty();
        let has_user = |way: &IdentifyTable| match way {
            IdentifyTable::ApiKey { .. } | IdentifyTable::Network { .. } => false,
            IdentifyTable::Jwt(jwt) => jwt.user.is_some(),
            IdentifyTable::Header { user, .. } | IdentifyTable::Claim { user, .. } => {
                user.is_some()
            }
        };
        let is_key = |way: &IdentifyTable| matches!(way, IdentifyTable::ApiKey { .. });
        Self {
            key: by_code || config.identify.iter().any(is_key),
            user: by_code || config.identify.iter().any(has_user),
            named: by_code,
            requests: true,
            no_scope: config.identity.no_scope,
        }
    }

    /// Whether there is a limit that no caller can ever have a value for.
    ///
    /// # Errors
    ///
    /// A limit goes by a name that only the host's own identification could give, and it has none.
    pub(super) fn check(self, file: &str, catalog: &Catalog) -> Result<(), Error> {
        let scopes = scopes(catalog);
        let mut unknown = Vec::new();
        for (scope, place) in &scopes {
            if let Scope::Named(name) = scope
                && !self.named
            {
                let (line, column) = (place.line, place.column);
                unknown.push(format!(
                    "{file}:{line}:{column}: no caller has a `{name}`\nhelp: write `per key`, \
                     `per user` or `per ip`, or give callers one in code: \
                     `GateBuilder::identify` with `Caller::scope(\"{name}\", ..)`; a program \
                     without requests is opened with `GateBuilder::work_only`"
                ));
            }
        }
        if !unknown.is_empty() {
            return Err(Error::Config(unknown.join("\n\n")));
        }
        Ok(())
    }

    /// Logs which limits of a plan file go by what no caller has that the service file identifies.
    pub(super) fn tell(self, catalog: &Catalog) {
        for (scope, place) in scopes(catalog) {
            let missing = match scope {
                Scope::Key if !self.key => "`api-key`",
                Scope::User if !self.user => "`user-header`, `user-claim` or `user` of a JWT",
                Scope::Ip if self.requests => {
                    // Whether it will be known is the server's to say, and no gate can look.
                    notice!(
                        info,
                        line = place.line,
                        "limits per ip use the peer's address: an axum app must be served with \
                         connect info, `into_make_service_with_connect_info::<SocketAddr>()`; \
                         of requests without an address: {}",
                        told(self.no_scope),
                    );
                    continue;
                }
                _ => continue,
            };
            // A layer that names callers is made after the gate: whether there is one is not known.
            let scope = scope.name();
            notice!(
                warn,
                line = place.line,
                "no [[identify]] has {missing}: limits per {scope} tell apart only callers that \
                 the program names with one (`.caller(..)` of the layer, `.{scope}(..)` of \
                 `Caller`); of all others: {}",
                told(self.no_scope),
            );
        }
    }
}

/// Each scope that a limit goes by, and where the first of these is written.
fn scopes(catalog: &Catalog) -> BTreeMap<&Scope, Place> {
    let tenants = catalog.tenants.values().map(|tenant| &tenant.changes);
    let rates = catalog.plans.iter().flat_map(|plan| plan.rates.values());
    let rates = rates.chain(tenants.clone().flat_map(|changes| changes.rates.values()));
    let quotas = catalog.plans.iter().flat_map(|plan| plan.quotas.values());
    let quotas = quotas.chain(tenants.flat_map(|changes| changes.quotas.values()));
    let mut scopes = BTreeMap::new();
    let rates = rates.flatten().map(|rate| (&rate.scope, rate.place));
    for (scope, place) in rates.chain(quotas.flatten().map(|quota| (&quota.scope, quota.place))) {
        scopes.entry(scope).or_insert(place);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::heard;

    #[test]
    fn limits_by_address_are_said_to_need_the_peer() {
        let no_scope = NoScope::Tenant;
        let yields = Yields { key: true, user: true, named: false, requests: true, no_scope };
        let text = said(yields, "3/min per ip");
        assert!(text.contains("connect info") && text.contains("line=3"), "{text}");
        assert_eq!(said(yields, "3/min per key"), "");
    }

    /// What is said of a plan file with this limit in its third line.
    fn said(yields: Yields, limit: &str) -> String {
        let text = format!("default-plan = \"free\"\n[plan.free]\nrate.all = \"{limit}\"\n");
        let catalog = Catalog::parse("plans.toml", &text, std::time::UNIX_EPOCH).unwrap();
        heard::lines(|| yields.tell(&catalog)).concat()
    }

    /// As where the service file is missing: whether the app's layer names callers comes later.
    #[test]
    fn limits_by_user_are_said_to_need_one_and_not_to_be_without_it() {
        let no_scope = NoScope::Tenant;
        let yields = Yields { key: true, user: false, named: false, requests: true, no_scope };
        let text = said(yields, "3/min per user");
        for part in
            ["line=3", "only callers that the program names", "`.user(..)`", "of all others"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("cannot"), "{text}");
        assert_eq!(said(Yields { user: true, ..yields }, "3/min per user"), "");
    }
}

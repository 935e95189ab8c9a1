//! Checks, at start, that identification can yield the scopes that limits use. A scope for which no
//! caller can have a value is logged; a named scope, which only the host's code can yield, is an
//! error without such code.

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
    no_scope: NoScope,
}

impl Yields {
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
                     `GateBuilder::identify` with `Caller::scope(\"{name}\", ..)`"
                ));
            }
        }
        if !unknown.is_empty() {
            return Err(Error::Config(unknown.join("\n\n")));
        }
        Ok(())
    }

    /// Logs which limits of a plan file go by what no caller has.
    pub(super) fn tell(self, catalog: &Catalog) {
        for (scope, place) in scopes(catalog) {
            let missing = match scope {
                Scope::Key if !self.key => "`api-key`",
                Scope::User if !self.user => "`user-header`, `user-claim` or `user` of a JWT",
                Scope::Ip => {
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
            notice!(
                warn,
                line = place.line,
                "limits per {} cannot tell callers apart, because no [[identify]] has {missing}: \
                 {}",
                scope.name(),
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
        let yields = Yields { key: true, user: true, named: false, no_scope: NoScope::Tenant };
        let told = |limit: &str| {
            let text = format!("default-plan = \"free\"\n[plan.free]\nrate.all = \"{limit}\"\n");
            let catalog = Catalog::parse("plans.toml", &text, std::time::UNIX_EPOCH).unwrap();
            heard::lines(|| yields.tell(&catalog)).concat()
        };
        let said = told("3/min per ip");
        assert!(said.contains("connect info") && said.contains("line=3"), "{said}");
        assert_eq!(told("3/min per key"), "");
    }
}

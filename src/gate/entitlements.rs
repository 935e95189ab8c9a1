//! What a tenant has bought, for a host that passes it on: a login that puts it into a token, a
//! support page. Nothing is decided or counted, and nothing that was used is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Gate;
use super::statement::status;
use crate::catalog::Feature;
use crate::error::Error;

/// What a tenant has at an instant, by its record and the plan file in force.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entitlements {
    /// Its plan's name: what payment has left of the one that was bought.
    pub plan: Arc<str>,
    /// How it stands, in the words of `GET /usage`: `active`, `suspended`, `trial-over`,
    /// `payment-required`.
    pub status: Arc<str>,
    /// What the plan includes, exceptions and addons applied.
    pub features: BTreeMap<Arc<str>, Feature>,
}

impl Gate {
    /// What the tenant with this outer id has now; `None` if there is no such tenant. Read from the
    /// store, so that what was bought a moment ago is there. It is no request of the tenant's: no
    /// trial begins with it, and the tenant is not made.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn entitlements(&self, tenant: &str) -> Result<Option<Entitlements>, Error> {
        let inner = &self.inner;
        let Some(found) = inner.tenants.directory.find(tenant).await? else { return Ok(None) };
        let holds = inner.catalogs.live.load().resolve(found.record(), inner.clock.now().wall_ms);
        let plan = &holds.policy.plan;
        Ok(Some(Entitlements {
            plan: plan.name.clone(),
            status: status(&holds.standing),
            features: plan.features.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const PLANS: &str = r#"
        default-plan = "trial"
        [plan.trial]
        expires     = "1d"
        quota.calls = "10/day"
        [plan.team]
        feature.export = true
        feature.seats  = 5
        [meter.calls]
    "#;

    #[tokio::test]
    async fn what_was_bought_is_told_and_asking_begins_no_trial() {
        let (gate, clock) = testing::gate(PLANS);
        assert!(gate.entitlements("acme").await.unwrap().is_none());
        assert!(gate.directory().find("acme").await.unwrap().is_none(), "asking makes nobody");

        gate.directory().tenant("acme").save().await.unwrap();
        clock.advance(std::time::Duration::from_secs(3 * 86_400));
        let has = gate.entitlements("acme").await.unwrap().unwrap();
        assert_eq!((&*has.plan, &*has.status, has.features.len()), ("trial", "active", 0));

        let acme = gate.directory().tenant("acme").plan("team").save().await.unwrap();
        let has = gate.entitlements("acme").await.unwrap().unwrap();
        assert_eq!((&*has.plan, &has.features["seats"]), ("team", &Feature::Number(5)));
        acme.suspend("abuse").await.unwrap();
        let has = gate.entitlements("acme").await.unwrap().unwrap();
        assert_eq!(&*has.status, "suspended");
    }
}

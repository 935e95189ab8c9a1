//! A tenant's plan, status and features, for a host that passes them on: a login that puts them
//! into a token, a support page. Decides and counts nothing, and reads no usage.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Gate;
use super::statement::status;
use crate::catalog::Feature;
use crate::error::Error;

/// A tenant's plan, status and features at one instant, by its record and the plan file in force.
/// [`Gate::entitlements`] returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entitlements {
    /// The name of the plan in force. For an unpaid tenant `[billing]` of the plan file may set
    /// another one than it bought.
    pub plan: Arc<str>,
    /// Whether the tenant may call, in the words of `GET /usage`: `active`, `suspended`,
    /// `trial-over`, `payment-required`.
    pub status: Arc<str>,
    /// The plan's features, by name, with exceptions and addons applied.
    pub features: BTreeMap<Arc<str>, Feature>,
}

impl Gate {
    /// The plan, status and features of the tenant with this outer id; `None` if there is no such
    /// tenant. It reads the store, so a purchase of a moment ago is included. It does not count as
    /// a request: it begins no trial and creates no tenant.
    ///
    /// ```
    /// # let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// # runtime.enable_all().build().unwrap().block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [plan.free]
    ///     rate.all = "5/s"
    ///     [plan.pro]
    ///     extends = "free"
    ///     feature.export = true
    /// "#);
    /// gate.directory().tenant("acme").plan("pro").note("upgraded").save().await?;
    ///
    /// let acme = gate.entitlements("acme").await?.expect("it was saved");
    /// assert_eq!((&*acme.plan, &*acme.status), ("pro", "active"));
    /// assert!(acme.features["export"].is_on());
    /// # }
    /// # Ok::<(), tallygate::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The store's error.
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

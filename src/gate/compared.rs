//! Tenants by what two plan files would do to them: whose use a new file would refuse, or bill more
//! of, and the old one does not. Nothing is decided here: their records are resolved under both
//! files, and their use is that of the windows that are open.

use std::sync::Arc;
use std::time::SystemTime;

use super::Gate;
use super::standing::LimitReader;
use crate::amount::Amount;
use crate::catalog::{Catalog, Over, Quota};
use crate::clock::Now;
use crate::directory::Tenant;
use crate::error::Error;
use crate::policy::resolve::LiveCatalog;
use crate::policy::{Policy, QuotaRule};

/// Two plan files, to compare tenants under. [`Gate::compare_plans`] takes them.
#[derive(Debug)]
#[doc(hidden)]
pub struct PlanFiles {
    old: LiveCatalog,
    new: LiveCatalog,
}

/// A quota under which a tenant's use would come to more. [`Gate::compare_plans`] returns them.
#[derive(Clone, Debug)]
#[doc(hidden)]
#[non_exhaustive]
pub struct PlanChange {
    /// The tenant.
    pub tenant: String,
    /// Its plan under the new file.
    pub plan: Arc<str>,
    /// The quota: `requests/month`.
    pub limit: Arc<str>,
    /// What it has used in the window that is open.
    pub used: Amount,
    /// The limit before; `None`: there is none.
    pub old: Option<Amount>,
    /// The limit after.
    pub new: Option<Amount>,
    /// Whether the next use is refused after, and was not before.
    pub is_refused: bool,
    /// What is billed of the use before, and after.
    pub billed: [Amount; 2],
}

impl PlanFiles {
    /// Reads both.
    ///
    /// # Errors
    ///
    /// [`Error::Plans`] with all mistakes of one.
    pub fn read(old: (&str, &str), new: (&str, &str), now: SystemTime) -> Result<Self, Error> {
        let live = |(name, text): (&str, &str)| {
            let catalog = Catalog::parse(name, text, now)?;
            Ok::<_, Error>(LiveCatalog::new(Arc::new(catalog), 1, 1))
        };
        Ok(Self { old: live(old)?, new: live(new)? })
    }
}

impl Gate {
    /// What the new file would newly refuse, or bill more, of what this tenant has used so far: by
    /// quotas of the whole tenant that the plans in force have too. For the operator's command.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn compare_plans(
        &self,
        tenant: &Tenant,
        files: &PlanFiles,
    ) -> Result<Vec<PlanChange>, Error> {
        let inner = &self.inner;
        let record = tenant.record();
        let Some(live) = inner.tenants.load_tenant(record.surrogate).await? else {
            return Ok(Vec::new());
        };
        let now: Now = inner.clock.now();
        let sheet = live.sheet(&inner.catalogs.live.load(), now);
        let stored = inner.reader(&sheet, now).read_unleased().await?;
        let view = LimitReader { stored: Some(&stored), ..inner.reader(&sheet, now) };
        let [old, new] = [&files.old, &files.new].map(|file| Resolved {
            policy: file.resolve(record, now.wall_ms).policy,
            catalog: &file.catalog,
        });
        let mut found = Vec::new();
        for rule in sheet.policy.quotas.iter().filter(|rule| rule.tenant_wide) {
            let Some(used) = view.used_of(rule) else { continue };
            let used = Amount::new(used, view.scale(rule.quota.meter));
            let before = old.verdict(rule, used);
            let Some(after) = new.verdict(rule, used) else { continue };
            let billed = [before.map_or(Amount::units(0), |it| it.billed), after.billed];
            let is_refused = after.is_refused && !before.is_some_and(|it| it.is_refused);
            if !is_refused && billed[1] <= billed[0] {
                continue;
            }
            found.push(PlanChange {
                tenant: record.id.clone(),
                plan: new.policy.plan.name.clone(),
                limit: rule.quota.id.clone(),
                used,
                old: before.and_then(|it| it.limit),
                new: after.limit,
                is_refused,
                billed,
            });
        }
        Ok(found)
    }
}

/// A tenant's plan by one of the files, which may divide a meter's unit into other parts.
struct Resolved<'a> {
    policy: Arc<Policy>,
    catalog: &'a Catalog,
}

impl Resolved<'_> {
    /// What the quota that counts the same says of so much use; `None`: there is none.
    fn verdict(&self, like: &QuotaRule, used: Amount) -> Option<Verdict> {
        let mut rules = self.policy.quotas.iter().filter(|rule| rule.tenant_wide);
        let quota = &rules.find(|rule| rule.quota.id == like.quota.id)?.quota;
        let scale = self.catalog.meters[usize::from(quota.meter.0)].scale;
        Some(Verdict::of(quota, used, scale))
    }
}

/// What a quota says of so much use.
#[derive(Clone, Copy)]
struct Verdict {
    limit: Option<Amount>,
    is_refused: bool,
    billed: Amount,
}

impl Verdict {
    fn of(quota: &Quota, used: Amount, scale: u64) -> Self {
        let amount = |atoms| Amount::new(atoms, scale);
        let Some(limit) = quota.limit else {
            return Self { limit: None, is_refused: false, billed: amount(0) };
        };
        let ceiling = match quota.over {
            Over::Deny => Some(limit),
            Over::Allow | Over::Bill => quota.stop,
        };
        // In the parts of this file's meter.
        let atoms = u128::from(used.atoms()) * u128::from(scale) / u128::from(used.scale());
        let beyond = u64::try_from(atoms).unwrap_or(u64::MAX).saturating_sub(limit);
        let beyond = amount(beyond);
        let billed = if quota.over == Over::Bill { beyond } else { amount(0) };
        let is_refused = ceiling.is_some_and(|most| used >= amount(most));
        Self { limit: Some(amount(limit)), is_refused, billed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Use of a meter without parts, by a file that divides its unit into ten.
    #[test]
    fn a_file_that_divides_a_unit_says_the_same_of_the_same_use() {
        let text = |parts: &str| {
            format!(
                "default-plan = \"p\"\n[meter.jobs]\n{parts}\n\
                 stripe = {{ event = \"jobs\", send = \"overage\" }}\n[plan.p]\n\
                 quota.jobs = {{ limit = \"10/day\", over = \"bill\", stop = \"30\" }}\n"
            )
        };
        for parts in ["", "parts = 10"] {
            let catalog = Catalog::parse("plans", &text(parts), SystemTime::UNIX_EPOCH).unwrap();
            let plan = &catalog.plans[0];
            let quota = plan.quotas.values().flatten().next().unwrap();
            let scale = catalog.meters[usize::from(quota.meter.0)].scale;
            let of = |used| Verdict::of(quota, Amount::units(used), scale);
            let says = [9, 12, 30].map(|used| (of(used).billed, of(used).is_refused));
            let units = Amount::units;
            assert_eq!(says, [(units(0), false), (units(2), false), (units(20), true)], "{parts}");
            assert_eq!(of(12).limit, Some(units(10)));
        }
    }
}

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
        let [old, new] =
            [&files.old, &files.new].map(|file| file.resolve(record, now.wall_ms).policy);
        let mut found = Vec::new();
        for rule in sheet.policy.quotas.iter().filter(|rule| rule.tenant_wide) {
            let Some(used) = view.used_of(rule) else { continue };
            let before = quota(&old, rule).map(|it| Verdict::of(it, used));
            let Some(after) = quota(&new, rule) else { continue };
            let verdict = Verdict::of(after, used);
            let billed = [before.map_or(0, |it| it.billed), verdict.billed];
            let is_refused = verdict.is_refused && !before.is_some_and(|it| it.is_refused);
            if !is_refused && billed[1] <= billed[0] {
                continue;
            }
            let amount = |atoms| Amount::new(atoms, view.scale(rule.quota.meter));
            found.push(PlanChange {
                tenant: record.id.clone(),
                plan: new.plan.name.clone(),
                limit: rule.quota.id.clone(),
                used: amount(used),
                old: quota(&old, rule).and_then(|it| it.limit).map(amount),
                new: after.limit.map(amount),
                is_refused,
                billed: billed.map(amount),
            });
        }
        Ok(found)
    }
}

/// The quota of another plan that counts the same.
fn quota<'a>(policy: &'a Policy, like: &QuotaRule) -> Option<&'a Quota> {
    let mut rules = policy.quotas.iter().filter(|rule| rule.tenant_wide);
    rules.find(|rule| rule.quota.id == like.quota.id).map(|rule| &rule.quota)
}

/// What a quota says of so much use.
#[derive(Clone, Copy)]
struct Verdict {
    is_refused: bool,
    billed: u64,
}

impl Verdict {
    fn of(quota: &Quota, used: u64) -> Self {
        let Some(limit) = quota.limit else { return Self { is_refused: false, billed: 0 } };
        let ceiling = match quota.over {
            Over::Deny => Some(limit),
            Over::Allow | Over::Bill => quota.stop,
        };
        let beyond = used.saturating_sub(limit);
        let billed = if quota.over == Over::Bill { beyond } else { 0 };
        Self { is_refused: ceiling.is_some_and(|most| used >= most), billed }
    }
}

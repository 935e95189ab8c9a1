//! Tenants by how much of a limit they have used, for operators: those in this process's memory,
//! and as it knows them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde_json::json;

use super::Inner;
use super::busiest_read::Found;
use super::standing::{LimitReader, StoredPools};
use super::statement::{limit_report, status};
use super::top_tenants::Share;
use crate::clock::Now;
use crate::policy::scoped::ScopesOf;
use crate::policy::{QuotaIndex, QuotaRule};
use crate::sheets::sheet::Sheet;
use crate::tenants::tenant::LiveTenant;

/// Tenants that are read before other tasks have a turn: each costs a microsecond or so.
const AT_ONCE: usize = 500;

/// A tenant, and the limit that it has used the largest share of.
struct Nearest {
    sheet: Arc<Sheet>,
    quota: QuotaIndex,
    share: f64,
}

/// By their shares; of equal ones the first by its id is the largest, so that a list does not jump.
impl Ord for Nearest {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_id = || other.sheet.tenant.id.cmp(&self.sheet.tenant.id);
        self.share.total_cmp(&other.share).then_with(by_id)
    }
}

impl PartialOrd for Nearest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Nearest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Nearest {}

impl Inner {
    /// At most so many tenants by the largest share of a quota that they have used, the largest
    /// first, and how many tenants were looked at: those that are in use in this process. Quotas of
    /// the whole tenant count, with what is granted beside them, and only what this process has
    /// leased of them or has seen of their pools: nothing is read of the store.
    pub(super) async fn nearest(&self, most: usize) -> (Vec<Found>, usize) {
        let (found, looked_at) = self.first_few(most).await;
        let now = self.clock.now();
        let shown = |it: &Nearest| Self::shown(it, self.reader(&it.sheet, now));
        (found.iter().filter_map(shown).collect(), looked_at)
    }

    /// The same for the metric: whose limit it is, and the share.
    pub(super) async fn shares(&self, most: usize) -> Vec<Share> {
        let (found, _) = self.first_few(most).await;
        let share = |Nearest { sheet, quota, share }: Nearest| Share {
            tenant: sheet.tenant.id.clone(),
            limit: sheet.policy.quotas[quota].quota.id.clone(),
            used: share,
        };
        found.into_iter().map(share).collect()
    }

    async fn first_few(&self, most: usize) -> (Vec<Nearest>, usize) {
        // The map is not held across the turns of others.
        let all: Vec<_> = self.tenants.active.iter().map(|tenant| *tenant.key()).collect();
        let mut first = BinaryHeap::<Reverse<Nearest>>::new();
        for some in all.chunks(AT_ONCE) {
            let now = self.clock.now();
            let in_use = some.iter().filter_map(|it| self.tenants.active.get(it));
            for found in in_use.filter_map(|tenant| self.nearest_of(&tenant, now)) {
                if first.len() < most || first.peek().is_some_and(|least| found > least.0) {
                    first.push(Reverse(found));
                }
                if first.len() > most {
                    first.pop();
                }
            }
            tokio::task::yield_now().await;
        }
        // The largest is the least in the heap's order.
        let first = first.into_sorted_vec().into_iter().map(|Reverse(found)| found);
        (first.collect(), all.len())
    }

    /// The quota of a tenant that most is used of; `None`: it has none, was erased, or its sheet is
    /// of before, because it has not called since the window turned or its plan changed.
    fn nearest_of(&self, tenant: &LiveTenant, now: Now) -> Option<Nearest> {
        let sheet = tenant.last_sheet();
        let is_gone = tenant.is_gone() || tenant.record().erased().is_some();
        if is_gone || !sheet.holds(self.catalogs.live.load().epoch, now) {
            return None;
        }
        let (quota, share) = self.reader(&sheet, now).largest_share()?;
        Some(Nearest { sheet, quota, share })
    }

    /// The tenant of this sheet by what the store has, beside what this process knows.
    pub(super) fn found_in_store(
        &self,
        sheet: &Arc<Sheet>,
        now: Now,
        stored: &StoredPools,
    ) -> Option<Found> {
        let view = LimitReader { stored: Some(stored), ..self.reader(sheet, now) };
        let (quota, share) = view.largest_share()?;
        Self::shown(&Nearest { sheet: sheet.clone(), quota, share }, view)
    }

    pub(super) fn reader<'a>(&'a self, sheet: &'a Arc<Sheet>, now: Now) -> LimitReader<'a> {
        let scopes = ScopesOf { known: None, ip: None, without: None };
        LimitReader { inner: self, sheet, scopes, now, hold: None, stored: None }
    }

    fn shown(of: &Nearest, view: LimitReader<'_>) -> Option<Found> {
        let (sheet, rule) = (&of.sheet, &of.sheet.policy.quotas[of.quota]);
        let limit = limit_report(&view, rule)?;
        let shown = json!({
            "id": &*sheet.tenant.id,
            "plan": &*sheet.policy.plan.name,
            "status": &*status(&sheet.standing),
            "share": (of.share * 1_000.0).floor() / 1_000.0,
            "limit": limit,
        });
        let ends_ms = sheet.window(rule.debtor).end_ms;
        let (tenant, id) = (sheet.tenant.surrogate, sheet.tenant.id.clone());
        Some(Found { tenant, id, share: of.share, ends_ms, shown })
    }
}

impl LimitReader<'_> {
    /// The quota that most is used of, and how much.
    fn largest_share(&self) -> Option<(QuotaIndex, f64)> {
        let quotas = self.sheet.policy.quotas.indices();
        let shares = quotas.filter_map(|quota| Some((quota, self.share_of(quota)?)));
        shares.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The used share of a quota of the whole tenant and of what is granted beside it; more than 1
    /// where more was used. `None`: it has no limit, or is of a scope within the tenant.
    fn share_of(&self, index: QuotaIndex) -> Option<f64> {
        let rule: &QuotaRule = &self.sheet.policy.quotas[index];
        let own = rule.quota.limit.filter(|_| rule.tenant_wide)?;
        let granted = self.grants(rule.quota.meter).map(|pool| self.grant(pool));
        let (whole, left) = granted.fold((own, 0_u64), |(whole, left), grant| {
            (whole.saturating_add(grant.limit), left.saturating_add(grant.remaining))
        });
        let used = self.used_of(rule)?;
        let left = own.saturating_sub(used).saturating_add(left);
        let used = whole.saturating_sub(left).saturating_add(used.saturating_sub(own));
        (whole > 0).then(|| used as f64 / whole as f64)
    }
}

//! Tenants by how much of a limit they have used, over all processes: those that the usage logs
//! name, each read from the store, beside those in this process's memory
//! ([`nearest`](super::nearest)).
//!
//! What is read is bounded: the logs, of which only what is new is read again, and the tenants that
//! come first, with the pools of their plans. A tenant that used nothing costs nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::busiest_read::{Found, ReadTenants};
use super::{Gate, Inner};
use crate::catalog::{Anchors, Catalog, Every, Scope};
use crate::clock::Now;
use crate::directory::Tenant;
use crate::ids::Surrogate;
use crate::ledger::totals::RankedLimit;
use crate::patience;
use crate::store::{StoreError, StoreErrorKind};

/// Tenants that are read for a list: more than are shown, since the logs do not know how much each
/// may use.
const CANDIDATES: usize = 256;

/// Most of them that are read at once. A table answers each in milliseconds.
const READS_AT_ONCE: usize = 16;

/// How long the store may take: then those in use here are shown alone.
const WITHIN: Duration = Duration::from_secs(20);

/// What was read is shown for so long: an operator's screen asks every two seconds.
const SHOWN_MS: i64 = 10_000;

const DAY_MS: i64 = 86_400_000;

/// For windows that are the same for all tenants.
const NO_ANCHORS: Anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };

/// A list of tenants for operators. [`Gate::top`] returns it.
#[derive(Clone, Debug, Default)]
#[doc(hidden)]
#[non_exhaustive]
pub struct TopTenants {
    /// In the form of the operator's `GET /top`, the largest share first.
    pub tenants: Vec<Value>,
    /// Number of tenants in use in this process.
    pub in_use: usize,
    /// Number of tenants with use on record of a window that is open, over all processes; `None`:
    /// the store did not answer, and only those in use here are shown.
    pub compared: Option<usize>,
}

impl Gate {
    /// At most so many tenants by the largest share of a quota that they have used, the largest
    /// first: over all processes by what is on record, and in this one by what it knows. For
    /// operators.
    #[doc(hidden)]
    pub async fn top(&self, most: usize) -> TopTenants {
        // Each takes a thread for a while among a million tenants.
        let (inner, mut near) = (self.inner.clone(), JoinSet::new());
        near.spawn(async move { inner.nearest(most).await });
        let read = match self.inner.hub.reach.is_away() {
            true => None,
            false => patience::within(WITHIN, self.busiest_read()).await.and_then(Result::ok),
        };
        let near = near.join_next().await.and_then(Result::ok);
        let (here, in_use) = near.unwrap_or_default(); // where it has panicked, which is printed
        let compared = read.as_ref().map(|read| read.compared);
        let now_ms = self.inner.clock.now().wall_ms;
        let elsewhere = read.iter().flat_map(|read| &read.tenants);
        let elsewhere = elsewhere.filter(|found| now_ms < found.ends_ms);
        // Of one that is known here and there the larger is newer, since use only grows; but after
        // a grant or a reset, for as long as what was read is shown.
        let mut each = BTreeMap::<Surrogate, Found>::new();
        for found in elsewhere.cloned().chain(here) {
            let known = each.entry(found.tenant).or_insert_with(|| found.clone());
            if found.share > known.share {
                *known = found;
            }
        }
        let mut found: Vec<Found> = each.into_values().collect();
        found.sort_by(by_share);
        found.truncate(most);
        let tenants = found.into_iter().map(|it| it.shown).collect();
        TopTenants { tenants, in_use, compared }
    }

    /// These tenants by the largest share of a quota that they have used, the largest first, by the
    /// store. For operators.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn top_among(&self, tenants: &[Tenant]) -> Result<TopTenants, StoreError> {
        let whose = tenants.iter().map(|tenant| tenant.record().surrogate);
        let mut found = self.read_tenants(whose).await?;
        found.sort_by(by_share);
        let in_use = self.inner.tenants.active.len();
        let tenants = found.into_iter().map(|it| it.shown).collect::<Vec<_>>();
        Ok(TopTenants { compared: Some(tenants.len()), tenants, in_use })
    }

    /// The candidates of the logs, read from the store; again only once they are old. All who ask
    /// meanwhile wait for one reading.
    async fn busiest_read(&self) -> Result<Arc<ReadTenants>, StoreError> {
        let inner = &self.inner;
        let mut last = inner.recording.busiest_read.0.lock().await;
        let now_ms = inner.clock.now().wall_ms;
        if let Some((at_ms, read)) = &*last
            && (0..SHOWN_MS).contains(&now_ms.saturating_sub(*at_ms))
        {
            return Ok(read.clone());
        }
        let limits = ranked_limits(&inner.catalogs.live.load().catalog, now_ms);
        let busiest = inner.recording.ledger.busiest(&limits, CANDIDATES, now_ms).await?;
        let tenants = self.read_tenants(busiest.tenants.iter().copied()).await?;
        let read = Arc::new(ReadTenants { tenants, compared: busiest.compared });
        *last = Some((now_ms, read.clone()));
        Ok(read)
    }

    async fn read_tenants(
        &self,
        mut rest: impl Iterator<Item = Surrogate>,
    ) -> Result<Vec<Found>, StoreError> {
        let (mut running, mut tenants) = (JoinSet::new(), Vec::new());
        loop {
            for tenant in rest.by_ref().take(READS_AT_ONCE - running.len()) {
                let inner = self.inner.clone();
                running.spawn(async move { inner.read_nearest(tenant).await });
            }
            let Some(ended) = running.join_next().await else { break };
            let cut = |_| StoreError::new(StoreErrorKind::Unavailable, "a read was cut short");
            tenants.extend(ended.map_err(cut)??);
        }
        Ok(tenants)
    }
}

impl Inner {
    /// A tenant with the quota that it has used most of, by the store.
    async fn read_nearest(&self, tenant: Surrogate) -> Result<Option<Found>, StoreError> {
        let tenant = self.tenants.load_tenant(tenant).await?;
        let Some(tenant) = tenant.filter(|it| it.record().erased().is_none()) else {
            return Ok(None);
        };
        let now: Now = self.clock.now();
        let sheet = tenant.sheet(&self.catalogs.live.load(), now);
        let stored = self.reader(&sheet, now).read_unleased().await?;
        Ok(self.found_in_store(&sheet, now, &stored))
    }
}

/// The largest share first.
fn by_share(a: &Found, b: &Found) -> Ordering {
    b.share.total_cmp(&a.share).then_with(|| a.id.cmp(&b.id))
}

/// The limited quotas of whole tenants in all plans.
fn ranked_limits(catalog: &Catalog, now_ms: i64) -> Vec<RankedLimit> {
    let mut limits = BTreeMap::<Arc<str>, RankedLimit>::new();
    let quotas = catalog.plans.iter().flat_map(|plan| plan.quotas.values().flatten());
    for quota in quotas.filter(|quota| quota.scope == Scope::Tenant) {
        let Some(limit) = quota.limit else { continue };
        let since_ms = open_since(quota.every, catalog, now_ms);
        let new = || RankedLimit { id: quota.id.clone(), allowed: Vec::new(), since_ms };
        limits.entry(quota.id.clone()).or_insert_with(new).allowed.push(limit);
    }
    let sorted = |mut limit: RankedLimit| {
        limit.allowed.sort_unstable();
        limit.allowed.dedup();
        limit
    };
    limits.into_values().map(sorted).collect()
}

/// A Unix millisecond before which no window began that is open: cycles and terms turn at other
/// times for each tenant.
fn open_since(every: Every, catalog: &Catalog, now_ms: i64) -> i64 {
    match every {
        Every::Once | Every::Term => i64::MIN,
        Every::Cycle => now_ms.saturating_sub(32 * DAY_MS),
        Every::Hour | Every::Day | Every::Week | Every::Month | Every::Year => {
            every.window(now_ms, &catalog.timezone, &NO_ANCHORS).start_ms
        }
    }
}

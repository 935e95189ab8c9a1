//! Reads pools that this process has not leased from, for reports: their numbers are in the store
//! only. So a tenant sees after a restart what it had used before.
//!
//! A pool is read at most once a second for all its reports, and no tenant waits for the read of
//! another tenant's pool.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use super::balances::Balances;
use super::standing::LimitReader;
use super::{Inner, LEASE_WAIT};
use crate::flights::Flights;
use crate::ledger::totals::is_fresh;
use crate::payers::late;
use crate::payers::purse::lease_of;
use crate::policy::{CounterHome, Policy};
use crate::quota::lease::Lease;
use crate::quota::pool::PoolId;
use crate::renewal::Whole;
use crate::store::StoreError;

/// Pools that are remembered, for [`FRESH_MS`](crate::ledger::totals::FRESH_MS); past this those
/// that are older are forgotten.
const KEPT: usize = 4_096;

/// Pools as read from the store, with the time of the read; `None`: the pool does not exist.
type Kept = HashMap<PoolId, (i64, Option<Arc<Whole>>)>;

/// Pools that were read just now.
#[derive(Default)]
pub(super) struct PoolsRead {
    kept: Mutex<Kept>,
    /// Readings under way, each once for all who wait for it.
    reading: Flights<PoolId, Result<Option<Arc<Whole>>, StoreError>>,
}

impl PoolsRead {
    async fn read(&self, inner: &Inner, id: &PoolId) -> Result<Option<Arc<Whole>>, StoreError> {
        let now_ms = inner.clock.now().wall_ms;
        let known = self.with(|kept| kept.get(id).cloned());
        if let Some((_, whole)) = known.filter(|(at_ms, _)| is_fresh(*at_ms, now_ms)) {
            return Ok(whole);
        }
        let read = async {
            let whole = Whole::read(&*inner.leasing.ctx.store, &inner.leasing.writer.space, id)
                .await?
                .map(Arc::new);
            self.with(|kept| {
                if kept.len() >= KEPT {
                    kept.retain(|_, (at_ms, _)| is_fresh(*at_ms, now_ms));
                }
                kept.insert(id.clone(), (now_ms, whole.clone()));
            });
            Ok::<_, StoreError>(whole)
        };
        self.reading.once(id, read).await
    }

    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A [`LimitReader`] that knows all pools.
pub(super) struct WithUnleased<'a> {
    view: LimitReader<'a>,
    /// By pool; `None` where a lease knows better.
    stored: Vec<Option<Stored>>,
}

/// The numbers of a pool in the store.
#[derive(Clone, Copy)]
struct Stored {
    /// Below nothing: so much more was used than the limit is.
    left: i64,
    owed: u64,
}

impl<'a> WithUnleased<'a> {
    /// Reads what no lease knows: one read for each such pool of the plan.
    pub(super) async fn read(view: LimitReader<'a>) -> Result<Self, StoreError> {
        let mut stored = Vec::with_capacity(view.sheet.policy.pools.len());
        for pool in 0..view.sheet.policy.pools.len() {
            let pool = u16::try_from(pool).unwrap_or(u16::MAX);
            stored.push(match view.lease(pool) {
                Some(None) => read(&view, pool, 0).await?,
                Some(Some(lease)) if lease.is_split() || is_unseen(&lease) => {
                    read(&view, pool, lease.unserved()).await?
                }
                _ => None,
            });
        }
        Ok(Self { view, stored })
    }

    /// The tenant's pools with a debt that no lease here knows of: from before this process
    /// started, or of a plan that applies again.
    pub(super) fn unseen_debts(&self) -> impl Iterator<Item = u16> {
        let policy = self.policy();
        let owes = |pool: u16| self.stored(pool).is_some_and(|of| of.owed > 0);
        let is_tenants =
            |pool: u16| matches!(policy.pools[usize::from(pool)].place, CounterHome::Sheet(_));
        let is_new =
            |pool: u16| self.view.lease(pool).flatten().is_none_or(|lease| lease.is_unseen());
        let pools = 0..u16::try_from(policy.pools.len()).unwrap_or(u16::MAX);
        pools.filter(move |pool| owes(*pool) && is_tenants(*pool) && is_new(*pool))
    }

    fn stored(&self, pool: u16) -> Option<Stored> {
        self.stored.get(usize::from(pool)).copied().flatten()
    }
}

impl Inner {
    /// Has debts read that only the store knows of, so that what can pay them now does so before
    /// they are shown. True: there are some.
    pub(super) async fn pay_unseen_debts(&self, view: &WithUnleased<'_>) -> bool {
        let leases: Vec<_> = view.unseen_debts().map(|pool| lease_of(view.sheet, pool)).collect();
        if leases.is_empty() || self.hub.reach.is_away() {
            return false;
        }
        for lease in &leases {
            lease.look_first();
            lease.want(1);
            self.hub.renewals.wake(lease);
        }
        let read = async {
            for lease in &leases {
                self.hub.renewals.answer_for(lease, 1).await;
            }
        };
        self.within(LEASE_WAIT, read).await;
        late::settle(view.sheet, self.clock.now(), false);
        self.wait_for_late(view.sheet).await;
        true
    }
}

impl Balances for WithUnleased<'_> {
    fn policy(&self) -> &Policy {
        &self.view.sheet.policy
    }

    fn left(&self, pool: u16) -> Option<u64> {
        let left = self.stored(pool).map(|of| u64::try_from(of.left).unwrap_or(0));
        left.or_else(|| self.view.left(pool))
    }

    fn short(&self, pool: u16) -> u64 {
        self.stored(pool).map_or_else(|| self.view.short(pool), |of| of.owed)
    }

    fn debt(&self, pool: u16) -> u64 {
        self.stored(pool).map_or_else(|| self.view.debt(pool), |of| of.owed)
    }

    fn overdrawn(&self, pool: u16) -> u64 {
        let stored = |of: Stored| of.left.min(0).unsigned_abs().saturating_sub(of.owed);
        self.stored(pool).map_or_else(|| self.view.overdrawn(pool), stored)
    }
}

impl<'a> Deref for WithUnleased<'a> {
    type Target = LimitReader<'a>;

    fn deref(&self) -> &LimitReader<'a> {
        &self.view
    }
}

/// Whether only the store knows what was used.
fn is_unseen(lease: &Lease) -> bool {
    lease.is_unseen()
}

/// What is free in the store and here, moved by a limit that has changed since; `None`: nothing is
/// there.
async fn read(view: &LimitReader<'_>, pool: u16, held: i64) -> Result<Option<Stored>, StoreError> {
    let rule = &view.sheet.policy.pools[usize::from(pool)];
    let scope = match &rule.place {
        CounterHome::Sheet(_) => Some(0),
        CounterHome::Scoped(scope) => view.scopes.of(scope),
    };
    let Some(scope) = scope else { return Ok(None) };
    let id = view.sheet.new_lease(pool, scope).pool().clone();
    let Some(whole) = view.inner.recording.pools_read.read(view.inner, &id).await? else {
        return Ok(None);
    };
    let moved = rule.limit.saturating_sub(whole.root.terms.limit);
    let left = whole.free()?.saturating_add(moved).saturating_add(held);
    Ok(Some(Stored { left, owed: whole.owed(view.sheet.terms(pool))? }))
}

//! Reads pools of which this process knows nothing, or nothing new, for reports: those that it has
//! not leased from, and those that it has not asked for a while. So a tenant sees after a restart
//! what it had used before, and what it uses elsewhere while it does not call here.

use std::time::Duration;

use super::standing::{LimitReader, Stored, StoredPools};
use super::{Inner, LEASE_WAIT};
use crate::clock::nanos;
use crate::payers::late;
use crate::payers::purse::lease_of;
use crate::policy::{CounterHome, PoolIndex};
use crate::quota::lease::Lease;
use crate::store::StoreError;

/// A view of a pool that is older is too old to show. It is more than the age of what
/// [`PoolsRead`](super::pools_read::PoolsRead) remembers, so that nothing older than the view takes
/// its place.
const OLD: Duration = Duration::from_secs(2);

impl<'a> LimitReader<'a> {
    /// Reads what no lease knows, or has seen of late: one read for each such pool of the plan. By
    /// pool; `None` where a lease knows better.
    pub(super) async fn read_unleased(&self) -> Result<StoredPools, StoreError> {
        let mut stored = StoredPools::new();
        for pool in self.sheet.policy.pools.indices() {
            stored.push(match self.lease(pool) {
                Some(None) => read(self, pool, 0).await?,
                Some(Some(lease)) if lease.is_split() || is_unseen(&lease) => {
                    read(self, pool, lease.unserved()).await?
                }
                Some(Some(lease)) => self.read_if_old(pool, &lease).await?,
                None => None,
            });
        }
        Ok(stored)
    }

    /// A pool that its lease has not seen for a while. By then nothing of the lease's is on its way
    /// that the pool lacks: what is free there and what is left here are all there is. `None`: the
    /// lease knows better.
    async fn read_if_old(
        &self,
        pool: PoolIndex,
        lease: &Lease,
    ) -> Result<Option<Stored>, StoreError> {
        let seen = lease.last_view();
        let age_ns = self.now.mono_ns.saturating_sub(seen.1);
        if age_ns < nanos(OLD) || lease.debt() > 0 || self.inner.hub.reach.is_away() {
            return Ok(None);
        }
        let stored = read(self, pool, lease.unserved()).await?;
        Ok(stored.filter(|_| lease.last_view() == seen))
    }

    /// The tenant's pools with a debt that no lease here knows of: from before this process
    /// started, or of a plan that applies again.
    fn unseen_debts(self) -> impl Iterator<Item = PoolIndex> {
        let policy = &self.sheet.policy;
        let owes = move |pool: PoolIndex| self.stored(pool).is_some_and(|of| of.owed > 0);
        let is_tenants =
            |pool: PoolIndex| matches!(policy.pools[pool].place, CounterHome::Sheet(_));
        let is_new =
            move |pool: PoolIndex| self.lease(pool).flatten().is_none_or(|lease| lease.is_unseen());
        policy.pools.indices().filter(move |pool| owes(*pool) && is_tenants(*pool) && is_new(*pool))
    }
}

impl Inner {
    /// Has debts read that only the store knows of, so that what can pay them now does so before
    /// they are shown. True: there are some.
    pub(super) async fn pay_unseen_debts(&self, view: LimitReader<'_>) -> bool {
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
        self.hub.reach.within(LEASE_WAIT, read).await;
        late::settle(view.sheet, self.clock.now(), false);
        self.wait_for_late(view.sheet).await;
        true
    }
}

/// Whether only the store knows what was used.
fn is_unseen(lease: &Lease) -> bool {
    lease.is_unseen()
}

/// What is free in the store and here, moved by a limit that has changed since; `None`: nothing is
/// there.
async fn read(
    view: &LimitReader<'_>,
    pool: PoolIndex,
    held: i64,
) -> Result<Option<Stored>, StoreError> {
    let rule = &view.sheet.policy.pools[pool];
    let scope = match &rule.place {
        CounterHome::Sheet(_) => Some(0),
        CounterHome::Scoped(scope) => view.scopes.of(scope),
    };
    let Some(scope) = scope else { return Ok(None) };
    let id = view.sheet.new_lease(pool, scope).pool().clone();
    let Inner { leasing, recording, clock, .. } = view.inner;
    let (store, space) = (&*leasing.ctx.store, &leasing.writer.space);
    let whole = recording.pools_read.read(store, space, &id, clock.now().wall_ms).await?;
    let Some(whole) = whole else { return Ok(None) };
    let moved = rule.limit.saturating_sub(whole.root.terms.limit);
    let left = whole.free()?.saturating_add(moved).saturating_add(held);
    Ok(Some(Stored { left, owed: whole.owed(view.sheet.terms(pool))? }))
}

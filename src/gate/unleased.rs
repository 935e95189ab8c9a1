//! Reads pools that this process has not leased from, for reports: their numbers are in the store
//! only. So a tenant sees after a restart what it had used before.

use std::ops::Deref;

use super::balances::Balances;
use super::standing::LimitReader;
use super::{Inner, LEASE_WAIT};
use crate::payers::late;
use crate::payers::purse::lease_of;
use crate::policy::{CounterHome, Policy};
use crate::quota::lease::Lease;
use crate::store::StoreError;

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
        self.hub.reach.within(LEASE_WAIT, read).await;
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
    let Inner { leasing, recording, clock, .. } = view.inner;
    let (store, space) = (&*leasing.ctx.store, &leasing.writer.space);
    let whole = recording.pools_read.read(store, space, &id, clock.now().wall_ms).await?;
    let Some(whole) = whole else { return Ok(None) };
    let moved = rule.limit.saturating_sub(whole.root.terms.limit);
    let left = whole.free()?.saturating_add(moved).saturating_add(held);
    Ok(Some(Stored { left, owed: whole.owed(view.sheet.terms(pool))? }))
}

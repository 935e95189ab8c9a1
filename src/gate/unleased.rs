//! Pools that this process has not leased from: their numbers are only in the store, and a report
//! reads them there. So a tenant sees after a restart what it had used before.

use std::ops::Deref;

use super::standing::Standing;
use crate::admission::policy::Place;
use crate::keeper::Whole;
use crate::store::StoreError;

/// A [`Standing`] that knows all pools.
pub(super) struct WithUnleased<'a> {
    view: Standing<'a>,
    /// What is left and what is owed, by pool; `None` where a lease knows better.
    stored: Vec<Option<(u64, u64)>>,
}

impl<'a> WithUnleased<'a> {
    /// Reads what no lease knows: one read for each such pool of the plan.
    pub(super) async fn read(view: Standing<'a>) -> Result<Self, StoreError> {
        let mut stored = Vec::with_capacity(view.sheet.policy.pools.len());
        for pool in 0..view.sheet.policy.pools.len() {
            let pool = u16::try_from(pool).unwrap_or(u16::MAX);
            stored.push(match view.lease(pool) {
                Some(None) => read(&view, pool, 0).await?,
                Some(Some(lease)) if lease.is_split() => {
                    read(&view, pool, lease.unserved()).await?
                }
                _ => None,
            });
        }
        Ok(Self { view, stored })
    }

    /// What is left of a pool; `None` if the caller has no value of its scope.
    pub(super) fn remaining(&self, pool: u16) -> Option<u64> {
        let stored = self.stored.get(usize::from(pool)).copied().flatten();
        stored.map(|(left, _)| left).or_else(|| self.view.remaining(pool))
    }

    /// What late use owes of a pool.
    pub(super) fn debt(&self, pool: u16) -> u64 {
        let stored = self.stored.get(usize::from(pool)).copied().flatten();
        let lease = || self.view.lease(pool).flatten().map(|lease| lease.debt());
        stored.map(|(_, owed)| owed).or_else(lease).unwrap_or(0)
    }
}

impl<'a> Deref for WithUnleased<'a> {
    type Target = Standing<'a>;

    fn deref(&self) -> &Standing<'a> {
        &self.view
    }
}

/// What is free in the store and here, moved by a limit that has changed since; `None`: nothing is
/// there.
async fn read(view: &Standing<'_>, pool: u16, held: i64) -> Result<Option<(u64, u64)>, StoreError> {
    let rule = &view.sheet.policy.pools[usize::from(pool)];
    let scope = match &rule.place {
        Place::Sheet(_) => Some(0),
        Place::Scoped(scope) => view.scopes.of(scope),
    };
    let Some(scope) = scope else { return Ok(None) };
    let space = &view.inner.writer.space;
    let id = view.sheet.new_lease(pool, scope).pool().clone();
    let Some(whole) = Whole::read(&*view.inner.store, space, &id).await? else {
        return Ok(None);
    };
    let moved = rule.limit.saturating_sub(whole.root.terms.limit);
    let left = whole.free()?.saturating_add(moved).saturating_add(held);
    Ok(Some((u64::try_from(left).unwrap_or(0), whole.owed()?)))
}

//! Drawing from one limit, and settling or giving back what was drawn.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{MeterId, OnLeaseError};
use crate::clock::Now;
use crate::decision::Reason;
use crate::policy::bucket::Bucket;
use crate::policy::scoped::{ScopedKey, ScopesOf};
use crate::policy::taken::{DrawnFrom, Limit, PaysFor, Taken};
use crate::policy::{Beside, CounterHome, Policy, PoolIndex, RateIndex, RateRule};
use crate::quota::lease::{Lease, Take};
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;

/// The source of drawn units, and the time.
#[derive(Clone, Copy)]
pub(crate) struct Purse<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sheet: &'a Arc<Sheet>,
    pub(crate) scopes: ScopesOf<'a>,
    pub(crate) now: Now,
    pub(crate) store_away: bool,
}

/// Why a request is not admitted now; nothing was taken.
#[derive(Debug)]
pub(crate) enum NotDrawn {
    /// A limit refuses.
    Refused(LimitRefused),
    /// Units of this lease are needed first.
    Need(Arc<Lease>, u64),
}

/// The limit that refused, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitRefused {
    pub(crate) reason: Reason,
    pub(crate) by: Limit,
    /// For a rate: until the ask would fit.
    pub(crate) wait_ns: Option<u64>,
    /// For a quota or a grant: the atoms that were asked of its meter.
    pub(crate) asked: Option<u64>,
}

impl NotDrawn {
    /// With the atoms that were asked.
    pub(crate) fn asked(self, n: u64) -> Self {
        match self {
            Self::Refused(refused) => Self::Refused(LimitRefused { asked: Some(n), ..refused }),
            need @ Self::Need(..) => need,
        }
    }
}

/// Refused by this limit, for this reason.
#[cold]
pub(crate) fn refuse(reason: Reason, by: Limit) -> NotDrawn {
    NotDrawn::Refused(LimitRefused { reason, by, wait_ns: None, asked: None })
}

/// The result of taking from one pool.
pub(crate) enum Draw {
    Took(DrawnFrom),
    /// The limit is by a scope for which this caller has no value: it does not apply.
    None,
    Need(Arc<Lease>),
    Exhausted,
}

/// Draws from one pool, or says what is missing.
pub(crate) fn take(q: &Purse<'_>, pool: PoolIndex, n: u64) -> Draw {
    let scoped;
    let (lease, narrow) = match &q.sheet.policy.pools[pool].place {
        CounterHome::Sheet(slot) => (q.sheet.lease(pool, *slot), false),
        CounterHome::Scoped(scope) => {
            match q.scopes.of(scope).map(|value| q.sheet.scoped_lease(pool, value, q.now)) {
                Some(Some(lease)) => {
                    scoped = lease;
                    (&scoped, true)
                }
                Some(None) => return Draw::Exhausted,
                None => return Draw::None,
            }
        }
    };
    match missing(q, pool, lease, n) {
        Ok(0) => {}
        Ok(missing) if lease.remaining() < n.saturating_add(missing) => return Draw::Exhausted,
        Ok(_) => {}
        Err(other) => return Draw::Need(other),
    }
    let took = || {
        if narrow { DrawnFrom::ScopedPool(pool, lease.clone()) } else { DrawnFrom::Pool(pool) }
    };
    match lease.take(n, q.now) {
        Take::Taken { renew } => {
            if renew {
                q.hub.renewals.wake(lease);
            }
            Draw::Took(took())
        }
        Take::Exhausted => Draw::Exhausted,
        Take::Need if q.store_away => {
            let floor = floor_while_away(&q.sheet.policy, pool);
            if lease.take_down_to(n, floor) {
                Draw::Took(took())
            } else {
                Draw::Need(lease.clone())
            }
        }
        Take::Need => {
            q.hub.renewals.wake(lease);
            Draw::Need(lease.clone())
        }
    }
}

/// How far below zero a lease may go while the store is away.
fn floor_while_away(policy: &Policy, pool: PoolIndex) -> i64 {
    match policy.on_lease_error() {
        OnLeaseError::Deny => 0,
        OnLeaseError::Allow { basis_points } => {
            let limit = i128::from(policy.pools[pool].limit);
            let allowance = limit * i128::from(basis_points) / 10_000;
            i64::try_from(allowance).unwrap_or(i64::MAX).saturating_neg()
        }
    }
}

/// What a pool lacks for units drawn on the other side of its limit before the limit was changed: a
/// `stop` covers both together. `Err`: one of the two sides must be read first, so that both pools
/// have the limits in force before a unit is drawn under them.
pub(crate) fn missing(
    q: &Purse<'_>,
    pool: PoolIndex,
    lease: &Arc<Lease>,
    n: u64,
) -> Result<u64, Arc<Lease>> {
    let Some(beside) = q.sheet.policy.pools[pool].beside else { return Ok(0) };
    let (Beside::Included(other) | Beside::Over(other)) = beside;
    let Some(other) = lease_at(q, other) else { return Ok(0) };
    if !lease.has_moved() && !other.has_moved() {
        return Ok(0);
    }
    let newest = lease.newest_rev().max(other.newest_rev());
    let is_old = |of: &&Arc<Lease>| of.looks_anew(newest);
    if !q.store_away
        && let Some(old) = [&other, lease].into_iter().find(is_old)
    {
        old.want(n);
        q.hub.renewals.wake(old);
        return Err(old.clone());
    }
    Ok(match beside {
        Beside::Included(_) => other.overdrawn(),
        Beside::Over(_) => other.short_of_all(),
    })
}

/// The lease of a pool for this caller, if the limit applies to it.
pub(crate) fn lease_at(q: &Purse<'_>, pool: PoolIndex) -> Option<Arc<Lease>> {
    match &q.sheet.policy.pools[pool].place {
        CounterHome::Sheet(slot) => Some(q.sheet.lease(pool, *slot).clone()),
        CounterHome::Scoped(scope) => q.sheet.scoped_lease(pool, q.scopes.of(scope)?, q.now),
    }
}

/// The lease of a pool of scope `tenant`.
pub(crate) fn lease_of(sheet: &Sheet, pool: PoolIndex) -> &Arc<Lease> {
    match sheet.policy.pools[pool].place {
        CounterHome::Sheet(slot) => sheet.lease(pool, slot),
        CounterHome::Scoped(_) => unreachable!("a scoped pool is taken as `DrawnFrom::ScopedPool`"),
    }
}

/// The bucket of a rate, if it is the whole tenant's.
pub(crate) fn bucket_of(sheet: &Sheet, rate: RateIndex) -> (&RateRule, Option<&Bucket>) {
    let rule = &sheet.policy.rates[rate];
    let bucket = match rule.place {
        CounterHome::Sheet(slot) => Some(&sheet.buckets[slot]),
        CounterHome::Scoped(_) => None,
    };
    (rule, bucket)
}

/// The bucket of a rate, the tenant's or this caller's. `None`: the caller has no value of the
/// rate's scope, or its tenant may have no more buckets.
pub(crate) fn rate_of(
    sheet: &Sheet,
    hub: &Hub,
    scopes: ScopesOf<'_>,
    rate: RateIndex,
    now: Now,
) -> Option<DrawnFrom> {
    let rule = &sheet.policy.rates[rate];
    let CounterHome::Scoped(scope) = &rule.place else { return Some(DrawnFrom::Bucket(rate)) };
    let key = ScopedKey::of_rate(sheet.tenant.surrogate, &rule.id, scopes.of(scope)?);
    let used = hub.scoped.bucket(key, &rule.rule, now.mono_ns)?;
    Some(DrawnFrom::ScopedBucket(rate, used))
}

/// Settles `n` of what was taken: it was used.
pub(crate) fn settle(hub: &Hub, sheet: &Arc<Sheet>, took: &Taken, n: u64) {
    match &took.from {
        DrawnFrom::Pool(pool) => lease_of(sheet, *pool).settle(n),
        DrawnFrom::ScopedPool(_, lease) => {
            lease.settle(n);
            hub.unrecorded.add_lease(lease);
        }
        DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..) => {}
    }
}

/// Gives everything back at once.
pub(crate) fn undo(sheet: &Sheet, taken: &[Taken], now: Now) {
    for took in taken {
        give_back(sheet, took, took.n, now, now);
    }
}

/// Gives back `n` of what was taken at `taken_at`.
pub(crate) fn give_back(sheet: &Sheet, took: &Taken, n: u64, taken_at: Now, now: Now) {
    if n == 0 {
        return;
    }
    match &took.from {
        DrawnFrom::Bucket(rate) => give_bucket_back(sheet, *rate, n, taken_at, now),
        DrawnFrom::ScopedBucket(rate, used) => {
            let rule = &sheet.policy.rates[*rate].rule;
            used.give_back(rule, n, taken_at, now);
        }
        DrawnFrom::Pool(pool) => lease_of(sheet, *pool).release(n),
        DrawnFrom::ScopedPool(_, lease) => lease.release(n),
    }
}

/// Gives `n` atoms back to a tenant's bucket: to the one in force, if it has the same pace. What
/// belongs to another pace is not given back: it could be more than was taken.
fn give_bucket_back(sheet: &Sheet, rate: RateIndex, n: u64, taken_at: Now, now: Now) {
    let newer = newer_rate(sheet, rate, n);
    let (of, at, n) = match &newer {
        None => (sheet, rate, n),
        Some((of, at, n)) => (&**of, *at, *n),
    };
    let (old, (rate, bucket)) = (&sheet.policy.rates[rate].rule, bucket_of(of, at));
    if let Some(bucket) = bucket.filter(|_| old.pace() == rate.rule.pace()) {
        rate.rule.give_back(bucket, rate.rule.cells(n), taken_at.mono_ns, now.mono_ns);
    }
}

/// Charges `n` atoms to a tenant's rate, beyond what was held of it: to the bucket in force.
pub(crate) fn charge_bucket(sheet: &Sheet, rate: RateIndex, n: u64, now: Now) {
    let newer = newer_rate(sheet, rate, n);
    let (of, at, n) = match &newer {
        None => (sheet, rate, n),
        Some((of, at, n)) => (&**of, *at, *n),
    };
    if let (rate, Some(bucket)) = bucket_of(of, at) {
        rate.rule.charge(bucket, rate.rule.cells(n), now.mono_ns);
    }
}

/// The same rate in the sheet that has replaced this one, and `n` atoms at its meter's scale there.
/// `None`: this sheet is in force, or the other has no such rate.
fn newer_rate(sheet: &Sheet, rate: RateIndex, n: u64) -> Option<(Arc<Sheet>, RateIndex, u64)> {
    let newer = sheet.newer()?;
    let old = &sheet.policy.rates[rate];
    let at = newer.policy.rates.find(|rate| rate.id == old.id)?;
    let scale = |of: &Sheet, meter: Option<MeterId>| {
        meter.map_or(1, |meter| of.catalog.meters[usize::from(meter.0)].scale)
    };
    let (from, to) = (scale(sheet, old.meter), scale(&newer, newer.policy.rates[at].meter));
    let n = u128::from(n) * u128::from(to) / u128::from(from.max(1));
    Some((newer, at, u64::try_from(n).unwrap_or(u64::MAX)))
}

/// How much of the next `n` atoms of one use is owed: drawn beyond a quota that bills (or several),
/// and not paid by a grant. For those in `known` that is known before.
pub(crate) fn over_of(
    policy: &Policy,
    taken: &[Taken],
    pays_for: PaysFor,
    n: u64,
    known: Range<u64>,
) -> u64 {
    let pays =
        |took: &&Taken| took.pays == pays_for && took.n > 0 && !policy.is_of_rate(&took.from);
    let of_ask = || taken.iter().filter(pays);
    if known.is_empty() && !of_ask().any(|took| policy.bills(&took.from)) {
        return 0;
    }
    let (mut done, mut over, mut next) = (0, 0, 0);
    while done < n {
        let open = of_ask().filter(|took| took.draw >= next);
        let Some((draw, held)) = open.map(|took| (took.draw, took.n)).min() else { break };
        let part = held.min(n - done);
        done += part;
        let of_part = || of_ask().filter(|took| took.draw == draw);
        if !of_part().any(|took| policy.grants(&took.from)) {
            let is_billed = of_part().any(|took| policy.bills(&took.from));
            let known = known.end.min(done).saturating_sub(known.start.max(done - part));
            over += if is_billed { part } else { known };
        }
        next = draw.saturating_add(1);
    }
    over
}

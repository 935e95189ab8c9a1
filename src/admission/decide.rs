//! Decide: all limits of one request at once, or none.
//!
//! The order is fixed: standing, feature, concurrency, leases, buckets. What costs the least to undo
//! and says the most to the caller comes first; buckets come last because what they refuse cures
//! itself.
//!
//! Units of one meter are spent in this order: what the plan's quotas include, then a grant (soonest
//! expiry first, one grant for the whole ask), then what `over` lets through. Quotas of narrower
//! scope than the tenant hold in every case: a grant raises what a tenant may use, not what one of
//! its keys may.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::bucket::Bucket;
use super::hub::Hub;
use super::lease::{Lease, Take};
use super::policy::{Known, MeterAsk, Place, Policy, RateRule, RoutePolicy};
use super::scoped::{ScopeValues, ScopedBucket, ScopedKey, Used};
use super::tenant::{Sheet, Standing};
use crate::catalog::{OnLeaseError, Scope};
use crate::clock::Now;
use crate::decision::{Payment, Reason};

/// What a decision is made from. Nothing here waits.
pub(crate) struct Question<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sheet: &'a Arc<Sheet>,
    pub(crate) route: &'a RoutePolicy,
    pub(crate) scopes: &'a ScopeValues,
    pub(crate) now: Now,
    /// Length of the request body, where it is stated.
    pub(crate) length: Option<u64>,
    /// The store has not answered in time: `on-lease-error` decides.
    pub(crate) store_away: bool,
}

/// What the hot path answers.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All limits hold; what was taken.
    Admit(TakenList),
    /// One does not; nothing was taken.
    Refuse(Refused),
    /// Units of this lease are needed first; nothing was taken.
    Need(Arc<Lease>, u64),
}

/// Which limit refused, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) by: Limit,
    /// For a rate: until the ask would fit.
    pub(crate) wait_ns: Option<u64>,
}

/// The limit at fault, by its index in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    None,
    Rate(u16),
    Quota(u16),
    Grant(u16),
}

/// What was taken from one limit, to be settled or given back.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) from: From,
    pub(crate) n: u64,
    /// Index of the meter ask it serves; [`CALLS`] for a bucket that counts calls.
    pub(crate) ask: u8,
    /// Which draw it belongs to: use is settled draw by draw.
    pub(crate) draw: u32,
}

/// `Taken::ask` of a bucket that counts calls.
pub(crate) const CALLS: u8 = u8::MAX;

/// The number it was taken from.
#[derive(Debug)]
pub(crate) enum From {
    /// The bucket of this rate.
    Bucket(u16),
    ScopedBucket(u16, Arc<Used<ScopedBucket>>),
    /// The lease of this pool.
    Pool(u16),
    ScopedPool(Arc<Lease>),
}

/// Most requests draw from four limits or fewer; more spill to the heap.
pub(crate) type TakenList = SmallVec<[Taken; 4]>;

/// Decides one request.
pub(crate) fn decide(q: &Question<'_>) -> Verdict {
    if let Standing::Refused(reason) = &q.sheet.standing {
        return refuse(reason.clone(), Limit::None);
    }
    if let Some(feature) = &q.route.missing {
        return refuse(Reason::FeatureMissing(feature.clone()), Limit::None);
    }
    if q.route.counts_request.is_some() && q.length.is_none() {
        return refuse(Reason::LengthRequired, Limit::None);
    }
    if !enter(q.sheet) {
        return refuse(Reason::Concurrency, Limit::None);
    }
    let mut taken = TakenList::new();
    let stopped = draw_meters(q, &mut taken).or_else(|| draw_rates(q, &mut taken));
    match stopped {
        None => Verdict::Admit(taken),
        Some(verdict) => {
            undo(q.sheet, &taken, q.now);
            leave(q.sheet);
            verdict
        }
    }
}

/// Draws `n` more atoms of one meter, and what sums it feeds, for a request that runs already.
pub(crate) fn draw_more(q: &Question<'_>, ask: usize, n: u64, draw: u32) -> Verdict {
    let mut taken = TakenList::new();
    let fed = q.route.meters.iter().enumerate().filter_map(|(i, meter)| match &meter.known {
        _ if i == ask => Some((i, n)),
        Known::Sum(parts) => {
            let (_, weight) = parts.iter().find(|(part, _)| usize::from(*part) == ask)?;
            Some((i, n.saturating_mul(*weight)))
        }
        _ => None,
    });
    for (i, n) in fed {
        let index = u8::try_from(i).unwrap_or(CALLS - 1);
        if let Some(verdict) = draw_meter(q, &q.route.meters[i], index, n, draw, &mut taken) {
            undo(q.sheet, &taken, q.now);
            return verdict;
        }
    }
    Verdict::Admit(taken)
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
        From::Bucket(rate) => {
            let (rate, bucket) = bucket_of(sheet, *rate);
            if let Some(bucket) = bucket {
                rate.rule.give_back(bucket, n, taken_at.mono_ns, now.mono_ns);
            }
        }
        From::ScopedBucket(rate, used) => {
            let rule = &sheet.policy.rates[usize::from(*rate)].rule;
            rule.give_back(&used.bucket, n, taken_at.mono_ns, now.mono_ns);
        }
        From::Pool(pool) => lease_of(sheet, *pool).release(n),
        From::ScopedPool(lease) => lease.release(n),
    }
}

/// Settles `n` of what was taken: it was used.
pub(crate) fn settle(hub: &Hub, sheet: &Arc<Sheet>, took: &Taken, n: u64) {
    match &took.from {
        From::Pool(pool) => lease_of(sheet, *pool).settle(n),
        From::ScopedPool(lease) => {
            lease.settle(n);
            hub.soil_lease(lease);
        }
        From::Bucket(_) | From::ScopedBucket(..) => {}
    }
}

/// The lease of a pool of scope `tenant`.
pub(crate) fn lease_of(sheet: &Sheet, pool: u16) -> &Arc<Lease> {
    match sheet.policy.pools[usize::from(pool)].place {
        Place::Sheet(slot) => sheet.lease(pool, slot),
        Place::Scoped(_) => unreachable!("a scoped pool is taken as `From::ScopedPool`"),
    }
}

/// One request less in flight.
pub(crate) fn leave(sheet: &Sheet) {
    sheet.tenant.in_flight.fetch_sub(1, Ordering::AcqRel);
}

fn enter(sheet: &Sheet) -> bool {
    let in_flight = &sheet.tenant.in_flight;
    let Some(most) = sheet.policy.plan.concurrency else {
        in_flight.fetch_add(1, Ordering::AcqRel);
        return true;
    };
    in_flight
        .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < most).then_some(n + 1))
        .is_ok()
}

fn draw_meters(q: &Question<'_>, taken: &mut TakenList) -> Option<Verdict> {
    let mut need = None;
    for (i, ask) in q.route.meters.iter().enumerate() {
        let n = amount(q, ask);
        if n == 0 {
            continue;
        }
        let i = u8::try_from(i).unwrap_or(CALLS - 1);
        match draw_meter(q, ask, i, n, 0, taken) {
            None => {}
            // Go on: the leases of the other meters are asked for in the same wait.
            Some(Verdict::Need(lease, n)) => need = need.or(Some(Verdict::Need(lease, n))),
            refused => return refused,
        }
    }
    need
}

/// How much of a meter this request asks for: as the policy says, unless the length of the request
/// has a part in it.
pub(crate) fn amount(q: &Question<'_>, ask: &MeterAsk) -> u64 {
    match &ask.known {
        Known::Length => q.length.unwrap_or(0),
        Known::Sum(parts) if q.route.counts_request.is_some() => {
            parts.iter().fold(0, |n: u64, (part, weight)| {
                let part = &q.route.meters[usize::from(*part)];
                n.saturating_add(amount(q, part).saturating_mul(*weight))
            })
        }
        _ => ask.n,
    }
}

/// Draws one meter from all its quotas, or one grant. `None`: drawn.
fn draw_meter(
    q: &Question<'_>,
    ask: &MeterAsk,
    i: u8,
    n: u64,
    draw: u32,
    taken: &mut TakenList,
) -> Option<Verdict> {
    let policy = &*q.sheet.policy;
    // One quota that has room is nearly every request; without room nothing has been taken here.
    if let [index] = ask.quotas[..] {
        let quota = &policy.quotas[usize::from(index)];
        if let Some(pool) = quota.included.filter(|_| !ask.once_only) {
            if let Draw::Took(from) = take(q, pool, n) {
                let ask = i;
                taken.push(Taken { from, n, ask, draw });
                return None;
            }
        }
    }
    draw_quotas(q, ask, i, n, draw, taken)
}

/// The same in general.
fn draw_quotas(
    q: &Question<'_>,
    ask: &MeterAsk,
    i: u8,
    n: u64,
    draw: u32,
    taken: &mut TakenList,
) -> Option<Verdict> {
    let policy = &*q.sheet.policy;
    let mut tenant_wide = SmallVec::<[Taken; 4]>::new();
    let mut short = SmallVec::<[u16; 4]>::new();
    let mut need = None;
    for &index in &ask.quotas {
        let quota = &policy.quotas[usize::from(index)];
        let included = quota.included.map_or(Draw::Exhausted, |pool| take(q, pool, n));
        match included {
            Draw::Took(from) => {
                let took = Taken { from, n, ask: i, draw };
                if quota.tenant_wide { tenant_wide.push(took) } else { taken.push(took) }
            }
            Draw::None => {}
            Draw::Need(lease) => need = need.or(Some(lease)),
            Draw::Exhausted if quota.tenant_wide => short.push(index),
            Draw::Exhausted => match draw_over(q, quota.over, n) {
                Draw::Took(from) => taken.push(Taken { from, n, ask: i, draw }),
                Draw::None => {}
                Draw::Need(lease) => need = need.or(Some(lease)),
                Draw::Exhausted => {
                    undo(q.sheet, &tenant_wide, q.now);
                    return Some(refuse(Reason::Exhausted, Limit::Quota(index)));
                }
            },
        }
    }
    let stopped = match need {
        Some(lease) => Some(Verdict::Need(lease, n)),
        None if short.is_empty() && !ask.once_only => {
            taken.extend(tenant_wide);
            return None;
        }
        None => match draw_grant(q, ask, n) {
            Draw::Took(from) => {
                undo(q.sheet, &tenant_wide, q.now);
                taken.push(Taken { from, n, ask: i, draw });
                return None;
            }
            Draw::Need(lease) => Some(Verdict::Need(lease, n)),
            _ if short.is_empty() => {
                let grant = ask.grants.last().map_or(Limit::None, |g| Limit::Grant(*g));
                Some(refuse(Reason::PaymentRequired(Payment::GrantUsedUp), grant))
            }
            _ => draw_all_over(q, &short, i, n, draw, &mut tenant_wide),
        },
    };
    match stopped {
        None => taken.extend(tenant_wide),
        Some(_) => undo(q.sheet, &tenant_wide, q.now),
    }
    stopped
}

/// Every quota that is used up lets the ask through beyond it, or one of them refuses.
fn draw_all_over(
    q: &Question<'_>,
    short: &[u16],
    i: u8,
    n: u64,
    draw: u32,
    taken: &mut SmallVec<[Taken; 4]>,
) -> Option<Verdict> {
    for &index in short {
        match draw_over(q, q.sheet.policy.quotas[usize::from(index)].over, n) {
            Draw::Took(from) => taken.push(Taken { from, n, ask: i, draw }),
            Draw::None => {}
            Draw::Need(lease) => return Some(Verdict::Need(lease, n)),
            Draw::Exhausted => return Some(refuse(Reason::Exhausted, Limit::Quota(index))),
        }
    }
    None
}

fn draw_over(q: &Question<'_>, over: Option<u16>, n: u64) -> Draw {
    over.map_or(Draw::Exhausted, |pool| take(q, pool, n))
}

fn draw_grant(q: &Question<'_>, ask: &MeterAsk, n: u64) -> Draw {
    for &pool in &ask.grants {
        let expires = q.sheet.policy.pools[usize::from(pool)].expires_ms;
        if expires.is_some_and(|end| end <= q.now.wall_ms) {
            continue;
        }
        match take(q, pool, n) {
            Draw::Exhausted => {}
            other => return other,
        }
    }
    Draw::Exhausted
}

/// What came of taking from one pool.
enum Draw {
    Took(From),
    /// The limit is for a scope that this caller has no value of: it does not hold here.
    None,
    Need(Arc<Lease>),
    Exhausted,
}

fn take(q: &Question<'_>, pool: u16, n: u64) -> Draw {
    let scoped;
    let (lease, narrow) = match &q.sheet.policy.pools[usize::from(pool)].place {
        Place::Sheet(slot) => (q.sheet.lease(pool, *slot), false),
        Place::Scoped(scope) => match scoped_lease(q, pool, scope) {
            Some(Ok(lease)) => {
                scoped = lease;
                (&scoped, true)
            }
            Some(Err(TableFull)) => return Draw::Exhausted,
            None => return Draw::None,
        },
    };
    let took = || {
        if narrow { From::ScopedPool(lease.clone()) } else { From::Pool(pool) }
    };
    match lease.take(n, q.now) {
        Take::Taken { renew } => {
            if renew {
                q.hub.wake(lease);
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
            q.hub.wake(lease);
            Draw::Need(lease.clone())
        }
    }
}

struct TableFull;

fn scoped_lease(
    q: &Question<'_>,
    pool: u16,
    scope: &Scope,
) -> Option<Result<Arc<Lease>, TableFull>> {
    let value = q.scopes.of(scope)?;
    let key = ScopedKey {
        tenant: q.sheet.tenant.surrogate,
        limit: q.sheet.policy.pools[usize::from(pool)].id.clone(),
        value,
        start_ms: q.sheet.window(pool).start_ms,
    };
    let lease = q.hub.scoped.lease(key, q.now.mono_ns, || q.sheet.new_lease(pool, value));
    Some(lease.inspect(|lease| q.sheet.retarget(lease, pool)).ok_or(TableFull))
}

/// How far below nothing a lease may go while the store is away.
fn floor_while_away(policy: &Policy, pool: u16) -> i64 {
    match policy.on_lease_error() {
        OnLeaseError::Deny => 0,
        OnLeaseError::Allow { basis_points } => {
            let limit = i128::from(policy.pools[usize::from(pool)].limit);
            let allowance = limit * i128::from(basis_points) / 10_000;
            i64::try_from(allowance).unwrap_or(i64::MAX).saturating_neg()
        }
    }
}

fn draw_rates(q: &Question<'_>, taken: &mut TakenList) -> Option<Verdict> {
    for ask in &q.route.rates {
        let rule = &q.sheet.policy.rates[usize::from(ask.rate)];
        let (n, i) = match rule.meter {
            None => (1, CALLS),
            Some(meter) => {
                let Some(at) = q.route.meters.iter().position(|m| m.meter == meter) else {
                    continue;
                };
                (amount(q, &q.route.meters[at]), u8::try_from(at).unwrap_or(CALLS - 1))
            }
        };
        let (from, took) = match bucket_of(q.sheet, ask.rate) {
            (rate, Some(bucket)) => {
                (From::Bucket(ask.rate), rate.rule.take(bucket, n, q.now.mono_ns))
            }
            (rate, None) => {
                let Place::Scoped(scope) = &rate.place else {
                    continue;
                };
                let Some(value) = q.scopes.of(scope) else {
                    continue;
                };
                let key = ScopedKey {
                    tenant: q.sheet.tenant.surrogate,
                    limit: rate.bucket_id.clone(),
                    value,
                    start_ms: 0,
                };
                let Some(used) = q.hub.scoped.bucket(key, q.now.mono_ns) else {
                    return Some(refuse(Reason::Unavailable, Limit::Rate(ask.rate)));
                };
                let took = rate.rule.take(&used.bucket, n, q.now.mono_ns);
                (From::ScopedBucket(ask.rate, used), took)
            }
        };
        match took {
            Ok(()) => taken.push(Taken { from, n, ask: i, draw: 0 }),
            Err(not_before) => {
                return Some(Verdict::Refuse(Refused {
                    reason: Reason::Exhausted,
                    by: Limit::Rate(ask.rate),
                    wait_ns: Some(not_before.wait_ns),
                }));
            }
        }
    }
    None
}

/// The bucket of a rate, if it is the whole tenant's.
pub(crate) fn bucket_of(sheet: &Sheet, rate: u16) -> (&RateRule, Option<&Bucket>) {
    let rule = &sheet.policy.rates[usize::from(rate)];
    let bucket = match rule.place {
        Place::Sheet(slot) => Some(&sheet.buckets[usize::from(slot)]),
        Place::Scoped(_) => None,
    };
    (rule, bucket)
}

fn refuse(reason: Reason, by: Limit) -> Verdict {
    Verdict::Refuse(Refused { reason, by, wait_ns: None })
}

//! Decide: all limits of one request at once, or none.
//!
//! The order is fixed: standing, feature, concurrency, leases, buckets. What costs the least to
//! undo and says the most to the caller comes first; buckets come last because what they refuse
//! cures itself.
//!
//! Units of one meter are spent in this order: what the plan's quotas include, then grants (soonest
//! expiry first), then what `over` lets through. An ask may be split among them. Quotas of narrower
//! scope than the tenant hold in every case: a grant raises what a tenant may use, not what one of
//! its keys may. While a quota is in debt nothing is drawn before that is paid.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bucket::Bucket;
use super::hub::Hub;
use super::late;
use super::lease::Lease;
use super::policy::{Place, Policy, RateRule, RoutePolicy};
use super::resolve::Standing;
use super::scoped::ScopesOf;
use super::sheet::Sheet;
use super::taken::{CALLS, From, Limit, Taken, TakenList};
use crate::catalog::Scope;
use crate::clock::Now;
use crate::decision::Reason;

mod draw;
mod lanes;

pub(crate) use draw::amount;
use draw::{ask_for_slots, draw_meter, draw_plain, draw_rates};
pub(super) use lanes::{Lanes, Through, is_over, left_of, most, of_tenant};

/// What a decision is made from. Nothing here waits.
pub(crate) struct Question<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sheet: &'a Arc<Sheet>,
    pub(crate) route: &'a RoutePolicy,
    pub(crate) scopes: ScopesOf<'a>,
    pub(crate) now: Now,
    /// Length of the request body, where it is stated.
    pub(crate) length: Option<u64>,
    /// The store has not answered in time: `on-lease-error` decides.
    pub(crate) store_away: bool,
}

/// Whose units are drawn, and when.
#[derive(Clone, Copy)]
pub(crate) struct Purse<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sheet: &'a Arc<Sheet>,
    pub(crate) scopes: ScopesOf<'a>,
    pub(crate) now: Now,
    pub(crate) store_away: bool,
}

impl<'a> Question<'a> {
    fn purse(&self) -> Purse<'a> {
        let Self { hub, sheet, scopes, now, store_away, .. } = *self;
        Purse { hub, sheet, scopes, now, store_away }
    }
}

/// Why a request is not admitted now. Nothing was taken.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A limit does not hold.
    Refused(Refused),
    /// Units of this lease are needed first.
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

/// How a request was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// Just what the route's [`PlainAsk`](super::policy::PlainAsk)s say, which is not written down.
    Plain,
    /// What stands in the list.
    Listed,
}

/// Decides one request. What was taken is written to the list, which is made then, unless it is
/// plain.
#[inline]
pub(crate) fn decide<'t>(
    q: &Question<'_>,
    list: impl FnOnce() -> &'t mut TakenList,
) -> Result<Drawn, Stopped> {
    if let Standing::Refused(reason) = &q.sheet.standing {
        return Err(refuse(reason.clone(), Limit::None));
    }
    if let Some(feature) = &q.route.missing {
        return Err(refuse(Reason::FeatureMissing(feature.clone()), Limit::None));
    }
    if q.route.counts_request.is_some() && q.length.is_none() {
        return Err(refuse(Reason::LengthRequired, Limit::None));
    }
    if !enter(q.sheet, q.route) {
        return Err(refuse(Reason::Concurrency, Limit::None));
    }
    if draw_plain(q) {
        return Ok(Drawn::Plain);
    }
    if let Some((scope, by)) = without_value(q) {
        leave(q.sheet, q.route);
        return Err(refuse(Reason::ScopeMissing(scope.name().into()), by));
    }
    decide_by_list(q, list())
}

/// The first limit by a scope without which its caller is refused.
fn without_value<'q>(q: &'q Question<'_>) -> Option<(&'q Scope, Limit)> {
    let policy = &*q.sheet.policy;
    let lacked = |place: &'q Place| match place {
        Place::Scoped(scope) if q.scopes.lacks(scope) => Some(scope),
        _ => None,
    };
    let rates = q.route.rates.iter().filter_map(|&rate| {
        Some((lacked(&policy.rates[usize::from(rate)].place)?, Limit::Rate(rate)))
    });
    let quotas = q.route.meters.iter().flat_map(|ask| &ask.quotas).filter_map(|&index| {
        let quota = &policy.quotas[usize::from(index)];
        let pool = quota.included.or(quota.over)?;
        Some((lacked(&policy.pools[usize::from(pool)].place)?, Limit::Quota(index)))
    });
    rates.chain(quotas).next()
}

fn decide_by_list(q: &Question<'_>, taken: &mut TakenList) -> Result<Drawn, Stopped> {
    match draw_meters(q, taken).or_else(|| draw_rates(q, taken)) {
        None => Ok(Drawn::Listed),
        Some(stopped) => {
            undo(q.sheet, taken, q.now);
            taken.clear();
            leave(q.sheet, q.route);
            if let Stopped::Need(..) = stopped {
                ask_for_slots(q);
            }
            Err(stopped)
        }
    }
}

/// Draws `n` more atoms of one meter, and what sums it feeds, for a request that runs already.
pub(crate) fn draw_more(
    q: &Question<'_>,
    ask: usize,
    n: u64,
    draw: u64,
) -> Result<TakenList, Stopped> {
    let mut taken = TakenList::new();
    for (i, weight) in q.route.fed_by(ask) {
        let n = n.saturating_mul(weight);
        let index = u8::try_from(i).unwrap_or(CALLS - 1);
        if let Some(stopped) = draw_meter(q, &q.route.meters[i], index, n, draw, &mut taken) {
            undo(q.sheet, &taken, q.now);
            return Err(stopped);
        }
    }
    Ok(taken)
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
                rate.rule.give_back(bucket, rate.rule.cells(n), taken_at.mono_ns, now.mono_ns);
            }
        }
        From::ScopedBucket(rate, used) => {
            let rule = &sheet.policy.rates[usize::from(*rate)].rule;
            used.give_back(rule, n, taken_at, now);
        }
        From::Pool(pool) => lease_of(sheet, *pool).release(n),
        From::ScopedPool(_, lease) => lease.release(n),
    }
}

/// Settles `n` of what was taken: it was used.
pub(crate) fn settle(hub: &Hub, sheet: &Arc<Sheet>, took: &Taken, n: u64) {
    match &took.from {
        From::Pool(pool) => lease_of(sheet, *pool).settle(n),
        From::ScopedPool(_, lease) => {
            lease.settle(n);
            hub.soil_lease(lease);
        }
        From::Bucket(_) | From::ScopedBucket(..) => {}
    }
}

/// What of the next `n` atoms of an ask is owed: drawn beyond a quota that bills, be it beyond
/// several, and not paid by a grant. Of those in `known` that is known before.
pub(crate) fn over_of(policy: &Policy, taken: &[Taken], ask: u8, n: u64, known: Range<u64>) -> u64 {
    let of_ask = || taken.iter().filter(|took| took.ask == ask && took.n > 0);
    if known.is_empty() && !of_ask().any(|took| policy.bills(&took.from)) {
        return 0;
    }
    let (mut done, mut over, mut next) = (0, 0, 0);
    while done < n {
        let open = of_ask().filter(|took| took.draw >= next && took.is_units());
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

/// The lease of a pool of scope `tenant`.
pub(crate) fn lease_of(sheet: &Sheet, pool: u16) -> &Arc<Lease> {
    match sheet.policy.pools[usize::from(pool)].place {
        Place::Sheet(slot) => sheet.lease(pool, slot),
        Place::Scoped(_) => unreachable!("a scoped pool is taken as `From::ScopedPool`"),
    }
}

/// One request less in flight.
#[inline]
pub(crate) fn leave(sheet: &Sheet, route: &RoutePolicy) {
    if route.in_flight.is_some() {
        sheet.tenant.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One request more in flight, whatever the limit: it is let in without being held to it.
pub(crate) fn enter_anyway(sheet: &Sheet, route: &RoutePolicy) {
    if route.in_flight.is_some() {
        sheet.tenant.in_flight.fetch_add(1, Ordering::AcqRel);
    }
}

/// Requests in flight are counted where their number is limited, and only there: two writes less
/// for all others.
#[inline]
fn enter(sheet: &Sheet, route: &RoutePolicy) -> bool {
    let Some(most) = route.in_flight else {
        return true;
    };
    let in_flight = &sheet.tenant.in_flight;
    in_flight
        .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < most).then_some(n + 1))
        .is_ok()
}

fn draw_meters(q: &Question<'_>, taken: &mut TakenList) -> Option<Stopped> {
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
            Some(Stopped::Need(lease, n)) => need = need.or(Some(Stopped::Need(lease, n))),
            refused => return refused,
        }
    }
    need
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

#[cold]
fn refuse(reason: Reason, by: Limit) -> Stopped {
    Stopped::Refused(Refused { reason, by, wait_ns: None })
}

//! Decide: all limits of one request at once, or none.
//!
//! The order is fixed: standing, feature, concurrency, leases, buckets. The checks that cost least
//! to undo and tell the caller most come first; buckets come last because their refusals cure
//! themselves.
//!
//! Units of one meter are spent in this order: what the plan's quotas include, then grants (soonest
//! expiry first), then what `over` lets through. An ask may be split among them. Quotas of narrower
//! scope than the tenant hold in every case: a grant raises what a tenant may use, not what one of
//! its keys may. While a quota is in debt nothing is drawn until that is paid.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::Scope;
use crate::clock::Now;
use crate::decision::Reason;
use crate::ids::LimitId;
use crate::payers::lanes::Lanes;
use crate::payers::late;
use crate::payers::purse::{Draw, LimitRefused, NotDrawn, Purse, bucket_of, refuse, take, undo};
use crate::policy::resolve::Standing;
use crate::policy::scoped::{ScopedKey, ScopesOf};
use crate::policy::taken::{DrawnFrom, Limit, PaysFor, Taken, TakenList};
use crate::policy::{
    AmountSource, AskIndex, CounterHome, MeterAsk, PlainAsk, Policy, RateIndex, RoutePolicy,
};
use crate::quota::lease::Take;
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;

/// The input of a decision. Nothing here waits.
pub(crate) struct AdmissionInput<'a> {
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

impl<'a> AdmissionInput<'a> {
    fn purse(&self) -> Purse<'a> {
        let Self { hub, sheet, scopes, now, store_away, .. } = *self;
        Purse { hub, sheet, scopes, now, store_away }
    }
}

/// How a request was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdmittedBy {
    /// Holds exactly what the route's [`PlainAsk`](crate::policy::PlainAsk)s state, without a list.
    Plain,
    /// Holds what the list contains.
    Listed,
}

/// Decides one request. Unless it is plain, what was taken is written to the list, created then.
#[inline]
pub(crate) fn decide<'t>(
    q: &AdmissionInput<'_>,
    list: impl FnOnce() -> &'t mut TakenList,
) -> Result<AdmittedBy, NotDrawn> {
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
        return Ok(AdmittedBy::Plain);
    }
    if let Some((scope, by)) = without_value(&q.sheet.policy, q.route, q.scopes) {
        leave(q.sheet, q.route);
        return Err(refuse(Reason::ScopeMissing(scope.name().into()), by));
    }
    decide_by_list(q, list())
}

/// The first limit that refuses this caller for having no value of its scope.
pub(crate) fn without_value<'q>(
    policy: &'q Policy,
    route: &'q RoutePolicy,
    scopes: ScopesOf<'_>,
) -> Option<(&'q Scope, Limit)> {
    let lacks = |scope: &&Scope| scopes.lacks(scope);
    let rates = route.rates.iter().filter_map(|&rate| {
        Some((policy.rates[rate].place.scope().filter(lacks)?, Limit::Rate(rate)))
    });
    let quotas = route.meters.iter().flat_map(|ask| &ask.quotas).filter_map(|&index| {
        let quota = &policy.quotas[index];
        let pool = quota.included.or(quota.over)?;
        Some((policy.pools[pool].place.scope().filter(lacks)?, Limit::Quota(index)))
    });
    rates.chain(quotas).next()
}

fn decide_by_list(q: &AdmissionInput<'_>, taken: &mut TakenList) -> Result<AdmittedBy, NotDrawn> {
    match draw_meters(q, taken).or_else(|| draw_rates(q, taken)) {
        None => Ok(AdmittedBy::Listed),
        Some(stopped) => {
            undo(q.sheet, taken, q.now);
            taken.clear();
            leave(q.sheet, q.route);
            if let NotDrawn::Need(..) = stopped {
                ask_for_slots(q);
            }
            Err(stopped)
        }
    }
}

/// What a running request has drawn.
pub(crate) struct Drawn {
    pub(crate) units: TakenList,
    pub(crate) of_rates: TakenList,
}

/// Draws `n` more atoms of one meter, and what sums it feeds, for a body: no rate refuses its
/// bytes, which charge it as they pass.
pub(crate) fn draw_more(
    q: &AdmissionInput<'_>,
    ask: AskIndex,
    n: u64,
    draw: u64,
) -> Result<Drawn, NotDrawn> {
    let mut units = TakenList::new();
    for (i, weight) in q.route.fed_by(ask) {
        let n = n.saturating_mul(weight);
        if let Some(stopped) = draw_meter(q, i, n, draw, &mut units) {
            undo(q.sheet, &units, q.now);
            return Err(stopped);
        }
    }
    Ok(Drawn { units, of_rates: TakenList::new() })
}

/// The same for a handler, which takes them before it uses them: the meters' rates are asked, too.
/// What never fits a rate at once asks for all of its burst, and the rest is charged when it is
/// reported.
pub(crate) fn take_more(
    q: &AdmissionInput<'_>,
    ask: AskIndex,
    n: u64,
    draw: u64,
) -> Result<Drawn, NotDrawn> {
    let mut drawn = draw_more(q, ask, n, draw)?;
    match draw_rates_of(q, ask, n, &mut drawn.of_rates) {
        None => Ok(drawn),
        Some(stopped) => {
            undo(q.sheet, &drawn.of_rates, q.now);
            undo(q.sheet, &drawn.units, q.now);
            Err(stopped)
        }
    }
}

/// Draws `n` atoms of one ask from the rates of its meter, and of the sums it feeds.
fn draw_rates_of(
    q: &AdmissionInput<'_>,
    ask: AskIndex,
    n: u64,
    taken: &mut TakenList,
) -> Option<NotDrawn> {
    let policy = &q.sheet.policy;
    for (i, weight) in q.route.fed_by(ask) {
        let (meter, n) = (q.route.meters[i].meter, n.saturating_mul(weight));
        for &index in &q.route.rates {
            let rate = &policy.rates[index];
            if rate.meter != Some(meter) {
                continue;
            }
            let slot = rate.slot_pool.map_or(i64::MAX, |pool| policy.pools[pool].limit);
            // What its admission drew of the burst is there no more.
            let drawn = asked_of(q, index).map_or(0, |(n, _)| n);
            let most = rate.rule.atoms(rate.rule.burst()).min(slot.unsigned_abs());
            let most = most.saturating_sub(drawn);
            if let Some(stopped) = draw_rate(q, index, (n.min(most), PaysFor::Ask(i)), taken) {
                return Some(stopped);
            }
        }
    }
    None
}

/// Counts one request less in flight.
#[inline]
pub(crate) fn leave(sheet: &Sheet, route: &RoutePolicy) {
    if route.in_flight.is_some() {
        sheet.tenant.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts one request more in flight, whatever the limit: it is let in regardless.
pub(crate) fn enter_anyway(sheet: &Sheet, route: &RoutePolicy) {
    if route.in_flight.is_some() {
        sheet.tenant.in_flight.fetch_add(1, Ordering::AcqRel);
    }
}

/// Counts a request in flight, only where their number is limited: two writes less for all others.
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

fn draw_meters(q: &AdmissionInput<'_>, taken: &mut TakenList) -> Option<NotDrawn> {
    let mut need = None;
    for (i, ask) in q.route.meters.pairs() {
        let n = amount(q, ask);
        if n == 0 {
            continue;
        }
        match draw_meter(q, i, n, 0, taken) {
            None => {}
            // Go on: the leases of the other meters are asked for in the same wait.
            Some(NotDrawn::Need(lease, n)) => need = need.or(Some(NotDrawn::Need(lease, n))),
            refused => return refused,
        }
    }
    need
}

/// How much of a meter this request asks for: as in the policy, unless the length of the request is
/// part of it.
pub(crate) fn amount(q: &AdmissionInput<'_>, ask: &MeterAsk) -> u64 {
    amount_of(q.route, q.length, ask)
}

/// The same of a request whose body is so long.
pub(crate) fn amount_of(route: &RoutePolicy, length: Option<u64>, ask: &MeterAsk) -> u64 {
    match &ask.known {
        // A merely stated length sets aside no more than the meter's hold.
        AmountSource::Length => length.unwrap_or(0).min(ask.n),
        AmountSource::Sum(parts) if route.counts_request.is_some() => {
            parts.iter().fold(0, |n: u64, (part, weight)| {
                let part = &route.meters[*part];
                n.saturating_add(amount_of(route, length, part).saturating_mul(*weight))
            })
        }
        _ => ask.n,
    }
}

/// Draws all that a plain route asks for, or nothing; the general path then finds the answer.
/// Nearly every request goes through here and nowhere else.
#[inline]
fn draw_plain(q: &AdmissionInput<'_>) -> bool {
    let Some(asks) = &q.route.plain else {
        return false;
    };
    if q.sheet.unpaid.is_some() {
        return false; // released units pay late use first
    }
    for (i, ask) in asks.iter().enumerate() {
        let Some((pool, slot)) = ask.from else {
            continue;
        };
        let lease = q.sheet.lease(pool, slot);
        let is_moved = lease.has_moved(); // then what lies beyond may count, too
        match if is_moved { Take::Need } else { lease.take(ask.n, q.now) } {
            Take::Taken { renew: false } => {}
            Take::Taken { renew: true } => q.hub.renewals.wake(lease),
            Take::Need | Take::Exhausted => {
                undo_plain(q, &asks[..i]);
                return false;
            }
        }
    }
    for (i, rate) in q.route.rates.iter().enumerate() {
        if !take_call(q, *rate) {
            for rate in &q.route.rates[..i] {
                give_call_back(q, *rate);
            }
            undo_plain(q, asks);
            return false;
        }
    }
    true
}

#[cold]
fn undo_plain(q: &AdmissionInput<'_>, asks: &[PlainAsk]) {
    for ask in asks {
        if let Some((pool, slot)) = ask.from {
            q.sheet.lease(pool, slot).release(ask.n);
        }
    }
}

#[inline]
fn take_call(q: &AdmissionInput<'_>, rate: RateIndex) -> bool {
    let (rate, bucket) = bucket_of(q.sheet, rate);
    bucket.is_some_and(|bucket| rate.rule.take(bucket, 1, q.now.mono_ns).is_ok())
}

#[cold]
fn give_call_back(q: &AdmissionInput<'_>, rate: RateIndex) {
    if let (rate, Some(bucket)) = bucket_of(q.sheet, rate) {
        rate.rule.give_back(bucket, 1, q.now.mono_ns, q.now.mono_ns);
    }
}

/// Draws one meter: every quota and grant that pays for a part of it. `None`: drawn.
fn draw_meter(
    q: &AdmissionInput<'_>,
    ask: AskIndex,
    n: u64,
    draw: u64,
    taken: &mut TakenList,
) -> Option<NotDrawn> {
    let (purse, payers) = (q.purse(), q.route.meters[ask].payers());
    if let Some(stopped) = late::before(&purse, &payers) {
        return Some(stopped.asked(n));
    }
    let mut lanes = Lanes::default();
    match lanes.draw(&purse, &payers, n) {
        Ok(()) => {
            lanes.emit(PaysFor::Ask(ask), draw, taken);
            None
        }
        Err(stopped) => {
            lanes.undo(&purse);
            Some(stopped.asked(n))
        }
    }
}

/// The amount that this request asks of a rate, and what that pays for; `None` if it asks
/// for nothing.
fn asked_of(q: &AdmissionInput<'_>, rate: RateIndex) -> Option<(u64, PaysFor)> {
    let Some(meter) = q.sheet.policy.rates[rate].meter else {
        return Some((1, PaysFor::Call));
    };
    let at = q.route.meters.find(|m| m.meter == meter)?;
    Some((amount(q, &q.route.meters[at]), PaysFor::Ask(at)))
}

/// The request waits for units: its rates' slots are asked for in the same wait, not in one wait
/// each. What is here already stays here.
#[cold]
fn ask_for_slots(q: &AdmissionInput<'_>) {
    for &index in &q.route.rates {
        let pool = q.sheet.policy.rates[index].slot_pool;
        let (Some(pool), Some((n, pays))) = (pool, asked_of(q, index)) else {
            continue;
        };
        if let Draw::Took(from) = take(&q.purse(), pool, n) {
            undo(q.sheet, &[Taken { from, n, pays, draw: 0 }], q.now);
        }
    }
}

fn draw_rates(q: &AdmissionInput<'_>, taken: &mut TakenList) -> Option<NotDrawn> {
    for &index in &q.route.rates {
        if let Some(asked) = asked_of(q, index)
            && let Some(stopped) = draw_rate(q, index, asked, taken)
        {
            return Some(stopped);
        }
    }
    None
}

/// Draws `n` atoms of an ask from one rate: its bucket, then its slot if it is strict. `None`:
/// drawn, or it does not apply.
fn draw_rate(
    q: &AdmissionInput<'_>,
    index: RateIndex,
    (n, pays): (u64, PaysFor),
    taken: &mut TakenList,
) -> Option<NotDrawn> {
    let (from, took) = match bucket_of(q.sheet, index) {
        (rate, Some(bucket)) => {
            let took = rate.rule.take(bucket, rate.rule.cells(n), q.now.mono_ns);
            (DrawnFrom::Bucket(index), took)
        }
        (rate, None) => {
            let CounterHome::Scoped(scope) = &rate.place else { return None };
            let value = q.scopes.of(scope)?;
            let key = ScopedKey::of_rate(q.sheet.tenant.surrogate, &rate.id, value);
            let now_ns = q.now.mono_ns;
            let Some(used) = q.hub.scoped.bucket(key, &rate.rule, now_ns) else {
                return Some(refuse(Reason::Unavailable, Limit::Rate(index)));
            };
            let cells = rate.rule.cells(n);
            let took = rate.rule.take(used.under(&rate.rule, now_ns), cells, now_ns);
            (DrawnFrom::ScopedBucket(index, used), took)
        }
    };
    match took {
        Ok(()) => {
            taken.push(Taken { from, n, pays, draw: 0 });
            draw_slot(q, index, (n, pays), taken)
        }
        Err(not_before) => {
            if q.hub.throttled.is_shared() {
                tell(q, index, &from, n);
            }
            Some(NotDrawn::Refused(LimitRefused {
                reason: Reason::Exhausted,
                by: Limit::Rate(index),
                wait_ns: Some(not_before.wait_ns),
                asked: None,
            }))
        }
    }
}

/// Draws units of a strict rate's slot; all nodes together have no more than the rate gives.
fn draw_slot(
    q: &AdmissionInput<'_>,
    index: RateIndex,
    (n, pays): (u64, PaysFor),
    taken: &mut TakenList,
) -> Option<NotDrawn> {
    let pool = q.sheet.policy.rates[index].slot_pool?;
    match take(&q.purse(), pool, n) {
        Draw::Took(from) => taken.push(Taken { from, n, pays, draw: 0 }),
        Draw::None => {}
        Draw::Need(lease) => return Some(NotDrawn::Need(lease, n)),
        Draw::Exhausted => {
            let left_ms = q.sheet.window(pool).end_ms.saturating_sub(q.now.wall_ms).max(1);
            return Some(NotDrawn::Refused(LimitRefused {
                reason: Reason::Exhausted,
                by: Limit::Rate(index),
                wait_ns: Some(left_ms.unsigned_abs().saturating_mul(1_000_000)),
                asked: None,
            }));
        }
    }
    None
}

/// A rate shared with other nodes has refused here: perhaps they need less of it.
#[cold]
fn tell(q: &AdmissionInput<'_>, index: RateIndex, from: &DrawnFrom, n: u64) {
    let rate = &q.sheet.policy.rates[index];
    if rate.slot_pool.is_some() {
        return; // what is leased per slot has no shares
    }
    let scope = match &rate.place {
        CounterHome::Sheet(_) => Some(0),
        CounterHome::Scoped(scope) => q.scopes.of(scope),
    };
    let bucket = match from {
        DrawnFrom::ScopedBucket(_, used) => Some(used.under(&rate.rule, q.now.mono_ns)),
        _ => bucket_of(q.sheet, index).1,
    };
    if let (Some(scope), Some(bucket)) = (scope, bucket)
        && rate.rule.refused(bucket, rate.rule.cells(n), q.hub.throttled.slot())
    {
        let tenant = q.sheet.tenant.surrogate;
        q.hub.throttled.add(LimitId { tenant, rate: rate.id.clone(), scope });
    }
}

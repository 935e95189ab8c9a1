//! Drawing: units of one meter from its quotas and grants (how they share is in `lanes.rs`), and
//! room in the buckets.

use std::sync::Arc;

use super::lanes::Lanes;
use super::{Purse, Question, Refused, Stopped, bucket_of, late, refuse, undo};
use crate::admission::lease::{Lease, Take};
use crate::admission::policy::{Beside, Known, MeterAsk, Place, PlainAsk, Policy};
use crate::admission::scoped::ScopedKey;
use crate::admission::taken::{CALLS, From, Limit, Taken, TakenList};
use crate::catalog::OnLeaseError;
use crate::decision::Reason;
use crate::ids::LimitId;

/// How much of a meter this request asks for: as the policy says, unless the length of the request
/// has a part in it.
pub(crate) fn amount(q: &Question<'_>, ask: &MeterAsk) -> u64 {
    match &ask.known {
        // What is only stated sets no more aside than the meter's hold.
        Known::Length => q.length.unwrap_or(0).min(ask.n),
        Known::Sum(parts) if q.route.counts_request.is_some() => {
            parts.iter().fold(0, |n: u64, (part, weight)| {
                let part = &q.route.meters[usize::from(*part)];
                n.saturating_add(amount(q, part).saturating_mul(*weight))
            })
        }
        _ => ask.n,
    }
}

/// Draws all that a plain route asks for, or nothing: then the general way finds out what to say.
/// Nearly every request goes through here and nowhere else.
#[inline]
pub(super) fn draw_plain(q: &Question<'_>) -> bool {
    let Some(asks) = &q.route.plain else {
        return false;
    };
    if q.sheet.unpaid.is_some() {
        return false; // units that requests give back pay late use first
    }
    for (i, ask) in asks.iter().enumerate() {
        let Some((pool, slot)) = ask.from else {
            continue;
        };
        let lease = q.sheet.lease(pool, slot);
        let is_moved = lease.has_moved(); // then what lies beyond may count, too
        match if is_moved { Take::Need } else { lease.take(ask.n, q.now) } {
            Take::Taken { renew: false } => {}
            Take::Taken { renew: true } => q.hub.wake(lease),
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
fn undo_plain(q: &Question<'_>, asks: &[PlainAsk]) {
    for ask in asks {
        if let Some((pool, slot)) = ask.from {
            q.sheet.lease(pool, slot).release(ask.n);
        }
    }
}

#[inline]
fn take_call(q: &Question<'_>, rate: u16) -> bool {
    let (rate, bucket) = bucket_of(q.sheet, rate);
    bucket.is_some_and(|bucket| rate.rule.take(bucket, 1, q.now.mono_ns).is_ok())
}

#[cold]
fn give_call_back(q: &Question<'_>, rate: u16) {
    if let (rate, Some(bucket)) = bucket_of(q.sheet, rate) {
        rate.rule.give_back(bucket, 1, q.now.mono_ns, q.now.mono_ns);
    }
}

/// Draws one meter: every quota and grant that pays for a part of it. `None`: drawn.
pub(super) fn draw_meter(
    q: &Question<'_>,
    ask: &MeterAsk,
    i: u8,
    n: u64,
    draw: u64,
    taken: &mut TakenList,
) -> Option<Stopped> {
    let (purse, payers) = (q.purse(), ask.payers());
    if let Some(stopped) = late::before(&purse, &payers) {
        return Some(stopped);
    }
    let mut lanes = Lanes::default();
    match lanes.draw(&purse, &payers, n) {
        Ok(()) => {
            lanes.emit(i, draw, taken);
            None
        }
        Err(stopped) => {
            lanes.undo(&purse);
            Some(stopped)
        }
    }
}

/// What came of taking from one pool.
pub(super) enum Draw {
    Took(From),
    /// The limit is for a scope that this caller has no value of: it does not hold here.
    None,
    Need(Arc<Lease>),
    Exhausted,
}

/// What a pool lacks for what was drawn on the other side of its limit, before that was changed: a
/// `stop` holds for both together. `Err`: the other side is to be looked at first.
pub(super) fn missing(q: &Purse<'_>, pool: u16, lease: &Lease, n: u64) -> Result<u64, Arc<Lease>> {
    let Some(beside) = q.sheet.policy.pools[usize::from(pool)].beside else { return Ok(0) };
    let (Beside::Included(other) | Beside::Over(other)) = beside;
    let Some(other) = lease_at(q, other) else { return Ok(0) };
    if !lease.has_moved() && !other.has_moved() {
        return Ok(0);
    }
    if (other.is_unknown() || other.looks_anew()) && !q.store_away {
        other.want(n);
        q.hub.wake(&other);
        return Err(other);
    }
    Ok(match beside {
        Beside::Included(_) => other.overdrawn(),
        Beside::Over(_) => other.short_of_all(),
    })
}

/// The lease of a pool for this caller, if it holds for it.
pub(super) fn lease_at(q: &Purse<'_>, pool: u16) -> Option<Arc<Lease>> {
    match &q.sheet.policy.pools[usize::from(pool)].place {
        Place::Sheet(slot) => Some(q.sheet.lease(pool, *slot).clone()),
        Place::Scoped(scope) => q.sheet.scoped_lease(pool, q.scopes.of(scope)?, q.now),
    }
}

pub(super) fn take(q: &Purse<'_>, pool: u16, n: u64) -> Draw {
    let scoped;
    let (lease, narrow) = match &q.sheet.policy.pools[usize::from(pool)].place {
        Place::Sheet(slot) => (q.sheet.lease(pool, *slot), false),
        Place::Scoped(scope) => {
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
        if narrow { From::ScopedPool(pool, lease.clone()) } else { From::Pool(pool) }
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

/// What this request asks of a rate, and of which of its meters; `None` where it has none of it.
fn asked_of(q: &Question<'_>, rate: u16) -> Option<(u64, u8)> {
    let Some(meter) = q.sheet.policy.rates[usize::from(rate)].meter else {
        return Some((1, CALLS));
    };
    let at = q.route.meters.iter().position(|m| m.meter == meter)?;
    Some((amount(q, &q.route.meters[at]), u8::try_from(at).unwrap_or(CALLS - 1)))
}

/// The request waits for units: those of its rates' slots are asked for in the same wait, not each
/// in one of its own. What is there already stays there.
#[cold]
pub(super) fn ask_for_slots(q: &Question<'_>) {
    for &index in &q.route.rates {
        let pool = q.sheet.policy.rates[usize::from(index)].slot_pool;
        let (Some(pool), Some((n, i))) = (pool, asked_of(q, index)) else {
            continue;
        };
        if let Draw::Took(from) = take(&q.purse(), pool, n) {
            undo(q.sheet, &[Taken { from, n, ask: i, draw: 0 }], q.now);
        }
    }
}

pub(super) fn draw_rates(q: &Question<'_>, taken: &mut TakenList) -> Option<Stopped> {
    for &index in &q.route.rates {
        let Some((n, i)) = asked_of(q, index) else {
            continue;
        };
        let (from, took) = match bucket_of(q.sheet, index) {
            (rate, Some(bucket)) => {
                let took = rate.rule.take(bucket, rate.rule.cells(n), q.now.mono_ns);
                (From::Bucket(index), took)
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
                    limit: rate.id.clone(),
                    value,
                    start_ms: 0,
                    incarnation: 0,
                };
                let now_ns = q.now.mono_ns;
                let Some(used) = q.hub.scoped.bucket(key, &rate.rule, now_ns) else {
                    return Some(refuse(Reason::Unavailable, Limit::Rate(index)));
                };
                let cells = rate.rule.cells(n);
                let took = rate.rule.take(used.under(&rate.rule, now_ns), cells, now_ns);
                (From::ScopedBucket(index, used), took)
            }
        };
        match took {
            Ok(()) => {
                taken.push(Taken { from, n, ask: i, draw: 0 });
                if let Some(stopped) = draw_slot(q, index, n, i, taken) {
                    return Some(stopped);
                }
            }
            Err(not_before) => {
                if q.hub.shares_rates() {
                    tell(q, index, &from, n);
                }
                return Some(Stopped::Refused(Refused {
                    reason: Reason::Exhausted,
                    by: Limit::Rate(index),
                    wait_ns: Some(not_before.wait_ns),
                }));
            }
        }
    }
    None
}

/// Units of a strict rate's slot, of which all nodes together have no more than the rate gives.
fn draw_slot(
    q: &Question<'_>,
    index: u16,
    n: u64,
    i: u8,
    taken: &mut TakenList,
) -> Option<Stopped> {
    let pool = q.sheet.policy.rates[usize::from(index)].slot_pool?;
    match take(&q.purse(), pool, n) {
        Draw::Took(from) => taken.push(Taken { from, n, ask: i, draw: 0 }),
        Draw::None => {}
        Draw::Need(lease) => return Some(Stopped::Need(lease, n)),
        Draw::Exhausted => {
            let left_ms = q.sheet.window(pool).end_ms.saturating_sub(q.now.wall_ms).max(1);
            return Some(Stopped::Refused(Refused {
                reason: Reason::Exhausted,
                by: Limit::Rate(index),
                wait_ns: Some(left_ms.unsigned_abs().saturating_mul(1_000_000)),
            }));
        }
    }
    None
}

/// A rate that is shared with other nodes has refused here: perhaps they need less of it.
#[cold]
fn tell(q: &Question<'_>, index: u16, from: &From, n: u64) {
    let rate = &q.sheet.policy.rates[usize::from(index)];
    if rate.slot_pool.is_some() {
        return; // what is leased by the slot has no shares
    }
    let scope = match &rate.place {
        Place::Sheet(_) => Some(0),
        Place::Scoped(scope) => q.scopes.of(scope),
    };
    let bucket = match from {
        From::ScopedBucket(_, used) => Some(used.under(&rate.rule, q.now.mono_ns)),
        _ => bucket_of(q.sheet, index).1,
    };
    if let (Some(scope), Some(bucket)) = (scope, bucket)
        && rate.rule.refused(bucket, rate.rule.cells(n), q.hub.slot())
    {
        let tenant = q.sheet.tenant.surrogate;
        q.hub.tell(LimitId { tenant, rate: rate.id.clone(), scope });
    }
}

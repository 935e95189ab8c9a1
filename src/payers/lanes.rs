//! Payers of one meter's units, in order: what its quotas include, then grants, then what `over`
//! lets through. An ask may be split among them.
//!
//! # Laws
//!
//! 1. A unit passes all quotas of its meter at once. Included units are drawn as far as *every*
//!    quota of the whole tenant includes them, from all of those quotas.
//! 2. Units paid by grants are drawn from no quota of the whole tenant; quotas of narrower scope
//!    hold in every case.
//! 3. Of the rest each quota gives what it still includes, then what it lets through. Units for
//!    which one of them has neither are unpaid: an ask is refused, late use becomes a debt.
//!
//! Each limit is a *lane* of pieces as long as the ask. The ask is cut wherever a piece of any lane
//! ends, so that every part of it comes from one counter per limit and is settled by itself.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::decision::{Payment, Reason};
use crate::payers::purse::{Draw, NotDrawn, Purse, lease_at, lease_of, missing, refuse, take};
use crate::policy::taken::{DrawnFrom, Limit, PaysFor, Taken, TakenList};
use crate::policy::{CounterHome, Payers, PoolIndex, QuotaIndex, QuotaRule};
use crate::quota::lease::Lease;

/// Units of a lane from one counter; `None`: they pass this limit without being drawn from it.
struct Piece {
    from: Option<DrawnFrom>,
    n: u64,
}

type Lane = SmallVec<[Piece; 2]>;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Lanes {
    lanes: SmallVec<[Lane; 4]>,
}

/// The paid part of late use.
#[derive(Default)]
pub(crate) struct Through {
    /// Atoms that are paid.
    pub(crate) paid: u64,
    /// More may be available here: the lease to wait for, and how much.
    pub(crate) need: Option<(Arc<Lease>, u64)>,
    /// For unpaid atoms: each quota, and how much of them it still includes.
    pub(crate) short: SmallVec<[(QuotaIndex, Option<DrawnFrom>, u64); 2]>,
}

impl Lanes {
    /// Draws all of an ask, or says why not; the caller then undoes what was taken.
    pub(crate) fn draw(
        &mut self,
        q: &Purse<'_>,
        payers: &Payers<'_>,
        n: u64,
    ) -> Result<(), NotDrawn> {
        let mut need = None;
        for (index, rule) in quotas(q, payers).filter(|(_, rule)| !rule.tenant_wide) {
            match self.narrow(q, rule, n) {
                Ok(true) => {}
                Ok(false) => return Err(refuse(Reason::Exhausted, Limit::Quota(index))),
                // Go on: the other leases are asked in the same wait.
                Err(stopped) => need = need.or(Some(stopped)),
            }
        }
        let whole = self.whole(q, payers, n);
        match need {
            Some(stopped) => Err(stopped),
            None => whole,
        }
    }

    /// Draws from a quota of narrower scope than the tenant: included units first, then beyond.
    /// False: it does not have enough.
    fn narrow(&mut self, q: &Purse<'_>, rule: &QuotaRule, n: u64) -> Result<bool, NotDrawn> {
        let mut lane = Lane::new();
        let mut rest = n;
        // All of it, unless something lies beyond: otherwise asking for a part would be in vain.
        for (pool, last) in [(rule.included, rule.over.is_none()), (rule.over, true)] {
            let Some(pool) = pool.filter(|_| rest > 0) else { continue };
            // What is owed is past the stop, if there is one.
            if rule.over == Some(pool) && rule.quota.stop.is_some() && is_in_debt(q, rule) {
                continue;
            }
            let took = if last { all(q, pool, rest) } else { most(q, pool, rest) };
            match took {
                Ok((from, n)) => {
                    rest -= n;
                    lane.extend((n > 0).then_some(Piece { from, n }));
                }
                Err(stopped) => {
                    self.lanes.push(lane);
                    return Err(stopped);
                }
            }
        }
        self.lanes.push(lane);
        Ok(rest == 0)
    }

    /// Draws from the quotas of the whole tenant and its grants.
    fn whole(&mut self, q: &Purse<'_>, payers: &Payers<'_>, n: u64) -> Result<(), NotDrawn> {
        let first = self.lanes.len();
        let included = self.included(q, payers, n, false)?;
        let mut rest = n - included;
        if rest == 0 {
            return Ok(());
        }
        let (granted, need) = self.granted(q, payers, first, (included, rest));
        if let Some((lease, n)) = need {
            return Err(NotDrawn::Need(lease, n));
        }
        rest -= granted;
        if rest == 0 {
            return Ok(());
        }
        if payers.once_only {
            let limit = Limit::Granted(payers.meter);
            return Err(refuse(Reason::PaymentRequired(Payment::GrantUsedUp), limit));
        }
        for (lane, (index, rule)) in (first..).zip(of_tenant(q, payers)) {
            let lane = &mut self.lanes[lane];
            let mut open = rest;
            // What is included is known from the first part. No more than that is asked for: the
            // answer would arrive after what was drawn here has gone back, and report those units
            // as available.
            let known = rule.included.map_or(0, |pool| left_of(q, pool).min(rest));
            if known < rest && rule.over.is_none() {
                return Err(refuse(Reason::Exhausted, Limit::Quota(index)));
            }
            if let Some(pool) = rule.included.filter(|_| known > 0) {
                let (from, n) =
                    most(q, pool, known).map_err(|stopped| beside(stopped, included))?;
                open -= n;
                lane.extend((n > 0).then_some(Piece { from, n }));
            }
            if let Some(pool) = rule.over.filter(|_| open > 0) {
                let (from, n) = all(q, pool, open)?;
                open -= n;
                lane.extend((n > 0).then_some(Piece { from, n }));
            }
            if open > 0 {
                return Err(refuse(Reason::Exhausted, Limit::Quota(index)));
            }
        }
        Ok(())
    }

    /// Draws late use as far as it can be paid.
    pub(crate) fn late(&mut self, q: &Purse<'_>, payers: &Payers<'_>, n: u64) -> Through {
        let included = match self.included(q, payers, n, true) {
            Ok(included) => included,
            Err(stopped) => return self.late_here(q, payers, n, stopped),
        };
        let mut rest = n - included;
        let (granted, need) = self.granted(q, payers, 0, (included, rest));
        rest -= granted;
        let paid = included + granted;
        if need.is_some() || rest == 0 {
            return Through { paid, need, ..Through::default() };
        }
        // What each quota gives: included, and beyond.
        let mut gives = SmallVec::<[(Piece, Piece); 4]>::new();
        let mut need = None;
        for (_, rule) in of_tenant(q, payers) {
            let mut give = |pool: Option<PoolIndex>, n: u64| {
                let took = pool.map_or(Ok((None, 0)), |pool| most(q, pool, n));
                let (from, n) = took.unwrap_or_else(|stopped| {
                    if let NotDrawn::Need(lease, n) = stopped {
                        need = need.take().or(Some((lease, n)));
                    }
                    (None, 0)
                });
                Piece { from, n }
            };
            let within = give(rule.included, rest);
            let beyond = give(rule.over, rest - within.n);
            gives.push((within, beyond));
        }
        let least = gives.iter().map(|(within, beyond)| within.n + beyond.n).min();
        let least = if need.is_some() { 0 } else { least.unwrap_or(0) };
        let mut through = Through { paid: paid + least, need, short: SmallVec::new() };
        for ((lane, (index, _)), (within, beyond)) in
            self.lanes.iter_mut().zip(of_tenant(q, payers)).zip(gives)
        {
            let used = within.n.min(least);
            let over = least - used;
            give_back(q, beyond.from.as_ref(), beyond.n - over);
            if used > 0 {
                lane.push(Piece { from: within.from.clone(), n: used });
            }
            if over > 0 {
                lane.push(Piece { from: beyond.from, n: over });
            }
            let kept = if through.need.is_some() { 0 } else { within.n - used };
            give_back(q, within.from.as_ref(), within.n - used - kept);
            if through.need.is_none() && least < rest {
                through.short.push((index, within.from.filter(|_| kept > 0), kept));
            }
        }
        through
    }

    /// Draws what is included and already here while more of it is asked for, so that no request
    /// takes it first.
    fn late_here(
        &mut self,
        q: &Purse<'_>,
        payers: &Payers<'_>,
        n: u64,
        stopped: NotDrawn,
    ) -> Through {
        let NotDrawn::Need(lease, want) = stopped else { return Through::default() };
        self.lanes.clear();
        let left = |pool: Option<PoolIndex>| pool.map_or(0, |pool| lease_of(q.sheet, pool).here());
        let here = of_tenant(q, payers).map(|(_, rule)| left(rule.included)).min().unwrap_or(0);
        let paid = self.included(q, payers, here.min(n), true).unwrap_or_else(|_| {
            self.lanes.clear();
            0
        });
        if paid == n {
            return Through { paid, ..Through::default() };
        }
        Through { paid, need: Some((lease, want.min(n - paid).max(1))), short: SmallVec::new() }
    }

    /// Draws what all quotas of the tenant include of `n`, from each of them. Their lanes begin
    /// with that.
    fn included(
        &mut self,
        q: &Purse<'_>,
        payers: &Payers<'_>,
        n: u64,
        is_late: bool,
    ) -> Result<u64, NotDrawn> {
        let first = self.lanes.len();
        self.lanes.extend(of_tenant(q, payers).map(|_| Lane::new()));
        if self.lanes.len() == first {
            return Ok(if payers.once_only { 0 } else { n });
        }
        let mut want = n;
        while want > 0 {
            let (mut least, mut need) = (want, None);
            for (lane, (index, rule)) in (first..).zip(of_tenant(q, payers)) {
                match rule.included.map(|pool| (pool, take(q, pool, want))) {
                    Some((_, Draw::Took(from))) => {
                        self.lanes[lane].push(Piece { from: Some(from), n: want });
                    }
                    Some((_, Draw::Need(lease))) => need = need.or(Some(lease)),
                    // Nothing else can pay: asking for a part would be in vain.
                    _ if !is_late && payers.grants.is_empty() && rule.over.is_none() => {
                        return Err(refuse(Reason::Exhausted, Limit::Quota(index)));
                    }
                    Some((pool, _)) => least = least.min(left_of(q, pool)).min(want - 1),
                    None => least = 0,
                }
            }
            if least == want && need.is_none() {
                return Ok(want);
            }
            for lane in &mut self.lanes[first..] {
                lane.drain(..).for_each(|piece| give_back(q, piece.from.as_ref(), piece.n));
            }
            match need {
                Some(lease) if least == want => return Err(NotDrawn::Need(lease, want)),
                _ => want = least,
            }
        }
        Ok(0)
    }

    /// Draws from grants what follows after `before` atoms; the lanes of quotas from `first` on let
    /// it pass. Also returns where there may be more.
    fn granted(
        &mut self,
        q: &Purse<'_>,
        payers: &Payers<'_>,
        first: usize,
        (before, n): (u64, u64),
    ) -> (u64, Option<(Arc<Lease>, u64)>) {
        let mut lane = Lane::new();
        let (mut rest, mut need) = (n, None);
        for &pool in payers.grants {
            if rest == 0 {
                break;
            }
            if is_over(q, pool) {
                continue;
            }
            match most(q, pool, rest) {
                Ok((from, n)) => {
                    rest -= n;
                    lane.extend((n > 0).then_some(Piece { from, n }));
                }
                Err(NotDrawn::Need(lease, n)) => {
                    need = Some((lease, n));
                    break;
                }
                Err(NotDrawn::Refused(_)) => {}
            }
        }
        let granted = n - rest;
        if granted > 0 {
            for quota in &mut self.lanes[first..] {
                quota.push(Piece { from: None, n: granted });
            }
            if before > 0 {
                lane.insert(0, Piece { from: None, n: before });
            }
            self.lanes.push(lane);
        }
        (granted, need)
    }

    /// Gives everything back.
    pub(crate) fn undo(self, q: &Purse<'_>) {
        for piece in self.lanes.into_iter().flatten() {
            give_back(q, piece.from.as_ref(), piece.n);
        }
    }

    /// Lists what was drawn, part by part.
    pub(crate) fn emit(self, pays: PaysFor, draw: u64, taken: &mut TakenList) {
        if self.lanes.iter().all(|lane| lane.len() <= 1) {
            let drawn = self.lanes.into_iter().flatten();
            taken.extend(
                drawn.filter_map(|piece| Some(Taken { from: piece.from?, n: piece.n, pays, draw })),
            );
            return;
        }
        let mut cuts = SmallVec::<[u64; 8]>::new();
        for lane in &self.lanes {
            let mut end = 0;
            cuts.extend(lane.iter().map(|piece| {
                end += piece.n;
                end
            }));
        }
        cuts.sort_unstable();
        cuts.dedup();
        let mut begin = 0;
        for (part, end) in (draw..).zip(cuts) {
            for lane in &self.lanes {
                let mut at = 0;
                let piece = lane.iter().find(|piece| {
                    at += piece.n;
                    begin < at
                });
                if let Some(from) = piece.and_then(|piece| piece.from.clone()) {
                    taken.push(Taken { from, n: end - begin, pays, draw: part });
                }
            }
            begin = end;
        }
    }
}

/// Raises what is waited for by what this ask has drawn there already: that goes back meanwhile,
/// and would be taken for the missing units.
fn beside(stopped: NotDrawn, drawn: u64) -> NotDrawn {
    match stopped {
        NotDrawn::Need(lease, n) => {
            lease.want(n + drawn);
            NotDrawn::Need(lease, n + drawn)
        }
        refused @ NotDrawn::Refused(_) => refused,
    }
}

/// Draws late use from a quota of narrower scope than the tenant, as far as it has units: what it
/// includes, and what is beyond.
pub(crate) fn late_of_narrow(
    q: &Purse<'_>,
    rule: &QuotaRule,
    n: u64,
) -> Result<[Part; 2], NotDrawn> {
    let drawn = |pool: Option<PoolIndex>, n| pool.map_or(Ok((None, 0)), |pool| most(q, pool, n));
    let within = drawn(rule.included, n)?;
    match drawn(rule.over, n - within.1) {
        Ok(beyond) => Ok([within, beyond]),
        Err(stopped) => {
            give_back(q, within.0.as_ref(), within.1);
            Err(stopped)
        }
    }
}

/// Units, and where they were drawn.
pub(crate) type Part = (Option<DrawnFrom>, u64);

/// Draws as much of `n` as the pool has. Where the limit does not apply to this caller: all of it,
/// from nothing.
pub(crate) fn most(
    q: &Purse<'_>,
    pool: PoolIndex,
    n: u64,
) -> Result<(Option<DrawnFrom>, u64), NotDrawn> {
    let mut want = n;
    while want > 0 {
        match take(q, pool, want) {
            Draw::Took(from) => return Ok((Some(from), want)),
            Draw::None => return Ok((None, n)),
            Draw::Need(lease) => return Err(NotDrawn::Need(lease, want)),
            Draw::Exhausted => want = left_of(q, pool).min(want - 1),
        }
    }
    Ok((None, 0))
}

/// Draws all of `n`, or nothing.
fn all(q: &Purse<'_>, pool: PoolIndex, n: u64) -> Result<(Option<DrawnFrom>, u64), NotDrawn> {
    match take(q, pool, n) {
        Draw::Took(from) => Ok((Some(from), n)),
        Draw::None => Ok((None, n)),
        Draw::Need(lease) => Err(NotDrawn::Need(lease, n)),
        Draw::Exhausted => Ok((None, 0)),
    }
}

/// Units a pool may still give, as far as is known.
pub(crate) fn left_of(q: &Purse<'_>, pool: PoolIndex) -> u64 {
    let Some(lease) = lease_at(q, pool) else { return 0 };
    lease.remaining().saturating_sub(missing(q, pool, &lease, 1).unwrap_or(0))
}

/// Whether a quota of narrower scope owes anything, as far as is known.
fn is_in_debt(q: &Purse<'_>, rule: &QuotaRule) -> bool {
    let lease = match &q.sheet.policy.pools[rule.debtor].place {
        CounterHome::Scoped(scope) => {
            let value = q.scopes.of(scope);
            value.and_then(|value| q.sheet.known_scoped_lease(rule.debtor, value))
        }
        CounterHome::Sheet(_) => None,
    };
    lease.is_some_and(|lease| lease.is_in_debt())
}

/// Whether a grant has ended.
pub(crate) fn is_over(q: &Purse<'_>, grant: PoolIndex) -> bool {
    let expires = q.sheet.policy.pools[grant].expires_ms;
    expires.is_some_and(|end| end <= q.now.wall_ms)
}

fn quotas<'a>(
    q: &Purse<'a>,
    payers: &Payers<'a>,
) -> impl Iterator<Item = (QuotaIndex, &'a QuotaRule)> + use<'a> {
    let policy = &q.sheet.policy;
    payers.quotas.iter().map(move |index| (*index, &policy.quotas[*index]))
}

pub(crate) fn of_tenant<'a>(
    q: &Purse<'a>,
    payers: &Payers<'a>,
) -> impl Iterator<Item = (QuotaIndex, &'a QuotaRule)> + use<'a> {
    quotas(q, payers).filter(|(_, rule)| rule.tenant_wide)
}

pub(crate) fn give_back(q: &Purse<'_>, from: Option<&DrawnFrom>, n: u64) {
    match from {
        _ if n == 0 => {}
        Some(DrawnFrom::Pool(pool)) => lease_of(q.sheet, *pool).release(n),
        Some(DrawnFrom::ScopedPool(_, lease)) => lease.release(n),
        Some(DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..)) | None => {}
    }
}

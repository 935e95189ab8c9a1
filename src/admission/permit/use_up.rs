//! Settles use against its draws: draw by draw, then from what is left, then as a debt.

use super::state::{ByAsk, FORGIVEN, HoldState};
use crate::admission::context::HoldContext;
use crate::catalog::MeterId;
use crate::clock::Now;
use crate::payers::purse;
use crate::policy::taken::{DrawnFrom, PaysFor, Taken, TakenList};
use crate::policy::{AmountSource, AskIndex, Policy, RoutePolicy};
use crate::sheets::sheet::Sheet;
use crate::table::Index;

/// Inputs that decide how much of a cost is known: kept apart from the list, so that both can be
/// borrowed.
#[derive(Clone, Copy)]
pub(super) struct Knowledge {
    pub(super) state: HoldState,
    /// Bytes of the request: those read, or all of them if its body is in hand.
    pub(super) length: Option<u64>,
    /// The true number of a cost that was an estimate.
    pub(super) truth: Option<(AskIndex, u64)>,
}

impl Knowledge {
    /// The true number of a meter ask, as far as it is known.
    pub(super) fn actual(
        self,
        recorded: &ByAsk,
        counters: &[u64],
        rules: &RoutePolicy,
        i: AskIndex,
    ) -> u64 {
        let ask = &rules.meters[i];
        let decided = self.state != HoldState::Open && recorded[i] != FORGIVEN;
        match &ask.known {
            AmountSource::Cost if decided => match self.truth {
                Some((of, n)) if of == i => n,
                _ => ask.n,
            },
            AmountSource::Length if decided => self.length.unwrap_or(0),
            AmountSource::Cost | AmountSource::Length => 0,
            AmountSource::Reported(counter) => counters[counter.number()],
            AmountSource::Sum(parts) => parts.iter().fold(0u64, |sum, (part, weight)| {
                let part = self.actual(recorded, counters, rules, *part);
                sum.saturating_add(part.saturating_mul(*weight))
            }),
        }
    }
}

/// Counts `n` atoms of an ask: before [`use_up`], which takes them from what was drawn.
pub(super) fn count(sheet: &Sheet, taken: &[Taken], ask: AskIndex, (meter, n): (MeterId, u64)) {
    sheet.count_used(meter, n);
    sheet.row.add_over(meter, over_of(sheet, taken, ask, n));
}

/// The part of it drawn beyond a quota that bills.
pub(super) fn over_of(sheet: &Sheet, taken: &[Taken], ask: AskIndex, n: u64) -> u64 {
    purse::over_of(&sheet.policy, taken, PaysFor::Ask(ask), n, 0..0)
}

/// Settles `n` atoms of an ask against its draws in order; what they do not cover is late.
pub(super) fn use_up(
    of: &HoldContext,
    rules: &RoutePolicy,
    taken: &mut TakenList,
    ask: AskIndex,
    n: u64,
    now: Now,
) {
    let rest = n - use_drawn(of, taken, ask, n);
    pay_rates(of, taken, ask, n, now);
    if rest > 0 {
        of.late_use().pay(rules.meters[ask].meter, rest);
    }
}

/// Settles `n` atoms of an ask against its draws in order, and returns how many they cover.
pub(super) fn use_drawn(of: &HoldContext, taken: &mut TakenList, ask: AskIndex, n: u64) -> u64 {
    let mut rest = n;
    let policy = &of.sheet.policy;
    let is_of = |took: &Taken| took.is_of(ask) && !policy.is_of_rate(&took.from);
    while rest > 0 {
        let open = taken.iter().filter(|t| is_of(t) && t.n > 0);
        let Some((draw, held)) = open.map(|t| (t.draw, t.n)).min() else {
            break;
        };
        let part = rest.min(held);
        for took in taken.iter_mut().filter(|t| is_of(t) && t.draw == draw) {
            purse::settle(of.hub(), &of.sheet, took, part);
            took.n -= part;
        }
        rest -= part;
    }
    n - rest
}

/// Atoms held for an ask: for each part, all its payers hold as much.
pub(super) fn held_for(policy: &Policy, taken: &[Taken], ask: AskIndex) -> u64 {
    let of_ask = taken.iter().filter(|took| took.is_of(ask) && !policy.is_of_rate(&took.from));
    let mut part = None;
    let once = of_ask.filter(|took| part.replace(took.draw) != Some(took.draw));
    once.fold(0, |sum, took| sum.saturating_add(took.n))
}

/// Pays `n` atoms of an ask to the rates of its meter.
pub(super) fn pay_rates(of: &HoldContext, taken: &mut TakenList, ask: AskIndex, n: u64, now: Now) {
    let policy = &of.sheet.policy;
    let is_of = |took: &&mut Taken| took.is_of(ask) && policy.is_of_rate(&took.from);
    for took in taken.iter_mut().filter(is_of) {
        pay_rate(of, took, n, now);
    }
}

/// The hold has paid a metered rate for use within it; use beyond it is charged to its bucket.
fn pay_rate(of: &HoldContext, took: &mut Taken, n: u64, now: Now) {
    let covered = took.n.min(n);
    purse::settle(of.hub(), &of.sheet, took, covered);
    took.n -= covered;
    let beyond = n - covered;
    if beyond == 0 {
        return;
    }
    match &took.from {
        DrawnFrom::Bucket(rate) => purse::charge_bucket(&of.sheet, *rate, beyond, now),
        DrawnFrom::ScopedBucket(_, used) => used.charge(beyond, now),
        DrawnFrom::Pool(_) | DrawnFrom::ScopedPool(..) => {}
    }
}

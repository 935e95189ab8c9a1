//! Units that go back, for the metric: what was due and is not charged, and what was held of quotas
//! and not used. Each unit once, whatever limits it was drawn from; nothing of it is on record.

use super::listed::Itemized;
use super::use_up::{Knowledge, held_for};
use crate::policy::taken::Taken;
use crate::policy::{AmountSource, AskIndex, RoutePolicy};
use crate::sheets::sheet::Sheet;
use crate::telemetry;

/// Counts costs that are not charged, before what is held for them goes back. Where no limit gave
/// anything for a cost it was due all the same. A sum that is held goes back at the end, with what
/// was not reported of it.
pub(super) fn count_due(sheet: &Sheet, rules: &RoutePolicy, of: &Itemized, known: Knowledge) {
    let held = |i| held_for(&sheet.policy, &of.taken, i);
    let due = |i: AskIndex| match &rules.meters[i].known {
        AmountSource::Cost | AmountSource::Length => {
            known.actual(&of.recorded, &of.counters, rules, i)
        }
        AmountSource::Reported(_) | AmountSource::Sum(_) => 0,
    };
    for (i, ask) in rules.meters.pairs() {
        let atoms = match &ask.known {
            AmountSource::Cost | AmountSource::Length => due(i).max(held(i)),
            AmountSource::Sum(parts) if held(i) == 0 => {
                parts.iter().fold(0, |sum: u64, (part, weight)| {
                    sum.saturating_add(due(*part).saturating_mul(*weight))
                })
            }
            AmountSource::Reported(_) | AmountSource::Sum(_) => 0,
        };
        sheet.count_refund(ask.meter, atoms);
    }
}

/// Counts what is held for each ask, before it goes back.
pub(super) fn count_held(sheet: &Sheet, rules: &RoutePolicy, taken: &[Taken]) {
    if !telemetry::IS_ON || taken.iter().all(|took| took.n == 0) {
        return;
    }
    for (i, ask) in rules.meters.pairs() {
        sheet.count_refund(ask.meter, held_for(&sheet.policy, taken, i));
    }
}

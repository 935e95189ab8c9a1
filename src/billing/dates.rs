//! The minutes in which an entry may be dated: inside the period in which its units were used, and
//! inside what the service takes.

use super::due::DueUse;
use super::item::ItemId;
use super::outbox::{MAX_VALUE, OLDEST_S, Outbox, VERIFY_S};
use crate::amount::Atoms;

/// Minutes tried of one span before the next one is.
const MINUTES: usize = 120;

/// The minutes of the next entry.
#[derive(Clone, Debug)]
pub(super) struct Dates {
    /// First and last minute of each span, the best first. Those without minutes are left out.
    spans: Vec<(i64, i64)>,
    /// Most units of an entry that is dated in them.
    pub(super) most: u64,
    /// Whether its period is over, and nothing is dated after that.
    pub(super) is_last: bool,
}

impl Dates {
    /// The minutes to try, in this order.
    pub(super) fn minutes(&self) -> impl Iterator<Item = i64> + '_ {
        let minutes = |(first_s, last_s): &(i64, i64)| {
            let (first_s, last_s) = (*first_s, *last_s);
            let minutes = (0..).map(move |n| last_s - n * 60);
            minutes.take_while(move |minute_s| *minute_s >= first_s).take(MINUTES)
        };
        self.spans.iter().flat_map(minutes)
    }
}

/// The minutes of the next entry: of its own period; if none is left there, of the open one or
/// nowhere. Of units used after a period whose end was learned of late: the time between.
pub(super) fn dates(due: &DueUse, outbox: &Outbox, now_s: i64) -> Dates {
    let now_minute_s = minute(now_s);
    let oldest_s = minute(now_s.saturating_sub(OLDEST_S - VERIFY_S)).saturating_add(60);
    let mut most = MAX_VALUE;
    let (mut spans, mut ends_s) = (own(due), due.terms.ends_ms.div_euclid(1_000));
    if let Some(overrun) = &due.terms.overrun {
        // In the order in which they were recorded: first those of the period itself.
        let unit = due.terms.atoms_per_unit;
        let waits = |owed: &Atoms| owed.saturating_sub(outbox.frozen).parts(unit);
        if let Some(at) = overrun.owed.iter().position(|owed| waits(owed) > 0) {
            most = waits(&overrun.owed[at]).min(MAX_VALUE);
            if let Some(part) = at.checked_sub(1).and_then(|at| overrun.parts.get(at)) {
                ends_s = part.1.div_euclid(1_000);
                spans = vec![minutes_of(*part)];
            }
        }
    }
    let is_over = ends_s <= now_s;
    if is_over && due.terms.carry {
        spans.push((minute(ends_s.saturating_add(59)), now_minute_s));
    }
    let within = |(first_s, last_s): (i64, i64)| (first_s.max(oldest_s), last_s.min(now_minute_s));
    let mut spans: Vec<(i64, i64)> = spans.into_iter().map(within).collect();
    spans.retain(|(first_s, last_s)| first_s <= last_s);
    Dates { spans, most, is_last: is_over && !due.terms.carry }
}

/// The first and the last full minute of a time, Unix milliseconds. Without one, the minute that
/// begins in it; the first is the later one if none does.
pub(super) fn minutes_of((from_ms, until_ms): (i64, i64)) -> (i64, i64) {
    let first_s = minute(from_ms.saturating_add(59_999).div_euclid(1_000));
    let full_s = minute(until_ms.div_euclid(1_000).saturating_sub(60));
    let begun_s = minute(until_ms.saturating_sub(1).div_euclid(1_000));
    (first_s, if first_s <= full_s { full_s } else { begun_s })
}

/// The full minutes of an item's period, and the begun one at its end: a period may have no other.
fn own(due: &DueUse) -> Vec<(i64, i64)> {
    let (starts_s, ends_ms) = (starts_s(&due.id), due.terms.ends_ms);
    let full_s = minute(ends_ms.div_euclid(1_000).saturating_sub(60));
    let last_s = minute(ends_ms.saturating_sub(1).div_euclid(1_000));
    let mut spans = vec![(minute(starts_s), full_s)];
    if last_s > full_s && last_s.max(starts_s).saturating_mul(1_000) < ends_ms {
        spans.push((last_s.max(minute(starts_s)), last_s));
    }
    spans
}

/// The first full second of an item's period: the timestamp of use sent in its first minute, where
/// the period does not begin on a full minute.
pub(super) fn starts_s(id: &ItemId) -> i64 {
    id.period_ms.saturating_add(999).div_euclid(1_000)
}

fn minute(at_s: i64) -> i64 {
    at_s - at_s.rem_euclid(60)
}

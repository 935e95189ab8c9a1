//! The minutes in which an entry may be dated: inside the period in which its units were used, and
//! inside what the service takes.

use super::item::ItemId;
use super::outbox::{MAX_VALUE, OLDEST_S, Outbox, VERIFY_S};
use super::report::DueUse;

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
    let overrun = due.terms.overrun.and_then(|overrun| Some((overrun, overrun.owed?)));
    if let Some((overrun, owed)) = overrun {
        // In the order in which they were recorded.
        let unit = due.terms.atoms_per_unit.max(1);
        let [before, meanwhile] = owed.map(|owed| owed.saturating_sub(outbox.frozen) / unit);
        if before > 0 {
            most = before.min(MAX_VALUE);
        } else if meanwhile > 0 {
            most = meanwhile.min(MAX_VALUE);
            let from_s = minute(overrun.from_ms.div_euclid(1_000).saturating_add(59));
            ends_s = overrun.until_ms.div_euclid(1_000);
            spans = vec![(from_s, minute(ends_s))];
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

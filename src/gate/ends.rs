//! Watches for the ends of billing periods: the rest of a period is reported then, before the next
//! whole report is due.
//!
//! A whole report knows every item. Items first used after it are found in the logs, which the
//! reporting process reads on from where it was once a minute; claims on idempotency keys, which
//! would have to be read whole, are left to the next whole report. It also looks at the feed of
//! changes then: a tenant's subscription, customer or anchor may have changed, and with it the end
//! of a period that a whole report has seen.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::billing::ItemId;
use crate::billing::due::{DueUse, RecordedUse};
use crate::directory::FeedPosition;
use crate::ids::Surrogate;

/// How long after a period's end it is reported: by then every process has written down what it
/// used before.
const SETTLED_MS: i64 = 60_000;

/// The longest billing period, with a day to spare: use of an older one has ended before the last
/// whole report, which has sent it.
pub(super) const LONGEST_MS: i64 = 32 * 86_400_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When this process last made a whole report, Unix milliseconds; none while another reports.
    since_ms: Option<i64>,
    /// Ends that are to come, Unix milliseconds.
    ends: HashMap<ItemId, i64>,
    /// Items that need not be looked up: their end is known, or they are not sent.
    seen: HashSet<ItemId>,
    /// Tenants whose record may have changed since the ends of their items were looked up.
    changed: BTreeSet<Surrogate>,
    heard: Heard,
}

/// How far changes have been heard of.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Those of all processes on a shared table.
    pub(super) feed: FeedPosition,
    /// The number of those that this process knows.
    pub(super) own: u64,
}

impl Ends {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew with a whole report's items; the tenants of those that failed cannot be read.
    pub(super) fn begin(&self, due: &[DueUse], failed: &[(ItemId, String)], now_ms: i64) {
        let mut known = self.known();
        // What changed while the report was made is looked up again.
        let heard = std::mem::take(&mut known.heard);
        *known = Known { since_ms: Some(now_ms), heard, ..Known::default() };
        let is_open = |id: &&ItemId| is_open(id.period_ms, now_ms);
        known.seen.extend(failed.iter().map(|(id, _)| id).filter(is_open).cloned());
        known.add(due, now_ms);
    }

    /// Another process reports.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    /// The use whose end is to be looked up: of items that no report has seen.
    pub(super) fn unseen(&self, mut uses: Vec<RecordedUse>) -> Vec<RecordedUse> {
        let known = self.known();
        uses.retain(|used| used.id.as_ref().is_some_and(|id| !known.seen.contains(id)));
        uses
    }

    /// Since when, Unix milliseconds, items are new; `None` while another process reports.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.known().since_ms
    }

    /// These items were looked up; those with due use have an end.
    pub(super) fn saw(&self, ids: Vec<ItemId>, due: &[DueUse], now_ms: i64) {
        let mut known = self.known();
        known.seen.extend(ids);
        known.add(due, now_ms);
    }

    /// How far changes have been heard of, to hear on from; `None` if no end is to come. To be
    /// given back to [`hears`](Self::hears), however far that came.
    pub(super) fn to_hear(&self) -> Option<Heard> {
        let mut known = self.known();
        (!known.ends.is_empty()).then(|| std::mem::take(&mut known.heard))
    }

    /// Changes have been heard of as far as this.
    pub(super) fn hears(&self, heard: Heard) {
        self.known().heard = heard;
    }

    /// The tenants whose ends are to be looked up again: these, and those that still wait for it.
    pub(super) fn changed(&self, is_changed: impl Fn(Surrogate) -> bool) -> BTreeSet<Surrogate> {
        let known = &mut *self.known();
        let tenants = known.ends.keys().map(|id| id.tenant);
        known.changed.extend(tenants.filter(|tenant| is_changed(*tenant)));
        known.changed.clone()
    }

    /// The items of a tenant whose end is to come.
    pub(super) fn items_of(&self, tenant: Surrogate) -> Vec<ItemId> {
        self.known().ends.keys().filter(|id| id.tenant == tenant).cloned().collect()
    }

    /// The ends of a tenant as they are by now. What was recorded until a late one was learned of
    /// is reported after that.
    pub(super) fn turn(&self, tenant: Surrogate, due: &[DueUse]) {
        let mut known = self.known();
        known.changed.remove(&tenant);
        for DueUse { id, terms, .. } in due {
            let learned_ms = terms.overrun.as_ref().map(|overrun| overrun.known_ms - SETTLED_MS);
            if let Some(end_ms) = known.ends.get_mut(id) {
                *end_ms = learned_ms.unwrap_or(terms.ends_ms);
            }
        }
    }

    /// Takes the items out whose period has ended and settled.
    pub(super) fn ended(&self, now_ms: i64) -> HashSet<ItemId> {
        let is_over = |_: &ItemId, end_ms: &mut i64| now_ms >= end_ms.saturating_add(SETTLED_MS);
        self.known().ends.extract_if(is_over).map(|(id, _)| id).collect()
    }
}

impl Known {
    fn add(&mut self, due: &[DueUse], now_ms: i64) {
        for DueUse { id, terms, .. } in due.iter().filter(|due| is_open(due.id.period_ms, now_ms)) {
            self.seen.insert(id.clone());
            // At a whole report it is sent if it has ended; a new item is still to be.
            if self.since_ms.is_some_and(|since_ms| since_ms < terms.ends_ms + SETTLED_MS) {
                self.ends.insert(id.clone(), terms.ends_ms);
            }
        }
    }
}

fn is_open(period_ms: i64, since_ms: i64) -> bool {
    period_ms.saturating_add(LONGEST_MS) >= since_ms
}

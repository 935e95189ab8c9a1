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
use crate::billing::due::DueUse;
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
pub(super) struct Known {
    /// When this process last made a whole report, Unix milliseconds; none while another reports.
    pub(super) since_ms: Option<i64>,
    /// Ends that are to come, Unix milliseconds.
    pub(super) ends: HashMap<ItemId, i64>,
    /// Items that need not be looked up: their end is known, or they are not sent.
    pub(super) seen: HashSet<ItemId>,
    /// Tenants whose record may have changed since the ends of their items were looked up.
    pub(super) changed: BTreeSet<Surrogate>,
    /// How far changes have been heard of: those of all processes on a shared table, and the number
    /// of those that this process knows.
    pub(super) heard: FeedPosition,
    pub(super) so_far: u64,
}

impl Ends {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew with a whole report's items; the tenants of those that failed cannot be read.
    pub(super) fn begin(&self, due: &[DueUse], failed: &[(ItemId, String)], now_ms: i64) {
        let mut known = self.known();
        // What changed while the report was made is looked up again.
        let (heard, so_far) = (std::mem::take(&mut known.heard), known.so_far);
        *known = Known { since_ms: Some(now_ms), heard, so_far, ..Known::default() };
        let is_open = |id: &&ItemId| is_open(id.period_ms, now_ms);
        known.seen.extend(failed.iter().map(|(id, _)| id).filter(is_open).cloned());
        known.add(due, now_ms);
    }

    /// Another process reports.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    /// Takes the items out whose period has ended and settled.
    pub(super) fn ended(&self, now_ms: i64) -> HashSet<ItemId> {
        let is_over = |_: &ItemId, end_ms: &mut i64| now_ms >= end_ms.saturating_add(SETTLED_MS);
        self.known().ends.extract_if(is_over).map(|(id, _)| id).collect()
    }
}

impl Known {
    pub(super) fn add(&mut self, due: &[DueUse], now_ms: i64) {
        for DueUse { id, terms, .. } in due.iter().filter(|due| is_open(due.id.period_ms, now_ms)) {
            self.seen.insert(id.clone());
            // At a whole report it is sent if it has ended; a new item is still to be.
            if self.since_ms.is_some_and(|since_ms| since_ms < terms.ends_ms + SETTLED_MS) {
                self.ends.insert(id.clone(), terms.ends_ms);
            }
        }
    }

    /// Takes the ends as they are by now. What was recorded until a late one was learned of is
    /// reported after that.
    pub(super) fn turn(&mut self, due: &[DueUse]) {
        for DueUse { id, terms, .. } in due {
            let learned_ms = terms.overrun.as_ref().map(|overrun| overrun.known_ms - SETTLED_MS);
            if let Some(end_ms) = self.ends.get_mut(id) {
                *end_ms = learned_ms.unwrap_or(terms.ends_ms);
            }
        }
    }
}

fn is_open(period_ms: i64, since_ms: i64) -> bool {
    period_ms.saturating_add(LONGEST_MS) >= since_ms
}

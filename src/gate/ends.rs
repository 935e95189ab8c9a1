//! When the billing periods of used items end: what a period leaves is reported then, whenever the
//! next whole report is due.
//!
//! A whole report knows every item. Items first used after it are found in the logs, which the
//! reporting process reads on from where it was once a minute; claims on idempotency keys, which
//! would have to be read whole, are left to the next whole report.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Inner;
use super::billing::Billing;
use super::reports::SETTLED_MS;
use crate::billing::ItemId;
use crate::billing::report::{DueUse, RecordedUse};
use crate::ids::Surrogate;
use crate::repeated::repeated;
use crate::store::StoreError;

/// The longest billing period, with a day to spare: use of an older one has ended before the last
/// whole report, which has sent it.
const LONGEST_MS: i64 = 32 * 86_400_000;

/// Tenants with new items that are looked up in one minute, a read each: some seconds. The others
/// follow in the next.
const NEW_AT_ONCE: usize = 1_000;

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
}

impl Ends {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew with a whole report's items; the tenants of those that failed cannot be read.
    pub(super) fn begin(&self, due: &[DueUse], failed: &[(ItemId, String)], now_ms: i64) {
        let mut known = Known { since_ms: Some(now_ms), ..Known::default() };
        let is_open = |id: &&ItemId| is_open(id.period_ms, now_ms);
        known.seen.extend(failed.iter().map(|(id, _)| id).filter(is_open).cloned());
        known.add(due, now_ms);
        *self.known() = known;
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

impl Inner {
    /// The items whose period has ended since they were last reported, also those that no whole
    /// report has seen.
    pub(super) async fn ended_periods(&self, billing: &Billing) -> HashSet<ItemId> {
        let now_ms = self.clock.now().wall_ms;
        if let Err(error) = self.note_new_items(billing, now_ms).await {
            repeated!(warn, now_ms, "items used since the last report are not known"; %error);
        }
        billing.ends.ended(now_ms)
    }

    async fn note_new_items(&self, billing: &Billing, now_ms: i64) -> Result<(), StoreError> {
        let since_ms = billing.ends.known().since_ms;
        let Some(since_ms) = since_ms else { return Ok(()) };
        let uses = billing.reporter.logged(since_ms.saturating_sub(LONGEST_MS)).await?;
        let mut tenants = BTreeMap::<Surrogate, Vec<RecordedUse>>::new();
        {
            let known = billing.ends.known();
            for used in uses {
                let Some(id) = &used.id else { continue };
                if !known.seen.contains(id) && self.is_sent(&id.meter) {
                    tenants.entry(used.tenant).or_default().push(used);
                }
            }
        }
        for (_, uses) in tenants.into_iter().take(NEW_AT_ONCE) {
            let ids: Vec<ItemId> = uses.iter().filter_map(|used| used.id.clone()).collect();
            // One that cannot be read is named by the next whole report.
            let due = self.due_of(uses).await.unwrap_or_default();
            let mut known = billing.ends.known();
            known.seen.extend(ids);
            known.add(&due, now_ms);
        }
        Ok(())
    }
}

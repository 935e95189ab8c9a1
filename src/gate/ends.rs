//! Watches for the ends of billing periods: the rest of a period is reported then, before the next
//! whole report is due.
//!
//! A whole report knows every item. Items first used after it are found in the logs, which the
//! reporting process reads on from where it was once a minute; claims on idempotency keys, which
//! would have to be read whole, are left to the next whole report. It also looks at the feed of
//! changes then: a tenant's subscription, customer or anchor may have changed, and with it the end
//! of a period that a whole report has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Inner;
use super::billing::Billing;
use super::reports::SETTLED_MS;
use crate::billing::ItemId;
use crate::billing::due::{DueUse, RecordedUse};
use crate::directory::{FeedPosition, News};
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
    /// Tenants whose record may have changed since the ends of their items were looked up.
    changed: BTreeSet<Surrogate>,
    /// How far changes have been heard of: those of all processes on a shared table, and the number
    /// of those that this process knows.
    heard: FeedPosition,
    so_far: u64,
}

impl Ends {
    fn known(&self) -> MutexGuard<'_, Known> {
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
    fn add(&mut self, due: &[DueUse], now_ms: i64) {
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
    fn turn(&mut self, due: &[DueUse]) {
        for DueUse { id, terms, .. } in due {
            let learned_ms = terms.overrun.as_ref().map(|overrun| overrun.known_ms - SETTLED_MS);
            if let Some(end_ms) = self.ends.get_mut(id) {
                *end_ms = learned_ms.unwrap_or(terms.ends_ms);
            }
        }
    }
}

/// An item whose terms are asked for.
fn unused(id: ItemId) -> RecordedUse {
    let ItemId { tenant, scale, period_ms, .. } = id;
    let meter = id.meter.clone();
    RecordedUse { id: Some(id), tenant, meter, atoms: 0, over: 0, scale, period_ms }
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
        if let Err(error) = self.note_changes(billing).await {
            repeated!(warn, now_ms, "changed ends of billing periods are not known"; %error);
        }
        billing.ends.ended(now_ms)
    }

    /// Looks up again when the periods of changed tenants end.
    async fn note_changes(&self, billing: &Billing) -> Result<(), StoreError> {
        let (mut heard, as_of) = {
            let mut known = billing.ends.known();
            if known.ends.is_empty() {
                return Ok(());
            }
            (std::mem::take(&mut known.heard), known.so_far)
        };
        let recent = &self.tenants.recent;
        let so_far = recent.so_far();
        let look = self.tenants.directory.feed().look(&mut heard).await;
        let changed = {
            let mut known = billing.ends.known();
            (known.heard, known.so_far) = (heard, so_far);
            let look = look?;
            let is_changed = |tenant: Surrogate| {
                look.missed
                    || look.news.contains(&News::Tenant(tenant))
                    || recent.has_changed(tenant, as_of)
            };
            let tenants = known.ends.keys().map(|id| id.tenant);
            let tenants: BTreeSet<_> = tenants.filter(|tenant| is_changed(*tenant)).collect();
            known.changed.extend(tenants);
            known.changed.clone()
        };
        for tenant in changed.into_iter().take(NEW_AT_ONCE) {
            let ids: Vec<ItemId> = {
                let known = billing.ends.known();
                known.ends.keys().filter(|id| id.tenant == tenant).cloned().collect()
            };
            // One that cannot be read is named by the next whole report.
            let due = self.due_of(ids.into_iter().map(unused).collect()).await.unwrap_or_default();
            let mut known = billing.ends.known();
            known.changed.remove(&tenant);
            known.turn(&due);
        }
        Ok(())
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

//! The reporter: sends the use on record in the ledger to the billing service, entry by entry.
//!
//! One run processes every item once. Any process may run it, and several at once are harmless:
//! each step is written under the item's version before it is taken, so that of two reporters one
//! continues and the other starts over. A process that dies at any line leaves an item that the
//! next run understands.
//!
//! First everything owed is sent, and then the service is asked about what it has accepted: it
//! answers fewer questions than it takes events. At most one call is under way for a customer and
//! meter; items whose period ends first go first. Uncertain, waiting and stopped entries are in the
//! [`Report`]; none is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::advance::{Anchor, Pass, ReporterContext};
use super::decisions::DecidedBy;
use super::due::{DueUse, RecordedUse};
use super::item::{self, IdSpace, ItemId};
use super::outbox::Outbox;
use super::restored::{self, Word};
pub use super::result::{Report, ReportError, StoppedEntry};
use super::sink::BillingSink;
use crate::clock::Clock;
use crate::ids::WriterId;
use crate::ledger::totals::Ledger;
use crate::quota::lease::Writer;
use crate::store::layout::Space;
use crate::store::{Change, Item, Store, StoreError, Value, Write};

/// Questions under way at once, few enough that other callers, such as a webhook, wait little.
const ASK_AT_ONCE: usize = 16;

/// Items the service is asked about in one run: at 20 questions a second some 8 minutes. The rest
/// wait for the next run.
const ASKED: usize = 10_000;

/// Lifetime of a noted rejection: far longer than until verification, which runs daily.
const KEEP_REJECTED_S: i64 = 80 * 86_400;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(super) inner: Arc<ReporterContext>,
}

impl Reporter {
    /// A reporter of this space of a table.
    ///
    /// # Errors
    ///
    /// If the store cannot be reached.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        sink: Arc<dyn BillingSink>,
        clock: Arc<dyn Clock>,
        space: &str,
    ) -> Result<Self, StoreError> {
        let space = Space::new(space);
        let origin = IdSpace::open(&*store, &space, sink.account()).await?;
        let reader = Writer { incarnation: WriterId::NONE, space: space.clone() };
        let ledger = Ledger::new(store.clone(), reader);
        let quiet = Mutex::default();
        let restored = Mutex::new((Word::Never, Arc::from([])));
        let inner = ReporterContext { store, sink, clock, space, origin, ledger, quiet, restored };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The use on record in the ledger, by account, tenant, meter and billing period.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub(crate) async fn used(&self) -> Result<Vec<RecordedUse>, StoreError> {
        let rows = self.inner.ledger.by_period(self.inner.clock.now().wall_ms).await?;
        Ok(rows.into_iter().map(RecordedUse::from).collect())
    }

    /// The use on record in the logs, of periods that began at this Unix millisecond or later;
    /// without keyed requests.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    #[cfg(feature = "stripe")]
    pub(crate) async fn logged(&self, from_ms: i64) -> Result<Vec<RecordedUse>, StoreError> {
        let rows = self.inner.ledger.logged(from_ms, self.inner.clock.now().wall_ms).await?;
        Ok(rows.into_iter().map(RecordedUse::from).collect())
    }

    /// One run: advances each item as far as it can go now.
    ///
    /// # Errors
    ///
    /// If the service's clock cannot be read, or the table was restored and waits for an operator's
    /// statement (`resume`, of the feature `stripe`): then nothing was sent. Later failures are in
    /// the report, item by item.
    pub(crate) async fn run(&self, mut due: Vec<DueUse>) -> Result<Report, ReportError> {
        match restored::word(&*self.inner.store, &self.inner.space).await? {
            Word::Waits(_) => return Err(ReportError::Restored),
            Word::Never => {}
            word => {
                let known = (word, Arc::from(due.as_slice()));
                *self.inner.restored.lock().unwrap_or_else(PoisonError::into_inner) = known;
            }
        }
        let service_s = self.inner.sink.time().await?;
        let anchor = Anchor { service_s, at: self.inner.clock.now() };
        self.inner.split_overruns(&mut due).await?;
        due.sort_by_key(|due| due.terms.ends_ms);
        let mut whole = Report::default();
        let at_once = self.inner.sink.at_once().max(1);
        let mut asked = self.pass(Pass::Send, due, at_once, anchor, &mut whole).await;
        asked.sort_by_key(|(due, _)| due.terms.ends_ms);
        // Items left for the next run are reported in their current state.
        for (due, outbox) in asked.split_off(asked.len().min(ASKED)) {
            whole.take(&due.id, &outbox);
        }
        let asked = asked.into_iter().map(|(due, _)| due).collect();
        self.pass(Pass::Ask, asked, ASK_AT_ONCE, anchor, &mut whole).await;
        Ok(whole)
    }

    /// Processes each item, so many customers and meters at once. Returns the state of items that
    /// the service is to be asked about.
    async fn pass(
        &self,
        pass: Pass,
        due: Vec<DueUse>,
        at_once: usize,
        anchor: Anchor,
        whole: &mut Report,
    ) -> Vec<(DueUse, Outbox)> {
        let room = Arc::new(Semaphore::new(at_once));
        let mut tasks = JoinSet::new();
        for members in by_meter(due) {
            // The semaphore is never closed during a run.
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let inner = self.inner.clone();
            tasks.spawn(async move {
                let (mut report, mut asked) = (Report::default(), Vec::new());
                for due in members {
                    let outbox = inner.look_after(&due, pass, anchor, &mut report).await;
                    asked.extend(outbox.map(|outbox| (due, outbox)));
                }
                drop(permit);
                (report, asked)
            });
        }
        let mut all = Vec::new();
        while let Some(part) = tasks.join_next().await {
            let (report, asked) = part.unwrap_or_default();
            whole.add(report);
            all.extend(asked);
        }
        all
    }

    /// Records that the service reported an event as rejected: its units will be owed again when
    /// verification finds that it does not count. Durable once this returns.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub(crate) async fn note_rejected(&self, identifier: &str) -> Result<(), StoreError> {
        let at_ms = self.inner.clock.now().wall_ms;
        let ttl = at_ms.div_euclid(1_000).saturating_add(KEEP_REJECTED_S);
        let write = Write {
            key: self.inner.space.rejected(identifier),
            when: vec![],
            change: vec![
                Change::Set("at_ms".into(), Value::Int(at_ms)),
                Change::Set(Item::TTL.into(), Value::Int(ttl)),
            ],
        };
        item::make(&*self.inner.store, write).await.map(|_| ())
    }

    /// Applies an operator's decision to a stopped entry: it counts, or it is owed anew. False if
    /// this entry is not stopped, even where a later one of its item is, or another process was
    /// faster.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    pub(crate) async fn decide(
        &self,
        entry: &StoppedEntry,
        counts: bool,
        by: DecidedBy<'_>,
    ) -> Result<bool, StoreError> {
        let (inner, StoppedEntry { item: id, k }) = (&self.inner, entry);
        let before = item::read(&*inner.store, id.key(&inner.space)).await?;
        let Some(pending) = &before.outbox.pending else { return Ok(false) };
        let about = (inner.origin.identifier(id, &pending.entry), pending.entry.value);
        let made = by.about(about, counts, inner.clock.now().wall_ms)?;
        let mut outbox = before.outbox.clone();
        if !outbox.decide(*k, counts) {
            return Ok(false);
        }
        let key = id.key(&inner.space);
        Ok(item::write_with(&*inner.store, key, &before, outbox, Some(made)).await?.is_some())
    }

    /// Records an operator's statement on what was sent between the copy that this table came back
    /// from and its restore: reports resume. False if it was never restored.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    #[cfg(feature = "stripe")]
    pub(crate) async fn resume(&self, sent: restored::SentSinceCopy) -> Result<bool, StoreError> {
        restored::say(&*self.inner.store, &self.inner.space, sent).await
    }

    /// The current item.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub(crate) async fn outbox(&self, id: &ItemId) -> Result<Outbox, StoreError> {
        let key = id.key(&self.inner.space);
        Ok(item::read(&*self.inner.store, key).await?.outbox)
    }
}

impl Report {
    pub(super) fn take(&mut self, id: &ItemId, outbox: &Outbox) {
        if let Some(pending) = &outbox.pending {
            self.open += 1;
            let minute_s = pending.entry.minute_s;
            self.oldest_s = Some(self.oldest_s.map_or(minute_s, |oldest| oldest.min(minute_s)));
            if pending.stopped.is_some() {
                self.stopped.push(StoppedEntry { item: id.clone(), k: pending.entry.k });
            }
        }
        if outbox.sent.iter().any(|sent| sent.doubt.is_some()) {
            self.doubtful.push(id.clone());
        }
    }

    /// The report with items that failed before the run.
    #[cfg(feature = "stripe")]
    pub(crate) fn with_failed(mut self, failed: Vec<(ItemId, String)>) -> Self {
        self.failed.extend(failed);
        self
    }

    fn add(&mut self, part: Report) {
        self.sent += part.sent;
        self.units += part.units;
        self.verified += part.verified;
        self.open += part.open;
        self.oldest_s = self.oldest_s.into_iter().chain(part.oldest_s).min();
        self.stopped.extend(part.stopped);
        self.unanswered.extend(part.unanswered);
        self.waiting += part.waiting;
        self.doubtful.extend(part.doubtful);
        self.too_old.extend(part.too_old);
        self.failed.extend(part.failed);
    }
}

/// Items by customer and meter, groups in the order of their first item.
fn by_meter(due: Vec<DueUse>) -> Vec<Vec<DueUse>> {
    let mut places = HashMap::<(String, String), usize>::new();
    let mut groups: Vec<Vec<DueUse>> = Vec::new();
    for due in due {
        let group = (due.terms.customer.clone(), due.terms.event.clone());
        let place = *places.entry(group).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(members) => members.push(due),
            None => groups.push(vec![due]),
        }
    }
    groups
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

#[cfg(feature = "stripe")]
#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;

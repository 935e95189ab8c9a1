//! The reporter: brings what the ledger says was used to the billing service, entry by entry.
//!
//! One run looks at every item once. Any process may run it, and several at once are harmless:
//! each step is written under the item's version before it is taken, so that of two reporters one
//! goes on and the other starts over. A process that dies at any line leaves an item that the next
//! run understands.
//!
//! At most one call is under way for a customer and meter; items whose period ends first go first.
//! What is uncertain, waits or has stopped is in the [`Report`]; nothing of it is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::item::{self, ItemId, Origin, Turn, Versioned};
use super::outbox::{Entry, OLDEST_S, Outbox, Step, VERIFY_S};
use super::sink::{BillingSink, Delivery, MeterEvent, SinkError, Sum};
use crate::admission::lease::Writer;
use crate::clock::{Clock, Now};
use crate::directory::Surrogate;
use crate::store::layout::Space;
use crate::store::{Change, Store, StoreError, Value, When, Write, Written};
use crate::usage::ledger::Ledger;

/// Calls under way at once, each for another customer and meter.
const IN_FLIGHT: usize = 32;

/// Steps of one item in one run: an entry takes four, and a run opens two at most.
const STEPS: usize = 12;

/// How far the clocks may drift apart, or time pass between a mark and its send.
const SLACK_MS: i64 = 5_000;

/// Minutes that are tried for an entry before it waits for the next run.
const MINUTES: i64 = 120;

/// How long a minute's reservation is kept: longer than any sum is asked for it.
const KEEP_MINUTE_S: i64 = 80 * 86_400;

/// Use of one item, and the terms it is billed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which item.
    pub id: ItemId,
    /// Atoms used in the period so far.
    pub used: u64,
    /// What they are billed under.
    pub terms: Terms,
}

/// What use is billed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// Atoms to one unit of the service; at least 1.
    pub atoms_per_unit: u64,
    /// Atoms that are not sent: what the plan includes, for `send = "overage"`; else 0.
    pub included: u64,
    /// When the billing period ends, Unix milliseconds.
    pub ends_ms: i64,
}

/// Use that the ledger holds, before anybody says on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which item; `None` for use without an account, which is never billed later.
    pub id: Option<ItemId>,
    /// Whose it is.
    pub tenant: Surrogate,
    /// The meter.
    pub meter: Arc<str>,
    /// Atoms.
    pub atoms: u64,
}

/// What one run did, and what it left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries that were accepted.
    pub sent: u64,
    /// Their units.
    pub units: u64,
    /// Entries that were verified.
    pub verified: u64,
    /// Entries that are open: sent without an answer, or waiting.
    pub open: u64,
    /// Items whose entry waits for an operator.
    pub stopped: Vec<ItemId>,
    /// Items with an accepted entry that the service does not count, without a report that says so.
    pub doubtful: Vec<ItemId>,
    /// Items that could not be looked at to the end, and why.
    pub failed: Vec<(ItemId, String)>,
}

/// Why a run, or a part of it, did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A clock stepped, or this process stood still: nothing was sent after that.
    #[error("a clock moved during the run")]
    ClockMoved,
}

/// See the [module](self).
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    sink: Arc<dyn BillingSink>,
    clock: Arc<dyn Clock>,
    space: Space,
    origin: Origin,
    ledger: Ledger,
    epoch: i64,
    /// Items that need no look before this second, unless more is owed than then.
    quiet: Mutex<HashMap<ItemId, (u64, i64)>>,
}

/// The service's time at one of our readings.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    service_s: i64,
    at: Now,
}

impl Reporter {
    /// A reporter of this space of a table. `epoch` is that of the lock under which it runs, or 0
    /// without one.
    ///
    /// # Errors
    ///
    /// If the store cannot be reached.
    pub async fn open(
        store: Arc<dyn Store>,
        sink: Arc<dyn BillingSink>,
        clock: Arc<dyn Clock>,
        space: &str,
        epoch: i64,
    ) -> Result<Self, StoreError> {
        let space = Space::new(space);
        let origin = Origin::open(&*store, &space, sink.account()).await?;
        let reader = Writer { incarnation: 0, space: space.clone() };
        let ledger = Ledger::new(store.clone(), reader, clock.now().wall_ms);
        let quiet = Mutex::default();
        let inner = Inner { store, sink, clock, space, origin, ledger, epoch, quiet };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the ledger says was used, by account, tenant, meter and billing period.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn used(&self) -> Result<Vec<Used>, StoreError> {
        let rows = self.inner.ledger.by_period(self.inner.clock.now().wall_ms).await?;
        let used = rows.into_iter().map(|row| Used {
            id: row.account.map(|account| ItemId {
                account,
                tenant: row.tenant,
                meter: row.meter.clone(),
                scale: row.scale,
                period_ms: row.period_ms,
            }),
            tenant: row.tenant,
            meter: row.meter,
            atoms: row.atoms,
        });
        Ok(used.collect())
    }

    /// One run: each item is brought as far as it goes now.
    ///
    /// # Errors
    ///
    /// If the service's clock cannot be read: then nothing was sent. What fails later is in the
    /// report, item by item.
    pub async fn run(&self, mut due: Vec<Due>) -> Result<Report, ReportError> {
        let service_s = self.inner.sink.time().await?;
        let anchor = Anchor { service_s, at: self.inner.clock.now() };
        due.sort_by_key(|due| due.terms.ends_ms);
        let mut groups = BTreeMap::<(String, String), Vec<Due>>::new();
        let mut order = Vec::new();
        for due in due {
            let group = (due.terms.customer.clone(), due.terms.event.clone());
            let members = groups.entry(group.clone()).or_insert_with(|| {
                order.push(group);
                Vec::new()
            });
            members.push(due);
        }
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut tasks = JoinSet::new();
        for group in order {
            let members = groups.remove(&group).unwrap_or_default();
            // Closed never: the permit is there as long as this run.
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let inner = self.inner.clone();
            tasks.spawn(async move {
                let mut report = Report::default();
                for due in members {
                    inner.look_after(&due, anchor, &mut report).await;
                }
                drop(permit);
                report
            });
        }
        let mut whole = Report::default();
        while let Some(part) = tasks.join_next().await {
            whole.add(part.unwrap_or_default());
        }
        Ok(whole)
    }

    /// Notes that the service reported an event as rejected: its units will be owed again when its
    /// verification finds that it does not count. Durable once this returns.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub async fn note_rejected(&self, identifier: &str) -> Result<(), StoreError> {
        let at_ms = self.inner.clock.now().wall_ms;
        let write = Write {
            key: self.inner.space.rejected(identifier),
            when: vec![],
            change: vec![Change::Set("at_ms".into(), Value::Int(at_ms))],
        };
        item::make(&*self.inner.store, write).await.map(|_| ())
    }

    /// An operator's decision about an item whose entry has stopped: it counts, or it is owed anew.
    /// False if none has, or another was faster.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    pub async fn decide(&self, id: &ItemId, counts: bool) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let before = item::read(&*inner.store, id.key(&inner.space)).await?;
        let mut outbox = before.outbox.clone();
        Ok(outbox.decide(counts)
            && matches!(inner.write(id, &before, outbox).await?, Turn::Ours(_)))
    }

    /// The item as it stands.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn outbox(&self, id: &ItemId) -> Result<Outbox, StoreError> {
        let key = id.key(&self.inner.space);
        Ok(item::read(&*self.inner.store, key).await?.outbox)
    }
}

impl Inner {
    async fn look_after(&self, due: &Due, anchor: Anchor, report: &mut Report) {
        let owed = due.used.saturating_sub(due.terms.included);
        let now_s = anchor.service_s;
        let known = self.quiet().get(&due.id).copied();
        if known.is_some_and(|(then, until_s)| then == owed && now_s < until_s) {
            return;
        }
        match self.advance(due, owed, anchor, report).await {
            Ok(Some(outbox)) => {
                report.take(&due.id, &outbox);
                let until_s = quiet_until(&outbox, owed, due, now_s);
                self.quiet().insert(due.id.clone(), (owed, until_s));
            }
            // Another reporter is at it.
            Ok(None) => {}
            Err(error) => report.failed.push((due.id.clone(), error.to_string())),
        }
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, HashMap<ItemId, (u64, i64)>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps an item until nothing more can be done now; `None` if another reporter came between.
    async fn advance(
        &self,
        due: &Due,
        owed: u64,
        anchor: Anchor,
        report: &mut Report,
    ) -> Result<Option<Outbox>, ReportError> {
        let mut at = item::read(&*self.store, due.id.key(&self.space)).await?;
        for _ in 0..STEPS {
            let now_s = self.now_s(anchor)?;
            let mut next = at.outbox.clone();
            match next.next(owed, due.terms.atoms_per_unit, now_s) {
                Step::Freeze { value, atoms } => {
                    let Some(entry) = self.entry(due, &next, value, atoms, now_s).await? else {
                        return Ok(Some(next));
                    };
                    next.freeze(entry);
                }
                Step::Send => match self.send(due, &at, anchor, report).await? {
                    Some((sent, true)) => {
                        at = sent;
                        continue;
                    }
                    stands => return Ok(stands.map(|(at, _)| at.outbox)),
                },
                Step::Ask => {
                    let Some(pending) = &next.pending else { return Ok(Some(next)) };
                    let sum = self.sum(&pending.entry).await?;
                    next.summed(sum, now_s);
                }
                Step::Void => next.void(),
                Step::Rest | Step::Wait(_) | Step::Stopped => {
                    if !self.verify(due, &mut next, now_s, report).await? {
                        return Ok(Some(next));
                    }
                }
            }
            match self.write(&due.id, &at, next).await? {
                Turn::Ours(stands) => at = stands,
                Turn::Lost => return Ok(None),
            }
        }
        Ok(Some(at.outbox))
    }

    /// Marks the open entry, sends it, and writes what came of it. True if it is decided; `None`
    /// if another reporter came between.
    async fn send(
        &self,
        due: &Due,
        before: &Versioned,
        anchor: Anchor,
        report: &mut Report,
    ) -> Result<Option<(Versioned, bool)>, ReportError> {
        let marked_at = self.clock.now();
        let mut marked = before.outbox.clone();
        marked.mark(self.now_s(anchor)?);
        let marked = match self.write(&due.id, before, marked).await? {
            Turn::Ours(stands) => stands,
            Turn::Lost => return Ok(None),
        };
        let Some(entry) = marked.outbox.pending.as_ref().map(|p| p.entry.clone()) else {
            return Ok(Some((marked, false)));
        };
        // A process that stood still here must not send: the mark may have been outlived.
        self.now_s(anchor)?;
        if elapsed_ms(marked_at, self.clock.now()) > SLACK_MS {
            return Err(ReportError::ClockMoved);
        }
        let event = MeterEvent {
            identifier: self.origin.identifier(&due.id, &entry),
            customer: entry.customer,
            event: entry.event,
            value: entry.value,
            timestamp_s: entry.minute_s,
        };
        let mut after = marked.outbox.clone();
        match self.sink.send(event).await {
            Delivery::Delivered => after.delivered(),
            Delivery::Refused(words) => after.refused(&words),
            Delivery::Unknown(_) => return Ok(Some((marked, false))),
        }
        let delivered = after.pending.is_none();
        match self.write(&due.id, &marked, after).await? {
            Turn::Ours(stands) => {
                report.sent += u64::from(delivered);
                report.units += if delivered { entry.value } else { 0 };
                Ok(Some((stands, true)))
            }
            Turn::Lost => Ok(None),
        }
    }

    /// Verifies the accepted entry that is due, if one is. True if something is to be written.
    async fn verify(
        &self,
        due: &Due,
        outbox: &mut Outbox,
        now_s: i64,
        report: &mut Report,
    ) -> Result<bool, ReportError> {
        let Some(entry) = outbox.to_verify(now_s).map(|sent| sent.entry.clone()) else {
            return Ok(false);
        };
        let sum = self.sum(&entry).await?;
        let key = self.space.rejected(&self.origin.identifier(&due.id, &entry));
        let reported = sum == 0 && self.store.read(key).await?.is_some();
        let before = outbox.settled.entries;
        outbox.verified(entry.k, sum, reported, now_s);
        report.verified += outbox.settled.entries - before;
        Ok(true)
    }

    async fn sum(&self, entry: &Entry) -> Result<i64, SinkError> {
        let (customer, event) = (entry.customer.clone(), entry.event.clone());
        let until_s = entry.minute_s.saturating_add(60);
        self.sink.sum(Sum { customer, event, from_s: entry.minute_s, until_s }).await
    }

    /// The next entry, with a minute that is its alone; `None` if no minute can be had.
    async fn entry(
        &self,
        due: &Due,
        outbox: &Outbox,
        value: u64,
        atoms: u64,
        now_s: i64,
    ) -> Result<Option<Entry>, StoreError> {
        let k = outbox.k.saturating_add(1);
        let Terms { customer, event, .. } = due.terms.clone();
        let owner = format!("{} {k}", due.id.key(&self.space).pk);
        let (first_s, last_s) = minutes(due, now_s);
        for n in 0..MINUTES {
            let minute_s = last_s - n * 60;
            if minute_s < first_s {
                break;
            }
            let key = self.space.minute(&customer, &event, minute_s);
            let ttl = minute_s.saturating_add(KEEP_MINUTE_S);
            let write = Write {
                key,
                when: vec![When::Absent],
                change: vec![
                    Change::Set("of".into(), Value::Text(owner.clone())),
                    Change::Set(crate::store::TTL.into(), Value::Int(ttl)),
                ],
            };
            let ours = match item::make(&*self.store, write).await? {
                Written::Applied(_) => true,
                // Ours after a lost reply, or of a run that died before it froze the entry.
                Written::Refused(item) => {
                    item.is_some_and(|item| item.text("of") == Some(owner.as_str()))
                }
            };
            if ours {
                return Ok(Some(Entry { k, customer, event, value, atoms, minute_s }));
            }
        }
        Ok(None)
    }

    async fn write(
        &self,
        id: &ItemId,
        before: &Versioned,
        outbox: Outbox,
    ) -> Result<Turn, StoreError> {
        item::write(&*self.store, id.key(&self.space), before, outbox, self.epoch).await
    }

    /// The service's time now, by our clocks since it told it.
    fn now_s(&self, anchor: Anchor) -> Result<i64, ReportError> {
        let now = self.clock.now();
        let mono_ms = elapsed_ms(anchor.at, now);
        let wall_ms = now.wall_ms.saturating_sub(anchor.at.wall_ms);
        if wall_ms.abs_diff(mono_ms) > SLACK_MS.unsigned_abs() {
            return Err(ReportError::ClockMoved);
        }
        Ok(anchor.service_s.saturating_add(mono_ms / 1_000))
    }
}

fn elapsed_ms(from: Now, until: Now) -> i64 {
    let ns = until.mono_ns.saturating_sub(from.mono_ns);
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// The first and last minute an entry may have: inside its period and inside what the service
/// takes, with a day to spare; in the open period where nothing of its own is left.
fn minutes(due: &Due, now_s: i64) -> (i64, i64) {
    let minute = |at_s: i64| at_s - at_s.rem_euclid(60);
    let starts_s = due.id.period_ms.div_euclid(1_000);
    let begin_s = minute(starts_s.saturating_add(59));
    let end_s = minute(due.terms.ends_ms.div_euclid(1_000).saturating_sub(60));
    let oldest_s = minute(now_s.saturating_sub(OLDEST_S - VERIFY_S)).saturating_add(60);
    let last_s = end_s.min(minute(now_s));
    let first_s = begin_s.max(oldest_s);
    if first_s <= last_s { (first_s, last_s) } else { (oldest_s.max(end_s), minute(now_s)) }
}

/// Until when nothing is to be done about an item, unless more is owed.
fn quiet_until(outbox: &Outbox, owed: u64, due: &Due, now_s: i64) -> i64 {
    let send_s = match outbox.next(owed, due.terms.atoms_per_unit, now_s) {
        Step::Rest | Step::Stopped => i64::MAX,
        Step::Wait(at_s) => at_s,
        _ => now_s,
    };
    let verify_s = outbox.sent.iter().map(|sent| sent.at_s.saturating_add(VERIFY_S)).min();
    send_s.min(verify_s.unwrap_or(i64::MAX))
}

impl Report {
    fn take(&mut self, id: &ItemId, outbox: &Outbox) {
        if let Some(pending) = &outbox.pending {
            self.open += 1;
            if pending.stopped.is_some() {
                self.stopped.push(id.clone());
            }
        }
        if outbox.sent.iter().any(|sent| sent.doubt.is_some()) {
            self.doubtful.push(id.clone());
        }
    }

    fn add(&mut self, part: Report) {
        self.sent += part.sent;
        self.units += part.units;
        self.verified += part.verified;
        self.open += part.open;
        self.stopped.extend(part.stopped);
        self.doubtful.extend(part.doubtful);
        self.failed.extend(part.failed);
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("epoch", &self.inner.epoch).finish_non_exhaustive()
    }
}

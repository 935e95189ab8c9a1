//! The task that records batches of events: claims first, then one log slot with the units of all
//! events whose claim names it.
//!
//! It has a log of its own, so that the slots named by claims hold only its own batches. Totals in
//! it are cumulative, as in every log. A batch that cannot be finished (an outcome stays unknown,
//! or another process sealed the log) ends that log: its claims name a slot that will be a seal or
//! missing, and the next batch begins another log, under another incarnation, from zero.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::claim::{self, EventClaimed, EventToClaim, LogSlot};
use super::row::EventEntry;
use super::{Counted, NotCounted};
use crate::amount::Atoms;
use crate::clock::Clock;
use crate::ids::Surrogate;
use crate::ledger::log::{LogWriter, Wrote};
use crate::ledger::record::{Rows, UseKey};
use crate::ledger::units::UnitsCounted;
use crate::repeated::repeated;
use crate::sheets::use_row::RowAtoms;
use crate::store::layout::Space;
use crate::store::{Store, StoreErrorKind};

/// Most events in one slot. All their rows fit one record: see [`fitting`].
const BATCH: usize = 250;

/// Concurrent claims: a networked store answers many as fast as one.
const IN_FLIGHT: usize = 32;

/// Most batches of unknown outcome. Each was tried for 3 s, and a store that answers settles them
/// at once; while this many are open no more are written, so none is forgotten.
const MAX_OPEN: usize = 8;

/// Most rows whose totals are kept. Beyond it another log begins, with totals from zero.
const MAX_ROWS: usize = 20_000;

type WriterReply = Result<Counted, NotCounted>;

/// A call and the channel for its answer.
pub(super) struct Batch {
    pub(super) entries: Vec<EventEntry>,
    pub(super) reply: oneshot::Sender<Vec<WriterReply>>,
}

pub(super) struct EventWriter {
    store: Arc<dyn Store>,
    space: Space,
    clock: Arc<dyn Clock>,
    log: Option<Log>,
    open: Vec<OpenBatch>,
    units: UnitsCounted,
}

/// A batch whose slot may be on record: if it is, its events count, and its units are yet to be
/// drawn.
struct OpenBatch {
    place: LogSlot,
    entries: Vec<EventEntry>,
}

struct Log {
    writer: LogWriter,
    totals: BTreeMap<UseKey, u64>,
}

impl EventWriter {
    pub(super) fn new(store: Arc<dyn Store>, space: Space, clock: Arc<dyn Clock>) -> Self {
        let units = UnitsCounted::default();
        Self { store, space, clock, log: None, open: Vec::new(), units }
    }

    /// Runs until all senders are gone. Waiting calls share slots.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Batch>) {
        while let Some(Batch { mut entries, reply }) = inbox.recv().await {
            let mut replies = vec![(entries.len(), reply)];
            while entries.len() < BATCH
                && let Ok(more) = inbox.try_recv()
            {
                replies.push((more.entries.len(), more.reply));
                entries.extend(more.entries);
            }
            let mut answers = self.count(&entries).await.into_iter();
            for (n, reply) in replies {
                // A caller that has gone away sends it again.
                let _ = reply.send(answers.by_ref().take(n).collect());
            }
        }
        if let Some(log) = self.log.take() {
            self.end(log).await;
        }
        self.draw_open().await;
        if !self.open.is_empty() {
            tracing::warn!(
                "the outcome of events is unknown, and they drew on no quota: the store is away"
            );
        }
    }

    /// Determines which batches of unknown outcome are on record, and draws their units. The others
    /// never will be, and are sent again.
    async fn draw_open(&mut self) {
        while let Some(open) = self.open.first() {
            let stands = match claim::decided(&*self.store, &self.space, open.place).await {
                Ok(stands) => stands,
                Err(error) => {
                    let now_ms = self.clock.now().wall_ms;
                    const TEXT: &str = "ingest: a batch may or may not have been written";
                    repeated!(warn, now_ms, TEXT; %error);
                    return;
                }
            };
            let open = self.open.remove(0);
            if stands {
                self.on_record(open.entries.iter());
            }
        }
    }

    /// Draws the units of events that are on record, and counts them.
    fn on_record<'a>(&mut self, entries: impl Iterator<Item = &'a EventEntry>) {
        for entry in entries {
            entry.draw();
            entry.count(&mut self.units);
        }
        self.units.tell();
    }

    /// Ends a log that will not be written any more, so that other processes need not examine it.
    /// If that fails they do.
    async fn end(&self, log: Log) {
        if let Err(error) = log.writer.end(&*self.store).await {
            tracing::warn!(%error, "failed to end an event log");
        }
    }

    async fn count(&mut self, entries: &[EventEntry]) -> Vec<WriterReply> {
        let mut answers = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            answers.extend(self.slot(now).await);
            rest = later;
        }
        answers
    }

    /// Records these events in one slot, which they fit.
    async fn slot(&mut self, entries: &[EventEntry]) -> Vec<WriterReply> {
        let unavailable = || vec![Err(NotCounted::Unavailable); entries.len()];
        self.draw_open().await;
        if self.open.len() >= MAX_OPEN {
            return unavailable();
        }
        let Some(mut log) = self.take_log().await else {
            return unavailable();
        };
        let place = LogSlot { writer: log.writer.incarnation(), slot: log.writer.next() };
        let claimed = self.claim_all(entries, place).await;
        if claimed.values().any(|claimed| *claimed == EventClaimed::Unknown) {
            return unavailable(); // and the log has ended
        }
        let ours = |entry: &&EventEntry| claimed.get(&name(entry)) == Some(&EventClaimed::Ours);
        let mut seen = HashSet::new();
        let first: Vec<&EventEntry> =
            entries.iter().filter(ours).filter(|entry| seen.insert(name(entry))).collect();
        if !first.is_empty() {
            match self.record(&mut log, &first).await {
                Recorded::Yes => {}
                Recorded::No => return unavailable(),
                Recorded::Unknown => {
                    let entries = first.into_iter().cloned().collect();
                    self.open.push(OpenBatch { place, entries });
                    return unavailable();
                }
            }
        }
        self.on_record(first.iter().copied());
        match log.totals.len() < MAX_ROWS {
            true => self.log = Some(log),
            false => self.end(log).await,
        }
        answers(entries, &claimed)
    }

    /// The current log, or a new one. The caller puts it back.
    async fn take_log(&mut self) -> Option<Log> {
        let at_ms = self.clock.now().wall_ms;
        let mut log = match self.log.take() {
            Some(log) => log,
            None => match LogWriter::begin(&*self.store, self.space.clone(), at_ms).await {
                Ok(writer) => Log { writer, totals: BTreeMap::new() },
                Err(error) => {
                    repeated!(warn, at_ms, "ingest: a log cannot be created"; %error);
                    return None;
                }
            },
        };
        let registered = log.writer.register(&*self.store, at_ms).await;
        match registered {
            Ok(()) => Some(log),
            Err(error) => {
                repeated!(warn, at_ms, "ingest: a log cannot be registered"; %error);
                self.log = Some(log);
                None
            }
        }
    }

    /// Claims each event, or the first of several with one name.
    async fn claim_all(
        &self,
        entries: &[EventEntry],
        place: LogSlot,
    ) -> BTreeMap<WriterName, EventClaimed> {
        let now_ms = self.clock.now().wall_ms;
        let (mut claimed, mut begun) = (BTreeMap::new(), HashSet::new());
        let mut claims = JoinSet::new();
        for entry in entries.iter().filter(|entry| begun.insert(name(entry))) {
            if claims.len() >= IN_FLIGHT
                && let Some(Ok((name, answer))) = claims.join_next().await
            {
                claimed.insert(name, answer);
            }
            let (store, space) = (self.store.clone(), self.space.clone());
            let (name, print) = (name(entry), entry.print.clone());
            claims.spawn(async move {
                let event = EventToClaim { tenant: name.0, id: &name.1, print: &print };
                let answer = claim::claim(&*store, &space, event, place, now_ms).await;
                (name, answer)
            });
        }
        while let Some(answer) = claims.join_next().await {
            // A panic in a claim leaves its event without an answer, which is treated below as an
            // unknown outcome.
            if let Ok((name, answer)) = answer {
                claimed.insert(name, answer);
            }
        }
        for entry in entries {
            claimed.entry(name(entry)).or_insert(EventClaimed::Unknown);
        }
        claimed
    }

    /// Writes the slot that the claims name. Unless it is on record, the slot is lost to us.
    async fn record(&self, log: &mut Log, entries: &[&EventEntry]) -> Recorded {
        let mut rows = Rows::default();
        for (key, atoms) in entries.iter().flat_map(|entry| &entry.rows) {
            let total = log.totals.entry(key.clone()).or_default();
            *total = total.saturating_add(*atoms);
            rows.uses.insert(key.clone(), RowAtoms { used: Atoms(*total), over: Atoms::NONE });
        }
        let bodies = rows.pack(self.clock.now().wall_ms, None);
        let [body] = &bodies[..] else {
            let (now_ms, records) = (self.clock.now().wall_ms, bodies.len());
            repeated!(error, now_ms, "ingest: a batch does not fit a record"; records);
            return Recorded::No;
        };
        let written = claim::repeated(&*self.store, log.writer.slot(body)).await;
        match written.and_then(|written| log.writer.wrote(body, written)) {
            Ok(Wrote::Slot) => Recorded::Yes,
            Ok(Wrote::Sealed) => {
                tracing::warn!("ingest: log sealed by another process, continuing as a new writer");
                Recorded::No
            }
            Err(error) => {
                let now_ms = self.clock.now().wall_ms;
                repeated!(warn, now_ms, "ingest: a batch could not be recorded"; %error);
                let is_open = error.kind == StoreErrorKind::Unknown;
                if is_open { Recorded::Unknown } else { Recorded::No }
            }
        }
    }
}

/// Whether a batch is on record.
enum Recorded {
    Yes,
    No,
    Unknown,
}

type WriterName = (Surrogate, String);

fn name(entry: &EventEntry) -> WriterName {
    (entry.tenant(), entry.id.clone())
}

/// Number of these events that fit one slot: all rows of a slot go into one record. At least one.
fn fitting(entries: &[EventEntry]) -> usize {
    let mut n = entries.len().min(BATCH);
    while n > 1 {
        let rows = entries[..n].iter().flat_map(|entry| &entry.rows);
        let most = RowAtoms { used: Atoms(u64::MAX), over: Atoms(u64::MAX) };
        let uses = rows.map(|(key, _)| (key.clone(), most)).collect();
        if (Rows { uses, ..Rows::default() }).pack(0, None).len() == 1 {
            break;
        }
        n /= 2;
    }
    n
}

/// The answer for each event. Of those with one name the first was claimed.
fn answers(
    entries: &[EventEntry],
    claimed: &BTreeMap<WriterName, EventClaimed>,
) -> Vec<WriterReply> {
    let mut first = BTreeMap::<WriterName, &str>::new();
    let mut answers = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = name(entry);
        let claimed = claimed.get(&name).copied().unwrap_or(EventClaimed::Unknown);
        let before = first.get(&name).copied();
        first.entry(name).or_insert(&entry.print);
        answers.push(match (claimed, before) {
            (EventClaimed::Ours, None) => Ok(Counted::Now),
            // The content on record is that of the first.
            (EventClaimed::Ours | EventClaimed::Counts, Some(print)) if print != entry.print => {
                Err(NotCounted::Conflict)
            }
            (EventClaimed::Ours, Some(_)) | (EventClaimed::Counts, _) => Ok(Counted::Before),
            (EventClaimed::Conflicts, _) => Err(NotCounted::Conflict),
            (EventClaimed::InHand, _) => Err(NotCounted::InHand),
            (EventClaimed::Not | EventClaimed::Unknown, _) => Err(NotCounted::Unavailable),
        });
    }
    answers
}

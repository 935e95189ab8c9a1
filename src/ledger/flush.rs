//! The flush task, the only one that moves usage from memory to the store. It collects the rows
//! that changed, gives them to the journal if there is one, and writes records, one in flight.
//!
//! A process that needs the units of another, which it presumes dead, ends that one's log with a
//! seal. If the sealed process is alive, it finds out here: it continues under another incarnation,
//! and carries what the old log lacks into the new one's log.
//!
//! The task has an owner ([`Flusher`]) and is stopped by [`Flusher::close`], which drains first:
//! until everything is written or the deadline has passed. Then it reports how much was left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::Mode;
use super::ceilings::Ceilings;
use super::journal;
use super::journal_thread::JournalKeeper;
use super::log::{LogWriter, Wrote};
use super::pace::WritePace;
use super::record::ByWriter;
use super::units::UnitsCounted;
use crate::delays::{Delays, jittered};
use crate::repeated::repeated;
use crate::sheets::hub::Hub;
use crate::store::{Store, StoreErrorKind};
use crate::task::OwnedTask;

/// Delays between retries of a failed write, jittered: the processes of an outage end it together.
const RETRY: Delays = Delays::doubling(Duration::from_millis(50), Duration::from_secs(5));

/// Minimum time between two records caused by ceilings: far less than
/// [`LEASE_WAIT`](crate::LEASE_WAIT), for which requests wait for one, and long enough for many
/// ceilings to share a record.
const HURRY: Duration = Duration::from_millis(50);

/// A process that holds units of a shared store writes a record at least this often, even an empty
/// one: a third of the silence after which others try to seal its log.
const ALIVE: Duration = Duration::from_secs(5);

/// Size of a written unit, and of a record's item beside its body: keys and names.
const UNIT_BYTES: usize = 1_024;
const BESIDE_BODY: usize = 120;

/// A close that has no answer this long after its deadline is given up: before that the task
/// says how much is left.
const SAY_WITHIN: Duration = Duration::from_millis(250);

/// Limit on `flush_now` orders in progress: a few are enough; further ones wait. A close has its
/// own room.
const ORDERS: usize = 64;

/// The rows that a flush writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushPart {
    /// Everything that changed.
    All,
    /// Only the ceilings that requests wait for: a small record, written quickly.
    Ceilings,
}

/// An order from the host to the task.
#[derive(Debug)]
enum Order {
    Flush { reply: oneshot::Sender<Result<(), FlushError>>, _room: OwnedSemaphorePermit },
    Close(Instant, oneshot::Sender<Result<(), FlushError>>),
}

/// Usage could not be written to the store. It is kept in memory and tried again, unless the gate
/// is closing. [`Gate::flush_now`](crate::Gate::flush_now) and [`Gate::close`](crate::Gate::close)
/// return it in an [`Error`](crate::Error).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{rows} usage rows could not be written: {cause}")]
pub struct FlushError {
    /// Rows still in memory (and in the journal, where there is one).
    pub rows: usize,
    /// The cause.
    pub cause: String,
}

/// Settings of the task.
#[derive(Clone, Debug)]
pub(crate) struct FlushSettings {
    pub(crate) mode: Mode,
    pub(crate) every: Duration,
    /// Units per second beyond which records are delayed, if the store charges by units.
    pub(crate) max_write_units: u32,
}

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct Flusher {
    /// Unbounded, but limited by `room`; a close needs no room.
    orders: mpsc::UnboundedSender<Order>,
    room: Arc<Semaphore>,
    /// Collections started, and collections whose rows are all in the store.
    begun: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
    backlog: Arc<Backlog>,
    every: Duration,
    hub: Arc<Hub>,
    task: OwnedTask<LogWriter>,
}

impl Flusher {
    /// Starts the task. The journal, if there is one, is open and recovered.
    pub(crate) fn start(
        hub: Arc<Hub>,
        store: Arc<dyn Store>,
        log: LogWriter,
        journal: Option<JournalKeeper>,
        settings: FlushSettings,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(ORDERS));
        let (done, written) = watch::channel(0);
        let every = settings.every;
        let task = Task::new(hub.clone(), store, log, journal, settings, done);
        let (begun, backlog) = (task.begun.clone(), task.backlog.clone());
        let task = OwnedTask::start(|_| task.run(inbox)); // an order stops it
        Self { orders, room, begun, written, backlog, every, hub, task }
    }

    /// How long usage has waited to be written, and why.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The time between two writes.
    pub(crate) fn every(&self) -> Duration {
        self.every
    }

    /// Writes what has been counted so far; returns once it is in the store.
    pub(crate) async fn flush_now(&self) -> Result<(), FlushError> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| gone())?;
        self.order(|reply| Order::Flush { reply, _room: room }).await
    }

    /// Returns once everything settled before this call is in the store. Waits without bound: the
    /// caller chose `durable`, and an answer before the record would be a lie.
    pub(crate) async fn barrier(&self) {
        let target = self.begun.load(Ordering::Acquire) + 1;
        self.hub.unrecorded.hurry();
        let mut written = self.written.clone();
        // An error means that the task has ended: the gate is closed and nothing more is recorded.
        let _ = written.wait_for(|done| *done >= target).await;
    }

    /// Drains and ends the task. Returns the log if everything is in it: the log can be ended once
    /// nothing is leased any more.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<Option<LogWriter>, FlushError> {
        let until = deadline + SAY_WITHIN;
        let order = self.order(|reply| Order::Close(deadline, reply));
        let result = tokio::time::timeout_at(until, order).await.unwrap_or_else(|_| Err(hangs()));
        // It ends by itself after answering.
        match self.task.ended_by(until).await {
            Ok(log) => result.map(|()| log),
            Err(_) => result.and(Err(hangs())),
        }
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), FlushError>>) -> Order,
    ) -> Result<(), FlushError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn hangs() -> FlushError {
    FlushError { rows: 0, cause: "the flush did not end in time".into() }
}

fn gone() -> FlushError {
    FlushError { rows: 0, cause: "the gate is closed".into() }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        // A dirty sheet in the hub holds the hub: break the cycle. The journal keeps what it was
        // given.
        self.hub.unrecorded.take();
    }
}

mod backlog;
mod batch;
mod new_writer;
mod orders;

use backlog::Backlog;
use orders::out_of_time;

struct Task {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    log: LogWriter,
    journal: Option<JournalKeeper>,
    settings: FlushSettings,
    pace: WritePace,
    units: UnitsCounted,
    /// Newest totals that may not be in the store, outside the batch being written.
    pending: ByWriter,
    /// Records of the current flush: the first is in flight.
    batch: Vec<Vec<u8>>,
    /// Their rows, until all of them are written.
    batch_rows: ByWriter,
    ceilings: Ceilings,
    /// When the last record was written.
    flushed: Instant,
    /// The last collection whose rows are in the batch.
    batch_covers: u64,
    /// The cut of the journal at the start of the batch: what came before is obsolete once that is
    /// written.
    forget: Option<u64>,
    begun: Arc<AtomicU64>,
    done: watch::Sender<u64>,
    backlog: Arc<Backlog>,
    /// How long the pace has delayed the next flush.
    held_back: Duration,
    /// When the batch was begun, on the monotonic clock; 0 if there is none.
    begun_ns: u64,
    /// Since when `pending` has rows, and since when those of `batch_rows` had been pending.
    pending_since_ns: Option<u64>,
    batch_since_ns: Option<u64>,
}

impl Task {
    fn new(
        hub: Arc<Hub>,
        store: Arc<dyn Store>,
        log: LogWriter,
        journal: Option<JournalKeeper>,
        settings: FlushSettings,
        done: watch::Sender<u64>,
    ) -> Self {
        // What is lost with the process, or that of a test, is lost with its units.
        let is_shared = store.promise().shared || store.promise().survives == "nothing";
        Self {
            hub,
            store,
            log,
            journal,
            pace: WritePace::new(settings.max_write_units),
            units: UnitsCounted::default(),
            ceilings: Ceilings::new(settings.mode, settings.every, is_shared),
            settings,
            pending: ByWriter::new(),
            batch: Vec::new(),
            batch_rows: ByWriter::new(),
            flushed: Instant::now(),
            batch_covers: 0,
            forget: None,
            begun: Arc::default(),
            done,
            backlog: Arc::default(),
            held_back: Duration::ZERO,
            begun_ns: 0,
            pending_since_ns: None,
            batch_since_ns: None,
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) -> LogWriter {
        let mut collect = ticker(self.collect_every());
        let mut flush = ticker(self.settings.every);
        let mut waiting = Vec::new();
        loop {
            // In this order, so that a seed gives one run. None of them can starve the others
            // except the orders, and each of those flushes.
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    Some(order) => waiting.push(order),
                    None => return self.log,
                },
                _ = flush.tick() => match self.wait_for_pace() {
                    Duration::ZERO => self.flush_in(FlushPart::All, &mut inbox, &mut waiting).await,
                    wait => {
                        // Meanwhile ceilings are written and orders served.
                        self.held_back += wait;
                        flush.reset_after(wait);
                    }
                },
                () = self.hub.unrecorded.due(), if self.settings.mode == Mode::Durable => {
                    self.flush_in(FlushPart::All, &mut inbox, &mut waiting).await;
                }
                () = self.hub.raises.due() => {
                    self.collect_until(self.flushed + HURRY, &mut collect).await;
                    let durable = self.settings.mode == Mode::Durable;
                    let part = if durable { FlushPart::All } else { FlushPart::Ceilings };
                    self.flush_in(part, &mut inbox, &mut waiting).await;
                }
                _ = collect.tick() => self.collect(),
            }
            if self.serve(&mut inbox, &mut waiting).await {
                return self.log;
            }
        }
    }

    /// How often rows are collected: for the journal, or only with the flush.
    fn collect_every(&self) -> Duration {
        if self.journal.is_some() { journal::EVERY } else { self.settings.every }
    }

    /// Flushes while still feeding the journal; orders that arrive meanwhile wait.
    async fn flush_in(
        &mut self,
        part: FlushPart,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) {
        self.collect();
        let mut part = part;
        if self.hub.incarnation.is_sealed() {
            if !self.restart_as_new_writer(inbox, waiting).await {
                return;
            }
            part = FlushPart::All; // what the old log lacks
        }
        self.begin_batch(part);
        let mut collect = ticker(self.collect_every());
        let mut delays = RETRY;
        while let Some(body) = self.batch.first().cloned() {
            if self.settings.mode == Mode::Durable {
                self.keep_pace(inbox, waiting).await;
            }
            let at_ms = self.now_ms();
            let registration = self.log.due_registration(at_ms);
            let is_slot = registration.is_none();
            let mut write = self.store.write(registration.unwrap_or_else(|| self.log.slot(&body)));
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut write => break answer,
                    _ = collect.tick() => self.collect(),
                    Some(order) = inbox.recv() => waiting.push(order),
                    late = out_of_time(waiting) => break Err(late),
                }
            };
            if answer.is_ok() && !is_slot {
                self.log.registered_at(at_ms);
                continue;
            }
            match answer.and_then(|written| self.log.wrote(&body, written)) {
                Ok(Wrote::Slot) => {
                    let units = (body.len() + BESIDE_BODY).div_ceil(UNIT_BYTES) as u64;
                    self.pace.charge(units, Instant::now());
                    self.batch.remove(0);
                    self.flushed = Instant::now();
                    delays = RETRY;
                    self.succeeded();
                }
                Ok(Wrote::Sealed) => {
                    self.hub.incarnation.note_sealed(self.log.incarnation());
                    self.hub.raises.hurry();
                    if !self.restart_as_new_writer(inbox, waiting).await {
                        return;
                    }
                    self.begin_batch(FlushPart::All);
                }
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    // Retrying cannot help, and continuing would overwrite another writer's record.
                    repeated!(error, self.now_ms(), "usage log"; %error);
                    self.failed(error);
                    return;
                }
                Err(error) => {
                    const TEXT: &str = "usage could not be written: it will be retried";
                    repeated!(warn, self.now_ms(), TEXT; %error);
                    self.failed(error);
                    if self.wants_out(waiting) {
                        return;
                    }
                    let until = Instant::now() + jittered(delays.step());
                    self.wait_until(until, &mut collect, inbox, waiting).await;
                }
            }
        }
        self.batch_written();
    }

    fn now_ms(&self) -> i64 {
        self.hub.clock.now().wall_ms
    }

    /// How long the pace delays the next flush.
    fn wait_for_pace(&mut self) -> Duration {
        match self.store.units() {
            Some(_) => self.pace.wait(Instant::now()),
            None => Duration::ZERO, // it does not charge
        }
    }

    /// Waits for the next record's turn, or until an order is waiting.
    async fn keep_pace(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) {
        let mut collect = ticker(self.collect_every());
        let until = Instant::now() + self.wait_for_pace();
        while waiting.is_empty() && Instant::now() < until {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = collect.tick() => self.collect(),
                Some(order) = inbox.recv() => waiting.push(order),
            }
        }
    }

    /// Collects until `until`, or until a close's deadline; orders wait.
    async fn wait_until(
        &mut self,
        until: Instant,
        collect: &mut tokio::time::Interval,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = collect.tick() => self.collect(),
                Some(order) = inbox.recv() => waiting.push(order),
                _ = out_of_time(waiting) => return,
            }
        }
    }

    async fn collect_until(&mut self, until: Instant, collect: &mut tokio::time::Interval) {
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = collect.tick() => self.collect(),
            }
        }
    }
}

fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.reset();
    ticker
}

//! Recording events exactly once: an event as rows, its claim, and the task that writes both. The
//! public interface is [`ingest`](crate::ingest), with the laws.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::store::Store;
use crate::store::layout::Space;
use crate::task::OwnedTask;

pub(crate) mod claim;
mod event;
mod row;
mod writer;

pub use event::{UnreadableEvent, UsageEvent};
pub(crate) use row::EventEntry;
use writer::Batch;

/// How long after its end a billing period still accepts events: its invoice should wait this long
/// for them.
pub const LATE: Duration = Duration::from_secs(72 * 3_600);

/// Furthest that an event's timestamp may be ahead of this process's clock.
pub const AHEAD: Duration = Duration::from_secs(5 * 60);

/// Calls waiting for the writer; further ones wait for a place.
const QUEUE: usize = 64;

/// When a recorded event was counted. [`Ingest::events`](crate::ingest::Ingest::events) returns one
/// for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted {
    /// It was counted by this call.
    Now,
    /// It was counted before, and not again.
    Before,
}

/// The reason an event is not on record. [`Ingest::events`](crate::ingest::Ingest::events) returns
/// it; an event may be sent again with the same id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCounted {
    /// The event itself cannot be read.
    #[error("{0}")]
    Malformed(#[from] UnreadableEvent),
    /// No tenant has this id.
    #[error("no tenant `{0}`")]
    UnknownTenant(String),
    /// The plan file has no such meter.
    #[error("no meter `{0}`: report one that the plan file names")]
    UnknownMeter(String),
    /// The meter is a sum: report the meters that it adds up.
    #[error("the meter `{0}` is a sum: report its parts")]
    Sum(String),
    /// Its billing period ended more than 72 hours ago.
    #[error("the billing period that began at {period} no longer accepts events")]
    Closed {
        /// Start of the period, RFC 3339.
        period: String,
    },
    /// Its timestamp is more than 5 minutes in the future.
    #[error("its timestamp lies more than 5 minutes ahead")]
    Ahead,
    /// The id was already used for another event.
    #[error("this id was used for other usage")]
    Conflict,
    /// Another process is recording it: send it again later.
    #[error("another process is handling it: retry later")]
    InHand,
    /// The store does not answer, or the gate is closing: send it again later.
    #[error("usage cannot be recorded at the moment: send it again")]
    Unavailable,
}

impl NotCounted {
    /// Whether the same event may be counted if it is sent again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InHand | Self::Unavailable)
    }
}

/// The gate's end of the writer, which starts with the first event.
pub(crate) struct EventCounter {
    store: Arc<dyn Store>,
    space: Space,
    clock: Arc<dyn Clock>,
    /// The way to the task, `None` once closed, and the task.
    writer: OnceLock<(Mutex<Option<mpsc::Sender<Batch>>>, OwnedTask)>,
}

impl EventCounter {
    pub(crate) fn new(store: Arc<dyn Store>, space: Space, clock: Arc<dyn Clock>) -> Self {
        Self { store, space, clock, writer: OnceLock::new() }
    }

    pub(crate) async fn count(&self, entries: Vec<EventEntry>) -> Vec<Result<Counted, NotCounted>> {
        let n = entries.len();
        let (reply, answer) = oneshot::channel();
        let sent = match self.sender() {
            Some(batches) => batches.send(Batch { entries, reply }).await.is_ok(),
            None => false,
        };
        let answers = if sent { answer.await.ok() } else { None };
        answers.unwrap_or_else(|| vec![Err(NotCounted::Unavailable); n])
    }

    fn sender(&self) -> Option<mpsc::Sender<Batch>> {
        let (batches, _) = self.writer.get_or_init(|| {
            let (batches, inbox) = mpsc::channel(QUEUE);
            let (store, space) = (self.store.clone(), self.space.clone());
            let writer = writer::EventWriter::new(store, space, self.clock.clone());
            let task = OwnedTask::start(|_| writer.run(inbox)); // without senders it ends
            (Mutex::new(Some(batches)), task)
        });
        locked(batches).clone()
    }

    /// Finishes accepted batches, and takes no more.
    pub(crate) async fn close(&self, deadline: tokio::time::Instant) {
        if let Some((batches, task)) = self.writer.get() {
            locked(batches).take();
            // Past the deadline: its sender got no confirmation, and sends it again.
            let _ = task.ended_by(deadline).await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

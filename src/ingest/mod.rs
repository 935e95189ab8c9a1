//! Usage that no request of this process brought: events that other services report, over HTTP or
//! from a queue. They are facts, so nothing here refuses them for a limit.
//!
//! # Laws
//!
//! 1. **Once.** An event counts once for each (tenant, id), whoever sends it how often, over any
//!    number of processes, crashes and lost replies. What claims it is kept as long as the usage.
//! 2. **Acknowledged is durable.** `Ok` says that the event is on record in the store.
//! 3. **In its own window.** It counts on the day and in the billing period of its own timestamp,
//!    while that period is open: the current one, and the one before for [`LATE`] after its end.
//!    Later it is refused with the period named. One that is dated ahead counts as of now.
//! 4. **Paid like all use, late.** Once they are on record its units are drawn from the windows
//!    that it lies in, those that are over among them, as of any cost that is learned late. Where
//!    a quota bills, what is owed is on record before the answer. A process that dies in between
//!    has counted them, and neither drawn them nor what they owe.
//!
//! How once: a claim item names the log slot that will carry the event's units, and the event
//! counts if that slot is on record (`claim.rs`, `writer.rs`).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Known;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::error::Error;
use crate::gate::{Gate, TenantHandle};
use crate::repeated::repeated;
use crate::store::Store;
use crate::store::layout::Space;

mod claim;
mod dead;
mod event;
mod post;
mod row;
mod writer;

pub use dead::{DeadLetter, MAX_LETTER};
pub use event::{Malformed, UsageEvent};
pub use post::MAX_BODY;

use row::Entry;
use writer::Batch;

/// Most events of one call.
pub const MAX_EVENTS: usize = 1_000;

/// How long after its end a billing period still takes events: as long as the invoice of it should
/// wait for them.
pub const LATE: Duration = Duration::from_secs(72 * 3_600);

/// How far ahead of this process's clock an event's timestamp may be.
pub const AHEAD: Duration = Duration::from_secs(5 * 60);

/// Calls that wait for the writer; the next waits for its place.
const QUEUE: usize = 64;

/// How an event that is on record got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// By this call.
    Now,
    /// Before: nothing was counted again.
    Before,
}

/// Why an event is not on record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCounted {
    /// The event itself cannot be read.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Nobody has this tenant id.
    #[error("there is no tenant `{0}`")]
    UnknownTenant(String),
    /// The plan file has no such meter.
    #[error("there is no meter `{0}`: report one that the plan file names")]
    UnknownMeter(String),
    /// A sum is counted by its parts.
    #[error("the meter `{0}` is a sum: report its parts")]
    Sum(String),
    /// Its billing period has ended too long ago.
    #[error("the billing period that began at {period} takes no events any more")]
    Closed {
        /// The period's begin, RFC 3339.
        period: String,
    },
    /// Its timestamp lies in the future.
    #[error("its timestamp lies more than 5 minutes ahead")]
    Ahead,
    /// The id stands for another event already.
    #[error("this id was used for other usage")]
    Conflict,
    /// Another process has it in hand.
    #[error("it is in hand elsewhere: send it again in a while")]
    InHand,
    /// The store does not answer, or the gate is closing.
    #[error("usage cannot be recorded at the moment: send it again")]
    Unavailable,
}

impl NotCounted {
    /// Whether the same event may be counted if it is sent again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InHand | Self::Unavailable)
    }
}

/// Counts usage that no request brought: [`Gate::ingest`].
#[derive(Clone, Debug)]
pub struct Ingest(Gate);

impl Gate {
    /// For usage that no request of this process brings.
    ///
    /// ```
    /// # let mut builder = tokio::runtime::Builder::new_current_thread();
    /// # builder.enable_all().build().unwrap().block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// use tallygate::ingest::{Counted, UsageEvent};
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [meter.minutes]
    ///     [plan.free]
    ///     quota.minutes = "100/month"
    /// "#);
    /// let call = UsageEvent::new("call-4711", "acme", "minutes", 12);
    /// let twice = gate.ingest().events(vec![call.clone(), call]).await;
    /// assert_eq!(twice, [Ok(Counted::Now), Ok(Counted::Before)]);
    /// # }
    /// # });
    /// ```
    pub fn ingest(&self) -> Ingest {
        Ingest(self.clone())
    }
}

impl Ingest {
    /// Counts events, each by itself: the answers stand in their order. More than [`MAX_EVENTS`]
    /// are counted in several steps.
    ///
    /// Dropped before it answers, it may have counted them: send them again.
    pub async fn events(&self, events: Vec<UsageEvent>) -> Vec<Result<Counted, NotCounted>> {
        let mut answers = Vec::with_capacity(events.len());
        for some in events.chunks(MAX_EVENTS) {
            answers.extend(self.some(some).await);
        }
        answers
    }

    async fn some(&self, events: &[UsageEvent]) -> Vec<Result<Counted, NotCounted>> {
        let (mut answers, mut entries) = (Vec::with_capacity(events.len()), Vec::new());
        let (mut tenants, mut owing) = (HashMap::new(), HashMap::new());
        for event in events {
            let tenant = match tenants.entry(&*event.tenant) {
                Known::Occupied(known) => known.into_mut(),
                Known::Vacant(new) => new.insert((self.tenant(&event.tenant).await, None)),
            };
            let (tenant, past) = (tenant.0.as_ref().map_err(NotCounted::clone), &mut tenant.1);
            match tenant.and_then(|tenant| Entry::new(&self.0.inner, &tenant.0, past, event)) {
                Ok(entry) => {
                    owing.extend(entry.may_owe().map(|sheet| (entry.tenant(), sheet)));
                    answers.push(Err(NotCounted::Unavailable));
                    entries.push((answers.len() - 1, entry));
                }
                Err(why) => answers.push(Err(why)),
            }
        }
        let (places, entries): (Vec<usize>, Vec<Entry>) = entries.into_iter().unzip();
        if entries.is_empty() {
            return answers;
        }
        let counted = self.0.inner.ingest.count(entries).await;
        for (at, answer) in places.into_iter().zip(counted) {
            answers[at] = answer;
        }
        if !owing.is_empty() {
            self.0.inner.record_owed(owing.into_values()).await;
        }
        answers
    }

    /// The tenant of this outer id, looked up once for all of its events.
    async fn tenant(&self, id: &str) -> Result<TenantHandle, NotCounted> {
        let unknown = || NotCounted::UnknownTenant(id.to_owned());
        if !crate::identity::is_tenant_id(id) {
            return Err(unknown());
        }
        self.0.tenant(id).await.map_err(|error| match error {
            // Where tenants are made on first sight, this one could not be made just now.
            Error::NoTenant(_) if self.0.inner.creates() => NotCounted::Unavailable,
            Error::NoTenant(_) => unknown(),
            error => {
                let now_ms = self.0.inner.clock.now().wall_ms;
                repeated!(warn, now_ms, "ingest: a tenant could not be looked up"; %error);
                NotCounted::Unavailable
            }
        })
    }
}

/// The gate's end of the writer, which begins with the first event.
pub(crate) struct Counting {
    store: Arc<dyn Store>,
    space: Space,
    clock: Arc<dyn Clock>,
    /// `Some(None)`: closed.
    batches: OnceLock<Mutex<Option<mpsc::Sender<Batch>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Counting {
    pub(crate) fn new(store: Arc<dyn Store>, space: Space, clock: Arc<dyn Clock>) -> Self {
        Self { store, space, clock, batches: OnceLock::new(), task: Mutex::new(None) }
    }

    async fn count(&self, entries: Vec<Entry>) -> Vec<Result<Counted, NotCounted>> {
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
        let batches = self.batches.get_or_init(|| {
            let (batches, inbox) = mpsc::channel(QUEUE);
            let (store, space) = (self.store.clone(), self.space.clone());
            let writer = writer::Writer::new(store, space, self.clock.clone());
            *locked(&self.task) = Some(tokio::spawn(writer.run(inbox)));
            Mutex::new(Some(batches))
        });
        locked(batches).clone()
    }

    /// Finishes what is in hand, and takes no more.
    pub(crate) async fn close(&self, deadline: tokio::time::Instant) {
        if let Some(batches) = self.batches.get() {
            locked(batches).take();
        }
        let task = locked(&self.task).take();
        if let Some(mut task) = task
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            // Whoever sent it was not told that it counts, and sends it again.
            task.abort();
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

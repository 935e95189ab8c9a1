//! The task that makes the calls of the [`machine`](super::machine), and brings what it says to the
//! buckets.
//!
//! It has an owner ([`Sharing`]) and is stopped by [`Sharing::close`], which strikes this node from
//! the list, so that the others have its part at once and not after two slots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::machine::{Asked, Effect, Event, LimitId, Machine};
use super::{LAPSE_SLOTS, SLOT_NS};
use crate::clock::Clock;
use crate::store::layout::Space;
use crate::store::{Store, StoreError, StoreErrorKind, StoreFuture};

/// A call that has not been answered within so long is given up: the next slot makes a new one.
const WITHIN: Duration = Duration::from_secs(3);

/// Most limits that this process tells of in one slot; as many as the list has room for.
pub(crate) const MAX_TOLD: usize = super::pressure::MAX_ROWS;

/// What several nodes admit of a rate in any ten seconds, in percent of it: while none joins or
/// dies, and while some do. Measured by `fleet_tests.rs`.
pub(crate) const fn bound() -> (u32, u32) {
    (106, 125)
}

/// Where the buckets are.
pub(crate) trait Buckets: Send + Sync + 'static {
    /// What was asked of the limits that are told of, or have a share.
    fn asked(&self, shared: &[LimitId]) -> BTreeMap<LimitId, Asked>;
    /// Whether this node serves the limit.
    fn has(&self, id: &LimitId) -> bool;
    /// So many nodes share every rate.
    fn among(&self, nodes: usize);
    /// This node has so many millionths of the rate.
    fn share(&self, id: &LimitId, millionths: Option<u32>);
}

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct Sharing {
    task: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<Notify>,
}

/// A node that has told the others of itself.
pub(crate) struct Joined {
    machine: Machine,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// How many there are with it.
    pub(crate) nodes: usize,
}

/// Tells the other nodes of this one, before it serves: so it begins with its part.
///
/// # Errors
///
/// If the store cannot be written.
pub(crate) async fn join(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    space: Space,
    me: u128,
) -> Result<Joined, StoreError> {
    let mut machine = Machine::new(space, me);
    let mut nodes = 1;
    for effect in machine.step(clock.now(), Event::Slot(BTreeMap::new())) {
        let Effect::Beat(write) = effect else { continue };
        let written = store.write(write).await?;
        for effect in machine.step(clock.now(), Event::Beaten(Ok(written))) {
            if let Effect::Nodes(n) = effect {
                nodes = n;
            }
        }
    }
    Ok(Joined { machine, store, clock, nodes })
}

impl Sharing {
    /// Starts the task. The weak reference is to whoever owns it.
    pub(crate) fn start(joined: Joined, buckets: Weak<impl Buckets>) -> Self {
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(run(joined, buckets, stop.clone()));
        Self { task: Mutex::new(Some(task)), stop }
    }

    /// Ends the task, which strikes this node from the list if that goes before the deadline.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.stop.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn run(joined: Joined, buckets: Weak<impl Buckets>, stop: Arc<Notify>) {
    let Joined { mut machine, store, clock, .. } = joined;
    let slot = Duration::from_nanos(SLOT_NS);
    // Not all at the same instant, though they were started at the same.
    let mut wait = slot * u32::from(jitter()) / 256;
    loop {
        tokio::select! {
            biased;
            () = stop.notified() => break,
            () = tokio::time::sleep(wait) => wait = slot,
        }
        let Some(buckets) = buckets.upgrade() else { return };
        let shared: Vec<LimitId> = machine.shared().cloned().collect();
        let asked = buckets.asked(&shared);
        let effects = machine.step(clock.now(), Event::Slot(asked));
        tokio::select! {
            biased;
            () = stop.notified() => break,
            () = carry_out(&mut machine, effects, &*store, &*clock, &*buckets) => {}
        }
    }
    if let Err(error) = store.write(machine.leave()).await {
        let slots = LAPSE_SLOTS;
        tracing::debug!(%error, "the other nodes miss this one only after {slots} slots");
    }
}

/// Makes the calls of a slot, one after the other: no request waits for them.
async fn carry_out(
    machine: &mut Machine,
    effects: Vec<Effect>,
    store: &dyn Store,
    clock: &dyn Clock,
    buckets: &impl Buckets,
) {
    let mut left = VecDeque::from(effects);
    while let Some(effect) = left.pop_front() {
        let event = match effect {
            Effect::Beat(write) => Event::Beaten(within(store.write(write)).await),
            Effect::List(key) => Event::Listed(within(store.read(key)).await),
            Effect::Find(ids) => {
                Event::Here(ids.into_iter().filter(|id| buckets.has(id)).collect())
            }
            Effect::See(id, key) => Event::Seen(id, within(store.read(key)).await),
            Effect::Move(id, write) => Event::Moved(id, within(store.write(write)).await),
            Effect::Note(write) => {
                // What is not noted now is noted in the next slot.
                let _ = within(store.write(write)).await;
                continue;
            }
            Effect::Nodes(nodes) => {
                tracing::info!(nodes, "so many nodes share every rate");
                buckets.among(nodes);
                continue;
            }
            Effect::Share(id, share) => {
                buckets.share(&id, share);
                continue;
            }
        };
        left.extend(machine.step(clock.now(), event));
    }
}

async fn within<T>(call: StoreFuture<T>) -> Result<T, StoreError> {
    let late = |_| StoreError::new(StoreErrorKind::Unknown, "no answer in time");
    tokio::time::timeout(WITHIN, call).await.map_err(late)?
}

fn jitter() -> u8 {
    let mut byte = [128];
    // Without randomness half a slot is as good.
    let _ = crate::random::fill(&mut byte);
    byte[0]
}

//! The task that makes the calls of the [`machine`](super::machine), and passes its decisions to
//! the buckets. Heartbeats wait for nothing else; the calls for shares run a few at a time, with
//! tenants taking turns (see [`crate::turns`]). If that takes longer than a slot, a share moves
//! later; a node that has not read one for two slots falls back to an equal part.
//!
//! Its owner holds a [`Sharing`] and stops it with [`Sharing::close`], which removes this node from
//! the list, so that the others get its part at once and not after two slots.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::machine::{Asked, Effect, Machine, RateEvent};
use super::pressure::MAX_ROWS;
use super::{LAPSE_SLOTS, SLOT_NS};
use crate::clock::Clock;
use crate::delays;
use crate::ids::{LimitId, NodeId};
use crate::store::layout::Space;
use crate::store::{Store, StoreError, StoreErrorKind, StoreFuture};
use crate::task::{OwnedTask, Stop};
use crate::turns::Turns;

/// A call not answered within this time is abandoned: the next slot makes a new one.
const WITHIN: Duration = Duration::from_secs(3);

/// Limits whose shares are read or moved concurrently. At 50 ms a call a full list of limits under
/// pressure takes half a slot.
const SHARES_AT_ONCE: usize = 64;

/// Most that several nodes admit of a rate in any ten seconds, in percent of it: while none joins
/// or dies, and while some do. Measured by `fleet_tests.rs`.
pub(crate) const fn bound() -> (u32, u32) {
    (106, 125)
}

/// Access to the buckets.
pub(crate) trait Buckets: Send + Sync + 'static {
    /// Demand on limits that were reported throttled, or have a share.
    fn asked(&self, shared: &[LimitId]) -> BTreeMap<LimitId, Asked>;
    /// Whether this node serves the limit.
    fn has(&self, id: &LimitId) -> bool;
    /// Sets the number of nodes that share every rate.
    fn among(&self, nodes: usize);
    /// Sets this node's share of the rate, in millionths.
    fn share(&self, id: &LimitId, millionths: Option<u32>);
}

/// The owner's handle on the task.
#[derive(Debug)]
pub(crate) struct Sharing(OwnedTask);

/// A node that has announced itself to the others.
pub(crate) struct Joined {
    machine: Machine,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Number of nodes, including it.
    pub(crate) nodes: usize,
}

/// Announces this node to the others before it serves, so that it begins with its part.
///
/// # Errors
///
/// If the store cannot be written.
pub(crate) async fn join(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    space: Space,
    me: NodeId,
) -> Result<Joined, StoreError> {
    let mut machine = Machine::new(space, me);
    let mut nodes = 1;
    for effect in machine.step(clock.now(), RateEvent::Slot(BTreeMap::new())) {
        let Effect::Beat(write) = effect else { continue };
        let written = store.write(write).await?;
        for effect in machine.step(clock.now(), RateEvent::Beaten(Ok(written))) {
            if let Effect::Nodes(n) = effect {
                nodes = n;
            }
        }
    }
    Ok(Joined { machine, store, clock, nodes })
}

impl Sharing {
    /// Starts the task. The weak reference is to the task's owner.
    pub(crate) fn start(joined: Joined, buckets: Weak<impl Buckets>) -> Self {
        Self(OwnedTask::start(|stop| run(joined, buckets, stop)))
    }

    /// Ends the task, which removes this node from the list if the deadline permits.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.0.stop();
        // Past the deadline the others miss this node only after some slots.
        let _ = self.0.ended_by(deadline).await;
    }
}

async fn run(joined: Joined, buckets: Weak<impl Buckets>, stop: Stop) {
    let Joined { machine, store, clock, .. } = joined;
    let mut node = RateNode { machine, clock, calls: Calls::new(store.clone()) };
    let slot = Duration::from_nanos(SLOT_NS);
    // Spread out, even if the nodes were started at the same instant.
    let mut next = Instant::now() + delays::within(slot);
    loop {
        node.calls.start();
        tokio::select! {
            biased; // heartbeats first: without one this node counts as dead
            () = stop.signalled() => break,
            () = tokio::time::sleep_until(next) => {
                let Some(buckets) = buckets.upgrade() else { return };
                // A stalled node does not catch up on missed slots.
                next = (next + slot).max(Instant::now() + slot / 2);
                let shared: Vec<LimitId> = node.machine.shared().cloned().collect();
                let asked = buckets.asked(&shared);
                node.step(RateEvent::Slot(asked), &*buckets);
            }
            ended = node.calls.ended() => {
                let Some(buckets) = buckets.upgrade() else { return };
                node.ended(ended, &*buckets);
            }
        }
    }
    node.calls.under_way.shutdown().await;
    if let Err(error) = store.write(node.machine.leave()).await {
        let slots = LAPSE_SLOTS;
        tracing::debug!(%error, "the other nodes miss this one only after {slots} slots");
    }
}

/// The machine, and its calls under way.
struct RateNode {
    machine: Machine,
    clock: Arc<dyn Clock>,
    calls: Calls,
}

impl RateNode {
    /// Processes the answer to a call. A further call for the same limit keeps its place.
    fn ended(&mut self, (of, event): CallDone, buckets: &impl Buckets) {
        self.calls.current = of;
        if let Some(event) = event {
            self.step(event, buckets);
        }
        if let Some(id) = self.calls.current.take() {
            self.calls.done(&id);
        }
    }

    fn step(&mut self, event: RateEvent, buckets: &impl Buckets) {
        let mut effects = VecDeque::from(self.machine.step(self.clock.now(), event));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Find(ids) => {
                    let here = ids.into_iter().filter(|id| buckets.has(id)).collect();
                    effects.extend(self.machine.step(self.clock.now(), RateEvent::Here(here)));
                }
                Effect::Nodes(nodes) => {
                    tracing::info!(nodes, "number of nodes that share rates changed");
                    buckets.among(nodes);
                }
                Effect::Share(id, share) => buckets.share(&id, share),
                call => self.calls.take(call),
            }
        }
    }
}

/// The limit of a call, if it holds a place, and its event: `None` if the answer does not matter.
type CallDone = (Option<LimitId>, Option<RateEvent>);

/// Calls under way, and waiting ones. Heartbeats and the list go at once; those for shares take
/// turns by tenant, at most one per limit at a time.
struct Calls {
    store: Arc<dyn Store>,
    under_way: JoinSet<Option<RateEvent>>,
    turns: Turns<Effect>,
    in_hand: BTreeSet<LimitId>,
    of: HashMap<tokio::task::Id, LimitId>,
    /// The limit whose answer is being processed: its next call goes at once, in the same place.
    current: Option<LimitId>,
}

impl Calls {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            under_way: JoinSet::new(),
            turns: Turns::new(SHARES_AT_ONCE, 4 * MAX_ROWS),
            in_hand: BTreeSet::new(),
            of: HashMap::new(),
            current: None,
        }
    }

    fn take(&mut self, call: Effect) {
        match &call {
            Effect::See(id, _) | Effect::Move(id, _) if self.current.as_ref() == Some(id) => {
                self.current = None;
                self.make(call);
            }
            Effect::See(id, _) | Effect::Move(id, _) => {
                let (id, tenant) = (id.clone(), id.tenant);
                // A limit in hand is still to be answered. Without room: in the next slot.
                if !self.in_hand.contains(&id) && self.turns.push(tenant, call).is_ok() {
                    self.in_hand.insert(id);
                }
            }
            _ => self.make(call),
        }
    }

    /// Starts waiting calls while there are free places.
    fn start(&mut self) {
        while let Some(call) = self.turns.next() {
            self.make(call);
        }
    }

    fn make(&mut self, call: Effect) {
        let store = self.store.clone();
        let of = match &call {
            Effect::See(id, _) | Effect::Move(id, _) => Some(id.clone()),
            _ => None,
        };
        let task = self.under_way.spawn(async move {
            match call {
                Effect::Beat(write) => Some(RateEvent::Beaten(within(store.write(write)).await)),
                Effect::List(key) => Some(RateEvent::Listed(within(store.read(key)).await)),
                Effect::See(id, key) => Some(RateEvent::Seen(id, within(store.read(key)).await)),
                Effect::Move(id, write) => {
                    Some(RateEvent::Moved(id, within(store.write(write)).await))
                }
                Effect::Note(write) => {
                    // A failed note is repeated in the next slot.
                    let _ = within(store.write(write)).await;
                    None
                }
                Effect::Find(_) | Effect::Nodes(_) | Effect::Share(..) => None, // no calls
            }
        });
        if let Some(of) = of {
            self.of.insert(task.id(), of);
        }
    }

    /// The next answer. Cancel-safe: if cut off it has taken none.
    async fn ended(&mut self) -> CallDone {
        let Some(ended) = self.under_way.join_next_with_id().await else {
            return std::future::pending().await;
        };
        match ended {
            Ok((task, event)) => (self.of.remove(&task), event),
            Err(panicked) => {
                tracing::error!(error = %panicked, "a share call panicked");
                (self.of.remove(&panicked.id()), None)
            }
        }
    }

    fn done(&mut self, id: &LimitId) {
        self.in_hand.remove(id);
        self.turns.done(id.tenant);
    }
}

async fn within<T>(call: StoreFuture<T>) -> Result<T, StoreError> {
    let late = |_| StoreError::new(StoreErrorKind::Unknown, "no answer in time");
    tokio::time::timeout(WITHIN, call).await.map_err(late)?
}

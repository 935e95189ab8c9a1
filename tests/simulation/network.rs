//! The network between the nodes and the table: calls wait in an outbox until the driver decides
//! their fate. The table is the reference store; faults happen on the way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Write,
    Written,
};
use tokio::sync::oneshot;

use crate::chance::Chance;
use crate::world::{World, kind_of};

/// A call on its way.
pub(crate) struct Call {
    pub(crate) node: usize,
    pub(crate) op: Op,
    pub(crate) reply: oneshot::Sender<Result<Answer, StoreError>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read(Key),
    Write(Write),
    Query(Query),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Read(Option<Item>),
    Written(Written),
    Page(Page),
}

impl Op {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Read(key) if key.pk.contains("#Q#") => "look at a pool",
            Self::Read(_) => "directory",
            Self::Query(_) => "query",
            Self::Write(write) => kind_of(write),
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

/// The calls that nodes have made since the driver last looked.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<Call>>>);

impl Outbox {
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store as one node sees it.
pub(crate) struct NodeStore {
    pub(crate) node: usize,
    pub(crate) outbox: Outbox,
    pub(crate) shared: bool,
}

impl NodeStore {
    fn call<T: 'static>(
        &self,
        op: Op,
        read: impl FnOnce(Answer) -> Option<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let (node, outbox) = (self.node, self.outbox.clone());
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            outbox.lock().push(Call { node, op, reply });
            let unknown = || StoreError::new(StoreErrorKind::Unknown, "no answer");
            let answer = answer.await.map_err(|_| unknown())??;
            read(answer).ok_or_else(unknown)
        })
    }
}

impl Store for NodeStore {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.call(Op::Read(key), |answer| match answer {
            Answer::Read(item) => Some(item),
            _ => None,
        })
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.call(Op::Write(write), |answer| match answer {
            Answer::Written(written) => Some(written),
            _ => None,
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.call(Op::Query(query), |answer| match answer {
            Answer::Page(page) => Some(page),
            _ => None,
        })
    }

    fn promise(&self) -> Promise {
        Promise { kind: "simulated", survives: "machine", shared: self.shared }
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }
}

/// The table itself: arriving writes are applied at once, and the world checks every change.
#[derive(Default)]
pub(crate) struct Table {
    memory: Memory,
    /// Where pages are cut, as a service does by their bytes: a random source of its own, so that
    /// the rest of a run is the same as without.
    cuts: Option<Chance>,
}

/// Most items of a page that is cut.
const MOST: u64 = 12;

impl Table {
    /// Makes pages end early in this run.
    pub(crate) fn cut_pages(&mut self, seed: u64) {
        self.cuts = Some(Chance::new(!seed));
    }

    /// A page, or its beginning: only `next` shows that there is more.
    fn page(&mut self, query: Query) -> Result<Page, StoreError> {
        let mut page = at_once(self.memory.query(query))?;
        if let Some(cuts) = &mut self.cuts {
            let keep = cuts.within(1, MOST + 1) as usize;
            if keep < page.items.len() {
                page.next = Some(page.items.swap_remove(keep).0);
                page.items.truncate(keep);
            }
        }
        Ok(page)
    }

    pub(crate) fn expire(&self, now_ms: i64) {
        at_once(self.memory.expire(now_ms)).expect("a store in memory forgets at once");
    }

    pub(crate) fn apply(
        &mut self,
        by: usize,
        op: Op,
        world: &Mutex<World>,
    ) -> Result<Answer, StoreError> {
        match op {
            Op::Read(key) => at_once(self.memory.read(key)).map(Answer::Read),
            Op::Query(query) => self.page(query).map(Answer::Page),
            Op::Write(write) => {
                let old = at_once(self.memory.read(write.key.clone()))?;
                let written = at_once(self.memory.write(write.clone()))?;
                if let Written::Applied(new) = &written {
                    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
                    world.count("writes applied");
                    world.changed(by, &write, old.as_ref(), new.as_ref());
                }
                Ok(Answer::Written(written))
            }
        }
    }
}

/// The answer of a store that never waits.
fn at_once<T>(mut call: StoreFuture<T>) -> Result<T, StoreError> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("a store in memory answers at the first poll"),
    }
}

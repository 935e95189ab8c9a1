//! The reference store: a map behind a lock. Its behaviour defines the [laws](super); other stores
//! are compared with it.
//!
//! It survives nothing and is not shared beyond this process. It is meant for tests, for trying
//! things out, and for quotas that may start anew with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::apply::{Verdict, apply, check_key, check_query, item_bytes};
use super::expiry::{self, SweepCursor, SweepPart};
use super::{
    Item, Key, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Write, Written,
};

/// A store in memory.
///
/// A clone is another handle on the same table and is closed independently, so that a test can
/// stand for several nodes, or for a node that went away and came back.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tallygate::store::{Change, Key, Memory, Store, Value, When, Write, Written};
///
/// let store = Memory::new();
/// let key = Key { pk: "pool".into(), sk: "-".into() };
/// let take = Write {
///     key,
///     when: vec![When::AtLeast("free".into(), 1)],
///     change: vec![Change::Add("free".into(), -1)],
/// };
/// assert_eq!(store.write(take).await.unwrap(), Written::Refused(None));
/// # });
/// ```
#[derive(Debug, Default)]
pub struct Memory {
    table: Arc<Mutex<MemoryTable>>,
    closed: Arc<AtomicBool>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every key there is, in order.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<Key> {
        lock(&self.table).items.keys().cloned().collect()
    }

    /// Runs one call of this handle on the table, when its future is first polled.
    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut MemoryTable) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (table, closed) = (self.table.clone(), self.closed.clone());
        Box::pin(async move {
            if closed.load(Ordering::Acquire) {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is closed"));
            }
            job(&mut lock(&table))
        })
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), closed: Arc::default() }
    }
}

impl Store for Memory {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.call(move |table| {
            check_key(&key)?;
            Ok(table.items.get(&key).cloned())
        })
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.call(move |table| table.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.call(move |table| table.query(query))
    }

    fn expire(&self, now_ms: i64) -> StoreFuture<usize> {
        self.call(move |table| Ok(table.expire(now_ms)))
    }

    fn promise(&self) -> Promise {
        Promise { kind: "memory", survives: "nothing", shared: false }
    }

    fn close(&self) -> StoreFuture<()> {
        let closed = self.closed.clone();
        Box::pin(async move {
            closed.store(true, Ordering::Release);
            Ok(())
        })
    }
}

#[derive(Debug, Default)]
struct MemoryTable {
    /// In the order of (partition, sort key), both compared as bytes.
    items: BTreeMap<Key, Item>,
    /// Resume point of the expiry sweep.
    unswept: SweepCursor,
}

impl MemoryTable {
    fn write(&mut self, write: Write) -> Result<Written, StoreError> {
        let old = self.items.get(&write.key);
        let Verdict::Apply(new) = apply(old, &write)? else {
            return Ok(Written::Refused(old.cloned()));
        };
        match new.clone() {
            Some(item) => self.items.insert(write.key, item),
            None => self.items.remove(&write.key),
        };
        Ok(Written::Applied(new))
    }

    fn query(&self, query: Query) -> Result<Page, StoreError> {
        let limit = check_query(&query)?;
        let from = Key { pk: query.pk.clone(), sk: query.from };
        let mut wanted =
            self.items.range((Bound::Included(from), Bound::Unbounded)).take_while(|(key, _)| {
                key.pk == query.pk && query.until.as_ref().is_none_or(|until| key.sk < *until)
            });
        let items = wanted.by_ref().take(limit);
        let items = items.map(|(key, item)| (key.sk.clone(), item.clone())).collect();
        Ok(Page { items, next: wanted.next().map(|(key, _)| key.sk.clone()) })
    }

    fn expire(&mut self, now_ms: i64) -> usize {
        let mut part = SweepPart::new(now_ms);
        let mut next = None;
        for (key, item) in self.items.range::<Key, _>(expiry::from(&self.unswept)) {
            if part.is_full() {
                next = Some(key.clone());
                break;
            }
            part.look(Some(item), item_bytes(key, item), || key.clone());
        }
        self.unswept = next;
        for (key, _) in &part.found {
            self.items.remove(key);
        }
        part.found.len()
    }
}

/// A write replaces an item in one step, so the table is consistent even after a thread panicked.
fn lock(table: &Mutex<MemoryTable>) -> MutexGuard<'_, MemoryTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A table that counts what DynamoDB would charge, by its documented rules: a write costs a unit
//! for each started KB of the item, before or after, whichever is larger, even if its condition
//! fails; a strong read a unit for each started 4 KB, of an item or of a page, at least one.
//!
//! Sizes are those of items as the DynamoDB store writes them. Calls take [`LATENCY`] of the
//! runtime's time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreError, StoreFuture, Units, Value, Write,
    Written,
};
use tokio::time::Instant;

/// Latency of a call: DynamoDB in the same region.
const LATENCY: Duration = Duration::from_millis(5);

/// The attribute that marks the DynamoDB store's items: its name, and a number of one digit.
const FORMAT_BYTES: usize = "tallygate".len() + 2;

/// The charges of all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bill {
    /// Calls and units written, by kind of item (the letter of its partition).
    pub(crate) writes: BTreeMap<String, (u64, u64)>,
    /// Units read, by kind of item.
    pub(crate) reads: BTreeMap<String, u64>,
    /// The largest item, and the most units written to one partition key within a second.
    pub(crate) largest: usize,
    pub(crate) hottest: u64,
    /// The same for pools.
    pub(crate) largest_pool: usize,
    pub(crate) hottest_pool: u64,
    /// Units of records in each second.
    pub(crate) records: BTreeMap<u64, u64>,
}

impl Bill {
    /// Units written to one kind of item.
    pub(crate) fn units(&self, kind: &str) -> u64 {
        self.writes.get(kind).map_or(0, |(_, units)| *units)
    }

    pub(crate) fn written(&self) -> u64 {
        self.writes.values().map(|(_, units)| units).sum()
    }

    pub(crate) fn read(&self) -> u64 {
        self.reads.values().sum()
    }
}

/// The table itself, for any number of nodes.
#[derive(Clone)]
pub(crate) struct Table {
    memory: Arc<Memory>,
    state: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    bill: Bill,
    /// Units of this second by partition key.
    second: u64,
    of_second: HashMap<String, u64>,
}

/// One node's connection to the table.
#[derive(Clone)]
pub(crate) struct Metered {
    table: Table,
    own: Arc<Mutex<Units>>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let state = State {
            started: Instant::now(),
            bill: Bill::default(),
            second: 0,
            of_second: HashMap::new(),
        };
        Self { memory: Arc::new(Memory::new()), state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn node(&self) -> Metered {
        Metered { table: self.clone(), own: Arc::default() }
    }

    /// The charges since the last call.
    pub(crate) fn take_bill(&self) -> Bill {
        std::mem::take(&mut self.state().bill)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Metered {
    fn read_units(&self, pk: &str, bytes: usize) {
        let units = bytes.div_ceil(4_096).max(1) as u64;
        *self.table.state().bill.reads.entry(kind(pk)).or_default() += units;
        self.own.lock().unwrap().read += units;
    }

    fn written(&self, key: &Key, before: usize, after: usize) {
        let units = before.max(after).div_ceil(1_024).max(1) as u64;
        self.own.lock().unwrap().write += units;
        let mut state = self.table.state();
        let second = state.started.elapsed().as_secs();
        if second != state.second {
            state.second = second;
            state.of_second.clear();
        }
        let of_second = state.of_second.entry(key.pk.clone()).or_default();
        *of_second += units;
        let hottest = *of_second;
        let bill = &mut state.bill;
        bill.hottest = bill.hottest.max(hottest);
        bill.largest = bill.largest.max(after);
        let kind = kind(&key.pk);
        if kind == "Q" {
            bill.hottest_pool = bill.hottest_pool.max(hottest);
            bill.largest_pool = bill.largest_pool.max(after);
        }
        if kind == "L" {
            *bill.records.entry(second).or_default() += units;
        }
        let (calls, all) = bill.writes.entry(kind).or_default();
        (*calls, *all) = (*calls + 1, *all + units);
    }
}

impl Store for Metered {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        let this = self.clone();
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            let item = this.table.memory.read(key.clone()).await?;
            this.read_units(&key.pk, item.as_ref().map_or(0, |item| bytes(&key, item)));
            Ok(item)
        })
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        let this = self.clone();
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            let key = write.key.clone();
            let size = |item: &Option<Item>| item.as_ref().map_or(0, |item| bytes(&key, item));
            let before = this.table.memory.read(key.clone()).await?;
            let written = this.table.memory.write(write).await?;
            let after = match &written {
                Written::Applied(item) | Written::Refused(item) => size(item),
            };
            this.written(&key, size(&before), after);
            Ok(written)
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        let this = self.clone();
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            let pk = query.pk.clone();
            let page = this.table.memory.query(query).await?;
            let size =
                |(sk, item): &(String, Item)| bytes(&Key { pk: pk.clone(), sk: sk.clone() }, item);
            this.read_units(&pk, page.items.iter().map(size).sum());
            Ok(page)
        })
    }

    fn units(&self) -> Option<Units> {
        Some(*self.own.lock().unwrap())
    }

    fn promise(&self) -> Promise {
        Promise { kind: "dynamodb", survives: "machine", shared: true }
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok::<(), StoreError>(()) })
    }
}

/// The letter of a partition, after the layout's version and the space.
fn kind(pk: &str) -> String {
    pk.split('#').nth(2).unwrap_or_default().to_owned()
}

/// An item's size by DynamoDB's rules: names and values, with half of a number's digits plus one.
fn bytes(key: &Key, item: &Item) -> usize {
    let keys = "pk".len() + key.pk.len() + "sk".len() + key.sk.len() + FORMAT_BYTES;
    item.0.iter().fold(keys, |sum, (name, value)| {
        let of_value = match value {
            Value::Int(n) => {
                n.unsigned_abs().to_string().len().div_ceil(2) + 1 + usize::from(*n < 0)
            }
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        };
        sum + name.len() + of_value
    })
}

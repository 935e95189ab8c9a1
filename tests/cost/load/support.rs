//! Callers, and stores that are slow or do not answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallygate::adapter::Answer;
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Write,
    Written,
};
use tallygate::{Gate, Reason};
use test_support::requests::{self, Call};

/// A request of a tenant's user.
pub(crate) const fn of<'a>(tenant: &'a str, user: &'a str) -> Call<'a, 2> {
    Call::new("GET", "/search", [("x-tenant", tenant), ("x-user", user)])
}

/// Asks as an adapter does, and drops the admitted request: it was used.
pub(crate) async fn call(gate: &Gate, of: Call<'_, 2>) -> Result<(), Reason> {
    match requests::asked(gate, &of).await {
        Answer::Refuse(refusal) => Err(refusal.reason.clone()),
        _ => Ok(()),
    }
}

/// A store with slow calls; writes to the pools of some tenants are never answered.
#[derive(Clone)]
pub(crate) struct Troubled {
    pub(crate) memory: Memory,
    pub(crate) call: Duration,
    pub(crate) shared: bool,
    trouble: Arc<Mutex<Trouble>>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Tenants that write to pools now are added to them.
    marks: bool,
    everybody: bool,
    /// No new log can be begun.
    no_new_logs: bool,
    tenants: BTreeSet<String>,
    /// Partitions of logs.
    logs: BTreeSet<String>,
    /// Pools that were written.
    written: BTreeSet<Key>,
    /// Pools of which nothing is known but a write that was given up without an answer.
    in_doubt: BTreeSet<Key>,
}

/// An unanswered write is given up after this time.
const GIVEN_UP: Duration = Duration::from_secs(1);

impl Troubled {
    pub(crate) fn new(memory: Memory, call: Duration, shared: bool) -> Self {
        Self { memory, call, shared, trouble: Arc::default() }
    }

    /// While on, each tenant that writes to a pool is in trouble from then on.
    pub(crate) fn mark(&self, on: bool) {
        self.trouble.lock().unwrap().marks = on;
    }

    /// Leaves every write to a pool unanswered from now on.
    pub(crate) fn for_everybody(&self) {
        self.trouble.lock().unwrap().everybody = true;
    }

    /// Leaves every write that would begin a log unanswered from now on.
    pub(crate) fn no_new_logs(&self) {
        self.trouble.lock().unwrap().no_new_logs = true;
    }

    /// Whether it would register a log.
    fn is_never_answered(&self, key: &Key) -> bool {
        key.pk.split('#').nth(2) == Some("R") && self.trouble.lock().unwrap().no_new_logs
    }

    /// The partitions of all logs that were written to.
    pub(crate) fn logs(&self) -> BTreeSet<String> {
        self.trouble.lock().unwrap().logs.clone()
    }

    /// How many pools were never written and have had a write that was given up without an answer.
    pub(crate) fn in_doubt(&self) -> usize {
        self.trouble.lock().unwrap().in_doubt.len()
    }

    fn is_lost(&self, key: &Key) -> bool {
        let mut parts = key.pk.split('#').skip(2);
        let (Some(kind), Some(tenant)) = (parts.next(), parts.next()) else { return false };
        let mut trouble = self.trouble.lock().unwrap();
        if kind == "L" {
            trouble.logs.insert(key.pk.clone());
        }
        if kind != "Q" {
            return false;
        }
        if trouble.marks {
            trouble.tenants.insert(tenant.to_owned());
        }
        let is_lost = !trouble.marks && (trouble.everybody || trouble.tenants.contains(tenant));
        if !is_lost {
            trouble.written.insert(key.clone());
        }
        is_lost
    }

    fn after<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        if self.call.is_zero() {
            return call;
        }
        let long = self.call;
        Box::pin(async move {
            tokio::time::sleep(long).await;
            call.await
        })
    }
}

impl Store for Troubled {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.after(self.memory.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        if self.is_never_answered(&write.key) {
            return Box::pin(std::future::pending());
        }
        if self.is_lost(&write.key) {
            let (trouble, key) = (self.trouble.clone(), write.key);
            return Box::pin(async move {
                tokio::time::sleep(GIVEN_UP).await;
                let mut trouble = trouble.lock().unwrap();
                if !trouble.written.contains(&key) {
                    trouble.in_doubt.insert(key);
                }
                Err(StoreError::new(StoreErrorKind::Unknown, "no answer"))
            });
        }
        self.after(self.memory.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.after(self.memory.query(query))
    }

    fn promise(&self) -> Promise {
        Promise { kind: "troubled", survives: "nothing", shared: self.shared }
    }

    test_support::forward!(memory: close);
}

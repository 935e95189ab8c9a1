//! The environment of a history's gates: a store that outlives them, and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallygate::decision::Payment as PaymentDue;
use tallygate::identity::{Caller, Identify, Identity, RequestView};
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written,
};
use tallygate::testing::{self, Plans};
use tallygate::{Ask, Gate, GateBuilder, ManualClock, Reason, TenantHandle};

use crate::book::Refused;
use crate::stripe::Stripe;
use crate::system::Differs;

pub(crate) fn name(tenant: usize) -> String {
    format!("t{tenant}")
}

/// Work of jobs in two parts, and of tokens.
pub(crate) fn ask(tenant: &TenantHandle, jobs: u64, tokens: u64) -> Ask {
    let ask = Ask::new(tenant, "job");
    let ask = if jobs > 0 { ask.cost("jobs", 1) } else { ask };
    let ask = if tokens > 0 { ask.cost("tokens", tokens) } else { ask };
    if jobs > 1 { ask.cost("jobs", jobs - 1) } else { ask }
}

pub(crate) fn reason(reason: &Reason) -> Refused {
    match reason {
        Reason::Exhausted => Refused::Exhausted,
        Reason::PaymentRequired(PaymentDue::GrantUsedUp) => Refused::GrantUsedUp,
        Reason::PaymentRequired(PaymentDue::Unpaid) => Refused::Unpaid,
        Reason::Suspended => Refused::Suspended,
        Reason::Concurrency => Refused::Concurrency,
        // No history leads to any other refusal.
        _ => Refused::Other,
    }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    of: &str,
    gate: &T,
    book: &T,
) -> Result<(), Differs> {
    if gate == book {
        Ok(())
    } else {
        Err(format!("{of}: the gate says {gate:?}, the book {book:?}"))
    }
}

pub(crate) async fn open(
    plans: &Plans,
    store: &Shared,
    clock: &ManualClock,
    stripe: Option<&Stripe>,
) -> Gate {
    let builder = match stripe {
        None => testing::builder(""),
        Some(stripe) => GateBuilder::from_text(&stripe.service()).identify(ByHeader),
    };
    let builder = plans.read_by(builder).store(store.clone()).clock(clock.clone());
    builder.open().await.unwrap()
}

/// Trusts `x-tenant` and `x-user`.
pub(crate) struct ByHeader;

impl Identify for ByHeader {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let text = |name| view.header(name).and_then(|it| std::str::from_utf8(it).ok());
        let caller = text("x-tenant").map(Caller::new);
        let caller = caller.map(|caller| match text("x-user") {
            Some(user) => caller.user(user),
            None => caller,
        });
        caller.map_or(Identity::Absent, Identity::Tenant)
    }
}

/// A store that outlives its gates, as seen by one process.
#[derive(Clone)]
pub(crate) struct Shared {
    memory: Arc<Memory>,
    several: bool,
    /// The process has died: it no longer reaches anything.
    dead: Arc<AtomicBool>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { memory: Arc::new(Memory::new()), several: false, dead: Arc::default() }
    }
}

impl Shared {
    /// The same store for another one of several processes.
    pub(crate) fn for_another(&self) -> Self {
        Self { memory: self.memory.clone(), several: true, dead: Arc::default() }
    }

    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }

    fn reach<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        if self.dead.load(Ordering::Acquire) { Box::pin(std::future::pending()) } else { call }
    }
}

impl Store for Shared {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.reach(self.memory.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.reach(self.memory.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.reach(self.memory.query(query))
    }

    fn promise(&self) -> Promise {
        Promise { shared: self.several, ..self.memory.promise() }
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }
}

/// A request as the gate sees it.
pub(crate) struct Call {
    pub(crate) tenant: String,
    pub(crate) user: String,
    pub(crate) path: &'static str,
}

impl RequestView for Call {
    fn method(&self) -> &str {
        "POST"
    }

    fn path(&self) -> &str {
        self.path
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-tenant" => Some(self.tenant.as_bytes()),
            "x-user" => Some(self.user.as_bytes()),
            _ => None,
        }
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        self.header(name).into_iter().collect()
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }
}

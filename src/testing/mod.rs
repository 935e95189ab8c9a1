//! Test utilities for hosts, behind the feature `testing`; not meant for production. Begin with
//! [`gate()`]. [`Faulty`] is a store that fails on command.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::clock::ManualClock;
use crate::gate::{Gate, GateBuilder, IdentifyStep, Waited};
use crate::identity::{Caller, Identify, Identity, RequestView};
use crate::store::Memory;

mod drill;
mod faulty;
#[cfg(test)]
pub(crate) mod heard;
mod simulated;
#[doc(hidden)]
pub mod untrusted;

#[doc(hidden)]
pub use crate::ids::WriterId;
#[doc(hidden)]
pub use drill::{Drill, doze, forget_callers, is_identified, leases_at_rest};
pub use faulty::{Fault, Faulty, Odds};
#[doc(hidden)]
pub use simulated::{
    ClaimItem, Drawn, LogItem, LogKeys, OpenRequest, Plans, PoolEntry, PoolItem, have_patience,
    held, incarnation, seed_this_thread, split_pools, time_at, unix_ms, writer,
};

/// Start of a test gate's clock: 2026-03-17 12:00 UTC, a Tuesday in the middle of a month, so that
/// no window ends by accident.
pub const START_MS: i64 = 1_773_748_800_000;

/// A gate over these plans, without files or ports: an in-memory store and a manual clock. Callers
/// name their tenant in the header `x-tenant` (a user in `x-user`, what
/// it may do in `x-permission`); an unknown tenant is
/// created on first sight. Must be called within a tokio runtime.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use tallygate::Ask;
///
/// let (gate, clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [meter.jobs]
///     [plan.free]
///     quota.jobs = "1/hour"
/// "#);
/// let acme = gate.tenant("acme").await.unwrap();
/// let ask = || Ask::new(&acme, "job").cost("jobs", 1);
/// gate.admit(ask()).await.unwrap().settle();
/// assert!(gate.admit(ask()).await.is_err());
/// clock.advance(Duration::from_secs(3600));
/// gate.admit(ask()).await.unwrap().settle();
/// # });
/// ```
///
/// # Panics
///
/// If the plans are wrong; the message lists every error.
pub fn gate(plans: &str) -> (Gate, ManualClock) {
    gate_with(plans, Memory::new())
}

/// Same as [`gate`], over the test's own store, for example one with faults.
///
/// # Panics
///
/// Like [`gate`]; also if the store does not answer at once.
pub fn gate_with(plans: &str, store: impl crate::store::Store) -> (Gate, ManualClock) {
    opened(builder(plans), store)
}

/// Same as [`gate`], but not opened yet, so that a test can set its own store, clock or other
/// options. By default an in-memory store, and the system's clock.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tallygate::{Ask, testing};
///
/// let plans = "default-plan = \"free\"\n[plan.free]";
/// let gate = testing::builder(plans).open().await.unwrap();
/// let acme = gate.tenant("acme").await.unwrap();
/// assert!(gate.admit(Ask::new(&acme, "job")).await.is_ok());
/// # });
/// ```
pub fn builder(plans: &str) -> GateBuilder {
    GateBuilder::from_text(SERVICE).plans(plans).identify(ByHeader)
}

/// The same, over plans that the test changes while the gate runs.
#[cfg(test)]
pub(crate) fn gate_reading(plans: &Plans, store: impl crate::store::Store) -> (Gate, ManualClock) {
    opened(plans.read_by(builder("")), store)
}

fn opened(builder: GateBuilder, store: impl crate::store::Store) -> (Gate, ManualClock) {
    let clock = ManualClock::at_unix_ms(START_MS);
    let builder = builder.store(store).clock(clock.clone());
    let mut opening = pin!(builder.open());
    // An in-memory store answers at the first poll, so this needs no executor.
    let opened = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    match opened {
        Poll::Ready(Ok(gate)) => (gate, clock),
        Poll::Ready(Err(error)) => panic!("the test gate cannot be opened:\n{error}"),
        Poll::Pending => panic!("a test gate wants a store that answers at once"),
    }
}

/// The identified tenant, as for `GET /usage` of a test gate.
///
/// # Panics
///
/// If the tenant cannot be loaded.
#[doc(hidden)]
pub async fn identified(gate: &Gate, tenant: &str) -> crate::Identified {
    identified_by(gate, &[("x-tenant", tenant)]).await
}

/// The same for the caller identified by these headers.
///
/// # Panics
///
/// If they identify no caller.
#[doc(hidden)]
pub async fn identified_by(gate: &Gate, headers: &[(&str, &str)]) -> crate::Identified {
    let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let view = Headers(headers.iter().map(own).collect());
    let mut waited = Waited::default();
    loop {
        match gate.identify_request(&view, waited) {
            IdentifyStep::Done(who) => return who,
            IdentifyStep::Refused(refusal) => panic!("refused: {:?}", refusal.reason),
            IdentifyStep::Wait(pending) => waited = pending.await,
        }
    }
}

/// The service file of a test gate.
const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    header = "x-gateway-tenant"
    [identity]
    unknown = "create"
    [proxy]
    trust = ["127.0.0.0/8"]
    [flush]
    mode = "fast"
"#;

/// Trusts `x-tenant`, `x-user` and `x-permission` from any caller: for tests.
#[derive(Clone, Copy, Debug)]
struct ByHeader;

impl Identify for ByHeader {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let text = |name| view.header(name).and_then(|v| std::str::from_utf8(v).ok());
        match text("x-tenant") {
            Some(tenant) => {
                let caller = Caller::new(tenant);
                let caller = text("x-permission").into_iter().fold(caller, Caller::permission);
                Identity::Tenant(match text("x-user") {
                    Some(user) => caller.user(user),
                    None => caller,
                })
            }
            None => Identity::Absent,
        }
    }
}

/// A request with only these headers.
struct Headers(Vec<(String, String)>);

impl RequestView for Headers {
    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        "/usage"
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_bytes())
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        self.header(name).into_iter().collect()
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }
}

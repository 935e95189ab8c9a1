//! A node: a gate on its own runtime, whose time moves only when the driver lets it. A frozen
//! node's runtime is not run; a dead node's is dropped.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tallygate::identity::{Caller, Identify, Identity, RequestView};
use tallygate::testing::Plans;
use tallygate::{Clock, Gate, GateBuilder, Now};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;

use crate::network::{NodeStore, Outbox};

/// Both clocks of a node: the monotonic one is its runtime's, the wall clock adds an offset.
#[derive(Clone)]
pub(crate) struct NodeClock(Arc<Reading>);

struct Reading {
    started: Instant,
    base_ns: u64,
    /// Wall milliseconds at the start of this life.
    wall_ms: AtomicI64,
    /// The last reading: the only one available while nothing runs.
    elapsed_ns: AtomicU64,
}

impl Clock for NodeClock {
    fn now(&self) -> Now {
        let this = &*self.0;
        if Handle::try_current().is_ok() {
            let elapsed = Instant::now().saturating_duration_since(this.started);
            this.elapsed_ns.store(elapsed.as_nanos() as u64, Ordering::Relaxed);
        }
        let elapsed = this.elapsed_ns.load(Ordering::Relaxed);
        let wall_ms = this.wall_ms.load(Ordering::Relaxed) + (elapsed / 1_000_000) as i64;
        Now { mono_ns: this.base_ns + elapsed, wall_ms }
    }
}

impl NodeClock {
    pub(crate) fn step_wall(&self, by_ms: i64) {
        self.0.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The setup of a node, for all its lives.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) id: usize,
    pub(crate) mode: &'static str,
    pub(crate) flush_ms: u64,
    pub(crate) journal: PathBuf,
    pub(crate) plans: Plans,
    pub(crate) shared: bool,
}

/// One life of a node.
pub(crate) struct Life {
    pub(crate) runtime: Runtime,
    pub(crate) gate: Arc<Mutex<Option<Gate>>>,
    pub(crate) clock: NodeClock,
    /// It cannot be opened just now: its supervisor tries again.
    pub(crate) failed: Arc<Mutex<bool>>,
    closed: Arc<Mutex<Option<Result<(), String>>>>,
}

impl Life {
    pub(crate) fn begin(setup: &Setup, outbox: &Outbox, wall_ms: i64, fails: bool) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O can be made");
        let started = {
            let _within = runtime.enter();
            Instant::now()
        };
        let clock = NodeClock(Arc::new(Reading {
            started,
            base_ns: 1 << 62,
            wall_ms: AtomicI64::new(wall_ms),
            elapsed_ns: AtomicU64::new(0),
        }));
        let store = NodeStore { node: setup.id, outbox: outbox.clone(), shared: setup.shared };
        let text = format!(
            "[store]\nkind = \"memory\"\nspace = \"{}\"\n[[identify]]\nheader = \"x-tenant\"\n\
             [identity]\nunknown = \"create\"\n[proxy]\ntrust = [\"127.0.0.0/8\"]\n\
             [flush]\nmode = \"{}\"\nevery = \"{}ms\"\njournal-path = \"{}\"\n",
            crate::world::SPACE,
            setup.mode,
            setup.flush_ms,
            setup.journal.display(),
        );
        let builder =
            GateBuilder::from_text(&text).store(store).clock(clock.clone()).identify(ByName);
        let builder = setup.plans.read_by(builder);
        let (gate, failed) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(false)));
        let (slot, lost) = (gate.clone(), failed.clone());
        runtime.spawn(async move {
            match builder.open().await {
                Ok(gate) => *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(gate),
                Err(error) => {
                    let expected = is_temporary(&error) || fails;
                    assert!(expected, "a node cannot be opened: {error}");
                    *lost.lock().unwrap_or_else(PoisonError::into_inner) = true;
                }
            }
        });
        Self { runtime, gate, clock, failed, closed: Arc::default() }
    }

    /// Runs it for this long.
    pub(crate) fn run(&self, long: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(long).await });
    }

    /// Its monotonic clock jumps: the process was stopped, its machine was not.
    pub(crate) fn skip(&self, long: Duration) {
        self.runtime.block_on(async { tokio::time::advance(long).await });
    }

    pub(crate) fn gate(&self) -> Option<Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_failed(&self) -> bool {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate, in its own time.
    pub(crate) fn close(&self) {
        let (gate, closed) = (self.gate(), self.closed.clone());
        self.runtime.spawn(async move {
            if let Some(gate) = gate {
                // What is left when the store is away is reported, and tried again by the next
                // life.
                let drained = gate.close().await.map_err(|error| error.to_string());
                *closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(drained);
            }
        });
    }

    pub(crate) fn has_closed(&self) -> bool {
        self.said() == Some(Ok(()))
    }

    /// The result of closing.
    pub(crate) fn said(&self) -> Option<Result<(), String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_temporary(error: &tallygate::Error) -> bool {
    match error {
        tallygate::Error::Store(error) => error.is_temporary(),
        _ => false,
    }
}

/// Trusts the simulation.
struct ByName;

impl Identify for ByName {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let tenant = view.header("x-tenant").and_then(|name| std::str::from_utf8(name).ok());
        tenant.map_or(Identity::Absent, |name| Identity::Tenant(Caller::new(name)))
    }
}

/// A request as the gate sees it.
pub(crate) struct Call {
    pub(crate) tenant: String,
    pub(crate) path: &'static str,
    /// Its idempotency key.
    pub(crate) once: Option<String>,
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
            "idempotency-key" => self.once.as_ref().map(String::as_bytes),
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

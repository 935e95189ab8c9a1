//! What goes on beside requests: the plan file is looked at, tenants are read again before they
//! grow old, and what nobody uses any more leaves memory. One task, owned by the gate.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::Inner;
use super::callers::{MAX_AGE, nanos};
use super::open::MAX_CALLERS;
use crate::admission::tenant::LiveTenant;
use crate::error::Error;

/// How often the plan file is looked at. A raised limit acts on the next request after that.
pub const POLL: Duration = Duration::from_secs(1);

/// How often memory is swept.
const SWEEP: Duration = Duration::from_secs(30);

/// A tenant that has not called for this long leaves memory, once its leases are given back.
const IDLE: Duration = Duration::from_secs(600);

/// Tenants waiting to be read again. Each is in hand at most once; past this they are read by the
/// request that finds them too old.
pub(super) const REFRESH_QUEUE: usize = 4_096;

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct Maintenance {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Maintenance {
    pub(super) fn start(inner: &Arc<Inner>, refreshes: mpsc::Receiver<Arc<LiveTenant>>) -> Self {
        let stop = Arc::new(Notify::new());
        // A weak reference: the task must not keep alive a gate that nobody holds.
        let task = tokio::spawn(run(Arc::downgrade(inner), refreshes, stop.clone()));
        Self { stop, task }
    }

    pub(super) async fn close(self) {
        self.stop.notify_one();
        // It ends by itself; a panic in it has been reported by the runtime.
        let _ = self.task.await;
    }
}

async fn run(
    inner: Weak<Inner>,
    mut refreshes: mpsc::Receiver<Arc<LiveTenant>>,
    stop: Arc<Notify>,
) {
    let mut poll = tokio::time::interval(POLL);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut last_error = None;
    loop {
        tokio::select! {
            () = stop.notified() => return,
            _ = poll.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                inner.poll_plans(&mut last_error).await;
                inner.hub.return_retired();
            }
            _ = sweep.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                inner.sweep();
            }
            tenant = refreshes.recv() => {
                let (Some(tenant), Some(inner)) = (tenant, inner.upgrade()) else { return };
                inner.read_again(&tenant).await;
            }
        }
    }
}

impl Inner {
    /// Asks for a tenant to be read again. False: the queue is full.
    pub(super) fn ask_refresh(&self, tenant: Arc<LiveTenant>) -> bool {
        self.refreshes.try_send(tenant).is_ok()
    }

    /// Looks at the plan file. The same failure is told once, not every second.
    async fn poll_plans(&self, last_error: &mut Option<String>) {
        match self.reload().await {
            Ok(_) => *last_error = None,
            Err(error) => {
                let text = error.to_string();
                if last_error.as_ref() != Some(&text) {
                    crate::telemetry::reload_failed();
                    let what = match error {
                        Error::Plans(_) => "the plan file is broken: the one before stays in force",
                        _ => "the plan file cannot be read: the one before stays in force",
                    };
                    tracing::error!("{what}\n{text}");
                }
                *last_error = Some(text);
            }
        }
    }

    /// Lets go of what nobody uses.
    fn sweep(&self) {
        let now = self.clock.now();
        let old = |at_ns: u64, bound: Duration| now.mono_ns.saturating_sub(at_ns) > nanos(bound);
        let full = self.callers.len() > MAX_CALLERS;
        let keep = if full { MAX_AGE / 2 } else { MAX_AGE };
        self.callers
            .retain(|_, caller| !old(caller.looked_up_ns, keep));
        self.tenants.retain(|_, tenant| {
            // Anybody else who holds it may be about to use it.
            if tenant.age_ns(now) < nanos(IDLE) || Arc::strong_count(tenant) > 1 {
                return true;
            }
            let sheet = tenant.last_sheet();
            let quiet = sheet.is_quiet();
            for lease in sheet.open_leases().filter(|lease| !lease.is_returned()) {
                lease.start_closing();
                self.hub.wake(lease);
            }
            !quiet
        });
        for lease in self.hub.scoped.sweep(now.mono_ns) {
            self.hub.wake(&lease);
        }
        crate::telemetry::tenants_cached(self.tenants.len() as u64);
    }
}

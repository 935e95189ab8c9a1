//! The keeper: the one task that asks the store for leases. Requests leave leases with it and wait,
//! or do not wait; it makes at most one call per pool at a time and hands the answer back to the
//! lease, which says what to ask next.
//!
//! The task is owned by the gate. Closing it gives back what is left of every lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admission::alert::Alert;
use crate::admission::lease::{Call, Lease, Writer};
use crate::admission::pool;
use crate::clock::Clock;
use crate::store::{Item, Store, StoreError, StoreErrorKind, Written};

/// Lease calls in flight at once: enough to hide the store's latency behind each other, few enough
/// not to be a burst against it.
const IN_FLIGHT: usize = 256;

/// Waits between repeats of a call whose outcome is unknown, at first and at most.
const REPEAT: std::ops::Range<Duration> = Duration::from_millis(25)..Duration::from_secs(2);

/// What the keeper works with.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_alert: Option<OnAlert>,
}

/// What a host does with an alert.
pub(crate) type OnAlert = Arc<dyn Fn(&Alert) + Send + Sync>;

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct Keeper {
    task: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    stop: Arc<tokio::sync::Notify>,
}

impl Keeper {
    pub(crate) fn start(hands: Hands, queue: mpsc::Receiver<Arc<Lease>>) -> Self {
        let stop = Arc::new(tokio::sync::Notify::new());
        let task = tokio::spawn(run(hands, queue, stop.clone()));
        Self { task: std::sync::Mutex::new(Some(task)), stop }
    }

    /// Ends the task. Calls in flight are cut off: their leases still have them, and make them
    /// again when they are given back.
    pub(crate) async fn close(&self) {
        self.stop.notify_one();
        let task = self.task.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(task) = task {
            // It ends by itself; a panic in it has been reported by the runtime.
            let _ = task.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(|e| e.into_inner()).take() {
            task.abort();
        }
    }
}

async fn run(hands: Hands, mut queue: mpsc::Receiver<Arc<Lease>>, stop: Arc<tokio::sync::Notify>) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.notified() => break,
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                if let Err(panicked) = ended {
                    tracing::error!(error = %panicked, "a lease call ended badly");
                }
            }
            lease = queue.recv() => {
                let Some(lease) = lease else { break };
                let Ok(place) = room.clone().acquire_owned().await else { break };
                let hands = hands.clone();
                calls.spawn(async move {
                    let _place = place;
                    drive(&hands, &lease).await;
                });
            }
        }
    }
    calls.shutdown().await;
}

/// Makes the calls of one lease until it asks for nothing.
async fn drive(hands: &Hands, lease: &Lease) {
    renew(hands, lease).await;
    raise_alert(hands, lease).await;
}

async fn renew(hands: &Hands, lease: &Lease) {
    let mut delay = REPEAT.start;
    while let Some(call) = lease.next(&hands.writer, hands.clock.now()) {
        let answer = ask(hands, call).await;
        match lease.answered(&hands.writer, hands.clock.now(), answer) {
            Ok(true) => delay = REPEAT.start,
            Ok(false) => {}
            Err(error) if error.kind == StoreErrorKind::Unknown => {
                // It may have been applied: the same call again, until we know.
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(REPEAT.end);
            }
            Err(error) => {
                tracing::warn!(%error, "a lease could not be renewed");
                lease.unqueue();
                return;
            }
        }
    }
}

/// Raises the alert that is due, if nobody has. One that cannot be noted now is due again with the
/// next call.
async fn raise_alert(hands: &Hands, lease: &Lease) {
    let Some((alerting, percent)) = lease.due_alert() else { return };
    let key = lease.pool().key(&hands.writer.space);
    match hands.store.write(pool::alert(key, percent)).await {
        Ok(Written::Applied(_)) => {
            alerting.settle(percent);
            let alert = alerting.alert(percent, lease.window());
            tracing::info!(
                target: "tollgate.alert",
                tenant = %alert.tenant,
                policy = %alert.limit,
                percent,
                "a quota has passed an alert percentage"
            );
            if let Some(hook) = &hands.on_alert {
                hook(&alert);
            }
        }
        Ok(Written::Refused(_)) => alerting.settle(percent),
        Err(error) => tracing::warn!(%error, "an alert could not be noted"),
    }
}

async fn ask(hands: &Hands, call: Call) -> Result<Option<Item>, StoreError> {
    let begun = hands.clock.now();
    let answer = make(hands, call).await;
    let took = hands.clock.now().mono_ns.saturating_sub(begun.mono_ns);
    let error = answer.as_ref().err().map(|error| error.kind.word());
    crate::telemetry::store_call("lease", took as f64 / 1e9, error);
    answer
}

async fn make(hands: &Hands, call: Call) -> Result<Option<Item>, StoreError> {
    match call {
        Call::Look(key) => hands.store.read(key).await,
        Call::Write(write) => match hands.store.write(write).await? {
            Written::Applied(item) | Written::Refused(item) => Ok(item),
        },
    }
}

/// Gives back what is left of these leases, until the deadline. Returns how many it could not.
pub(crate) async fn give_back(hands: &Hands, leases: Vec<Arc<Lease>>, deadline: Instant) -> usize {
    let total = leases.len();
    let mut calls = JoinSet::new();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    for lease in leases {
        lease.close();
        let (hands, room) = (hands.clone(), room.clone());
        calls.spawn(async move {
            let _place = room.acquire_owned().await;
            drive(&hands, &lease).await;
            lease.is_returned()
        });
    }
    let mut returned = 0;
    let all = async {
        while let Some(ended) = calls.join_next().await {
            returned += usize::from(ended.unwrap_or(false));
        }
    };
    // Past the deadline the rest stays held, and is forfeited as after a crash.
    let _ = tokio::time::timeout_at(deadline, all).await;
    total - returned
}

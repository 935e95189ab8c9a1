//! Maintenance beside requests: tasks, owned by the gate, that check the plan file, reread tenants
//! before they are outdated, and free unused memory.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::catalogs::Looked;
use super::idle::{IDLE, IDLE_AFTER};
use super::news;
use super::tenants::Refresh;
use super::{Inner, alert_tasks, top_tenants};
use crate::clock::{Now, nanos};
use crate::patience;
use crate::policy::resolve::LiveCatalog;
use crate::repeated::repeated;
use crate::store::StoreError;
use crate::task::OwnedTask;
use crate::tenants::RETRY;

/// How often the plan file is looked at. What is the same at two looks in a row is put into force,
/// and acts on the next request after that.
const POLL: Duration = Duration::from_secs(1);

/// How often memory is swept.
const SWEEP: Duration = Duration::from_secs(30);

/// For so long the wall clock must have shown a time before anything expires by it.
const VOUCHED: Duration = Duration::from_secs(3_600);

/// Most readings of the wall clock in mind: one a sweep within [`VOUCHED`], and some.
const MAX_OFFSETS: usize = 256;

/// Parts of the store looked through for expired items in one sweep, as long as each has some: the
/// other tasks of the store go on between them.
const EXPIRE_PARTS: usize = 8;

/// Tenants waiting to be read again. Each is in hand at most once; past this they are read by the
/// request that finds them too old.
pub(super) const REFRESH_QUEUE: usize = 4_096;

/// How often the keys of an issuer are read again, besides when a token names an unknown one.
#[cfg(feature = "jwt")]
const REREAD_KEYS: Duration = Duration::from_secs(300);

/// Starts the tasks.
pub(super) fn start(inner: &Arc<Inner>, refreshes: mpsc::Receiver<Refresh>) -> Vec<OwnedTask> {
    // A weak reference: a task must not keep alive a gate that its host has dropped.
    // What takes long has a task of its own, so that tenants do not grow old meanwhile. Each
    // may be cut off anywhere: what it does is done again, or done by others.
    let weak = || Arc::downgrade(inner);
    let mut tasks = vec![
        OwnedTask::until_stopped(run(weak(), refreshes)),
        OwnedTask::until_stopped(watch_plans(weak())),
        OwnedTask::until_stopped(upkeep(weak())),
        OwnedTask::until_stopped(settle_guests(weak())),
        OwnedTask::until_stopped(watch_store(inner)),
    ];
    tasks.extend(alert_tasks::watching(inner));
    if let Some(most) = inner.settings.top_tenants {
        tasks.push(OwnedTask::until_stopped(top_tenants::watch(weak(), most)));
    }
    if inner.tenants.directory.feed().is_shared() {
        tasks.push(OwnedTask::until_stopped(news::follow(weak())));
    }
    #[cfg(feature = "jwt")]
    tasks.extend(inner.credentials.identifier.verifiers().filter_map(|verifier| {
        let jwks = verifier.source()?.clone();
        Some(OwnedTask::until_stopped(reread_keys(jwks, inner.clock.clone())))
    }));
    tasks
}

/// Keeps an issuer's keys fresh. What cannot be read leaves the keys that are known.
#[cfg(feature = "jwt")]
async fn reread_keys(jwks: Arc<crate::identity::jwt::Jwks>, clock: Arc<dyn crate::clock::Clock>) {
    loop {
        if let Err(error) = jwks.refresh(clock.now()).await {
            tracing::warn!(%error, "the keys of a token issuer cannot be read");
        }
        // Whether they are wanted or old, they are read.
        let _ = tokio::time::timeout(REREAD_KEYS, jwks.wanted()).await;
    }
}

/// Looks at the plan file. On a disk that does not answer that takes long.
async fn watch_plans(inner: Weak<Inner>) {
    // It has just been read.
    let mut poll = tokio::time::interval_at(Instant::now() + POLL, POLL);
    let mut looked = Looked::default();
    loop {
        poll.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.catalogs.poll(&mut looked).await;
        let seen = LiveCatalog::publication_of(inner.hub.newest_rev.load(Ordering::Relaxed));
        // A store that does not answer keeps no change of the file waiting.
        let caught_up = patience::within(POLL, inner.catalogs.catch_up(seen)).await;
        if let Some(Err(error)) = caught_up {
            let now_ms = inner.clock.now().wall_ms;
            repeated!(warn, now_ms, "could not read which plan file is the newest"; %error);
        }
    }
}

/// Reads again what grows old, each tenant's by turns with all that is looked up: one that cannot
/// be read keeps no other waiting.
async fn run(inner: Weak<Inner>, mut refreshes: mpsc::Receiver<Refresh>) {
    let mut poll = tokio::time::interval(POLL);
    let mut reading = JoinSet::new();
    loop {
        tokio::select! {
            biased; // so that one seed is one run
            () = new_writer(&inner) => {
                let Some(inner) = inner.upgrade() else { return };
                inner.tenants.turn_over().await;
            }
            Some(ended) = reading.join_next(), if !reading.is_empty() => {
                if let Err(panicked) = ended {
                    tracing::error!(error = %panicked, "reading a tenant panicked");
                }
            }
            _ = poll.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                crate::repeated::settle(inner.clock.now().wall_ms);
                if inner.tenants.idle.are_sealed() {
                    inner.tenants.return_sealed().await;
                }
                inner.hub.retired.give_back().await;
            }
            refresh = refreshes.recv() => {
                let (Some(refresh), Some(inner)) = (refresh, inner.upgrade()) else { return };
                reading.spawn(async move { inner.tenants.refresh_in_turn(refresh).await });
            }
        }
    }
}

/// Returns once this process leases and records under another incarnation.
async fn new_writer(inner: &Weak<Inner>) {
    let hub = inner.upgrade().map(|inner| inner.hub.clone());
    match hub {
        Some(hub) => hub.incarnation.changed().await,
        None => std::future::pending().await,
    }
}

/// Frees what is unused, in memory and in the store.
async fn upkeep(inner: Weak<Inner>) {
    // Nothing is idle yet.
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
    let mut vouched = Vouched::default();
    loop {
        sweep.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.tenants.compact_idle(IDLE_AFTER, IDLE).await;
        inner.tenants.sweep();
        let (own, now_ms) = (inner.hub.incarnation.current(), inner.clock.now().wall_ms);
        if let Err(error) = inner.recording.ledger.fold_runs(own, now_ms).await {
            tracing::warn!(%error, "usage logs could not be folded");
        }
        if let Err(error) = inner.expire(&mut vouched).await {
            tracing::warn!(%error, "expired items could not be removed");
        }
    }
}

/// Looks at the store whenever it seems to be away.
fn watch_store(inner: &Arc<Inner>) -> impl Future<Output = ()> + Send + use<> {
    // What it needs of the gate, which it must not keep alive.
    let (hub, store) = (inner.hub.clone(), inner.leasing.ctx.store.clone());
    let item = inner.leasing.writer.space.ledger();
    async move { hub.reach.watch(&*store, &item).await }
}

/// Hands over what guests used, once the directory answers.
async fn settle_guests(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval_at(Instant::now() + RETRY, RETRY);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.tenants.settle_guests().await;
    }
}

/// The time by which things expire in the store: the earliest that the wall clock has shown within
/// the last [`VOUCHED`], moved on by the monotonic one. So a clock that runs ahead for a while
/// sweeps nothing away that is needed once it is right again.
#[derive(Debug, Default)]
struct Vouched {
    /// Wall milliseconds less monotonic ones, and when they were read; oldest first. Of those that
    /// are older than the span there is one.
    offsets: VecDeque<(u64, i64)>,
}

impl Vouched {
    /// `None`: the clock has not been looked at for long enough.
    fn until_ms(&mut self, now: Now) -> Option<i64> {
        let mono_ms = i64::try_from(now.mono_ns / 1_000_000).unwrap_or(i64::MAX);
        self.offsets.push_back((now.mono_ns, now.wall_ms.saturating_sub(mono_ms)));
        let is_old = |at_ns: u64| now.mono_ns.saturating_sub(at_ns) >= nanos(VOUCHED);
        while self.offsets.get(1).is_some_and(|(at_ns, _)| is_old(*at_ns)) {
            self.offsets.pop_front();
        }
        if self.offsets.len() > MAX_OFFSETS {
            self.offsets.remove(1); // sweeps that came faster than they should
        }
        let is_vouched = self.offsets.front().is_some_and(|(at_ns, _)| is_old(*at_ns));
        let earliest = self.offsets.iter().map(|(_, offset)| *offset).min();
        earliest.filter(|_| is_vouched).map(|offset| mono_ms.saturating_add(offset))
    }
}

impl Inner {
    /// Has the store forget some of what has expired.
    async fn expire(&self, since_when: &mut Vouched) -> Result<(), StoreError> {
        let Some(until_ms) = since_when.until_ms(self.clock.now()) else { return Ok(()) };
        for _ in 0..EXPIRE_PARTS {
            if self.leasing.ctx.store.expire(until_ms).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, Store};
    use crate::{Ask, testing};

    const DAY: Duration = Duration::from_secs(86_400);

    /// How many items of this kind there are: the letter after the space in a partition's name.
    fn count(store: &Memory, kind: &str) -> usize {
        let is = |pk: &str| pk.split('#').nth(2) == Some(kind);
        store.keys().iter().filter(|key| is(&key.pk)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn pools_of_long_ago_are_swept_and_what_was_used_is_kept() {
        let store = Memory::new();
        let plans = r#"
            default-plan = "free"
            [meter.jobs]
            [plan.free]
            quota.jobs = ["2/hour", "1000"]
        "#;
        let (gate, clock) = testing::gate_with(plans, store.clone());
        for _ in 0..3 {
            let tenant = gate.tenant("acme").await.unwrap();
            for _ in 0..3 {
                let ask = Ask::new(&tenant, "job").cost("jobs", 1);
                gate.admit(ask).await.unwrap().settle();
            }
            clock.advance(Duration::from_secs(3_600));
            // Paused time: as long as it takes for a flush and a sweep.
            tokio::time::sleep(SWEEP).await;
        }
        let logged = count(&store, "L");
        assert!(logged > 0, "what was used is on record");
        assert_eq!(count(&store, "Q"), 4, "three hours, and what is granted once");

        clock.advance(40 * DAY - Duration::from_secs(2 * 3_600 + 1));
        tokio::time::sleep(2 * SWEEP).await;
        assert_eq!(count(&store, "Q"), 4, "the first has a second to go");
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(2 * SWEEP).await;
        assert_eq!(count(&store, "Q"), 3);
        clock.advance(3 * DAY);
        tokio::time::sleep(2 * SWEEP).await;
        assert_eq!(count(&store, "Q"), 1, "what is granted once never comes again");
        assert!(count(&store, "L") >= logged);
        assert_eq!(store.expire(i64::MAX).await.unwrap(), 0, "nothing else expires");
        gate.close().await.unwrap();
    }
}

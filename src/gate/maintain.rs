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

use super::Inner;
use super::callers::Refresh;
use super::catalogs::Looked;
use super::idle::IDLE_AFTER;
use super::inner::in_order;
use super::news;
use super::open::MAX_CALLERS;
use crate::clock::{Now, nanos};
use crate::holders::{Holder, is_held_only_by};
use crate::quota::lease::Lease;
use crate::store::StoreError;
use crate::task::OwnedTask;
use crate::tenants::tenant::LiveTenant;
use crate::tenants::{MAX_AGE, RETRY};

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

/// A tenant that has not called for this long leaves memory, once its leases are given back.
const IDLE: Duration = Duration::from_secs(600);

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
                inner.turn_over().await;
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
                    inner.return_sealed().await;
                }
                inner.hub.retired.give_back().await;
            }
            refresh = refreshes.recv() => {
                let (Some(refresh), Some(inner)) = (refresh, inner.upgrade()) else { return };
                reading.spawn(async move { inner.refresh_in_turn(refresh).await });
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
        inner.compact_idle(IDLE_AFTER, IDLE).await;
        inner.sweep();
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
        inner.settle_guests().await;
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
    /// Reads it again when it is its turn; as it was last known if that cannot be.
    async fn refresh_in_turn(&self, refresh: Refresh) {
        match refresh {
            Refresh::Tenant(tenant) => {
                match self.tenants.reads.place(tenant.core.surrogate.as_u128()).await {
                    Some(_place) => _ = self.read_again(&tenant, true).await,
                    None => tenant.unwant_refresh(),
                }
            }
            Refresh::Caller(probe, wanted) => {
                let known = self.tenants.callers.get(&probe.0).map(|it| it.clone());
                let whose = known.as_ref().map(|it| it.tenant.core.surrogate.as_u128());
                match self.tenants.reads.place(whose.unwrap_or_default()).await {
                    Some(_place) => self.refresh_caller(probe, wanted).await,
                    None => {
                        known.inspect(|it| it.refreshing.store(false, Ordering::Release));
                    }
                }
            }
        }
    }

    /// Has a tenant read again in the background, unless that is on its way. Where the queue is
    /// full it is asked for again.
    pub(super) fn refresh_soon(&self, tenant: &Arc<LiveTenant>) {
        if tenant.wants_refresh()
            && self.tenants.refreshes.try_send(Refresh::Tenant(tenant.clone())).is_err()
        {
            tenant.unwant_refresh();
        }
    }

    /// Has every sheet made anew: leases and rows of before belong to another incarnation.
    async fn turn_over(&self) {
        self.catalogs.live.rcu(|live| live.next());
        self.return_sealed().await;
    }

    /// What a sealed incarnation holds and does not use goes back now, whether its tenant calls
    /// again, sleeps or does neither: others soon take what its closed entries say for used.
    async fn return_sealed(&self) {
        let now_ms = self.clock.now().wall_ms;
        self.restore_sealed(now_ms);
        let incarnation = self.hub.incarnation.current();
        for lease in self.tenant_leases() {
            if lease.incarnation() != incarnation && lease.window().end_ms > now_ms {
                self.hub.retired.add(lease);
            }
        }
        self.hub.retired.give_back().await;
    }

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

    /// Frees what is unused.
    fn sweep(&self) {
        let now = self.clock.now();
        let old = |at_ns: u64, bound: Duration| now.mono_ns.saturating_sub(at_ns) > nanos(bound);
        // Kept past their age bound, so that they can stay as last known while the store is away.
        let full = self.tenants.callers.len() + self.tenants.idle.callers() > MAX_CALLERS;
        let keep = if full { MAX_AGE / 2 } else { IDLE };
        self.tenants.callers.retain(|_, caller| !old(caller.looked_up_ns(), keep));
        let mut to_return = Vec::new();
        self.tenants.active.retain(|_, tenant| {
            if tenant.age_ns(now) < nanos(IDLE) {
                return true;
            }
            // A handle may be about to use it: only what no request holds goes back.
            let is_kept = !is_held_only_by(tenant, [Holder::Table]);
            let sheet = tenant.last_sheet();
            let mut quiet = sheet.is_quiet(now);
            let running = |lease: &Arc<Lease>| lease.window().end_ms > now.wall_ms;
            let leases = tenant.core.leases();
            for lease in leases.iter().filter(|lease| running(lease) || sheet.has(lease)) {
                if !lease.is_returned() && (!is_kept || lease.open_holds() == 0) {
                    quiet = false;
                    lease.rest();
                    to_return.push(lease.clone());
                }
            }
            is_kept || !quiet
        });
        to_return.extend(self.hub.scoped.sweep(now));
        in_order(to_return).iter().for_each(|lease| self.hub.renewals.wake(lease));
        self.forget_idle(now, keep, IDLE);
        crate::telemetry::tenants_cached(
            (self.tenants.active.len() + self.tenants.idle.tenants()) as u64,
        );
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

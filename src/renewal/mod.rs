//! The renewer: the one task that asks the store for leases. Requests hand leases to it and may
//! wait; it makes at most one call per pool at a time and passes the answer to the lease, which
//! chooses the next call. Tenants take turns (see [`crate::turns`]), and a call in doubt gives up
//! its place until it is repeated.
//!
//! The task is owned by the gate. Closing it gives back what is left of every lease.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::delays::Delays;
use crate::ids::SubPoolNumber;
use crate::notify::AlertQueue;
use crate::notify::kinds::{self, LimitPassed};
use crate::payers::late;
use crate::quota::alert::{Alert, Due};
use crate::quota::demand::RootSeen;
use crate::quota::lease::{Lease, LeaseCall, Writer};
use crate::quota::pool;
use crate::quota::subpool;
use crate::repeated::repeated;
use crate::sheets::hub::Hub;
use crate::store::layout::Space;
use crate::store::{Item, Store, StoreError, StoreErrorKind, Written};
use crate::task::{OwnedTask, Stop};
use crate::turns::Turns;

mod recover;
mod seek;
mod whole;

pub(crate) use recover::Recovery;
pub(crate) use whole::Whole;

/// Lease calls in flight at once: enough to hide the store's latency behind each other, few enough
/// not to be a burst against it.
const IN_FLIGHT: usize = 256;

/// Most leases held by the task, those in doubt included: some 20 MB. Past it the next request asks
/// again.
const IN_HAND: usize = 262_144;

/// Delays between repeats of a call whose outcome is unknown.
const REPEAT: Delays = Delays::doubling(Duration::from_millis(25), Duration::from_secs(2));

/// The renewer's dependencies.
#[derive(Clone)]
pub(crate) struct RenewerContext {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) space: Space,
    pub(crate) on_alert: Option<OnAlert>,
    pub(crate) alerts: Arc<AlertQueue>,
    pub(crate) recovery: Arc<Recovery>,
}

/// The host's handler for alerts.
pub(crate) type OnAlert = Arc<dyn Fn(&Alert) + Send + Sync>;

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct LeaseRenewer(OwnedTask);

impl LeaseRenewer {
    pub(crate) fn start(ctx: RenewerContext, queue: mpsc::Receiver<Arc<Lease>>) -> Self {
        Self(OwnedTask::start(|stop| run(ctx, queue, stop)))
    }

    /// Ends the task. Calls in flight are cut off: their leases still have them, and repeat them
    /// when they are given back.
    pub(crate) async fn close(&self) {
        self.0.stop();
        self.0.ended().await;
    }
}

async fn run(ctx: RenewerContext, mut queue: mpsc::Receiver<Arc<Lease>>, stop: Stop) {
    let mut desk = Desk::new(ctx, IN_HAND);
    loop {
        desk.start();
        tokio::select! {
            biased; // so that one seed is one run; no branch waits for another
            () = stop.signalled() => break,
            () = desk.ended() => {}
            lease = queue.recv() => match lease {
                Some(lease) => desk.take(lease),
                None => break,
            },
        }
        // However many calls end, new leases are taken in as well.
        for _ in 0..AT_A_TIME {
            let Ok(lease) = queue.try_recv() else { break };
            desk.take(lease);
        }
    }
    desk.calls.shutdown().await;
}

/// Leases taken in before looking at anything else.
const AT_A_TIME: usize = 256;

/// The leases in hand: waiting for a place, with calls under way, or to be repeated because the
/// last call is in doubt. The last have no place meanwhile: a store that does not answer for one
/// tenant must not keep the others waiting.
struct Desk {
    ctx: RenewerContext,
    turns: Turns<RepeatedLease>,
    calls: JoinSet<TurnEnd>,
    busy: HashMap<tokio::task::Id, RepeatedLease>,
    repeats: BinaryHeap<Reverse<Repeat>>,
    /// Numbers repeats, so that those due at one instant keep their order.
    number: u64,
    /// How many of the ended ones had nothing left to give back.
    returned: usize,
}

/// Returns at this instant, or never.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// A lease, and the delays of its next repeats.
struct RepeatedLease {
    lease: Arc<Lease>,
    delays: Delays,
    /// It has had a place: its last call is in doubt.
    has_begun: bool,
}

/// A lease whose last call is in doubt.
struct Repeat {
    at: Instant,
    number: u64,
    of: RepeatedLease,
}

impl Desk {
    /// A desk for at most `most` leases.
    fn new(ctx: RenewerContext, most: usize) -> Self {
        Self {
            ctx,
            turns: Turns::new(IN_FLIGHT, most),
            calls: JoinSet::new(),
            busy: HashMap::new(),
            repeats: BinaryHeap::new(),
            number: 0,
            returned: 0,
        }
    }

    fn take(&mut self, lease: Arc<Lease>) {
        if self.ctx.hub.reach.is_away() {
            lease.unqueue(); // asked for again once the store is back
            return;
        }
        let tenant = lease.pool().tenant;
        if let Err(of) =
            self.turns.push(tenant, RepeatedLease { lease, delays: REPEAT, has_begun: false })
        {
            // Too many leases of this tenant: the next request that needs units tries again.
            of.lease.unqueue();
        }
    }

    /// Starts the calls of leases with a place.
    fn start(&mut self) {
        while let Some(mut of) = self.turns.next() {
            if !std::mem::replace(&mut of.has_begun, true) {
                of.lease.begins_turn();
            }
            let (ctx, lease) = (self.ctx.clone(), of.lease.clone());
            let task = self.calls.spawn(async move { turn(&ctx, &lease).await });
            self.busy.insert(task.id(), of);
        }
    }

    /// Returns when a call has ended or one is due for a repeat. Cancelled, it has done nothing.
    async fn ended(&mut self) {
        let next = self.repeats.peek().map(|Reverse(repeat)| repeat.at);
        tokio::select! {
            biased;
            Some(ended) = self.calls.join_next_with_id(), if !self.calls.is_empty() => {
                self.take_back(ended);
                while let Some(ended) = self.calls.try_join_next_with_id() {
                    self.take_back(ended);
                }
            }
            () = until(next) => {}
        }
        let now = Instant::now();
        while self.repeats.peek().is_some_and(|Reverse(repeat)| repeat.at <= now) {
            let Some(Reverse(Repeat { of, .. })) = self.repeats.pop() else { break };
            self.turns.again(of.lease.pool().tenant, of);
        }
    }

    fn take_back(&mut self, ended: Result<(tokio::task::Id, TurnEnd), tokio::task::JoinError>) {
        let id = ended.as_ref().map_or_else(|panicked| panicked.id(), |(id, _)| *id);
        let Some(mut of) = self.busy.remove(&id) else { return };
        let tenant = of.lease.pool().tenant;
        match ended {
            Ok((_, TurnEnd::InDoubt { anew })) => {
                if anew {
                    of.delays = REPEAT;
                }
                let at = Instant::now() + of.delays.step();
                self.number += 1;
                self.repeats.push(Reverse(Repeat { at, number: self.number, of }));
                self.turns.pause(tenant);
                return;
            }
            Ok((_, TurnEnd::Done | TurnEnd::Failed)) => {
                self.returned += usize::from(of.lease.is_returned())
            }
            Err(panicked) => {
                tracing::error!(error = %panicked, "a lease call panicked");
                of.lease.unqueue();
            }
        }
        of.lease.ends_turn();
        self.turns.done(tenant);
    }
}

impl Repeat {
    fn order(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Repeat {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Repeat {}

impl PartialOrd for Repeat {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Repeat {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The outcome of a lease's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnEnd {
    /// It needs nothing more.
    Done,
    /// An error ended them.
    Failed,
    /// The outcome of the last call is unknown: it is to be repeated. `anew`: a call before it was
    /// answered.
    InDoubt { anew: bool },
}

/// Makes the calls of one lease until it needs nothing, or one of them is in doubt.
async fn turn(ctx: &RenewerContext, lease: &Arc<Lease>) -> TurnEnd {
    let ended = renew(ctx, lease).await;
    if let TurnEnd::InDoubt { .. } = ended {
        return ended;
    }
    // Even if no call was made, because the pool's refusal stands, a request has given units back
    // or no more are taken; but not after an error, when a record must come first, or of units of a
    // sealed lease: waiting use would ask again at once.
    let is_refused = lease.is_refused_now(ctx.hub.clock.now());
    let may_pay = is_refused || !lease.is_sealed() && (lease.here() > 0 || lease.takes_no_more());
    if ended == TurnEnd::Done && may_pay && !lease.is_capped() {
        late::answered(&ctx.hub, lease);
    }
    if lease.is_capped() {
        ctx.hub.raises.add(lease);
    }
    raise_alerts(ctx, lease).await;
    if lease.is_refused_now(ctx.hub.clock.now()) {
        match recover::recover(ctx, lease).await {
            Ok(false) => {}
            Ok(true) => {
                lease.forget_refusal();
                ctx.hub.renewals.wake(lease);
            }
            Err(error) => {
                let now_ms = ctx.hub.clock.now().wall_ms;
                repeated!(warn, now_ms, "could not reclaim leases of dead writers"; %error);
            }
        }
    }
    TurnEnd::Done
}

/// Makes the calls of one lease.
async fn renew(ctx: &RenewerContext, lease: &Arc<Lease>) -> TurnEnd {
    let writer = Writer { space: ctx.space.clone(), incarnation: lease.incarnation() };
    let now = || ctx.hub.clock.now();
    if ctx.hub.first_reads.are_cheaper() {
        lease.look_first();
    }
    let (mut anew, mut is_left) = (false, false);
    while let Some(call) = lease.next(&writer, now()) {
        let unseen = lease.is_unseen();
        let answer = ask(ctx, call).await;
        if let (true, Ok(seen)) = (unseen, &answer) {
            ctx.hub.first_reads.pool_was_there(seen.was_there);
            if let Some(shard) = sub_pool_of(ctx, lease, seen) {
                lease.divert(shard);
                continue;
            }
        }
        let root = answer.as_ref().ok().and_then(|seen| seen.root);
        if let Some(root) = root {
            lease.saw_root(root);
        }
        let answer = answer.map(|seen| seen.item);
        is_left = answer.as_ref().is_ok_and(|item| item.as_ref().is_some_and(seek::is_left));
        let answered = lease.answered(&writer, now(), answer);
        if answered.is_ok() {
            ctx.hub.raises.note_reclaimable(lease);
            ctx.hub.newest_rev.fetch_max(lease.newest_rev(), Ordering::Relaxed);
            late::answered(&ctx.hub, lease);
            if unseen && lease.is_unlogged() {
                ctx.hub.unrecorded.add_lease(lease);
            }
        }
        match answered {
            Ok(goes_on) => anew |= goes_on,
            // It may have been applied: repeat the same call until its outcome is known.
            Err(error) if error.kind == StoreErrorKind::Unknown => {
                ctx.hub.reach.suspect();
                return TurnEnd::InDoubt { anew };
            }
            Err(error) => {
                repeated!(warn, now().wall_ms, "lease renewal failed"; %error);
                if error.kind == StoreErrorKind::Unavailable {
                    ctx.hub.reach.suspect();
                }
                lease.unqueue();
                return TurnEnd::Failed;
            }
        }
        if lease.is_sealed() {
            ctx.hub.incarnation.note_sealed(lease.incarnation());
            ctx.hub.raises.hurry();
        }
        if root.is_some_and(|root| root.owed > 0) {
            lease.follow_debt();
        }
    }
    if let Some(shard) = lease.shard().filter(|_| is_left && lease.has_left()) {
        // Left there, they are found by the next seek.
        if let Err(error) = seek::leave(ctx, lease.pool(), shard).await {
            tracing::debug!(%error, "units left in an unused sub-pool");
        }
    }
    TurnEnd::Done
}

/// The sub-pool for a lease that has just met its pool, if it is to have one. A slot of a strict
/// rate has none: it is over before units in the wrong sub-pool could be moved.
fn sub_pool_of(ctx: &RenewerContext, lease: &Lease, seen: &PoolSeen) -> Option<SubPoolNumber> {
    let may = !lease.is_of_slot() && !lease.has_place() && ctx.store.promise().shared;
    let item = seen.item.as_ref().filter(|_| may)?;
    let is_crowded = subpool::is_crowded(item, lease.incarnation()).ok()?;
    is_crowded.then(|| subpool::shard_of(lease.incarnation()))
}

/// Raises the alerts that are due, each once. One that cannot be noted now is due again with the
/// next record.
async fn raise_alerts(ctx: &RenewerContext, lease: &Lease) {
    if lease.due_alert(None).is_none() {
        return;
    }
    // The view may be old, and other processes have given units back.
    let seen = match Whole::read(&*ctx.store, &ctx.space, lease.pool()).await {
        Ok(Some(pool)) => {
            pool.free().map(|free| (pool.root.terms.limit.saturating_sub(free), pool.alerted))
        }
        Ok(None) => return,
        Err(error) => Err(error),
    };
    let (taken, raised) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let now_ms = ctx.hub.clock.now().wall_ms;
            repeated!(warn, now_ms, "could not check a due alert"; %error);
            return;
        }
    };
    while let Some(due) = lease.due_alert(Some(taken)) {
        // Before it is noted as raised: a process that dies in between leaves it to the next that
        // looks, and the queue knows that it is the same.
        if due.at > raised
            && let Err(error) = raise(ctx, lease, &due).await
        {
            let now_ms = ctx.hub.clock.now().wall_ms;
            repeated!(warn, now_ms, "could not write an alert"; %error);
            return;
        }
        let note = pool::alert(lease.pool().key(&ctx.space), due.at);
        match ctx.store.write(note).await {
            Ok(Written::Applied(_)) => tell(ctx, &due.alert),
            Ok(Written::Refused(_)) => {}
            Err(error) => {
                let now_ms = ctx.hub.clock.now().wall_ms;
                repeated!(warn, now_ms, "could not record an alert"; %error);
                return;
            }
        }
        lease.alert_is_told(due.at);
    }
}

/// Writes an alert for the destinations.
async fn raise(ctx: &RenewerContext, lease: &Lease, due: &Due) -> Result<(), StoreError> {
    let (alert, terms) = (&due.alert, &due.terms);
    if !ctx.alerts.wants(kinds::limit_kind(alert.percent)) {
        return Ok(());
    }
    let passed = LimitPassed {
        surrogate: lease.pool().tenant,
        tenant: &alert.tenant,
        plan: &terms.plan,
        limit: &alert.limit,
        percent: alert.percent,
        at: due.at,
        used: terms.used(due.used),
        limit_units: terms.units(),
        window: (alert.window.start_ms, alert.window.end_ms),
    };
    ctx.alerts.raise(&kinds::limit_passed(ctx.alerts.stamp(), passed)).await
}

fn tell(ctx: &RenewerContext, alert: &Alert) {
    tracing::info!(
        target: crate::telemetry::EVENT_ALERT,
        tenant = %alert.tenant,
        policy = %alert.limit,
        percent = alert.percent,
        "a quota has passed an alert percentage"
    );
    if let Some(hook) = &ctx.on_alert {
        hook(alert);
    }
}

/// A pool as a call found it.
struct PoolSeen {
    item: Option<Item>,
    /// It existed before.
    was_there: bool,
    /// For a sub-pool: its root.
    root: Option<RootSeen>,
}

async fn ask(ctx: &RenewerContext, call: LeaseCall) -> Result<PoolSeen, StoreError> {
    let begun = ctx.hub.clock.now();
    let answer = make(ctx, call).await;
    let took = ctx.hub.clock.now().mono_ns.saturating_sub(begun.mono_ns);
    let error = answer.as_ref().err().map(|error| error.kind.word());
    crate::telemetry::store_call("lease", took as f64 / 1e9, error);
    answer
}

async fn make(ctx: &RenewerContext, call: LeaseCall) -> Result<PoolSeen, StoreError> {
    match call {
        LeaseCall::Look(key) => {
            let item = ctx.store.read(key).await?;
            Ok(PoolSeen { was_there: item.is_some(), item, root: None })
        }
        LeaseCall::Write(write) => Ok(match ctx.store.write(write).await? {
            Written::Applied(item) => PoolSeen { item, was_there: false, root: None },
            Written::Refused(item) => PoolSeen { item, was_there: true, root: None },
        }),
        LeaseCall::Seek(wanted) => {
            let seek::SeekAnswer { item, root } = seek::seek(ctx, &wanted).await?;
            let root = root.filter(|_| wanted.shard.is_some());
            Ok(PoolSeen { item, was_there: true, root })
        }
    }
}

/// Gives back what is left of these leases until the deadline. Returns how many it could not.
pub(crate) async fn give_back(
    ctx: &RenewerContext,
    leases: Vec<Arc<Lease>>,
    deadline: Instant,
) -> usize {
    let total = leases.len();
    // The leases are in memory already, so there is no bound.
    let mut desk = Desk::new(ctx.clone(), usize::MAX);
    for lease in leases {
        lease.close();
        desk.take(lease);
    }
    let all = async {
        while !desk.turns.is_empty() {
            desk.start();
            desk.ended().await;
        }
    };
    // Past the deadline the rest stays held, and is forfeited as after a crash.
    let _ = tokio::time::timeout_at(deadline, all).await;
    desk.calls.shutdown().await;
    total - desk.returned
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::clock::ManualClock;
    use crate::ids::{Surrogate, WriterId};
    use crate::ledger::ceilings::AHEAD;
    use crate::quota::lease::Take;
    use crate::quota::pool::{PoolId, Terms, View};
    use crate::store::{Key, Memory, Page, Promise, Query, StoreFuture, Write};
    use crate::testing::{Faulty, Odds};

    /// Of so few units a first lease is 8 asks, all of which may be served at once.
    const LIMIT: u64 = 1_000;

    /// Delays answers: an older one may come after a newer one, which a store that is slow before
    /// it applies never shows.
    struct LateAnswers(Faulty, Arc<AtomicU64>);

    impl LateAnswers {
        fn late<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
            let step = 0x9E37_79B9_7F4A_7C15;
            let random = self.1.fetch_add(step, Ordering::Relaxed) >> 33;
            let long = [0, 0, 20, 400][random as usize % 4];
            Box::pin(async move {
                let answer = answer.await;
                tokio::time::sleep(Duration::from_millis(long)).await;
                answer
            })
        }
    }

    impl Store for LateAnswers {
        fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
            self.late(self.0.read(key))
        }

        fn write(&self, write: Write) -> StoreFuture<Written> {
            self.late(self.0.write(write))
        }

        fn query(&self, query: Query) -> StoreFuture<Page> {
            self.late(self.0.query(query))
        }

        fn promise(&self) -> Promise {
            self.0.promise()
        }

        fn close(&self) -> StoreFuture<()> {
            self.0.close()
        }
    }

    /// Makes the calls of one lease until it needs nothing.
    async fn drive(ctx: &RenewerContext, lease: &Arc<Lease>) {
        let mut delays = REPEAT;
        while matches!(turn(ctx, lease).await, TurnEnd::InDoubt { .. }) {
            tokio::time::sleep(delays.step()).await;
        }
    }

    fn lossy(seed: u64) -> LateAnswers {
        let odds = Odds {
            unavailable: 50,
            throttled: 50,
            lose_request: 50,
            lose_reply: 100,
            delay: 300,
            repeat: 100,
        };
        let store = Faulty::seeded(Memory::new(), seed, odds);
        LateAnswers(store, Arc::new(AtomicU64::new(seed << 40)))
    }

    fn hands(store: impl Store, clock: &ManualClock) -> RenewerContext {
        RenewerContext {
            store: Arc::new(store),
            hub: Hub::new(Arc::new(clock.clone())).0,
            space: Space::new("test"),
            on_alert: None,
            alerts: Arc::new(AlertQueue::new(
                Arc::new(Memory::new()),
                Space::new("test"),
                Arc::new(clock.clone()),
                Vec::new(),
            )),
            recovery: Arc::default(),
        }
    }

    fn lease() -> Arc<Lease> {
        let pool = PoolId {
            tenant: Surrogate::test(1),
            limit: "requests/month".into(),
            scope: 0,
            start_ms: 0,
        };
        let limit = LIMIT as i64;
        Arc::new(Lease::new(pool, i64::MAX, Terms { limit, rev: 1 }, 1).under(WriterId::test(7)))
    }

    /// Acts as the recorder, on a log that never fails.
    fn log_ceilings(hub: &Hub) {
        for lease in hub.raises.take() {
            let ceiling = lease.propose_ceiling(hub.clock.now(), AHEAD);
            ceiling.into_iter().for_each(|ceiling| lease.ceiling_logged(ceiling));
        }
    }

    /// Takes and settles `n` at a time until the pool has refused several times.
    async fn serve(hub: Arc<Hub>, clock: ManualClock, lease: Arc<Lease>, n: u64) -> u64 {
        let (mut served, mut refused) = (0, 0);
        while refused < 5 {
            match lease.take(n, hub.clock.now()) {
                Take::Taken { renew } => {
                    lease.settle(n);
                    (served, refused) = (served + n, 0);
                    if renew {
                        hub.renewals.wake(&lease);
                    }
                    tokio::time::sleep(Duration::from_millis(n)).await;
                }
                Take::Need => {
                    hub.renewals.wake(&lease);
                    let answer = hub.renewals.answer_for(&lease, n);
                    let _ = tokio::time::timeout(Duration::from_millis(250), answer).await;
                }
                Take::Exhausted => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    clock.advance(Duration::from_secs(3)); // longer than a refusal stands
                }
            }
        }
        served
    }

    /// The pool's state, read until the lossy store answers.
    async fn pool(ctx: &RenewerContext, lease: &Lease) -> View {
        loop {
            let read = ctx.store.read(lease.pool().key(&ctx.space));
            if let Ok(item) = read.await {
                return View::read(&item.unwrap(), WriterId::test(7)).unwrap();
            }
        }
    }

    /// One lease, renewed and given back for many tasks that want it at once, over a store that is
    /// slow, loses answers, answers late and repeats calls. What is served never passes the pool,
    /// and all of it can be served.
    #[tokio::test(start_paused = true)]
    async fn a_pool_is_served_to_its_end_and_never_beyond() {
        for seed in 0..40 {
            let clock = ManualClock::at_unix_ms(0);
            let ctx = hands(lossy(seed), &clock);
            let (hub, queue) = Hub::new(Arc::new(clock.clone()));
            let ctx = RenewerContext { hub: hub.clone(), ..ctx };
            let renewer = LeaseRenewer::start(ctx.clone(), queue);
            let lease = lease();
            let mut tasks = JoinSet::new();
            for task in 0..16 {
                tasks.spawn(serve(hub.clone(), clock.clone(), lease.clone(), 1 + task % 3));
            }
            let mut served = 0;
            while !tasks.is_empty() {
                let pause = tokio::time::sleep(Duration::from_millis(300));
                tokio::select! {
                    Some(ended) = tasks.join_next() => served += ended.unwrap(),
                    () = hub.raises.due() => log_ceilings(&hub),
                    () = pause => {
                        lease.rest();
                        hub.renewals.wake(&lease);
                    }
                }
            }
            renewer.close().await;
            let deadline = Instant::now() + Duration::from_secs(600);
            while give_back(&ctx, vec![lease.clone()], deadline).await > 0 {}

            assert!(served <= LIMIT, "seed {seed}: {served} of {LIMIT}");
            assert!(served + 3 > LIMIT, "seed {seed}: {served} of {LIMIT}");
            let view = pool(&ctx, &lease).await;
            // Folded away, unless the last call failed: then all of it is used.
            assert_eq!(view.mine.map_or(served, |mine| mine.held), served, "seed {seed}");
            assert_eq!(view.free, (LIMIT - served) as i64, "seed {seed}");
        }
    }

    /// The first try was applied and its answer lost; the second is known not to be applied. That
    /// says nothing about the first: units given back are not served, units taken are.
    #[tokio::test(start_paused = true)]
    async fn a_call_in_doubt_stays_in_doubt_when_its_repetition_fails() {
        use crate::testing::Fault::{LoseReply, Pass, Throttled, Unavailable};
        for failure in [Unavailable, Throttled] {
            for doubtful_write in 0..3 {
                let clock = ManualClock::at_unix_ms(0);
                let mut script = vec![Pass; doubtful_write];
                script.extend([LoseReply, failure]);
                let ctx = hands(Faulty::scripted(Memory::new(), script), &clock);
                let lease = lease();
                let now = ctx.hub.clock.now();
                let mut served = 0;
                // A take, then a give back, then more takes; one of them ends in doubt.
                while let Take::Need = lease.take(3, now) {
                    drive(&ctx, &lease).await;
                    log_ceilings(&ctx.hub);
                }
                lease.release(3);
                lease.rest();
                drive(&ctx, &lease).await;
                loop {
                    match lease.take(1, now) {
                        Take::Taken { .. } => {
                            lease.settle(1);
                            served += 1;
                        }
                        Take::Need => {
                            drive(&ctx, &lease).await;
                            log_ceilings(&ctx.hub);
                        }
                        Take::Exhausted => break,
                    }
                }
                let view = pool(&ctx, &lease).await;
                assert_eq!((served, view.free), (LIMIT, 0), "{failure:?} {doubtful_write}");
            }
        }
    }

    /// A closing gate cuts off its renewer's calls, and repeats them.
    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_cut_off_is_in_doubt() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let (lease, now) = (lease(), ctx.hub.clock.now());
        take(&ctx, &lease, 3).await;
        lease.settle(3);
        lease.rest();
        let writer = writer(&ctx);
        let give = lease.next(&writer, now).unwrap();
        ask(&ctx, give).await.unwrap(); // the lease never sees this answer

        lease.close();
        lease.next(&writer, now).unwrap();
        let throttled = StoreError::new(StoreErrorKind::Throttled, "later");
        lease.answered(&writer, now, Err(throttled)).unwrap_err();
        assert_eq!(lease.take(1, now), Take::Need, "its units are in the pool again");
        drive(&ctx, &lease).await;
        assert!(lease.is_returned());
        assert_eq!(pool(&ctx, &lease).await.free, LIMIT as i64 - 3);
    }

    /// Takes `n`, with as many calls as needed.
    async fn take(ctx: &RenewerContext, lease: &Arc<Lease>, n: u64) {
        while lease.take(n, ctx.hub.clock.now()) == Take::Need {
            drive(ctx, lease).await;
        }
    }

    /// Learns that another process has closed the entry.
    async fn close_and_learn(ctx: &RenewerContext, lease: &Lease) {
        let key = lease.pool().key(&ctx.space);
        let entry = pool(ctx, lease).await.mine.unwrap();
        let closed = pool::reclaim(key, WriterId::test(7), entry, 1, entry.held);
        ctx.store.write(closed).await.unwrap();
        let (writer, now) = (writer(ctx), ctx.hub.clock.now());
        lease.rest();
        let give = lease.next(&writer, now).unwrap();
        let refused = ask(ctx, give).await.map(|seen| seen.item);
        assert!(lease.answered(&writer, now, refused).unwrap());
        assert!(lease.is_sealed());
    }

    fn writer(ctx: &RenewerContext) -> Writer {
        Writer { space: ctx.space.clone(), incarnation: WriterId::test(7) }
    }

    /// The owner lowers a closed entry to its use; a request that runs on, and holds nothing at
    /// that moment, must not draw from it again.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_drawn_from_a_closed_entry_once_it_is_being_lowered() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let (lease, now) = (lease(), ctx.hub.clock.now());
        take(&ctx, &lease, 3).await;
        lease.settle(3);
        close_and_learn(&ctx, &lease).await;

        let writer = writer(&ctx);
        let fold = lease.next(&writer, now).unwrap();
        assert_eq!(lease.take(1, now), Take::Need, "its fold is on its way");
        let folded = ask(&ctx, fold).await.map(|seen| seen.item);
        lease.answered(&writer, now, folded).unwrap();
        assert_eq!(pool(&ctx, &lease).await.free, LIMIT as i64 - 3);
        assert!(lease.is_returned());
    }

    /// The record was written before the log was sealed, and its answer comes afterwards.
    #[tokio::test(start_paused = true)]
    async fn a_ceiling_acknowledged_late_keeps_nothing_of_a_closed_entry() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let lease = lease();
        for n in [8, 1] {
            take(&ctx, &lease, n).await;
            lease.settle(n);
        }
        let ceiling = lease.propose_ceiling(ctx.hub.clock.now(), AHEAD).unwrap();
        close_and_learn(&ctx, &lease).await;
        lease.ceiling_logged(ceiling);
        assert_eq!(lease.open_holds(), 0);
        drive(&ctx, &lease).await;
        assert!(lease.is_returned());
        assert_eq!(pool(&ctx, &lease).await.free, LIMIT as i64 - 9);
    }

    /// An ask waiting beside a larger one that the pool cannot cover is not dropped by its answer.
    #[tokio::test(start_paused = true)]
    async fn an_ask_is_made_again_after_a_larger_one_was_refused() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let (lease, now) = (lease(), ctx.hub.clock.now());
        take(&ctx, &lease, LIMIT - 50).await;
        lease.settle(LIMIT - 50);
        while lease.left() > 0 {
            assert!(matches!(lease.take(1, now), Take::Taken { .. }));
            lease.settle(1);
        }
        let free = pool(&ctx, &lease).await.free;
        assert!(free > 1, "some are left to somebody else: {free}");

        assert_eq!(lease.take(1, now), Take::Need);
        assert_eq!(lease.take(LIMIT, now), Take::Need);
        drive(&ctx, &lease).await;
        assert_eq!(lease.take(LIMIT, now), Take::Exhausted, "there are not so many");
        assert!(!lease.take_down_to(1, 0), "and none came for the other");
        assert!(!lease.answer_for(1, &*ctx.hub.clock).await, "it is to be asked for anew");
        lease.want(1);
        drive(&ctx, &lease).await;
        assert!(lease.answer_for(1, &*ctx.hub.clock).await);
        assert!(matches!(lease.take(1, now), Take::Taken { .. }));
    }

    /// A grant was refused because another was faster; a copy of it arrives when there are units.
    #[tokio::test(start_paused = true)]
    async fn what_a_late_copy_of_a_refused_grant_took_goes_back_at_the_end() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let (lease, now) = (lease(), ctx.hub.clock.now());
        let terms = lease.terms();
        let other =
            Arc::new(Lease::new(lease.pool().clone(), i64::MAX, terms, 1).under(WriterId::test(8)));
        take(&ctx, &other, LIMIT - 10).await;
        assert_eq!(lease.take(5, now), Take::Need);
        let writer = writer(&ctx);
        let make = lease.next(&writer, now).unwrap();
        let was_there = ask(&ctx, make).await.map(|seen| seen.item);
        lease.answered(&writer, now, was_there).unwrap();
        let grant = lease.next(&writer, now).unwrap();
        take(&ctx, &other, 10).await;
        let refused = ask(&ctx, grant.clone()).await.map(|seen| seen.item);
        lease.answered(&writer, now, refused).unwrap();
        assert!(lease.at_rest().is_none(), "it may yet have units");

        other.release(10);
        other.rest();
        drive(&ctx, &other).await;
        ask(&ctx, grant).await.unwrap();
        assert!(pool(&ctx, &lease).await.mine.is_some());
        lease.close();
        drive(&ctx, &lease).await;
        assert!(lease.is_returned());
        assert_eq!(pool(&ctx, &lease).await.free, 10);
    }

    /// An idle tenant's lease was dropped; the next one learns of use before it has seen the entry
    /// of the first.
    #[tokio::test(start_paused = true)]
    async fn what_is_learned_before_a_lease_sees_its_entry_is_recorded_beside_what_was_there() {
        let ctx = hands(Memory::new(), &ManualClock::at_unix_ms(0));
        let first = lease();
        take(&ctx, &first, 11).await;
        first.settle(11);
        first.rest();
        drive(&ctx, &first).await;
        let lease = lease();
        lease.settle_late(5);
        assert_eq!(lease.unlogged(), Some(5));
        ctx.hub.unrecorded.take();
        lease.want(1);
        drive(&ctx, &lease).await;
        assert_eq!((lease.total(), lease.is_unlogged()), (16, true));
        assert_eq!(ctx.hub.unrecorded.take().len(), 1, "without another request");

        lease.rest();
        drive(&ctx, &lease).await;
        let third = self::lease();
        third.want(1);
        drive(&ctx, &third).await;
        assert_eq!((third.total(), third.is_unlogged()), (16, false), "it learned of nothing");
    }

    /// A request asked for more than its ceiling allowed and has gone; no ceiling of this
    /// incarnation will ever be logged again.
    #[tokio::test(start_paused = true)]
    async fn a_lease_of_an_earlier_incarnation_goes_back_whoever_asked_for_more() {
        let clock = ManualClock::at_unix_ms(0);
        let ctx = hands(Memory::new(), &clock);
        let (hub, mut queue) = Hub::new(Arc::new(clock));
        let ctx = RenewerContext { hub: hub.clone(), ..ctx };
        hub.incarnation.begin(WriterId::test(7));
        let lease = lease();
        for n in [8, 1] {
            take(&ctx, &lease, n).await;
            lease.settle(n);
        }
        let left = u64::try_from(lease.left()).unwrap();
        assert!(lease.capped() > 0, "only a ceiling keeps the rest from being served");
        assert_eq!(lease.take(left + 1, hub.clock.now()), Take::Need);

        hub.incarnation.begin(WriterId::test(8));
        hub.retired.add(lease.clone());
        hub.retired.give_back().await;
        drive(&ctx, &queue.recv().await.unwrap()).await;
        assert!(lease.is_returned());
        assert_eq!(pool(&ctx, &lease).await.free, LIMIT as i64 - 9);
    }
}

//! The same histories on several nodes of one store, some of which die: each event goes to one of
//! them, and their results are checked against the promised bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallygate::directory::Grant as Given;
use tallygate::ingest::UsageEvent;
use tallygate::report::{Granularity, HistoryQuery};
use tallygate::testing::{self, OpenRequest, Plans, START_MS, time_at};
use tallygate::{Gate, ManualClock, Outcome, Usage};
use tokio::runtime::{Builder, Runtime};

use crate::book::{Meter, Quota};
use crate::bounds::{Bounds, Held, Told};
use crate::calendar::DAY;
use crate::coverage::{self, Seen};
use crate::history::{Drawn, Event, History, JOBS, METERS, SLOTS, Setting, TENANTS, TOKENS};
use crate::host::{Call, Shared, ask, name, open};
use crate::known;
use crate::system::Differs;

/// As long as a node takes to learn of a change made at another, and to write its counts.
const HEARD: Duration = Duration::from_secs(3);

/// Units that died with nodes and were never given back, and units used, over all histories.
pub(crate) static STRANDED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// One process.
struct Node {
    runtime: Runtime,
    gate: Gate,
    store: Shared,
    /// Used since it last wrote, by tenant and meter.
    unwritten: BTreeMap<(usize, Meter), u64>,
}

struct Run {
    setting: Setting,
    bounds: Bounds,
    store: Shared,
    plans: Plans,
    clock: ManualClock,
    nodes: Vec<Node>,
    /// The node of the next event.
    turn: usize,
    slots: [Option<Slot>; SLOTS],
    made: u64,
    opened: i64,
    seen: Seen,
}

/// A running request, or one that has ended and left its handle.
struct Slot {
    request: Option<OpenRequest>,
    usage: Usage,
    held: Held,
    chats: bool,
}

/// Draws from the history's number: how many nodes, at which of them each event happens, and which
/// of them die. In every other history everything happens within one day.
pub(crate) fn spread(mut history: History, number: u32) -> History {
    let mut drawn = Drawn(u64::from(number));
    let mut below = |n: u64| drawn.below(n);
    history.setting.sends_all = None;
    let nodes = nodes(number) as u64;
    let mut events = Vec::new();
    for event in history.events {
        if below(2) == 0 {
            events.push(Event::Turn { node: below(nodes) as usize });
        }
        if below(10) == 0 {
            events.push(Event::Crash { node: below(nodes) as usize });
        }
        events.push(match event {
            Event::Pass(ms) if number.is_multiple_of(2) => Event::Pass(ms.min(20 * 60_000)),
            event => event,
        });
    }
    history.events = events;
    history
}

pub(crate) fn nodes(number: u32) -> usize {
    2 + (number / 2 % 2) as usize
}

/// In half of the histories every pool is split once it has one writer, into this many sub-pools.
pub(crate) fn split(number: u32) -> Option<(usize, u16)> {
    match number % 4 {
        2 => Some((1, 8)),
        3 => Some((1, 2)),
        _ => None,
    }
}

/// Runs one history on this many nodes.
pub(crate) fn run(
    history: &History,
    nodes: usize,
    split: Option<(usize, u16)>,
) -> Result<Seen, Differs> {
    testing::seed_this_thread(Some(1));
    testing::split_pools(split);
    let mut run = Run::begin(&history.setting, nodes);
    for (at, event) in history.events.iter().enumerate() {
        let stepped = run.step(event);
        run.rest();
        stepped.map_err(|differs| format!("event {at}, {event:?}: {differs}"))?;
    }
    run.end().map_err(|differs| format!("at the end: {differs}"))?;
    run.seen.extend(coverage::of(history));
    Ok(run.seen)
}

impl Node {
    fn begin(plans: &Plans, store: &Shared, clock: &ManualClock) -> Self {
        let store = store.for_another();
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        let gate = runtime.block_on(open(plans, &store, clock, None));
        Self { runtime, gate, store, unwritten: BTreeMap::new() }
    }

    /// Lets it run for this long by its own clock.
    fn live(&self, long: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(long).await });
    }

    fn used(&mut self, tenant: usize, meter: Meter, n: u64) {
        *self.unwritten.entry((tenant, meter)).or_default() += n;
    }
}

impl Run {
    fn begin(setting: &Setting, nodes: usize) -> Self {
        let bounds = Bounds::new(&setting.plans, START_MS);
        let plans = Plans::new(&setting.file_of(&setting.plans));
        let (store, clock) = (Shared::default(), ManualClock::at_unix_ms(START_MS));
        let nodes: Vec<_> = (0..nodes).map(|_| Node::begin(&plans, &store, &clock)).collect();
        let make = async {
            for tenant in 0..TENANTS {
                nodes[0].gate.directory().tenant(&name(tenant)).save().await.unwrap();
            }
        };
        nodes[0].runtime.block_on(make);
        let (setting, slots) = (setting.clone(), [const { None }; SLOTS]);
        let (made, opened, seen) = (0, START_MS, Seen::new());
        Self { setting, bounds, store, plans, clock, nodes, turn: 0, slots, made, opened, seen }
    }

    fn step(&mut self, event: &Event) -> Result<(), Differs> {
        self.bounds.at = self.turn;
        match *event {
            Event::Turn { node } => self.turn = node % self.nodes.len(),
            Event::Crash { node } => self.crash(node % self.nodes.len()),
            Event::Restart => self.restart(self.bounds.at)?,
            Event::Pass(ms) => self.pass(ms),
            Event::Work { tenant, jobs, tokens, done } => {
                return self.work(tenant, jobs, tokens, done);
            }
            Event::Begin { slot, tenant, user, chats } => {
                return self.begin_request(slot, tenant, user, chats);
            }
            Event::Take { slot, tokens } => return self.take(slot, tokens),
            Event::Report { slot, tokens } => self.report(slot, tokens, true),
            Event::ReportLate { slot, tokens } => self.report(slot, tokens, false),
            Event::End { slot, status } => self.end_request(slot, status),
            Event::Ingest { tenant, meter, units } => return self.ingest(tenant, meter, units),
            Event::Grant { tenant, meter, units, lasts } => {
                self.give(tenant, meter, units, lasts);
            }
            Event::Move { tenant, plan } => {
                self.edit_tenant(tenant, |edit| edit.plan(format!("p{plan}")));
                self.bounds.move_to(tenant, plan);
                self.seen.insert("plan change");
            }
            // For one node only.
            Event::Pay { .. } | Event::Subscribe { .. } | Event::Cancel { .. } => {}
            Event::Suspend { tenant, suspended } => {
                let edit = |edit: tallygate::directory::TenantEdit| {
                    let edit = edit.note("-");
                    if suspended { edit.suspend() } else { edit.resume() }
                };
                self.edit_tenant(tenant, edit);
                self.bounds.suspend(tenant, suspended);
                self.seen.extend(suspended.then_some("suspended"));
            }
            Event::Edit { plan, meter, quota, by } => self.edit(plan, meter, quota, by),
            Event::Lower { .. } => {} // of one node: see `history::with_falls`
            // Read at the end, by a fresh node. Nothing is sent here, and no connection upgraded.
            Event::Look { .. } | Event::Bill | Event::Upgrade { .. } => {}
        }
        Ok(())
    }

    /// Lets each node's background work continue until it waits.
    fn rest(&self) {
        for node in &self.nodes {
            node.runtime.block_on(async {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    /// Lets all nodes run for a while.
    fn live(&mut self) {
        self.clock.advance(HEARD);
        self.bounds.pass(HEARD.as_millis() as i64);
        for node in &mut self.nodes {
            node.live(HEARD);
            node.runtime.block_on(node.gate.flush_now()).unwrap();
            node.unwritten.clear();
        }
    }

    fn pass(&mut self, ms: i64) {
        if !known::OUTLIVES_400_DAYS && self.bounds.now() + ms > self.opened + 390 * DAY {
            return;
        }
        self.clock.advance(Duration::from_millis(ms.unsigned_abs()));
        self.bounds.pass(ms);
        self.live();
    }

    fn work(&mut self, tenant: usize, jobs: u64, tokens: u64, done: bool) -> Result<(), Differs> {
        self.bounds.was_asked(tenant, JOBS, jobs);
        self.bounds.was_asked(tenant, TOKENS, tokens);
        let node = &mut self.nodes[self.bounds.at];
        let gate = node.gate.clone();
        let said = node.runtime.block_on(async {
            let handle = gate.tenant(&name(tenant)).await.unwrap();
            gate.admit(ask(&handle, jobs, tokens)).await
        });
        let Ok(permit) = said else {
            return Ok(());
        };
        let mut held = self.bounds.admit(tenant, 0, &[(JOBS, jobs), (TOKENS, tokens)], &[])?;
        if done {
            permit.settle();
            node.used(tenant, JOBS, jobs);
            node.used(tenant, TOKENS, tokens);
        } else {
            permit.cancel();
        }
        self.bounds.end(&mut held, done);
        Ok(())
    }

    fn begin_request(
        &mut self,
        slot: usize,
        tenant: usize,
        user: u32,
        chats: bool,
    ) -> Result<(), Differs> {
        if self.slots[slot].as_ref().is_some_and(|slot| slot.request.is_some()) {
            return Ok(());
        }
        let path = if chats { "/chat" } else { "/work" };
        let (costs, holds) = if chats {
            (vec![], vec![(TOKENS, self.setting.hold.unwrap_or(1))])
        } else {
            (vec![(JOBS, self.setting.cost)], vec![])
        };
        for (meter, n) in costs.iter().chain(&holds) {
            self.bounds.was_asked(tenant, *meter, *n);
        }
        let call = Call { tenant: name(tenant), user: user.to_string(), path };
        let node = &self.nodes[self.bounds.at];
        let said = node.runtime.block_on(OpenRequest::admit(&node.gate, &call));
        let Ok(request) = said else {
            return Ok(());
        };
        let held = self.bounds.admit(tenant, user, &costs, &holds)?;
        let usage = request.usage();
        self.slots[slot] = Some(Slot { request: Some(request), usage, held, chats });
        Ok(())
    }

    fn take(&mut self, slot: usize, tokens: u64) -> Result<(), Differs> {
        let open = |slot: &&mut Slot| slot.chats && slot.request.is_some();
        let Some(slot) = self.slots[slot].as_mut().filter(open) else {
            return Ok(());
        };
        if !self.bounds.limits(slot.held.all.tenant, TOKENS) && !known::TAKES_WHAT_IS_UNLIMITED {
            return Ok(());
        }
        self.bounds.was_asked(slot.held.all.tenant, TOKENS, tokens);
        let runtime = &self.nodes[slot.held.node].runtime;
        if runtime.block_on(slot.usage.take("tokens", tokens)).is_ok() {
            self.seen.insert("taken");
            self.bounds.take(&mut slot.held, TOKENS, tokens)?;
        }
        Ok(())
    }

    /// A handler reports: while its request runs, or after its end.
    fn report(&mut self, slot: usize, tokens: u64, runs: bool) {
        let is_meant = |slot: &&mut Slot| slot.chats && slot.request.is_some() == runs;
        if let Some(slot) = self.slots[slot].as_mut().filter(is_meant) {
            let node = &mut self.nodes[slot.held.node];
            let _within = node.runtime.enter();
            slot.usage.add("tokens", tokens);
            node.used(slot.held.all.tenant, TOKENS, tokens);
            self.bounds.report(&mut slot.held, TOKENS, tokens);
            self.seen.insert(if runs { "reported" } else { "reported after the end" });
        }
    }

    fn end_request(&mut self, slot: usize, status: u16) {
        if let Some(slot) = &mut self.slots[slot]
            && let Some(request) = slot.request.take()
        {
            let node = &mut self.nodes[slot.held.node];
            let _within = node.runtime.enter();
            request.head(status);
            request.end(Outcome::Complete { status });
            if status < 500 && !slot.chats {
                node.used(slot.held.all.tenant, JOBS, self.setting.cost);
            }
            self.bounds.end(&mut slot.held, status < 500);
        }
    }

    fn ingest(&mut self, tenant: usize, meter: Meter, units: u64) -> Result<(), Differs> {
        self.seen.insert("ingest");
        self.made += 1;
        let event = UsageEvent::new(format!("e{}", self.made), name(tenant), METERS[meter], units);
        let node = &self.nodes[self.bounds.at];
        let counted = node.runtime.block_on(node.gate.ingest().events(vec![event]));
        self.bounds.late(tenant, meter, units);
        match &*counted {
            [Ok(_)] => Ok(()),
            other => Err(format!("ingest: the gate says {other:?}")),
        }
    }

    fn give(&mut self, tenant: usize, meter: Meter, units: u64, lasts: i64) {
        if !self.bounds.limits(tenant, meter) {
            return;
        }
        self.made += 1;
        let grant = Given::new(format!("g{}", self.made), METERS[meter], units)
            .expires(time_at(self.bounds.now() + lasts));
        self.edit_tenant(tenant, |edit| edit.grant(grant));
        self.bounds.grant(tenant, meter, units, lasts);
        self.seen.insert("grant");
    }

    fn edit_tenant(
        &mut self,
        tenant: usize,
        edit: impl FnOnce(tallygate::directory::TenantEdit) -> tallygate::directory::TenantEdit,
    ) {
        let node = &self.nodes[self.bounds.at];
        let named = node.gate.directory().tenant(&name(tenant));
        node.runtime.block_on(edit(named).save()).unwrap();
        self.live();
    }

    fn edit(&mut self, plan: usize, meter: Meter, quota: usize, by: u64) {
        let quotas = &self.bounds.plans[plan].meters[meter].quotas;
        let Some(of) = quotas.get(quota).cloned() else {
            return;
        };
        self.seen.insert("plan file edited");
        self.bounds.raise(meter, &of, by);
        self.plans.set(&self.setting.file_of(&self.bounds.plans));
        for node in &self.nodes {
            node.runtime.block_on(node.gate.reload()).unwrap();
        }
        self.live();
    }

    /// A node shuts down cleanly, and starts again.
    fn restart(&mut self, node: usize) -> Result<(), Differs> {
        self.seen.insert("restart");
        for slot in 0..SLOTS {
            if self.slots[slot].as_ref().is_some_and(|slot| slot.held.node == node) {
                self.end_request(slot, 200);
                self.slots[slot] = None;
            }
        }
        let old = &self.nodes[node];
        let closed = old.runtime.block_on(old.gate.close());
        closed.map_err(|error| format!("closing: {error}"))?;
        self.nodes[node] = Node::begin(&self.plans, &self.store, &self.clock);
        self.bounds.begins(node);
        Ok(())
    }

    /// A node dies, losing what it had not written.
    fn crash(&mut self, node: usize) {
        self.seen.insert("crash");
        let new = Node::begin(&self.plans, &self.store, &self.clock);
        let dead = std::mem::replace(&mut self.nodes[node], new);
        dead.store.die();
        self.bounds.died();
        for ((tenant, meter), n) in &dead.unwritten {
            self.bounds.lost(*tenant, *meter, *n);
        }
        let _within = dead.runtime.enter();
        for slot in &mut self.slots {
            if let Some(mut slot) = slot.take_if(|slot| slot.held.node == node) {
                self.bounds.cut(&mut slot.held);
                if slot.request.is_some() {
                    self.seen.insert("crash within a request");
                }
            }
        }
        self.bounds.begins(node);
    }

    /// All nodes end, and a fresh one inspects what they leave.
    fn end(&mut self) -> Result<(), Differs> {
        for slot in 0..SLOTS {
            self.end_request(slot, 200);
        }
        self.live();
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        // Dead writers have long been silent.
        self.pass(60_000);
        (0..TENANTS).for_each(|tenant| {
            self.edit_tenant(tenant, |edit| edit.note("-").resume());
            self.bounds.suspend(tenant, false);
        });
        for tenant in 0..TENANTS {
            // A node that needs what is left reclaims it from dead writers.
            for _ in 0..2 {
                self.ask_for_all(tenant)?;
                self.live();
            }
            for (meter, told) in self.told(tenant)?.iter().enumerate() {
                let stranded = self.bounds.holds(tenant, meter, told);
                let stranded = stranded.map_err(|it| format!("tenant {tenant}: {it}"))?;
                STRANDED[0].fetch_add(stranded, Ordering::Relaxed);
                STRANDED[1].fetch_add(told.used, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn ask_for_all(&mut self, tenant: usize) -> Result<(), Differs> {
        if let Some(left) = self.bounds.left(tenant, JOBS) {
            self.work(tenant, left.max(1), 0, false)?;
        }
        self.begin_request(0, tenant, 1, true)?;
        if let Some(left) = self.bounds.left(tenant, TOKENS) {
            self.take(0, left.max(1))?;
        }
        self.end_request(0, 500);
        Ok(())
    }

    /// A node's report on each meter.
    fn told(&self, tenant: usize) -> Result<Vec<Told>, Differs> {
        let node = &self.nodes[self.bounds.at];
        let (from_ms, to_ms) = (START_MS - DAY, self.bounds.now() + DAY);
        let (report, ever) = node.runtime.block_on(async {
            let who = testing::identified(&node.gate, &name(tenant)).await;
            let report = node.gate.usage_report(&who).await.map_err(|error| error.to_string())?;
            let mut ever = Vec::new();
            for meter in METERS {
                let (from, to) = (time_at(from_ms), time_at(to_ms));
                let query = HistoryQuery::new(meter, from, to, Granularity::Month);
                let history = node.gate.history(&who, &query).await;
                let history = history.map_err(|error| error.to_string())?.unwrap();
                ever.push(history.rows.iter().map(|row| row.used.whole()).sum());
            }
            Ok::<_, Differs>((report, ever))
        })?;
        let of = |((meter, word), used_ever): ((usize, &&str), u64)| {
            let told = report.meters.iter().find(|it| *it.name == **word).unwrap();
            let limit = |quota: &Quota| {
                let id = format!("{word}/{}", quota.every.word());
                told.limits.iter().find(|it| *it.id == *id).map_or(0, |it| it.used.whole())
            };
            Told {
                used: told.used.whole(),
                used_ever,
                over: told.over.whole(),
                limits: self.bounds.sold(tenant, meter).iter().map(limit).collect(),
                granted: told.grants.iter().map(|grant| grant.used.whole()).sum(),
            }
        };
        Ok(METERS.iter().enumerate().zip(ever).map(of).collect())
    }
}

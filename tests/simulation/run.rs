//! One run: nodes, clients and faults, in steps of simulated time, all from one seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallygate::store::{StoreError, StoreErrorKind};
use tallygate::testing::{
    LogItem, Plans, WriterId, doze, have_patience, incarnation, seed_this_thread, split_pools,
};

use crate::chance::Chance;
use crate::network::{Answer, Call, Op, Outbox, Table};
use crate::node::{Life, Setup};
use crate::requests::{self, Kind};
use crate::world::{SPACE, World};

/// Clients call and faults strike for this long; then everything drains.
const HORIZON_US: [u64; 3] = [25_000_000, 40_000_000, 75_000_000];
/// How long the drained system may take to close.
const DRAIN_US: u64 = 60_000_000;
/// An answer that has not come by then counts as unknown.
const CALL_TIMEOUT_US: u64 = 1_000_000;
/// How much later a delayed or repeated call may arrive.
const LATE_US: u64 = 30_000_000;
/// Record modes of the nodes: the default twice.
const MODES: [&str; 4] = ["fast", "journal", "journal", "durable"];
/// The most faults waiting for their call; the oldest gives way.
const AIMED: usize = 5;
/// Calls that are rare and soon answered: a fault meant to meet one must wait for it.
const AIMED_AT: [&str; 17] = [
    "seal",
    "seal",
    "seal",
    "fold",
    "fold",
    "fold",
    "give back",
    "give back",
    "give back",
    "give back",
    "alert",
    "alert",
    "registration",
    "limit",
    "look at a pool",
    "first grant",
    "settle a claim",
];
/// 2026-03-17 12:00 UTC: a window's edge.
const EDGE_MS: i64 = 1_773_748_800_000;

thread_local! {
    static FORCED: std::cell::Cell<Forced> = const { std::cell::Cell::new(Forced::NOTHING) };
}

pub(crate) struct Run {
    chance: Chance,
    now_us: u64,
    step_us: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    world: Arc<Mutex<World>>,
    table: Table,
    outbox: Outbox,
    odds: Odds,
    faults: bool,
    outage_until_us: u64,
    /// Faults that wait for a node to make such a call.
    aimed: Vec<(Fault, &'static str)>,
    /// Wall clock at the start.
    wall_ms: i64,
    tenants: u64,
    per_second: f64,
    /// Limits of every version of the plan file.
    versions: Vec<(u64, u64)>,
    horizon_us: u64,
    /// Whether pools have sub-pools.
    split: bool,
}

struct Node {
    setup: Setup,
    life: Option<Life>,
    /// Counts its lives, so that events for one do not reach the next.
    lives: u64,
    frozen: Option<Freeze>,
    cut_off_until_us: u64,
    skew_ms: i64,
    /// Calls in flight by kind.
    calls: BTreeMap<&'static str, u64>,
    closing: bool,
}

struct Freeze {
    since_us: u64,
    /// The whole machine stands still, its monotonic clock too.
    machine: bool,
}

enum Event {
    Arrive {
        by: usize,
        op: Op,
        to: Option<Waiting>,
    },
    Answer {
        to: Waiting,
        answer: Result<Answer, StoreError>,
    },
    Client {
        tenant: u64,
    },
    Fault,
    /// Idle tenants of this node are compacted.
    Doze(usize),
    Boot(usize),
    Wake(usize),
    Stopped(usize, u64),
    Plans(usize, usize),
}

struct Waiting {
    node: usize,
    life: u64,
    kind: &'static str,
    reply: tokio::sync::oneshot::Sender<Result<Answer, StoreError>>,
}

/// How often calls of this run go wrong, per thousand.
#[derive(Clone, Copy, Debug)]
struct Odds {
    lose_request: u64,
    lose_reply: u64,
    repeat: u64,
    late: u64,
    throttle: u64,
}

pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) at_us: u64,
    pub(crate) world: World,
}

/// Forced on a run beyond its seed, to catch a mistake in the code.
#[derive(Clone, Copy)]
pub(crate) struct Forced {
    pub(crate) split: bool,
    pub(crate) cut: bool,
    /// A node may be unable to open.
    pub(crate) fails: bool,
    /// Called with the number of each node before its turn, and with 0 between runs.
    pub(crate) before: fn(u128),
}

impl Forced {
    pub(crate) const NOTHING: Self =
        Self { split: false, cut: false, fails: false, before: |_| {} };
}

/// Runs one seed. `quiet`: without any fault.
pub(crate) fn run(seed: u64, quiet: bool) -> Outcome {
    run_forced(seed, quiet, Forced::NOTHING)
}

/// The same, with more forced on it.
pub(crate) fn run_forced(seed: u64, quiet: bool, forced: Forced) -> Outcome {
    FORCED.set(forced);
    (forced.before)(0);
    seed_this_thread(Some(seed));
    let disk = tempfile::tempdir().expect("a temporary folder can be made");
    let split = forced.split || is_split(seed);
    let mut run = Run { split, ..Run::new(seed, quiet, disk.path()) };
    if forced.cut || is_cut(seed) {
        run.table.cut_pages(seed);
    }
    // In half of the runs live writers are sealed, too: it must cost nothing but calls.
    have_patience(run.chance.pick(&[None, None, Some(2_000), Some(0)]));
    split_pools(split.then_some(SPLIT));
    run.go();
    split_pools(None);
    have_patience(None);
    let at_us = run.now_us;
    for node in &mut run.nodes {
        node.life = None;
    }
    let world = std::mem::take(&mut *lock(&run.world));
    drop(run);
    seed_this_thread(None);
    Outcome { violation: world.violation.clone(), at_us, world }
}

/// A pool with one writer is split, into two sub-pools: there are few nodes.
const SPLIT: (usize, u16) = (1, 2);

/// Whether pools are split: in one run of nine; or in all, if `TALLYGATE_SPLIT` is set.
fn is_split(seed: u64) -> bool {
    std::env::var_os("TALLYGATE_SPLIT").is_some() || seed % 9 == 7
}

/// Whether query pages are cut: in one run of seven, none of them a seed at which rare mistakes
/// were last seen (`SHOWN` in `tests/mutants/simulation.rs`).
fn is_cut(seed: u64) -> bool {
    seed % 7 == 6
}

/// Whether a run's store says that one process opens it at a time, as a redb file does: leases that
/// fall quiet are given back then, and silence lasts a second. It is shared all the same, which is
/// harder.
fn is_alone(seed: u64) -> bool {
    seed % 4 == 3
}

impl Run {
    fn new(seed: u64, quiet: bool, disk: &Path) -> Self {
        let mut chance = Chance::new(seed);
        let mut odds = |choice: &[u64]| if quiet { 0 } else { chance.pick(choice) };
        let odds = Odds {
            lose_request: odds(&[0, 20, 80]),
            lose_reply: odds(&[0, 20, 100]),
            repeat: odds(&[0, 20, 100]),
            late: odds(&[0, 20, 100]),
            throttle: odds(&[0, 20, 150]),
        };
        // About what is asked for in a run, or a fraction of it: pools should run out.
        let per_second = chance.pick(&[2, 8, 20, 40]);
        // In some runs they are so large that leases outlast their ceilings.
        let times = chance.pick(&[90, 90, 600]);
        let mut limit = || (per_second * chance.within(10, times)).max(30);
        let versions = vec![(limit(), limit())];
        let nodes = (0..chance.within(2, 5) as usize)
            .map(|id| Node {
                setup: Setup {
                    id,
                    mode: chance.pick(&MODES),
                    flush_ms: chance.pick(&[200, 1_000, 1_000]),
                    journal: disk.join(format!("journal-{id}")),
                    plans: Plans::new(&plans(versions[0])),
                    shared: !is_alone(seed),
                },
                life: None,
                lives: 0,
                frozen: None,
                cut_off_until_us: 0,
                skew_ms: chance.within(0, 4_000) as i64 - 2_000,
                calls: BTreeMap::new(),
                closing: false,
            })
            .collect();
        Self {
            now_us: 0,
            step_us: chance.pick(&[10_000, 20_000, 40_000, 40_000]),
            order: 0,
            events: BTreeMap::new(),
            nodes,
            world: Arc::default(),
            table: Table::default(),
            outbox: Outbox::default(),
            odds,
            faults: !quiet,
            outage_until_us: 0,
            aimed: Vec::new(),
            wall_ms: EDGE_MS - chance.pick(&[8_000, 20_000, 45_000, 300_000]),
            tenants: chance.within(1, 3),
            per_second: per_second as f64,
            versions,
            horizon_us: chance.pick(&HORIZON_US),
            split: false,
            chance,
        }
    }

    fn go(&mut self) {
        for id in 0..self.nodes.len() {
            self.at(0, Event::Boot(id));
        }
        for tenant in 0..self.tenants {
            self.at(100_000, Event::Client { tenant });
        }
        if self.faults {
            self.at(2_000_000, Event::Fault);
        }
        self.at(3_000_000, Event::Doze(0));
        while self.now_us < self.horizon_us && !self.is_over() {
            self.step();
        }
        self.drain();
        if !self.is_over() {
            lock(&self.world).settle();
        }
    }

    fn is_over(&self) -> bool {
        lock(&self.world).violation.is_some()
    }

    /// Faults stop; nodes that are away come back, running ones close.
    fn drain(&mut self) {
        self.faults = false;
        self.outage_until_us = 0;
        for id in 0..self.nodes.len() {
            self.nodes[id].cut_off_until_us = 0;
            self.wake(id);
        }
        let until = self.now_us + DRAIN_US;
        let close_at = self.now_us + 12_000_000;
        self.step_us = 50_000;
        while self.now_us < until && !self.is_over() {
            for id in 0..self.nodes.len() {
                let node = &self.nodes[id];
                match &node.life {
                    None => self.boot(id),
                    Some(life)
                        if self.now_us > close_at && !node.closing && life.gate().is_some() =>
                    {
                        life.close();
                        self.nodes[id].closing = true;
                    }
                    Some(_) => {}
                }
            }
            self.step();
            // Nodes that shut down before that start and end once more: units that a fault, or a
            // request that outlived its gate, kept from them must be found here.
            let closed = |node: &Node| node.life.as_ref().is_some_and(Life::has_closed);
            if self.now_us > close_at && self.nodes.iter().all(closed) {
                return self.arrive_late();
            }
        }
        let told = |node: &Node| match &node.life {
            None => "down".to_owned(),
            Some(life) if life.has_closed() => "closed".to_owned(),
            Some(life) => format!(
                "open: {}, closing: {}, mode {}, said {:?}, calls {:?}",
                life.gate().is_some(),
                node.closing,
                node.setup.mode,
                life.said(),
                node.calls
            ),
        };
        let states: Vec<String> = self.nodes.iter().map(told).collect();
        let drained = states.iter().all(|state| state == "closed");
        lock(&self.world).need(drained, || format!("I7 after a minute of calm: {states:?}"));
    }

    /// All nodes are gone, and calls still on their way arrive.
    fn arrive_late(&mut self) {
        while let Some(((at_us, _), event)) = self.events.pop_first() {
            if let Event::Arrive { .. } = event {
                self.now_us = self.now_us.max(at_us);
                self.happen(event);
            }
        }
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        self.events.insert((at_us, self.order), event);
    }

    fn after(&mut self, by_us: u64, event: Event) {
        self.at(self.now_us + by_us, event);
    }

    fn step(&mut self) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now_us {
                break;
            }
            let event = entry.remove();
            self.happen(event);
        }
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.chance.shuffle(&mut order);
        let long = Duration::from_micros(self.step_us);
        for id in order {
            let node = &mut self.nodes[id];
            if let (Some(life), None) = (&node.life, &node.frozen) {
                (FORCED.get().before)(id as u128 + 1);
                life.run(long);
                if life.has_failed() {
                    node.life = None;
                    lock(&self.world).count("failed starts");
                    let wait = self.chance.within(500_000, 3_000_000);
                    self.after(wait, Event::Boot(id));
                } else if let Some(gate) = life.gate() {
                    lock(&self.world).nodes.insert(incarnation(&gate), id);
                }
            }
        }
        self.now_us += self.step_us;
        // The service's own expiry, some time.
        if self.now_us % 1_000_000 < self.step_us {
            self.table.expire(self.wall_ms + (self.now_us / 1_000) as i64);
        }
        lock(&self.world).now_us = self.now_us;
        for call in self.outbox.take() {
            self.send(call);
        }
        self.strike_aimed();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { by, op, to } => self.arrive(by, op, to),
            Event::Answer { to, answer } => {
                let node = &mut self.nodes[to.node];
                if node.lives == to.life {
                    *node.calls.entry(to.kind).or_default() -= 1;
                }
                let _ = to.reply.send(answer); // the caller has died
            }
            Event::Client { tenant } => self.client(tenant),
            Event::Fault => self.fault(),
            Event::Doze(id) => self.doze(id),
            Event::Boot(id) => self.boot(id),
            Event::Wake(id) => self.wake(id),
            Event::Stopped(id, life) => {
                if self.nodes[id].lives == life && self.nodes[id].closing {
                    self.crash(id, Disk::Kept);
                }
            }
            Event::Plans(id, version) => {
                self.nodes[id].setup.plans.set(&plans(self.versions[version]));
            }
        }
    }

    /// Decides the fate of a call.
    fn send(&mut self, call: Call) {
        let Call { node, op, reply } = call;
        let kind = op.kind();
        let from = &mut self.nodes[node];
        *from.calls.entry(kind).or_default() += 1;
        let life = from.lives;
        let to = Waiting { node, life, kind, reply };
        let away = self.now_us < self.outage_until_us || self.now_us < from.cut_off_until_us;
        let latency = self.chance.gap_us(100.0).min(500_000);
        let roll = |run: &mut Self, odds: u64| run.faults && run.chance.permille(odds);
        if self.faults && away {
            self.met("outage", kind);
            let reached = op.is_write() && self.chance.permille(300);
            if reached {
                self.after(latency, Event::Arrive { by: node, op, to: None });
            }
            let kind = if reached || self.chance.permille(500) {
                StoreErrorKind::Unknown
            } else {
                StoreErrorKind::Unavailable
            };
            return self.fail(to, kind, CALL_TIMEOUT_US);
        }
        if roll(self, self.odds.throttle) {
            self.met("throttled", kind);
            return self.fail(to, StoreErrorKind::Throttled, latency);
        }
        if roll(self, self.odds.lose_request) {
            self.met("lost request", kind);
            return self.fail(to, StoreErrorKind::Unknown, CALL_TIMEOUT_US);
        }
        if op.is_write() && roll(self, self.odds.repeat) {
            self.met("repeated", kind);
            let again = latency + self.chance.within(0, LATE_US);
            self.after(again, Event::Arrive { by: node, op: op.clone(), to: None });
        }
        if op.is_write() && roll(self, self.odds.late) {
            self.met("late", kind);
            let late = latency + self.chance.within(300_000, LATE_US);
            self.after(late, Event::Arrive { by: node, op, to: None });
            return self.fail(to, StoreErrorKind::Unknown, CALL_TIMEOUT_US);
        }
        if roll(self, self.odds.lose_reply) {
            self.met("lost reply", kind);
            self.after(latency, Event::Arrive { by: node, op, to: None });
            return self.fail(to, StoreErrorKind::Unknown, CALL_TIMEOUT_US);
        }
        self.after(latency, Event::Arrive { by: node, op, to: Some(to) });
    }

    fn fail(&mut self, to: Waiting, kind: StoreErrorKind, after_us: u64) {
        let answer = Err(StoreError::new(kind, "the simulation lets it fail"));
        self.after(after_us, Event::Answer { to, answer });
    }

    fn arrive(&mut self, by: usize, op: Op, to: Option<Waiting>) {
        let answer = self.table.apply(by, op, &self.world);
        if let Some(to) = to {
            let latency = self.chance.gap_us(100.0).min(500_000);
            self.after(latency, Event::Answer { to, answer });
        }
    }

    fn client(&mut self, tenant: u64) {
        if self.now_us > self.horizon_us {
            return;
        }
        let hot = (self.now_us / 10_000_000 + tenant).is_multiple_of(3);
        let wait = self.chance.gap_us(self.per_second * if hot { 3.0 } else { 0.6 });
        self.after(wait, Event::Client { tenant });
        let chance = &mut self.chance;
        let ms = chance.pick(&[0, 0, 0, 5, 5, 50, 400, 4_000]);
        let units = chance.within(0, 14);
        let kind = match chance.within(0, 100) {
            0..60 => Kind::Job { five: chance.permille(200), ms },
            60..70 => Kind::Recorded,
            70..76 => Kind::Fails { ms },
            76..86 => Kind::Stream { units, ms: chance.pick(&[1, 50, 700]) },
            86..93 => Kind::Late { units: units.min(8), ms },
            // A few keys at a time, so that most are repeated, and at other nodes.
            _ => {
                let key = self.now_us / 8_000_000 * 8 + chance.within(0, 12);
                Kind::Once { key, ms, fails: chance.permille(150) }
            }
        };
        // Most go to one node for a while: the others keep what they have leased.
        let nodes = self.nodes.len() as u64;
        let favourite = self.now_us / 13_000_000 + tenant;
        let any = chance.within(0, nodes);
        let id = if chance.permille(850) { favourite % nodes } else { any } as usize;
        let patient = chance.permille(500);
        let node = &self.nodes[id];
        let Some(life) = node.life.as_ref().filter(|_| node.frozen.is_none() || patient) else {
            return;
        };
        if let Some(gate) = life.gate().filter(|_| !node.closing) {
            let request = requests::run(gate, self.world.clone(), format!("t{tenant}"), kind);
            life.runtime.spawn(request);
        }
    }

    /// Compacts one node after the other, more often than a minute's idleness would.
    fn doze(&mut self, id: usize) {
        self.after(700_000, Event::Doze((id + 1) % self.nodes.len()));
        let node = &self.nodes[id];
        let Some(life) = node.life.as_ref().filter(|_| node.frozen.is_none()) else { return };
        if let Some(gate) = life.gate().filter(|_| !node.closing) {
            let world = self.world.clone();
            life.runtime.spawn(async move {
                let (asleep, _) = doze(&gate).await;
                *lock(&world).stats.entry("tenants asleep").or_default() += asleep as u64;
            });
        }
    }

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let wait = self.chance.gap_us(0.5);
        self.after(wait, Event::Fault);
        let fault = Fault::draw(&mut self.chance);
        if self.chance.permille(650) {
            if self.aimed.len() == AIMED {
                self.aimed.remove(0);
            }
            let at_sub_pools = self.split && self.chance.permille(200);
            let kind = if at_sub_pools { "sub-pool" } else { self.chance.pick(&AIMED_AT) };
            self.aimed.push((fault, kind));
        } else {
            let id = self.chance.within(0, self.nodes.len() as u64) as usize;
            self.inflict(fault, id);
        }
    }

    /// A fault that waited for such a call strikes a node making one.
    fn strike_aimed(&mut self) {
        let makes = |node: &Node, kind: &str| node.calls.get(kind).is_some_and(|n| *n > 0);
        for i in (0..self.aimed.len()).rev().filter(|_| self.faults) {
            let kind = self.aimed[i].1;
            if let Some(id) = self.nodes.iter().position(|node| makes(node, kind)) {
                let (fault, _) = self.aimed.remove(i);
                return self.inflict(fault, id);
            }
        }
    }

    fn inflict(&mut self, fault: Fault, id: usize) {
        let seconds = |run: &mut Self, from, to| run.chance.within(from, to) * 1_000_000;
        self.strike(id, fault.word());
        match fault {
            Fault::Crash(disk) => self.crash(id, disk),
            Fault::Pause { machine } => {
                let long = seconds(self, 1, 40);
                self.freeze(id, machine, long);
            }
            Fault::StoreAway => self.outage_until_us = self.now_us + seconds(self, 1, 15),
            Fault::CutOff => {
                self.nodes[id].cut_off_until_us = self.now_us + seconds(self, 3, 40);
            }
            Fault::ClockStep => {
                let by = self.chance.within(0, 400_000) as i64 - 200_000;
                self.nodes[id].skew_ms += by;
                if let Some(life) = &self.nodes[id].life {
                    life.clock.step_wall(by);
                }
            }
            Fault::Plans => self.change_plans(),
            Fault::ShutDown => self.shut_down(id),
        }
    }

    fn shut_down(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if let (Some(life), None, false) = (&node.life, &node.frozen, node.closing) {
            trace(|| format!("{id} shuts down"));
            life.close();
            node.closing = true;
            let life = node.lives;
            self.after(12_000_000, Event::Stopped(id, life));
        }
    }

    /// Changes the plan file: each node gets it in its own time, or keeps the old one, or goes
    /// back.
    fn change_plans(&mut self) {
        let scale = self.chance.pick(&[3, 7, 15, 30]);
        let (jobs, tokens) = *self.versions.last().expect("there is a first");
        self.versions.push(((jobs * scale / 10).max(5), (tokens * scale / 10).max(5)));
        let version = self.versions.len() - 1;
        for id in 0..self.nodes.len() {
            let wait = match self.chance.within(0, 4) {
                0 | 1 => self.chance.within(0, 3_000_000),
                2 => self.chance.within(3_000_000, 30_000_000),
                _ => continue,
            };
            self.after(wait, Event::Plans(id, version));
            if self.chance.permille(150) {
                let back = wait + self.chance.within(1_000_000, 20_000_000);
                self.after(back, Event::Plans(id, version - 1));
            }
        }
    }

    fn boot(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if node.life.is_none() {
            let wall_ms = self.wall_ms + (self.now_us / 1_000) as i64 + node.skew_ms;
            node.lives += 1;
            node.calls.clear();
            node.closing = false;
            node.frozen = None;
            let fails = FORCED.get().fails;
            node.life = Some(Life::begin(&node.setup, &self.outbox, wall_ms, fails));
        }
    }

    fn freeze(&mut self, id: usize, machine: bool, long_us: u64) {
        let node = &mut self.nodes[id];
        if node.life.is_some() && node.frozen.is_none() {
            node.frozen = Some(Freeze { since_us: self.now_us, machine });
            self.after(long_us, Event::Wake(id));
        }
    }

    fn wake(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        let (Some(life), Some(freeze)) = (&node.life, node.frozen.take()) else { return };
        let long = self.now_us - freeze.since_us;
        if freeze.machine {
            life.clock.step_wall((long / 1_000) as i64);
        } else {
            life.skip(Duration::from_micros(long));
        }
    }

    fn crash(&mut self, id: usize, disk: Disk) {
        let Some(life) = self.nodes[id].life.take() else { return };
        self.nodes[id].frozen = None;
        let now = self.now_us as f64 / 1e6;
        trace(|| format!("{now:.3} {id} dies, {disk:?}"));
        drop(life);
        // Its last calls are on their way; their answers go nowhere.
        for call in self.outbox.take() {
            self.send(call);
        }
        let path = self.nodes[id].setup.journal.clone();
        match disk {
            Disk::Kept => {}
            Disk::Lost => forget(&path, |_| 0),
            Disk::Lagging => {
                let keep = self.chance.within(0, 100);
                forget(&path, |len| len * keep / 100);
            }
        }
        let left = LogItem::journal(SPACE, &path).unwrap_or_default();
        let mut world = lock(&self.world);
        let own: Vec<WriterId> = world.nodes.iter().filter(|n| *n.1 == id).map(|n| *n.0).collect();
        for writer in own {
            let kept = left.iter().find(|(of, _)| *of == writer).map(|(_, item)| item);
            world.died(writer, kept);
        }
        drop(world);
        let wait = self.chance.within(200_000, 15_000_000);
        self.after(wait, Event::Boot(id));
    }

    /// Records the state in which a fault met a node.
    fn strike(&mut self, id: usize, fault: &'static str) {
        let node = &self.nodes[id];
        let calls: Vec<&'static str> =
            node.calls.iter().filter(|(_, n)| **n > 0).map(|(kind, _)| *kind).collect();
        let state = match (&node.life, &node.frozen) {
            (None, _) => "down",
            (Some(_), Some(_)) => "frozen",
            (Some(life), None) if life.gate().is_none() => "starting",
            (Some(_), None) if node.closing => "closing",
            (Some(_), None) => "serving",
        };
        self.met(fault, state);
        for kind in calls {
            self.met(fault, kind);
        }
    }

    fn met(&self, fault: &'static str, state: &'static str) {
        lock(&self.world).met(fault, state);
    }
}

/// Faults that strike a node, or all of them.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash(Disk),
    Pause { machine: bool },
    StoreAway,
    CutOff,
    ClockStep,
    Plans,
    ShutDown,
}

impl Fault {
    fn draw(chance: &mut Chance) -> Self {
        match chance.within(0, 100) {
            0..26 => Self::Crash(chance.pick(&[Disk::Kept, Disk::Lost, Disk::Lagging])),
            26..45 => Self::Pause { machine: chance.permille(500) },
            45..56 => Self::StoreAway,
            56..66 => Self::CutOff,
            66..79 => Self::ClockStep,
            79..90 => Self::Plans,
            _ => Self::ShutDown,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Crash(disk) => disk.word(),
            Self::Pause { machine: true } => "machine paused",
            Self::Pause { machine: false } => "process paused",
            Self::StoreAway => "store away",
            Self::CutOff => "node cut off",
            Self::ClockStep => "clock stepped",
            Self::Plans => "limits changed",
            Self::ShutDown => "shut down",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Disk {
    Kept,
    Lost,
    /// The end of what was written never reached it.
    Lagging,
}

impl Disk {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "crash, disk kept",
            Self::Lost => "crash, disk lost",
            Self::Lagging => "crash, disk lagging",
        }
    }
}

/// Cuts the newest file of a journal to the length that `keep` says; a length of 0 takes all files.
fn forget(path: &Path, keep: impl Fn(u64) -> u64) {
    let folder = path.parent().expect("it lies in a folder");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(name);
    let number =
        |path: &Path| path.extension().and_then(|n| n.to_str()).and_then(|n| n.parse::<u64>().ok());
    let entries = std::fs::read_dir(folder).expect("it can be read");
    let mut files: Vec<_> = entries.flatten().filter(of).map(|entry| entry.path()).collect();
    files.sort_by_key(|path| number(path));
    if keep(u64::from(u32::MAX)) == 0 {
        return files.iter().for_each(|file| std::fs::remove_file(file).expect("it was there"));
    }
    if let Some(newest) = files.last() {
        let file = std::fs::File::options().write(true).open(newest).expect("it was there");
        let len = file.metadata().expect("it has a length").len();
        file.set_len(keep(len)).expect("it can be cut");
    }
}

fn plans((jobs, tokens): (u64, u64)) -> String {
    format!(
        "default-plan = \"free\"\n[meter.jobs]\n[meter.tokens]\ncount = \"reported\"\n\
         hold = \"3\"\n\
         [route.one]\nmatch = \"POST /one\"\ncost = {{ requests = 0, jobs = 1, tokens = 0 }}\n\
         [route.five]\nmatch = \"POST /five\"\ncost = {{ requests = 0, jobs = 5, tokens = 0 }}\n\
         [route.keyed]\nmatch = \"POST /once\"\nonce-by = \"idempotency-key\"\n\
         cost = {{ requests = 0, jobs = 1, tokens = 0 }}\n\
         [route.stream]\nmatch = \"POST /stream\"\ncost = {{ requests = 0, jobs = 1 }}\n\
         [plan.free]\nquota.jobs = \"{jobs}/hour\"\nquota.tokens = \"{tokens}/hour\"\n"
    )
}

/// For tracing a seed: `TALLYGATE_TRACE=part-of-a-key TALLYGATE_SEEDS=31..32 ..`.
pub(crate) fn traced() -> Option<&'static str> {
    static PART: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("TALLYGATE_TRACE").ok());
    PART.as_deref()
}

fn trace(what: impl FnOnce() -> String) {
    if traced().is_some() {
        println!("{}", what());
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The state machine and the bucket cells, driven as a fleet: n nodes on one table, in ticks of a
//! tenth of a second, with lost requests and replies, nodes that join, die and stall. The same load
//! shapes as in the protocol's reference measurements.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::machine::{Asked, Effect, Machine, RateEvent};
use super::shares::{SharesView, WHOLE};
use super::{SLOT_NS, bound};
use crate::clock::Now;
use crate::ids::Surrogate;
use crate::ids::{LimitId, NodeId};
use crate::policy::bucket::{Bucket, BucketRule};
use crate::store::layout::Space;
use crate::store::{Memory, Store, StoreError, StoreErrorKind, StoreFuture};

const TICK_NS: u64 = 100_000_000;
const START_NS: u64 = 1 << 62;
const RATE: u64 = 1_000;
const SECONDS: usize = 180;
/// Excluded from measurement: the fleet finds its shares.
const WARM_UP: usize = 20;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }
}

fn id() -> LimitId {
    LimitId { tenant: Surrogate::test(1), rate: "default/s".into(), scope: 0 }
}

struct Node {
    machine: Machine,
    whole: BucketRule,
    rule: BucketRule,
    bucket: Bucket,
    next_ns: u64,
    stands_until_ns: u64,
}

struct Fleet {
    store: Memory,
    chance: Chance,
    nodes: Vec<Node>,
    born: u128,
    /// Failing calls per thousand; half of them are applied.
    loss: u64,
    moves: u64,
    notes: u64,
    beats: u64,
}

#[derive(Debug)]
struct Measured {
    ten_seconds: f64,
    used: f64,
    moves: f64,
    calls: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    Even,
    /// The first node has nearly all of the load.
    One,
    Falling,
}

impl Load {
    fn weight(self, i: usize) -> f64 {
        match self {
            Self::Even => 1.0,
            Self::One if i == 0 => 9.0,
            Self::One => 0.1,
            Self::Falling => 1.0 / (1.0 + i as f64),
        }
    }
}

fn rule() -> BucketRule {
    BucketRule::new(RATE, Duration::from_secs(1), RATE)
}

fn at_once<T>(mut call: StoreFuture<T>) -> Result<T, StoreError> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => unreachable!("a store in memory answers at once"),
    }
}

fn at(now_ns: u64) -> Now {
    Now { mono_ns: now_ns, wall_ms: ((now_ns - START_NS) / 1_000_000) as i64 }
}

impl Fleet {
    fn new(seed: u64, nodes: usize, loss: u64) -> Self {
        let chance = Chance(seed);
        let (store, nodes_at_first) = (Memory::new(), nodes);
        let (moves, notes, beats) = (0, 0, 0);
        let nodes = Vec::new();
        let mut fleet = Self { store, chance, nodes, born: 0, loss: 0, moves, notes, beats };
        for _ in 0..nodes_at_first {
            fleet.join(START_NS);
        }
        // They have been running together for a while.
        for node in &mut fleet.nodes {
            node.rule = rule().among(nodes_at_first);
        }
        fleet.loss = loss;
        fleet
    }

    /// A node announces itself before it serves.
    fn join(&mut self, now_ns: u64) {
        self.born += 1;
        let machine = Machine::new(Space::new("test"), NodeId::test(self.born));
        let next_ns = now_ns + self.chance.below(SLOT_NS / TICK_NS) * TICK_NS;
        let (whole, rule, bucket) = (rule(), rule(), Bucket::default());
        let mut node = Node { machine, whole, rule, bucket, next_ns, stands_until_ns: 0 };
        let effects = node.machine.step(at(now_ns), RateEvent::Slot(BTreeMap::new()));
        self.carry_out(&mut node, effects, now_ns);
        self.nodes.push(node);
    }

    fn lost(&mut self) -> bool {
        let loss = self.loss;
        self.chance.permille(loss)
    }

    fn carry_out(&mut self, node: &mut Node, effects: Vec<Effect>, now_ns: u64) {
        let mut left = VecDeque::from(effects);
        let unknown = || StoreError::new(StoreErrorKind::Unknown, "lost");
        while let Some(effect) = left.pop_front() {
            let lost = !matches!(effect, Effect::Nodes(_) | Effect::Share(..) | Effect::Find(_))
                && self.lost();
            let reaches = !lost || self.chance.permille(500);
            let write = |write| {
                let written =
                    if reaches { at_once(self.store.write(write)) } else { Err(unknown()) };
                if lost { Err(unknown()) } else { written }
            };
            let event = match effect {
                Effect::Beat(beat) => {
                    self.beats += 1;
                    RateEvent::Beaten(write(beat))
                }
                Effect::List(_) | Effect::See(..) if lost => match effect {
                    Effect::See(id, _) => RateEvent::Seen(id, Err(unknown())),
                    _ => RateEvent::Listed(Err(unknown())),
                },
                Effect::Find(ids) => RateEvent::Here(ids),
                Effect::List(key) => RateEvent::Listed(at_once(self.store.read(key))),
                Effect::See(id, key) => RateEvent::Seen(id, at_once(self.store.read(key))),
                Effect::Note(note) => {
                    self.notes += 1;
                    let _ = write(note);
                    continue;
                }
                Effect::Move(id, change) => {
                    self.moves += 1;
                    RateEvent::Moved(id, write(change))
                }
                Effect::Nodes(nodes) => {
                    let next = rule().among(nodes);
                    node.bucket = next.adopt(&node.bucket, &node.rule, now_ns);
                    node.rule = next;
                    continue;
                }
                Effect::Share(_, share) => {
                    node.rule.set_share(&node.bucket, share, now_ns);
                    continue;
                }
            };
            left.extend(node.machine.step(at(now_ns), event));
        }
    }

    /// The slots due in this second, then a tick of calls.
    fn tick(&mut self, now_ns: u64, load: Load, times: f64) -> (u64, u64) {
        let (mut reached, mut admitted) = (0, 0);
        let weights: Vec<f64> = (0..self.nodes.len()).map(|i| load.weight(i)).collect();
        let all: f64 = weights.iter().sum();
        for (i, weight) in weights.into_iter().enumerate() {
            let mean = 2.0 * times * RATE as f64 * (TICK_NS as f64 / 1e9) * weight / all;
            let tries = mean as u64 + u64::from(self.chance.permille((mean.fract() * 1e3) as u64));
            let calls = (0..tries).filter(|_| self.chance.permille(500)).count() as u64;
            if now_ns < self.nodes[i].stands_until_ns {
                continue;
            }
            reached += calls;
            if now_ns >= self.nodes[i].next_ns {
                let mut node = self.nodes.swap_remove(i);
                node.next_ns = now_ns + SLOT_NS;
                let units = node.bucket.take_asked();
                let interval_ns = node.whole.whole_interval_ns();
                let asked = BTreeMap::from([(id(), Asked { units, interval_ns })]);
                let asked = if units == 0 && node.machine.shared().count() == 0 {
                    BTreeMap::new()
                } else {
                    asked
                };
                let effects = node.machine.step(at(now_ns), RateEvent::Slot(asked));
                self.carry_out(&mut node, effects, now_ns);
                self.nodes.push(node);
                let last = self.nodes.len() - 1;
                self.nodes.swap(i, last);
            }
            let node = &self.nodes[i];
            for call in 0..calls {
                let at_ns = now_ns + call * (TICK_NS / calls);
                match node.rule.take(&node.bucket, 1, at_ns) {
                    Ok(()) => admitted += 1,
                    Err(_) => drop(node.rule.refused(&node.bucket, 1, 1)),
                }
            }
        }
        (reached, admitted)
    }

    fn churn(&mut self, now_ns: u64, at_first: usize) {
        // One churn event in forty seconds.
        if self.chance.below(400) != 0 {
            return;
        }
        let at = self.chance.below(self.nodes.len() as u64) as usize;
        match self.chance.below(3) {
            0 if self.nodes.len() > 1 => drop(self.nodes.remove(at)),
            1 if self.nodes.len() < 2 * at_first => self.join(now_ns),
            2 => {
                let long = (1 + self.chance.below(30)) * 1_000_000_000;
                self.nodes[at].stands_until_ns = now_ns + long;
            }
            _ => {}
        }
    }

    /// Checks that shares never add up to more than the rate.
    fn check_shares(&self) {
        let key = Space::new("test").rate_shares(&id());
        let Some(item) = at_once(self.store.read(key)).unwrap() else { return };
        let view = SharesView::read(&item).unwrap();
        let sum: u64 = view.entries.values().map(|entry| u64::from(entry.share)).sum();
        assert!(sum <= u64::from(WHOLE), "shares of {sum} millionths");
    }
}

fn run(seed: u64, nodes: usize, load: Load, churn: bool, loss: u64) -> Measured {
    let mut fleet = Fleet::new(seed, nodes, loss);
    let (mut admitted, mut reached) = (vec![0u64; SECONDS], vec![0u64; SECONDS]);
    for tick in 0..SECONDS as u64 * 10 {
        let now_ns = START_NS + tick * TICK_NS;
        if churn {
            fleet.churn(now_ns, nodes);
        }
        let (came, passed) = fleet.tick(now_ns, load, 1.5);
        let second = (tick / 10) as usize;
        reached[second] += came;
        admitted[second] += passed;
        if tick % 10 == 0 {
            fleet.check_shares();
        }
    }
    let windows = admitted[WARM_UP..].windows(10).map(|w| w.iter().sum::<u64>());
    let most = windows.max().unwrap();
    let passed: u64 = admitted[WARM_UP..].iter().sum();
    let could: u64 = reached[WARM_UP..].iter().map(|n| RATE.min(*n)).sum();
    let minutes = SECONDS as f64 / 60.0;
    Measured {
        ten_seconds: most as f64 / (10 * RATE) as f64,
        used: passed as f64 / could as f64,
        moves: (fleet.moves + fleet.notes) as f64 / minutes,
        calls: fleet.beats as f64 / minutes,
    }
}

/// Most admitted in ten seconds, in parts of the rate, without churn and with it.
const CALM: f64 = 1.06;
const CHURN: f64 = 1.25;

const SEEDS: u64 = 12;

/// The worst of some seeds, and the mean utilisation.
fn worst(nodes: usize, load: Load, churn: bool, loss: u64) -> Measured {
    let all: Vec<Measured> = (0..SEEDS).map(|seed| run(seed, nodes, load, churn, loss)).collect();
    let mean = |of: fn(&Measured) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let measured = Measured {
        ten_seconds: all.iter().map(|m| m.ten_seconds).fold(0.0, f64::max),
        used: mean(|m| m.used),
        moves: mean(|m| m.moves),
        calls: mean(|m| m.calls),
    };
    println!(
        "{nodes:>3} nodes, {load:?}, churn {churn}: 10 s {:.3} R, used {:.3}, \
         {:.1} writes a minute and {:.1} beats",
        measured.ten_seconds, measured.used, measured.moves, measured.calls
    );
    measured
}

const LOADS: [Load; 3] = [Load::Even, Load::One, Load::Falling];

#[test]
fn without_churn_a_fleet_admits_the_rate() {
    for nodes in [1, 4, 16] {
        for load in LOADS {
            let measured = worst(nodes, load, false, 20);
            assert!(measured.ten_seconds <= CALM, "{nodes} {load:?}: {measured:?}");
            assert!(measured.used >= 0.95, "{nodes} {load:?}: {measured:?}");
        }
    }
}

#[test]
fn nodes_that_join_and_die_stay_within_the_bound() {
    for nodes in [1, 4, 16] {
        for load in LOADS {
            let measured = worst(nodes, load, true, 20);
            assert!(measured.ten_seconds <= CHURN, "{nodes} {load:?}: {measured:?}");
            assert!(measured.used >= 0.90, "{nodes} {load:?}: {measured:?}");
        }
    }
}

#[test]
fn what_is_printed_is_what_was_measured() {
    let (calm, churn) = bound();
    assert_eq!((f64::from(calm) / 100.0, f64::from(churn) / 100.0), (CALM, CHURN));
}

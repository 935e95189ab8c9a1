//! Sub-pools against a naive model: writers that lease and give back, hands that move units and die
//! between any two writes, and a network that delivers every write late, twice, or in another
//! order. The laws of [`crate::quota::subpool`] are checked after each write that was applied.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::ids::{SubPoolNumber, Surrogate, WriterId};
use crate::quota::demand::Want;
use crate::quota::pool::{self, Entry, PoolId, Terms, View};
use crate::quota::subpool::{self, Root, SeekStep, Sub};
use crate::store::layout::Space;
use crate::store::{Item, Key, Memory, Store, Write, Written};

const LIMIT: i64 = 200;
const SHARDS: u16 = 3;
const WRITERS: u128 = 9;

/// An event; its numbers pick the hand or writer, as far as there are that many.
#[derive(Clone, Debug)]
enum Event {
    /// A hand reads the root, or its sub-pool.
    LookAtRoot(usize),
    LookAtSub(usize),
    /// It makes the next write for units, or to bring them back.
    Feed(usize, u64, Fate),
    Drain(usize, Fate),
    /// It forgets what it knew, and turns to another sub-pool.
    Dies(usize, SubPoolNumber),
    /// A writer takes, gives all back but this part of what it has, or leaves.
    Take(u128, u64, Fate),
    Give(u128, u64, Fate),
    Leave(u128, Fate),
    /// A writer of a sub-pool has used more than is free.
    Charge(u128, u64, Fate),
    /// It pays part of the root's debt, under the number of its last payment there.
    Pay(u128, u64, Fate),
    /// An earlier write is delivered (again).
    Late(prop::sample::Index),
    /// The asking process has learned of another limit.
    Limit(i64),
}

/// The fate of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    ReplyLost,
    RequestLost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Answered), 1 => Just(Fate::ReplyLost), 1 => Just(Fate::RequestLost)]
}

fn event() -> impl Strategy<Value = Event> {
    let hand = || 0..4_usize;
    let writer = || 1..=WRITERS;
    prop_oneof![
        3 => hand().prop_map(Event::LookAtRoot),
        3 => hand().prop_map(Event::LookAtSub),
        6 => (hand(), 0..40_u64, fate()).prop_map(|(h, n, f)| Event::Feed(h, n, f)),
        3 => (hand(), fate()).prop_map(|(h, f)| Event::Drain(h, f)),
        1 => (hand(), 0..SHARDS).prop_map(|(h, n)| Event::Dies(h, SubPoolNumber::test(n))),
        5 => (writer(), 1..20_u64, fate()).prop_map(|(w, n, f)| Event::Take(w, n, f)),
        3 => (writer(), 0..4_u64, fate()).prop_map(|(w, n, f)| Event::Give(w, n, f)),
        1 => (writer(), fate()).prop_map(|(w, f)| Event::Leave(w, f)),
        2 => (writer(), 1..9_u64, fate()).prop_map(|(w, n, f)| Event::Charge(w, n, f)),
        2 => (writer(), 1..9_u64, fate()).prop_map(|(w, n, f)| Event::Pay(w, n, f)),
        6 => any::<prop::sample::Index>().prop_map(Event::Late),
        1 => (LIMIT / 2..LIMIT * 2).prop_map(Event::Limit),
    ]
}

/// A process that moves units: what it last saw, which may be old.
#[derive(Clone, Debug, Default)]
struct Hand {
    shard: SubPoolNumber,
    root: Option<Item>,
    sub: Option<Item>,
}

struct World {
    store: Memory,
    space: Space,
    pool: PoolId,
    sent: Vec<Write>,
    hands: Vec<Hand>,
    /// Each writer's view of its item.
    views: BTreeMap<u128, View>,
    ops: u64,
    terms: Terms,
    /// The most that may be out under the limits so far.
    cap: i64,
}

impl World {
    async fn new() -> Self {
        let pool = PoolId {
            tenant: Surrogate::test(1),
            limit: "jobs/month".into(),
            scope: 0,
            start_ms: 0,
        };
        let (space, terms) = (Space::new("test"), Terms { limit: LIMIT, rev: 1 });
        let entry = Entry { op: 1, held: 10, preauthorised: 10 };
        let world = Self {
            store: Memory::new(),
            hands: (0..4)
                .map(|n| Hand { shard: SubPoolNumber::test(n % SHARDS), ..Hand::default() })
                .collect(),
            sent: vec![pool::create(pool.key(&space), WriterId::test(99), terms, entry, Some(7))],
            views: BTreeMap::new(),
            space,
            pool,
            ops: 1,
            terms,
            cap: LIMIT,
        };
        world.store.write(world.sent[0].clone()).await.unwrap();
        world
    }

    fn key(&self, shard: Option<SubPoolNumber>) -> Key {
        self.pool.key_of(&self.space, shard)
    }

    /// The first third lease from the root, as if they had been there before the split.
    fn key_of(&self, writer: u128) -> Key {
        let shard = SubPoolNumber::test((writer as u16) % SHARDS);
        self.key((writer > WRITERS / 3).then_some(shard))
    }

    async fn read(&self, shard: Option<SubPoolNumber>) -> Option<Item> {
        self.store.read(self.key(shard)).await.unwrap()
    }

    /// Sends a write. `None`: its outcome is unknown.
    async fn send(&mut self, write: Write, fate: Fate) -> Option<Option<Item>> {
        self.sent.push(write.clone());
        if fate == Fate::RequestLost {
            return None;
        }
        let (Written::Applied(item) | Written::Refused(item)) =
            self.store.write(write).await.unwrap();
        (fate == Fate::Answered).then_some(item)
    }

    async fn step(&mut self, event: Event) {
        match event {
            Event::LookAtRoot(hand) => self.hands[hand].root = self.read(None).await,
            Event::LookAtSub(hand) => {
                self.hands[hand].sub = self.read(Some(self.hands[hand].shard)).await;
            }
            Event::Dies(hand, shard) => {
                self.hands[hand] = Hand { shard, ..Hand::default() };
            }
            Event::Feed(hand, n, fate) => self.work(hand, Some(n), fate).await,
            Event::Drain(hand, fate) => self.work(hand, None, fate).await,
            Event::Take(..) | Event::Give(..) | Event::Leave(..) | Event::Charge(..) => {
                self.lease(event).await;
            }
            Event::Pay(writer, n, fate) => self.pay(writer, n, fate).await,
            Event::Late(at) => {
                let write = at.get(&self.sent).clone();
                self.store.write(write).await.unwrap();
            }
            Event::Limit(limit) => {
                self.terms = Terms { limit, rev: self.terms.rev + 1 };
                self.cap = self.cap.max(limit);
            }
        }
    }

    /// A hand makes its next write, from what it last saw.
    async fn work(&mut self, hand: usize, feed: Option<u64>, fate: Fate) {
        let Hand { shard, root: Some(root), sub } = self.hands[hand].clone() else { return };
        let (root, sub) = (Root::read(&root).unwrap(), sub.map(|sub| Sub::read(&sub).unwrap()));
        let keys = (&self.key(None), &self.key(Some(shard)));
        let next = match feed {
            Some(need) => {
                let want =
                    Want { need, wish: 5, terms: self.terms, may_make: true, of_root: false };
                subpool::next(keys, shard, &root, sub.as_ref(), want)
            }
            None => subpool::drain(keys, shard, &root, sub.as_ref(), true),
        };
        let (write, is_root) = match next {
            SeekStep::Root(write) => (write, true),
            SeekStep::Sub(write) => (write, false),
            SeekStep::Done => return,
        };
        if let Some(item) = self.send(write, fate).await {
            let hand = &mut self.hands[hand];
            *(if is_root { &mut hand.root } else { &mut hand.sub }) = item;
        }
    }

    /// A writer acts as a lease does.
    async fn lease(&mut self, event: Event) {
        let (Event::Take(writer, ..)
        | Event::Give(writer, ..)
        | Event::Leave(writer, ..)
        | Event::Charge(writer, ..)) = event
        else {
            return;
        };
        let key = self.key_of(writer);
        let seen = self.store.read(key.clone()).await.unwrap();
        let seen = seen.map(|item| View::read(&item, WriterId::test(writer)).unwrap());
        let Some(view) = self.views.get(&writer).copied().or(seen) else { return };
        self.ops += 1;
        let entry = |held: u64| Entry { op: self.ops, held, preauthorised: held };
        let held = view.mine.map_or(0, |mine| mine.held);
        let (write, fate) = match (event, view.mine) {
            (Event::Take(_, n, fate), _) => {
                (pool::grant(key, WriterId::test(writer), &view, entry(held + n)), fate)
            }
            (Event::Charge(_, n, fate), _) if writer > WRITERS / 3 => {
                (pool::charge_to_root(key, WriterId::test(writer), &view, entry(held + n)), fate)
            }
            (Event::Give(_, part, fate), Some(_)) => {
                (pool::give(key, WriterId::test(writer), &view, entry(held * part / 4)), fate)
            }
            (Event::Leave(_, fate), Some(mine)) => {
                (pool::fold(key, WriterId::test(writer), mine, held / 2), fate)
            }
            _ => return,
        };
        let answer = self.send(write, fate).await;
        let view = answer.flatten().map(|item| View::read(&item, WriterId::test(writer)).unwrap());
        match view {
            Some(view) => self.views.insert(writer, view),
            None => self.views.remove(&writer),
        };
    }

    /// A writer of a sub-pool pays to the root, once for each number.
    async fn pay(&mut self, writer: u128, n: u64, fate: Fate) {
        self.ops += 1;
        let root = self.read(None).await.unwrap();
        let last = pool::last_payment(&root, WriterId::test(writer));
        let write =
            pool::pay_from_sub_pool(self.key(None), WriterId::test(writer), (last, self.ops), n);
        self.send(write, fate).await;
    }

    /// Charges to all writers of sub-pools, and payments of them.
    async fn debts(&self) -> (i64, i64) {
        let mut charged = 0;
        for shard in SubPoolNumber::below(SHARDS) {
            let item = self.read(Some(shard)).await;
            charged += item.and_then(|item| item.int("owed")).unwrap_or(0);
        }
        (charged, self.read(None).await.unwrap().int("paid").unwrap_or(0))
    }

    /// Checks the laws. Returns what is out: held or spent.
    async fn count(&mut self) -> Result<i64, String> {
        let Some(item) = self.read(None).await else { return Err("no root".into()) };
        let root = Root::read(&item).unwrap();
        let books = |item: &Item| {
            let held: u64 = pool::entries(item).unwrap().iter().map(|(_, e)| e.held).sum();
            let int = |name| item.int(name).unwrap();
            (int("limit") - int("free"), held as i64 + int("spent"))
        };
        let fed: u64 = root.feeds.values().map(|fed| fed.taken()).sum();
        let (charged, paid) = self.debts().await;
        let (taken, mut out) = books(&item);
        if taken + paid != out + fed as i64 {
            return Err(format!("law 1: {taken} taken, {out} held or spent, {fed} fed"));
        }
        for shard in SubPoolNumber::below(SHARDS) {
            let fed = root.feeds.get(&shard).copied().unwrap_or_default();
            let Some(item) = self.read(Some(shard)).await else { continue };
            let sub = Sub::read(&item).unwrap();
            let (taken, own) = books(&item);
            let limit = item.int("limit").unwrap();
            if taken != own || limit != (sub.credited + sub.owed) as i64 - sub.returned as i64 {
                return Err(format!("law 2: {taken} taken, {own} held or spent, {sub:?}"));
            }
            let is_behind = sub.credited <= fed.credited && sub.returned >= fed.returned;
            if !is_behind || sub.owed < fed.owed || sub.free < 0 {
                return Err(format!("law 3: {sub:?}, {fed:?}"));
            }
            out += own;
        }
        if paid > charged {
            return Err(format!("{paid} paid of {charged}"));
        }
        // Writers never ask for more than the limit and what was paid.
        if out - charged > self.cap {
            return Err(format!("I1: {out} out, {} allowed", self.cap));
        }
        Ok(out)
    }

    /// All faults over: empties every sub-pool. Returns what is free in the root, and its limit.
    async fn settle(&mut self) -> (i64, i64) {
        for shard in SubPoolNumber::below(SHARDS) {
            let (root, sub) = (self.read(None).await, self.read(Some(shard)).await);
            self.hands[0] = Hand { shard, root, sub };
            for _ in 0..9 {
                self.work(0, None, Fate::Answered).await;
            }
        }
        let item = self.read(None).await.unwrap();
        (item.int("free").unwrap(), item.int("limit").unwrap())
    }
}

async fn run(events: Vec<Event>) -> Result<(), String> {
    let mut world = World::new().await;
    for event in events {
        world.step(event.clone()).await;
        world.count().await.map_err(|why| format!("{event:?}: {why}"))?;
    }
    let (free, limit) = world.settle().await;
    let out = world.count().await?;
    let (_, paid) = world.debts().await;
    if free != limit + paid - out {
        return Err(format!("I7: {free} of {limit} to be had, {out} out, {paid} paid"));
    }
    Ok(())
}

fn run_now(events: Vec<Event>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(run(events))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn units_move_at_most_once_and_all_can_be_had(
        events in prop::collection::vec(event(), 1..150),
    ) {
        prop_assert_eq!(run_now(events), Ok(()));
    }
}

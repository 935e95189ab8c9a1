//! The shares of one limit under pressure: the part of its rate that each node may serve.
//!
//! # Laws
//!
//! 1. An item holds an entry for each node and the `free` rest, in millionths of the rate; together
//!    they are the whole, after every write. So shares never add up to more than the rate: an
//!    escrow of rate.
//! 2. A write names the whole entry that it replaces, so that a late copy of it changes nothing.
//! 3. A cut takes effect before it is written, a raise after. So a lost reply only costs
//!    throughput.
//! 4. Entries of dead nodes go to the next writer.
//!
//! Pure: writes are built here and answers are parsed here; no calls are made.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, When, Write};

/// All of a rate, in millionths.
pub(crate) const WHOLE: u32 = 1_000_000;

/// Format of the item.
const FORMAT: i64 = 1;
const FREE: &str = "free";

/// Lifetime of an item after its last write: far longer than any pressure lasts.
const KEEP_S: i64 = 3_600;

/// Headroom that a node keeps above its demand, and the usage below which it gives some back: both
/// in percent, of the demand and of the share.
#[derive(Clone, Copy)]
struct Room {
    keeps: u64,
    cuts_below: u64,
}

/// While some of the rate is free.
const WIDE: Room = Room { keeps: 120, cuts_below: 80 };
/// Once all of it is given out: another node may be waiting for unused rate.
const NARROW: Room = Room { keeps: 105, cuts_below: 95 };
/// That is, when less than this is free, in millionths.
const SCARCE: i64 = 10_000;

/// A share is raised when this much of it is used, in percent.
const RAISE_ABOVE: u64 = 90;
/// Changes below this part of a fair share are not written, in percent.
const WORTH: u64 = 5;
/// A node without demand keeps this part of a fair share, in percent, for its first requests.
const LEAST: u64 = 2;

/// A node's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShareEntry {
    /// The operation of its node that wrote it.
    op: u64,
    pub(crate) share: u32,
    /// The share it asked for: up to an equal part, the others owe it the difference.
    goal: u32,
}

/// The item as it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharesView {
    free: i64,
    pub(crate) entries: BTreeMap<NodeId, ShareEntry>,
}

/// A node's next step for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Serve at most this from now on.
    pub(crate) at_most: u32,
    /// Request this share; `None`: the item is already right.
    pub(crate) goal: Option<u32>,
}

impl SharesView {
    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a rate's shares")?;
        let free = item.int(FREE).ok_or_else(damaged)?;
        let mut entries = BTreeMap::new();
        for (name, value) in &item.0 {
            let Some(node) = name.strip_prefix(ENTRY) else { continue };
            let node = layout::node(node).ok_or_else(damaged)?;
            entries.insert(node, ShareEntry::read(value).ok_or_else(damaged)?);
        }
        Ok(Self { free, entries })
    }

    /// The decision of `me` at this demand, in millionths of the rate.
    pub(crate) fn decide(&self, me: NodeId, live: &BTreeSet<NodeId>, demand: u64) -> Decision {
        let fair = fair(live.len());
        let mine = self.entries.get(&me).map(|entry| entry.share);
        let room = if self.free < SCARCE { NARROW } else { WIDE };
        let least = u64::from(fair) * LEAST / 100;
        // May exceed the whole rate: a node that has all of it notices when others join.
        let want = (demand.saturating_mul(room.keeps) / 100).max(least);
        let others = self.entries.iter().filter(|(node, _)| **node != me && live.contains(node));
        let owed = |entry: &ShareEntry| entry.share.max(entry.goal.min(fair));
        // A live node without an entry serves an equal part for now.
        let is_new = |node: &&NodeId| **node != me && !self.entries.contains_key(*node);
        let new = live.iter().filter(is_new).fold(0u32, |sum, _| sum.saturating_add(fair));
        let others = others.fold(new, |sum, (_, entry)| sum.saturating_add(owed(entry)));
        let most = fair.max(WHOLE.saturating_sub(others));
        let is_right = mine.is_some_and(|mine| {
            let share = u64::from(mine);
            let cut = mine > most || want < share * room.cuts_below / 100;
            let raise = want > share && demand > share * RAISE_ABOVE / 100;
            !cut && !raise
        });
        let want = u32::try_from(want).unwrap_or(u32::MAX).min(WHOLE);
        if is_right {
            return Decision { at_most: mine.unwrap_or(fair), goal: None };
        }
        // Above an equal part only from what the others leave.
        let goal = if want < fair { want } else { fair.max(want.min(most)) };
        let moved = mine.map_or(u32::MAX, |mine| goal.abs_diff(mine));
        let is_worth = u64::from(moved) > u64::from(fair) * WORTH / 100;
        match mine {
            Some(mine) if !is_worth => Decision { at_most: mine, goal: None },
            _ => Decision { at_most: goal, goal: Some(goal) },
        }
    }

    /// The write that gives `me` this share, or as much as is available; entries of dead nodes are
    /// removed. `None`: nothing more is available, and the others know.
    pub(crate) fn take(
        &self,
        key: &Key,
        me: NodeId,
        live: &BTreeSet<NodeId>,
        goal: u32,
        op: u64,
        now_ms: i64,
    ) -> Option<(Write, u32)> {
        let dead = self.entries.iter().filter(|(node, _)| **node != me && !live.contains(node));
        let dead: Vec<_> = dead.map(|(node, entry)| (*node, *entry)).collect();
        let lapsed = dead.iter().fold(0i64, |sum, (_, entry)| sum + i64::from(entry.share));
        let mine = self.entries.get(&me).copied();
        let held = mine.map_or(0, |mine| i64::from(mine.share));
        let there = (self.free + lapsed + held).clamp(0, i64::from(WHOLE));
        let share = i64::from(goal).min(there);
        if mine.is_some_and(|mine| i64::from(mine.share) == share && mine.goal == goal) {
            return None;
        }
        let mut when = match mine {
            Some(mine) => vec![When::Equals(name(me), mine.value())],
            None => vec![When::Exists, When::Missing(name(me))],
        };
        let more = held + lapsed - share;
        if more < 0 {
            when.push(When::AtLeast(FREE.into(), -more));
        }
        let share = u32::try_from(share).unwrap_or(0);
        let ttl = now_ms.div_euclid(1_000).saturating_add(KEEP_S);
        let mut change = vec![
            Change::Set(name(me), ShareEntry { op, share, goal }.value()),
            Change::Set(Item::TTL.into(), Value::Int(ttl)),
        ];
        if more != 0 {
            change.push(Change::Add(FREE.into(), more));
        }
        for (node, entry) in dead {
            when.push(When::Equals(name(node), entry.value()));
            change.push(Change::Remove(name(node)));
        }
        Some((Write { key: key.clone(), when, change }, share))
    }
}

/// The write that creates the item: a fair share for each node.
pub(crate) fn open(key: &Key, live: &BTreeSet<NodeId>, now_ms: i64) -> Write {
    let share = fair(live.len());
    let given = live.iter().fold(0i64, |sum, _| sum + i64::from(share));
    let (format, version) = layout::format(FORMAT);
    let ttl = now_ms.div_euclid(1_000).saturating_add(KEEP_S);
    let mut change = vec![
        Change::Set(format, version),
        Change::Set(FREE.into(), Value::Int(i64::from(WHOLE) - given)),
        Change::Set(Item::TTL.into(), Value::Int(ttl)),
    ];
    let entry = ShareEntry { op: 0, share, goal: share }.value();
    let entries = live.iter().map(|node| Change::Set(name(*node), entry.clone()));
    change.extend(entries);
    Write { key: key.clone(), when: vec![When::Absent], change }
}

/// The equal part of each node.
pub(crate) fn fair(nodes: usize) -> u32 {
    WHOLE / u32::try_from(nodes.max(1)).unwrap_or(u32::MAX)
}

/// Prefix of entry names.
const ENTRY: &str = "n";

fn name(node: NodeId) -> Name {
    format!("{ENTRY}{node}").into()
}

impl ShareEntry {
    fn value(self) -> Value {
        let packed = postcard::to_stdvec(&(self.op, self.share, self.goal));
        Value::Bytes(packed.expect("numbers always encode"))
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Bytes(bytes) = value else { return None };
        let (op, share, goal) = postcard::from_bytes(bytes).ok()?;
        Some(Self { op, share, goal })
    }
}

fn damaged() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "shares of a rate that cannot be read")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Memory, Store, StoreFuture};

    fn at_once<T>(mut call: StoreFuture<T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match call.as_mut().poll(&mut context) {
            std::task::Poll::Ready(answer) => answer.unwrap(),
            std::task::Poll::Pending => unreachable!("a store in memory answers at once"),
        }
    }

    fn key() -> Key {
        Key { pk: "V".into(), sk: "-".into() }
    }

    fn view(store: &Memory) -> SharesView {
        SharesView::read(&at_once(store.read(key())).unwrap()).unwrap()
    }

    fn nodes(live: u8) -> BTreeSet<NodeId> {
        (0..5).filter(|node| live & 1 << node != 0).map(NodeId::test).collect()
    }

    proptest! {
        /// Five nodes request shares, each by what it read last, and copies of earlier writes come
        /// late: entries and the free rest are the whole after every write.
        #[test]
        fn shares_never_add_up_to_more_than_the_rate(
            steps in prop::collection::vec(
                (0u128..5, 1u8..32, 0u32..=WHOLE, any::<bool>(), any::<prop::sample::Index>()),
                1..80,
            ),
        ) {
            let store = Memory::new();
            at_once(store.write(open(&key(), &nodes(31), 0)));
            let mut read = vec![view(&store); 5];
            let mut sent = Vec::new();
            for (op, (me, live, goal, reads, late)) in (1u64..).zip(steps) {
                let at = usize::try_from(me).unwrap();
                if reads {
                    read[at] = view(&store);
                }
                let (me, live) = (NodeId::test(me), &nodes(live | 1 << me));
                if let Some((write, share)) = read[at].take(&key(), me, live, goal, op, 0) {
                    prop_assert!(share <= goal);
                    sent.push(write.clone());
                    at_once(store.write(write));
                }
                if !sent.is_empty() {
                    at_once(store.write(late.get(&sent).clone()));
                }
                let stands = view(&store);
                let given: i64 = stands.entries.values().map(|entry| i64::from(entry.share)).sum();
                prop_assert_eq!(given + stands.free, i64::from(WHOLE));
                prop_assert!(stands.free >= 0);
            }
        }
    }

    #[test]
    fn who_has_all_of_it_gives_up_an_equal_part_to_one_that_asks() {
        let (store, live) = (Memory::new(), nodes(0b11));
        at_once(store.write(open(&key(), &nodes(0b01), 0)));
        let wants = u64::from(WHOLE) * 5 / 4;
        let asks = view(&store).decide(NodeId::test(1), &live, wants);
        assert_eq!(asks.goal, Some(WHOLE / 2));
        let (write, share) =
            view(&store).take(&key(), NodeId::test(1), &live, WHOLE / 2, 1, 0).unwrap();
        assert_eq!(share, 0, "nothing is left");
        at_once(store.write(write));
        let gives = view(&store).decide(NodeId::test(0), &live, wants);
        assert_eq!((gives.at_most, gives.goal), (WHOLE / 2, Some(WHOLE / 2)));
        let (write, _) =
            view(&store).take(&key(), NodeId::test(0), &live, WHOLE / 2, 1, 0).unwrap();
        at_once(store.write(write));
        let (_, share) =
            view(&store).take(&key(), NodeId::test(1), &live, WHOLE / 2, 2, 0).unwrap();
        assert_eq!(share, WHOLE / 2);
    }

    #[test]
    fn an_entry_that_is_no_number_stops_the_reading() {
        let store = Memory::new();
        at_once(store.write(open(&key(), &nodes(0b01), 0)));
        let mut item = at_once(store.read(key())).unwrap();
        item.0.insert(name(NodeId::test(7)), Value::Int(1));
        assert_eq!(SharesView::read(&item).unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}

//! Membership: nodes that share a store write a heartbeat into one item, once a slot, and learn of
//! the other nodes from the same answer.
//!
//! A node counts as alive while its heartbeat changes, by the reader's own clock; wall clocks do
//! not matter. Only readings count towards silence, at most a slot for each: while the store is
//! down no node looks dead, and when it is back each has the usual time to write again. A node that
//! misjudges this has too small a share for a while, or too large a one for two slots: the printed
//! bound.

use std::collections::{BTreeMap, BTreeSet};

use super::{GONE_SLOTS, LAPSE_SLOTS, SLOT_NS};
use crate::ids::NodeId;
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, Value, Write};

/// Format of the item.
const FORMAT: i64 = 1;
const BEAT: &str = "n";

/// The nodes as seen by one of them.
#[derive(Debug)]
pub(crate) struct Nodes {
    me: NodeId,
    beat: i64,
    /// The last heartbeat of each node, and for how long readings have shown it unchanged.
    seen: BTreeMap<NodeId, (i64, u64)>,
    read_ns: Option<u64>,
}

impl Nodes {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, beat: 0, seen: BTreeMap::new(), read_ns: None }
    }

    /// The heartbeat write, which also removes long-dead nodes. It may be repeated or late: an old
    /// heartbeat merely counts as unchanged.
    pub(crate) fn beat(&mut self, key: Key) -> Write {
        self.beat += 1;
        let (format, version) = layout::format(FORMAT);
        let mut change =
            vec![Change::Set(format, version), Change::Set(name(self.me), Value::Int(self.beat))];
        let gone = |silent_ns: u64| silent_ns > GONE_SLOTS * SLOT_NS;
        let gone = self.seen.iter().filter(|(node, (_, ns))| **node != self.me && gone(*ns));
        change.extend(gone.map(|(node, _)| Change::Remove(name(*node))));
        Write { key, when: vec![], change }
    }

    /// The write with which this node leaves.
    pub(crate) fn leave(&self, key: Key) -> Write {
        Write { key, when: vec![], change: vec![Change::Remove(name(self.me))] }
    }

    /// Processes the item returned by a heartbeat.
    pub(crate) fn learn(&mut self, item: &Item, now_ns: u64) -> Result<(), StoreError> {
        check_format(item, FORMAT, "the nodes")?;
        let before = self.read_ns.replace(now_ns).unwrap_or(now_ns);
        let passed_ns = now_ns.saturating_sub(before).min(SLOT_NS);
        let mut there = BTreeSet::new();
        for (name, value) in &item.0 {
            let node = name.strip_prefix(BEAT).and_then(layout::node);
            let (Some(node), Value::Int(beat)) = (node, value) else { continue };
            there.insert(node);
            let known = self.seen.entry(node).or_insert((*beat, 0));
            *known = match known.0 == *beat {
                true => (*beat, known.1.saturating_add(passed_ns)),
                false => (*beat, 0),
            };
        }
        self.seen.retain(|node, _| there.contains(node));
        Ok(())
    }

    /// The live nodes, always including this one.
    pub(crate) fn live(&self) -> BTreeSet<NodeId> {
        let fresh = |silent_ns: u64| silent_ns <= LAPSE_SLOTS * SLOT_NS;
        let fresh = self.seen.iter().filter(|(_, (_, ns))| fresh(*ns)).map(|(node, _)| *node);
        fresh.chain([self.me]).collect()
    }
}

fn name(node: NodeId) -> Name {
    format!("{BEAT}{node}").into()
}

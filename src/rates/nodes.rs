//! Who else serves: nodes that share a store write a beat into one item, once a slot, and read from
//! the same answer who else did.
//!
//! A node is taken for alive while its beat changes, by the reader's own clock; nobody's wall clock
//! matters. Only what was read counts as silence, a slot at most for each reading: while the store
//! is away nobody looks dead, and when it is back each has as long as before to beat again. Whoever
//! was wrong about that has too small a share for a while, or too large a one for two slots: the
//! printed bound.

use std::collections::{BTreeMap, BTreeSet};

use super::{GONE_SLOTS, LAPSE_SLOTS, SLOT_NS};
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, Value, Write};

/// Format of the item.
const FORMAT: i64 = 1;
const BEAT: &str = "n";

/// Nodes as one of them sees them.
#[derive(Debug)]
pub(crate) struct Nodes {
    me: u128,
    beat: i64,
    /// The last beat of each, and for how long it has been the same in what was read.
    seen: BTreeMap<u128, (i64, u64)>,
    read_ns: Option<u64>,
}

impl Nodes {
    pub(crate) fn new(me: u128) -> Self {
        Self { me, beat: 0, seen: BTreeMap::new(), read_ns: None }
    }

    /// The write that says that this node lives, and forgets who has long been gone. It may be
    /// repeated or come late: a beat that is old is only one that does not change.
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

    /// The write that says that it leaves.
    pub(crate) fn leave(&self, key: Key) -> Write {
        Write { key, when: vec![], change: vec![Change::Remove(name(self.me))] }
    }

    /// Takes in the item as it stood after a beat.
    pub(crate) fn learn(&mut self, item: &Item, now_ns: u64) -> Result<(), StoreError> {
        check_format(item, FORMAT, "the nodes")?;
        let before = self.read_ns.replace(now_ns).unwrap_or(now_ns);
        let passed_ns = now_ns.saturating_sub(before).min(SLOT_NS);
        let mut there = BTreeSet::new();
        for (name, value) in &item.0 {
            let node = name.strip_prefix(BEAT).and_then(|hex| u128::from_str_radix(hex, 16).ok());
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

    /// Who lives; always this node itself.
    pub(crate) fn live(&self) -> BTreeSet<u128> {
        let fresh = |silent_ns: u64| silent_ns <= LAPSE_SLOTS * SLOT_NS;
        let fresh = self.seen.iter().filter(|(_, (_, ns))| fresh(*ns)).map(|(node, _)| *node);
        fresh.chain([self.me]).collect()
    }
}

fn name(node: u128) -> Name {
    format!("{BEAT}{node:032x}").into()
}

//! The writes that move units between a pool and its sub-pools. Each names the total that it
//! raises, so that it can be applied once.

use super::item::{CREDITED, Fed, RETURNED, Root, Sub, debt_name, name, value};
use crate::ids::SubPoolNumber;
use crate::quota::pool::{self, OF, OWED, Terms};
use crate::store::layout;
use crate::store::{Change, Item, Key, Name, Value, When, Write};

/// Root: `n` units are in transit to a sub-pool. A pool with sub-pools has another format: a binary
/// that does not know them would miss their units.
pub(super) fn feed(key: Key, shard: SubPoolNumber, root: &Root, n: u64) -> Write {
    let known = root.feeds.get(&shard).copied();
    let before = known.unwrap_or_default();
    let next = Fed { credited: before.credited.saturating_add(n), ..before };
    let (format_name, format_value) = layout::format(pool::FORMAT_SPLIT);
    let at = known.map_or(When::Missing(name(shard)), |fed| When::Equals(name(shard), value(fed)));
    Write {
        key,
        when: vec![at, When::AtLeast(pool::FREE.into(), pool::atoms(n))],
        change: vec![
            Change::Set(format_name, format_value),
            Change::Add(pool::FREE.into(), pool::atoms(n).saturating_neg()),
            Change::Set(name(shard), value(next)),
        ],
    }
}

/// The first write of a sub-pool. It lives as long as its root.
pub(super) fn create(key: Key, fed: Fed, root: &Root) -> Write {
    let (format_name, format_value) = layout::format(pool::FORMAT_SPLIT);
    let units = Value::Int(pool::atoms(fed.out()));
    let taken = Value::Int(pool::atoms(fed.taken()));
    let int = |name: &'static str, n: i64| Change::Set(name.into(), Value::Int(n));
    let mut change = vec![
        Change::Set(format_name, format_value),
        Change::Set(pool::LIMIT.into(), taken),
        Change::Set(pool::FREE.into(), units),
        int(pool::REV, root.view.terms.rev),
        int(OF, root.view.terms.limit),
        // In a restored copy the root may know of debts unknown here: those units were used.
        int(pool::SPENT, pool::atoms(fed.taken() - fed.out())),
        int(pool::GEN, 0),
        int(CREDITED, pool::atoms(fed.credited)),
        int(RETURNED, pool::atoms(fed.returned)),
        int(OWED, pool::atoms(fed.owed)),
    ];
    change.extend(root.ttl.map(|ttl| int(Item::TTL, ttl)));
    Write { key, when: vec![When::Absent], change }
}

/// Sub-pool: what was in transit to it has arrived.
pub(super) fn credit(key: Key, sub: &Sub, fed: Fed, down: u64) -> Write {
    let total = Value::Int(pool::atoms(sub.credited));
    let when = vec![When::Equals(CREDITED.into(), total)];
    Write {
        key,
        when,
        change: vec![
            Change::Add(pool::LIMIT.into(), pool::atoms(down)),
            Change::Add(pool::FREE.into(), pool::atoms(down)),
            Change::Set(CREDITED.into(), Value::Int(pool::atoms(fed.credited))),
        ],
    }
}

/// Root: takes over the debts charged to a sub-pool's writers.
pub(super) fn owe(key: Key, shard: SubPoolNumber, fed: Fed, sub: &Sub) -> Write {
    let (name, more) = (debt_name(shard), pool::atoms(sub.owed.saturating_sub(fed.owed)));
    let last = match fed.owed {
        0 => When::Missing(name.clone()),
        owed => When::Equals(name.clone(), Value::Int(pool::atoms(owed))),
    };
    Write {
        key,
        when: vec![last],
        change: vec![
            Change::Add(pool::FREE.into(), more.saturating_neg()),
            Change::Add(pool::DEBT.into(), more),
            Change::Set(name, Value::Int(pool::atoms(sub.owed))),
        ],
    }
}

/// Sub-pool: the root's limit has changed. Moves no units.
pub(super) fn follow(key: Key, terms: Terms) -> Write {
    Write {
        key,
        when: vec![When::Below(pool::REV.into(), terms.rev)],
        change: vec![
            Change::Set(OF.into(), Value::Int(terms.limit)),
            Change::Set(pool::REV.into(), Value::Int(terms.rev)),
        ],
    }
}

/// Sub-pool, in a copy whose root does not know all its movements: it had what the root knows of,
/// and all of that is spent. Nothing is free or held in it.
pub(crate) fn agree(key: Key, shard: SubPoolNumber, root: &Root, sub: &Sub) -> Write {
    let fed = root.feeds.get(&shard).copied().unwrap_or_default();
    let int = |name: &'static str, n: u64| (Name::from(name), Value::Int(pool::atoms(n)));
    let was = [int(CREDITED, sub.credited), int(RETURNED, sub.returned), int(pool::FREE, 0)];
    let is = [
        int(CREDITED, fed.credited),
        int(RETURNED, fed.returned),
        int(OWED, fed.owed),
        int(pool::LIMIT, fed.taken()),
        int(pool::SPENT, fed.taken()),
    ];
    Write {
        key,
        when: was.into_iter().map(|(name, value)| When::Equals(name, value)).collect(),
        change: is.into_iter().map(|(name, value)| Change::Set(name, value)).collect(),
    }
}

/// Sub-pool: `n` units are in transit to the root.
pub(super) fn give_up(key: Key, sub: &Sub, n: u64) -> Write {
    let (n, total) = (pool::atoms(n), pool::atoms(sub.returned));
    Write {
        key,
        when: vec![
            When::Equals(RETURNED.into(), Value::Int(total)),
            When::AtLeast(pool::FREE.into(), n),
        ],
        change: vec![
            Change::Add(pool::FREE.into(), n.saturating_neg()),
            Change::Add(pool::LIMIT.into(), n.saturating_neg()),
            Change::Set(RETURNED.into(), Value::Int(total.saturating_add(n))),
        ],
    }
}

/// Root: what was in transit from a sub-pool has arrived.
pub(super) fn take_back(key: Key, shard: SubPoolNumber, fed: Fed, sub: &Sub) -> Write {
    let (_, up) = sub.under_way(fed);
    Write {
        key,
        when: vec![When::Equals(name(shard), value(fed))],
        change: vec![
            Change::Add(pool::FREE.into(), pool::atoms(up)),
            Change::Set(name(shard), value(Fed { returned: sub.returned, ..fed })),
        ],
    }
}

//! Expiry (law 8) for stores whose service does not do it: a sweep goes through the whole table in
//! bounded parts, and starts over after the last item.
//!
//! A sweep may take days. That is no fault: an expired item has no effect, it only takes room.

use std::ops::Bound;

#[cfg(feature = "redb")]
use super::{Change, Value, When, Write};
use super::{Item, Key, MAX_EXPIRED_ITEMS};

/// Items examined in one part: some milliseconds, during which other readers wait.
const LOOK_ITEMS: usize = 2_048;

/// Bytes of items examined in one part, for the same reason: an item may be large, and on disk.
const LOOK_BYTES: usize = 1 << 20;

/// Start of the next part; `None` is the first item of the table.
pub(super) type SweepCursor = Option<Key>;

/// The range of keys from the cursor on.
pub(super) fn from(place: &SweepCursor) -> (Bound<&Key>, Bound<&Key>) {
    let first = place.as_ref().map_or(Bound::Unbounded, Bound::Included);
    (first, Bound::Unbounded)
}

/// One part of a sweep.
#[derive(Debug)]
pub(super) struct SweepPart {
    now_ms: i64,
    items: usize,
    bytes: usize,
    /// Expired items, with the `ttl` they had.
    pub(super) found: Vec<(Key, i64)>,
}

impl SweepPart {
    pub(super) fn new(now_ms: i64) -> Self {
        Self { now_ms, items: 0, bytes: 0, found: Vec::new() }
    }

    /// Whether the part is complete. It examines at least one item, however large.
    pub(super) fn is_full(&self) -> bool {
        self.items >= LOOK_ITEMS
            || self.bytes >= LOOK_BYTES
            || self.found.len() >= MAX_EXPIRED_ITEMS
    }

    /// Examines an item; `None` is an unreadable one, which stays where it is.
    pub(super) fn look(&mut self, item: Option<&Item>, bytes: usize, key: impl FnOnce() -> Key) {
        self.items += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let expired = item
            .and_then(|item| item.int(Item::TTL))
            .filter(|ttl| ttl.saturating_mul(1_000) <= self.now_ms);
        if let Some(ttl) = expired {
            self.found.push((key(), ttl));
        }
    }
}

/// Removes an expired item, unless its `ttl` was extended in the meantime.
#[cfg(feature = "redb")]
pub(super) fn removal(key: Key, ttl: i64) -> Write {
    Write {
        key,
        when: vec![When::Equals(Item::TTL.into(), Value::Int(ttl))],
        change: vec![Change::Delete],
    }
}

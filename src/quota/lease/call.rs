//! A lease's calls to the store, and what they are made with.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Now;
use crate::ids::{SubPoolNumber, WriterId};
use crate::quota::demand::Want;
use crate::quota::pool::{Entry, PoolId};
use crate::store::layout::Space;
use crate::store::{Key, Write};

/// Numbers lease operations: unique in this process, and so under its incarnation.
static OPS: AtomicU64 = AtomicU64::new(1);

/// The leasing process: its part of the table and its incarnation.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) space: Space,
    pub(crate) incarnation: WriterId,
}

/// A lease's call to the store. Every answer is the item as it stands after the call.
#[derive(Clone, Debug)]
pub(crate) enum LeaseCall {
    /// A strong read.
    Look(Key),
    /// A conditional write, to be repeated as it is until its outcome is known.
    Write(Write),
    /// Writes that carry no entry of ours: restarted after any failure.
    Seek(Seek),
}

/// A search for units in the root and in its shards.
#[derive(Clone, Debug)]
pub(crate) struct Seek {
    pub(crate) pool: PoolId,
    /// The item returned as the answer: a shard, or the root.
    pub(crate) shard: Option<SubPoolNumber>,
    pub(crate) want: Want,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Look,
    Seek,
    /// Creates the pool and takes, or just takes. Carries our entry as it will be.
    Take(Entry),
    Give(Entry),
    /// The final write: used units become spent, the entry is removed. Carries how many were used
    /// when it was made.
    Fold(u64),
    Relimit,
    /// Takes what is owed, whether it is free or not.
    Charge(Entry),
    /// Pays part of what is owed.
    Pay(Entry),
    /// The same from a shard: a payment to the root, by its number.
    PayRoot(u64),
}

impl Op {
    /// The number of the next operation.
    pub(super) fn number() -> u64 {
        OPS.fetch_add(1, Ordering::Relaxed)
    }
}

/// What stays the same for as long as a lease lives.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) pool: PoolId,
    /// The incarnation that owns its entry and log.
    pub(super) incarnation: WriterId,
    pub(super) end_ms: i64,
    /// The TTL its pool is created with; see [`pool::ttl`](crate::quota::pool::ttl).
    pub(super) ttl: Option<i64>,
    /// Whether it is of a slot of a strict rate: it is over in seconds, so nothing of it is logged,
    /// all of it may be served at once, and none of it is reclaimed.
    pub(super) of_slot: bool,
    /// Whether its quota bills: its units pay for late use of its window, in any process, before
    /// that counts as overage. So what is left goes back even after the window.
    pub(super) bills: bool,
}

/// What a step of the negotiation is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) of: &'a Fixed,
    pub(super) writer: &'a Writer,
    pub(super) now: Now,
}

impl Context<'_> {
    /// The key of the item that holds the lease's entry.
    pub(super) fn key(&self, shard: Option<SubPoolNumber>) -> Key {
        self.of.pool.key_of(&self.writer.space, shard)
    }
}

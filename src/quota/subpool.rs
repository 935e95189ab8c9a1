//! Sub-pools: a pool with many writers is split, so that no item holds an entry for each of them.
//!
//! A sub-pool is a pool item beside its pool (the root) whose limit is what the root has credited
//! to it, less what it has given back. Writers lease from it as from any pool. Units move between
//! the two by totals that never fall, *credited* and *returned*, each of them in both items. A
//! process that moves units raises the total at their source, by a write that names the total as it
//! was; the next process to read both items sees a difference and moves exactly that. So a
//! duplicate or late copy of a write finds another total and changes nothing, and any process can
//! finish a move that another died in.
//!
//! Debts are kept in the root alone, where every process that looks for units sees them. A writer
//! whose entry is in a sub-pool is charged there, by a write that raises a third total, *owed*, and
//! takes nothing of what is free; the root owes the difference once a process has read both.
//!
//! # Laws
//!
//! 1. Root: `limit - free == held + spent + sum(credited - returned + owed)`, less what was paid.
//! 2. Sub-pool: `limit == credited - returned + owed`, and `limit - free == held + spent`.
//! 3. A sub-pool's `credited` is never above the root's, its `returned` never below: what lies
//!    between is in transit, and belongs to neither. Nor is its `owed` below the root's.
//! 4. A pool that was split stays split: a writer without an entry in the root leases from the
//!    sub-pool that its incarnation names, and from no other. So no writer has two entries.
//!
//! Pure: [`next`] and [`drain`] say which write to make, and are asked again with what came back.

use self::writes::{create, credit, feed, follow, give_up, owe, take_back};
use crate::ids::{SubPoolNumber, WriterId};
use crate::overrides;
use crate::quota::demand::{Want, ahead};
use crate::quota::pool::{self, View};
use crate::store::{Item, Key, StoreError, Write};

mod item;
mod writes;

pub(crate) use self::item::{Fed, Root, Sub, feeds};
pub(crate) use self::writes::agree;

/// A pool with this many writers is split: 32 entries are 1.5 KB, two units for each write.
const SPLIT_AT: usize = 32;

/// Sub-pools of a pool: with 32 writers each they hold 2,048, the root's entries for them are a
/// kilobyte, and all of them can be read when units run out.
const SHARDS: u16 = 64;

/// The next step of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SeekStep {
    Root(Write),
    Sub(Write),
    /// Nothing, or nothing that would bring units.
    Done,
}

/// The sub-pool of a writer. Incarnations are random, so they spread evenly.
pub(crate) fn shard_of(incarnation: WriterId) -> SubPoolNumber {
    incarnation.shard(shards())
}

/// The sub-pools that a pool may have, judging by its item. In a copy that item may be older than
/// theirs, so with that many writers it is all of them.
pub(crate) fn may_be(item: &Item) -> Result<impl Iterator<Item = SubPoolNumber>, StoreError> {
    let many = pool::entries(item)?.len() >= overrides::split_at(SPLIT_AT);
    Ok(SubPoolNumber::below(if many || is_split(item) { shards() } else { 0 }))
}

/// Whether so many writers lease from this pool that one without an entry goes to its sub-pool. Not
/// while something is owed: the debt is recorded here, and a writer that does not see it would
/// serve the units meant to pay it.
pub(crate) fn is_crowded(item: &Item, incarnation: WriterId) -> Result<bool, StoreError> {
    let entries = pool::entries(item)?;
    let is_in = entries.iter().any(|(writer, _)| *writer == incarnation);
    let is_full = is_split(item) || entries.len() >= overrides::split_at(SPLIT_AT);
    Ok(!is_in && is_full && View::read(item, incarnation)?.owed() == 0)
}

/// Whether a pool has sub-pools.
fn is_split(item: &Item) -> bool {
    pool::sub_pools(item).next().is_some()
}

/// The next write towards units of sub-pool `shard`: first a changed limit, so that a debt is not
/// paid by what a lowered limit takes away; then what is in transit; then new units.
pub(crate) fn next(
    (root_key, sub_key): (&Key, &Key),
    shard: SubPoolNumber,
    root: &Root,
    sub: Option<&Sub>,
    want: Want,
) -> SeekStep {
    let (known, news) = (root.view.terms, want.terms);
    if news.rev > known.rev && news.limit != known.limit {
        return SeekStep::Root(pool::relimit(root_key.clone(), &root.view, news));
    }
    if let Some(next) = arrive((root_key, sub_key), shard, root, sub, want.may_make) {
        return next;
    }
    if let Some(sub) = sub {
        if known.rev > sub.of.rev && known.limit != sub.of.limit {
            return SeekStep::Sub(follow(sub_key.clone(), known));
        }
        let debt = root.view.free.min(0).unsigned_abs();
        let back = debt.min(u64::try_from(sub.free).unwrap_or(0));
        if back > 0 {
            return SeekStep::Sub(give_up(sub_key.clone(), sub, back));
        }
    }
    match size(root, sub.map_or(0, |sub| sub.free), want) {
        0 => SeekStep::Done,
        _ if sub.is_none() && !want.may_make => SeekStep::Done,
        n => SeekStep::Root(feed(root_key.clone(), shard, root, n)),
    }
}

/// The next write that returns free units of a sub-pool to the root.
pub(crate) fn drain(
    (root_key, sub_key): (&Key, &Key),
    shard: SubPoolNumber,
    root: &Root,
    sub: Option<&Sub>,
    may_make: bool,
) -> SeekStep {
    if let Some(next) = arrive((root_key, sub_key), shard, root, sub, may_make) {
        return next;
    }
    match sub.map(|sub| (sub, u64::try_from(sub.free).unwrap_or(0))) {
        None | Some((_, 0)) => SeekStep::Done,
        Some((sub, free)) => SeekStep::Sub(give_up(sub_key.clone(), sub, free)),
    }
}

/// The write that completes a movement already begun.
pub(crate) fn arrive(
    (root_key, sub_key): (&Key, &Key),
    shard: SubPoolNumber,
    root: &Root,
    sub: Option<&Sub>,
    may_make: bool,
) -> Option<SeekStep> {
    let fed = root.feeds.get(&shard).copied().unwrap_or_default();
    let Some(sub) = sub else {
        let make = fed.credited > 0 && may_make;
        return make.then(|| SeekStep::Sub(create(sub_key.clone(), fed, root)));
    };
    if sub.owed > fed.owed {
        return Some(SeekStep::Root(owe(root_key.clone(), shard, fed, sub)));
    }
    match sub.under_way(fed) {
        (0, 0) => None,
        (0, _) => Some(SeekStep::Root(take_back(root_key.clone(), shard, fed, sub))),
        (down, _) => Some(SeekStep::Sub(credit(sub_key.clone(), sub, fed, down))),
    }
}

/// How much to feed: some leases ahead, within a share of what is free, and at least what is waited
/// for. 0: there is enough, or not enough to be had.
fn size(root: &Root, sub_free: i64, want: Want) -> u64 {
    let here = sub_free.max(0);
    let missing = pool::atoms(want.need).saturating_sub(here).max(0);
    if root.view.free <= 0 || missing > root.view.free {
        return 0;
    }
    let ahead = ahead(here, root.seen().share, want.wish);
    let more = if ahead > here { ahead } else { 0 };
    missing.max(more).unsigned_abs()
}

fn shards() -> u16 {
    overrides::shards(SHARDS).max(1)
}

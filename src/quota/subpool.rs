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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::writes::{create, credit, feed, follow, give_up, owe, take_back};
use crate::overrides;
use crate::quota::pool::{self, Terms, View};
use crate::store::{Item, Key, Name, StoreError, TTL, Value, Write};

mod writes;

pub(crate) use self::writes::agree;

/// A pool with this many writers is split: 32 entries are 1.5 KB, two units for each write.
const SPLIT_AT: usize = 32;

/// Sub-pools of a pool: with 32 writers each they hold 2,048, the root's entries for them are a
/// kilobyte, and all of them can be read when units run out.
const SHARDS: u16 = 64;

/// A sub-pool is fed for this many leases at once: more of the writers that share it will ask soon.
const LEASES_AHEAD: i64 = 8;

/// A feed is at most one part in this of what is free (5 %), like a lease of a pool ...
const SHARE_OF_FREE: i64 = 20;

/// ... and, once more sub-pools were fed, one part in this for each of them: if all are fed at once
/// they have less than half of it, so that the rest goes where it is needed.
const SHARE_EACH: i64 = 2;

/// In a sub-pool: what the root has credited and taken back, what it is to owe for writers of the
/// sub-pool, and its limit as last seen.
const CREDITED: &str = "credited";
const RETURNED: &str = "returned";
pub(crate) const OWED: &str = "owed";
pub(crate) const OF: &str = "of";

/// The root's record of a sub-pool: totals that never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fed {
    pub(crate) credited: u64,
    pub(crate) returned: u64,
    /// Stored in an attribute of its own.
    #[serde(skip)]
    pub(crate) owed: u64,
}

/// A pool that may have sub-pools, as last seen.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) view: View,
    pub(crate) feeds: BTreeMap<u16, Fed>,
    ttl: Option<i64>,
}

/// A sub-pool as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sub {
    pub(crate) free: i64,
    pub(crate) credited: u64,
    pub(crate) returned: u64,
    pub(crate) owed: u64,
    /// The root's limit, as last seen.
    of: Terms,
}

/// The root's state, for a lease of a sub-pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootSeen {
    /// Free units there, and a sub-pool's share of them.
    pub(crate) free: i64,
    pub(crate) share: i64,
    pub(crate) owed: u64,
}

/// A lease's demand on its sub-pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Atoms missing for a waiting ask, and atoms of a usual lease.
    pub(crate) need: u64,
    pub(crate) wish: u64,
    /// The limit in the asking process's catalog.
    pub(crate) terms: Terms,
    /// Whether a sub-pool may still be created: not long after its window's end.
    pub(crate) may_make: bool,
    /// Whether the root is read even if the sub-pool has enough.
    pub(crate) of_root: bool,
}

/// The next step of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SeekStep {
    Root(Write),
    Sub(Write),
    /// Nothing, or nothing that would bring units.
    Done,
}

impl Fed {
    /// Atoms credited and not given back: held, spent, free there or in transit.
    pub(crate) fn out(self) -> u64 {
        self.credited.saturating_sub(self.returned)
    }

    /// The same with what the root owes for it. That can come back, too.
    pub(crate) fn taken(self) -> u64 {
        self.credited.saturating_add(self.owed).saturating_sub(self.returned)
    }
}

impl Root {
    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self { view: View::read(item, 0)?, feeds: feeds(item)?, ttl: item.int(TTL) })
    }

    pub(crate) fn seen(&self) -> RootSeen {
        RootSeen { free: self.view.free, share: self.share(), owed: self.view.owed() }
    }

    /// The most that a sub-pool is fed for later asks.
    pub(crate) fn share(&self) -> i64 {
        // At most as many as there are 16-bit numbers.
        let parts = SHARE_EACH * self.feeds.len() as i64;
        self.view.free.max(0) / parts.max(SHARE_OF_FREE)
    }
}

impl Sub {
    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let view = View::read(item, 0)?;
        let total = |name: &str| {
            let total = item.int(name).and_then(|total| u64::try_from(total).ok());
            total.ok_or_else(|| pool::damaged(name))
        };
        let (credited, returned) = (total(CREDITED)?, total(RETURNED)?);
        let owed = item.int(OWED).map_or(Ok(0), |_| total(OWED))?;
        Ok(Self { free: view.free, credited, returned, owed, of: view.terms })
    }

    /// Whether the root knows all its movements. It always does, except in a copied table whose
    /// items are not of one instant.
    pub(crate) fn is_known_to(self, root: &Root, shard: u16) -> bool {
        let fed = root.feeds.get(&shard).copied().unwrap_or_default();
        let of_units = self.credited <= fed.credited && self.returned >= fed.returned;
        of_units && self.owed >= fed.owed
    }

    /// Whether it has what is wanted, with room for some more leases, and knows the limit.
    pub(crate) fn has(self, want: &Want) -> bool {
        let enough = pool::atoms(want.wish).saturating_mul(LEASES_AHEAD / 2);
        let knows = self.of.rev >= want.terms.rev || self.of.limit == want.terms.limit;
        knows && !want.of_root && self.free >= enough.max(pool::atoms(want.need))
    }

    /// Atoms in transit to it and from it.
    pub(crate) fn under_way(self, fed: Fed) -> (u64, u64) {
        let down = fed.credited.saturating_sub(self.credited);
        (down, self.returned.saturating_sub(fed.returned))
    }
}

/// The sub-pool of a writer. Incarnations are random, so they spread evenly.
pub(crate) fn shard_of(incarnation: u128) -> u16 {
    // Less than the number of shards, so it fits.
    (incarnation % u128::from(shards())) as u16
}

/// The sub-pools that a pool may have, judging by its item. In a copy that item may be older than
/// theirs, so with that many writers it is all of them.
pub(crate) fn may_be(item: &Item) -> Result<std::ops::Range<u16>, StoreError> {
    let many = pool::entries(item)?.len() >= overrides::split_at(SPLIT_AT);
    Ok(if many || is_split(item) { 0..shards() } else { 0..0 })
}

/// Whether so many writers lease from this pool that one without an entry goes to its sub-pool. Not
/// while something is owed: the debt is recorded here, and a writer that does not see it would
/// serve the units meant to pay it.
pub(crate) fn is_crowded(item: &Item, incarnation: u128) -> Result<bool, StoreError> {
    let entries = pool::entries(item)?;
    let is_in = entries.iter().any(|(writer, _)| *writer == incarnation);
    let is_full = is_split(item) || entries.len() >= overrides::split_at(SPLIT_AT);
    Ok(!is_in && is_full && View::read(item, incarnation)?.owed() == 0)
}

/// Whether a pool has sub-pools.
pub(crate) fn is_split(item: &Item) -> bool {
    item.0.keys().any(|name| name.starts_with("s#"))
}

/// Sub-pools of a pool, by number.
pub(crate) fn feeds(item: &Item) -> Result<BTreeMap<u16, Fed>, StoreError> {
    let named = item.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("s#")?, value)));
    let fed = |(name, value): (&str, &Value)| {
        let Value::Bytes(bytes) = value else { return Err(pool::damaged("a sub-pool")) };
        let shard = u16::from_str_radix(name, 16).map_err(|_| pool::damaged("a sub-pool"))?;
        Ok((shard, postcard::from_bytes(bytes).map_err(|_| pool::damaged("a sub-pool"))?))
    };
    let mut feeds: BTreeMap<u16, Fed> = named.map(fed).collect::<Result<_, StoreError>>()?;
    for (shard, fed) in &mut feeds {
        let owed = item.int(&debt_name(*shard)).unwrap_or(0);
        fed.owed = u64::try_from(owed).map_err(|_| pool::damaged("a sub-pool's debt"))?;
    }
    Ok(feeds)
}

/// The next write towards units of sub-pool `shard`: first a changed limit, so that a debt is not
/// paid by what a lowered limit takes away; then what is in transit; then new units.
pub(crate) fn next(
    (root_key, sub_key): (&Key, &Key),
    shard: u16,
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
    shard: u16,
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
    shard: u16,
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

/// Whether a sub-pool with this much free is to be fed for leases of this size before it is empty,
/// given the share its root would give it: a feed must at least double it.
pub(crate) fn is_thin(free: i64, share: i64, wish: u64) -> bool {
    ahead(free.max(0), share, wish) > free.max(0)
}

/// How much to feed: some leases ahead, within a share of what is free, and at least what is waited
/// for. 0: there is enough, or not enough to be had.
fn size(root: &Root, sub_free: i64, want: Want) -> u64 {
    let here = sub_free.max(0);
    let missing = pool::atoms(want.need).saturating_sub(here).max(0);
    if root.view.free <= 0 || missing > root.view.free {
        return 0;
    }
    let ahead = ahead(here, root.share(), want.wish);
    let more = if ahead > here { ahead } else { 0 };
    missing.max(more).unsigned_abs()
}

fn ahead(here: i64, share: i64, wish: u64) -> i64 {
    let leases = pool::atoms(wish).saturating_mul(LEASES_AHEAD);
    leases.saturating_sub(here).min(share)
}

fn shards() -> u16 {
    overrides::shards(SHARDS).max(1)
}

fn name(shard: u16) -> Name {
    format!("s#{shard:02x}").into()
}

fn debt_name(shard: u16) -> Name {
    format!("d#{shard:02x}").into()
}

fn value(fed: Fed) -> Value {
    Value::Bytes(postcard::to_stdvec(&fed).expect("two integers always encode"))
}

//! Moves units within a split pool: from the root to the sub-pool where they are asked for, and
//! back to the root from sub-pools where they are not.
//!
//! [`subpool`] makes the writes, and says why being cut off between any two of them is harmless:
//! the next seek finishes what was begun. Other sub-pools are searched when the root has too
//! little, after [`FRUITLESS`] at the latest.

use std::time::Duration;

use super::RenewerContext;
use super::whole::read_subs;
use crate::delays::Delays;
use crate::ids::SubPoolNumber;
use crate::quota::demand::{RootSeen, Want};
use crate::quota::lease::Seek;
use crate::quota::pool::{self, PoolId};
use crate::quota::subpool::{self, Root, SeekStep, Sub};
use crate::store::{Item, Key, StoreError, StoreErrorKind, Write, Written};

/// Most writes for one call: three are made if no other process moves units meanwhile.
const TRIES: usize = 32;

/// Pauses before other sub-pools are searched again after they had no units. They double, because a
/// used-up quota stays so.
pub(super) const FRUITLESS: Delays =
    Delays::doubling(Duration::from_secs(2), Duration::from_secs(32));

/// The result of a seek.
pub(super) struct SeekAnswer {
    /// The item sought, as it now is.
    pub(super) item: Option<Item>,
    /// The root, if it was read.
    pub(super) root: Option<RootSeen>,
}

/// Moves units to where they are wanted. An error leaves nothing that a later call would not
/// finish.
pub(super) async fn seek(ctx: &RenewerContext, seek: &Seek) -> Result<SeekAnswer, StoreError> {
    let Seek { pool, shard, want } = seek;
    let mut item = match shard {
        Some(_) => ctx.store.read(pool.key_of(&ctx.space, *shard)).await?,
        None => None,
    };
    if let Some(item) = item.take_if(|item| Sub::read(item).is_ok_and(|sub| sub.has(want))) {
        return Ok(SeekAnswer { item: Some(item), root: None });
    }
    let Some(mut split) = Split::read(ctx, pool).await? else {
        return Ok(SeekAnswer { item, root: Some(RootSeen::default()) });
    };
    let mut is_fruitless = !split.is_due();
    loop {
        let lacks = match shard {
            Some(shard) => {
                item = split.feed(*shard, item, *want).await?;
                let free = item.as_ref().map(Sub::read).transpose()?.map_or(0, |sub| sub.free);
                want.need > u64::try_from(free).unwrap_or(0)
            }
            None => want.need > u64::try_from(split.root.view.free).unwrap_or(0),
        };
        // Units given back to sub-pools pay the root's debt.
        let owes = split.root.view.owed() > 0;
        if !(lacks || owes) || is_fruitless {
            break;
        }
        is_fruitless = true;
        split.gather(*shard, *want).await?;
    }
    let root = split.root.seen();
    let item = if shard.is_none() { Some(split.item) } else { item };
    Ok(SeekAnswer { item, root: Some(root) })
}

/// Brings free units of an unused sub-pool back to the root.
pub(super) async fn leave(
    ctx: &RenewerContext,
    pool: &PoolId,
    shard: SubPoolNumber,
) -> Result<(), StoreError> {
    let Some(mut split) = Split::read(ctx, pool).await? else { return Ok(()) };
    let item = ctx.store.read(split.sub_key(shard)).await?;
    split.empty(shard, item, false).await.map(|_| ())
}

/// Whether a sub-pool has no writers, but free units.
pub(super) fn is_left(item: &Item) -> bool {
    let is_empty = pool::entries(item).is_ok_and(|entries| entries.is_empty());
    is_empty && Sub::read(item).is_ok_and(|sub| sub.free > 0)
}

/// A split pool, as last seen.
struct Split<'a> {
    ctx: &'a RenewerContext,
    pool: &'a PoolId,
    key: Key,
    root: Root,
    item: Item,
}

impl<'a> Split<'a> {
    async fn read(ctx: &'a RenewerContext, pool: &'a PoolId) -> Result<Option<Self>, StoreError> {
        let key = pool.key(&ctx.space);
        let Some(item) = ctx.store.read(key.clone()).await? else { return Ok(None) };
        let root = Root::read(&item)?;
        Ok(Some(Self { ctx, pool, key, root, item }))
    }

    fn sub_key(&self, shard: SubPoolNumber) -> Key {
        self.pool.key_of(&self.ctx.space, Some(shard))
    }

    /// Whether other sub-pools are due for a search.
    fn is_due(&self) -> bool {
        self.ctx.recovery.gather_is_due(self.pool, self.ctx.hub.clock.now())
    }

    /// Makes the writes that bring units to a sub-pool, as far as the root has them.
    async fn feed(
        &mut self,
        shard: SubPoolNumber,
        item: Option<Item>,
        want: Want,
    ) -> Result<Option<Item>, StoreError> {
        let next = move |keys: (&Key, &Key), root: &Root, sub: Option<&Sub>| {
            subpool::next(keys, shard, root, sub, want)
        };
        self.make(shard, item, next).await.map(|(item, _)| item)
    }

    /// Makes the writes that bring free units of a sub-pool to the root. True: there were some.
    async fn empty(
        &mut self,
        shard: SubPoolNumber,
        item: Option<Item>,
        may_make: bool,
    ) -> Result<bool, StoreError> {
        let next = move |keys: (&Key, &Key), root: &Root, sub: Option<&Sub>| {
            subpool::drain(keys, shard, root, sub, may_make)
        };
        self.make(shard, item, next).await.map(|(_, writes)| writes > 0)
    }

    /// Makes the next write until there is none. Returns the sub-pool and the number of writes.
    async fn make(
        &mut self,
        shard: SubPoolNumber,
        mut item: Option<Item>,
        next: impl Fn((&Key, &Key), &Root, Option<&Sub>) -> SeekStep,
    ) -> Result<(Option<Item>, usize), StoreError> {
        let key = self.sub_key(shard);
        for writes in 0..TRIES {
            let sub = item.as_ref().map(Sub::read).transpose()?;
            match next((&self.key, &key), &self.root, sub.as_ref()) {
                SeekStep::Done => return Ok((item, writes)),
                SeekStep::Sub(write) => item = self.write(write).await?,
                SeekStep::Root(write) => {
                    let Some(root) = self.write(write).await? else { return Ok((item, writes)) };
                    self.root = Root::read(&root)?;
                    self.item = root;
                }
            }
        }
        let message = "a pool keeps changing during a search for units";
        Err(StoreError::new(StoreErrorKind::Throttled, message))
    }

    async fn write(&self, write: Write) -> Result<Option<Item>, StoreError> {
        Ok(match self.ctx.store.write(write).await? {
            Written::Applied(item) | Written::Refused(item) => item,
        })
    }

    /// Brings free units of other sub-pools back to the root, until it has what is wanted.
    async fn gather(&mut self, own: Option<SubPoolNumber>, want: Want) -> Result<(), StoreError> {
        let feeds = self.root.feeds.iter();
        let others = feeds.filter(|(shard, fed)| Some(**shard) != own && fed.taken() > 0);
        let others: Vec<SubPoolNumber> = others.map(|(shard, _)| *shard).collect();
        let (store, space) = (&*self.ctx.store, &self.ctx.space);
        let mut items = read_subs(store, space, self.pool, others.iter().copied()).await?;
        let mut gained = false;
        // Each process starts at another one, so that concurrent seeks do not collide.
        let first = others.partition_point(|shard| Some(*shard) < own);
        for shard in others[first..].iter().chain(&others[..first]) {
            let enough = want.need.max(want.wish);
            if self.root.view.free >= i64::try_from(enough).unwrap_or(i64::MAX) {
                break;
            }
            let item = items.remove(shard).flatten();
            gained |= self.empty(*shard, item, want.may_make).await?;
        }
        let now = self.ctx.hub.clock.now();
        self.ctx.recovery.gathered(self.pool, gained, now);
        Ok(())
    }
}

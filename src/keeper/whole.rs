//! A pool with all its sub-pools, as they stand in the store: for reports and audits.
//!
//! Not promised: that all items are of one instant. What is held and spent is told by each item of
//! itself; units that move between two of them while they are read may be seen twice or not at all.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

#[cfg(feature = "stripe")]
use crate::admission::pool::{self, Entry};
use crate::admission::pool::{PoolId, View};
use crate::admission::subpool::{self, Fed, Sub};
use crate::store::layout::Space;
use crate::store::{Item, Store, StoreError};

/// See the [module](self).
pub(crate) struct Whole {
    pub(crate) root: View,
    #[cfg(feature = "stripe")]
    root_item: Item,
    feeds: BTreeMap<u16, Fed>,
    subs: BTreeMap<u16, Item>,
}

impl Whole {
    /// Reads it: one read, and one for each sub-pool that was ever fed. `None`: no such pool.
    pub(crate) async fn read(
        store: &dyn Store,
        space: &Space,
        id: &PoolId,
    ) -> Result<Option<Self>, StoreError> {
        let Some(root_item) = store.read(id.key(space)).await? else { return Ok(None) };
        let (root, feeds) = (View::read(&root_item, 0)?, subpool::feeds(&root_item)?);
        let mut calls = JoinSet::new();
        for shard in feeds.keys().copied() {
            let read = store.read(id.key_of(space, Some(shard)));
            calls.spawn(async move { (shard, read.await) });
        }
        let mut subs = BTreeMap::new();
        while let Some(Ok((shard, item))) = calls.join_next().await {
            subs.extend(item?.map(|item| (shard, item)));
        }
        Ok(Some(Self {
            root,
            #[cfg(feature = "stripe")]
            root_item,
            feeds,
            subs,
        }))
    }

    /// What nobody holds, wherever it is. Below nothing after a limit was lowered.
    pub(crate) fn free(&self) -> Result<i64, StoreError> {
        let mut free = self.root.free;
        for (shard, fed) in &self.feeds {
            let sub = self.subs.get(shard).map(Sub::read).transpose()?;
            let (down, up) = sub.map_or((fed.out(), 0), |sub| sub.under_way(*fed));
            for on_its_way in [down, up] {
                free = free.saturating_add(i64::try_from(on_its_way).unwrap_or(i64::MAX));
            }
            free = free.saturating_add(sub.map_or(0, |sub| sub.free));
        }
        Ok(free)
    }

    /// Every writer's entry.
    #[cfg(feature = "stripe")]
    pub(crate) fn entries(&self) -> Result<Vec<(u128, Entry)>, StoreError> {
        let mut entries = pool::entries(&self.root_item)?;
        for sub in self.subs.values() {
            entries.extend(pool::entries(sub)?);
        }
        Ok(entries)
    }

    /// What writers have taken out of it, and whether each of its items says the same as what is
    /// held and spent there.
    #[cfg(feature = "stripe")]
    pub(crate) fn taken(&self) -> Result<(i64, bool), StoreError> {
        let fed = self.feeds.values().fold(0_u64, |sum, fed| sum.saturating_add(fed.out()));
        let fed = i64::try_from(fed).unwrap_or(i64::MAX);
        let (mut sum, mut is_balanced) = (0_i64, true);
        let subs = self.subs.values().map(|item| (item, 0));
        for (item, fed) in std::iter::once((&self.root_item, fed)).chain(subs) {
            let (taken, spent) = pool::taken(item)?;
            let held = pool::entries(item)?;
            let held = held.iter().fold(0_u64, |sum, (_, entry)| sum.saturating_add(entry.held));
            let own = taken.saturating_sub(fed);
            sum = sum.saturating_add(own);
            is_balanced &= i64::try_from(held).is_ok_and(|it| spent.checked_add(it) == Some(own));
        }
        Ok((sum, is_balanced))
    }
}

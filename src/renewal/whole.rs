//! A pool with all its sub-pools, as stored: for reports and audits.
//!
//! Not promised: that all items are of one instant. Each item states its own held and spent units;
//! units moving between two items while they are read may be seen twice or not at all.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::ids::{SubPoolNumber, WriterId};
use crate::quota::pool;
#[cfg(feature = "stripe")]
use crate::quota::pool::Entry;
use crate::quota::pool::{PoolId, Terms, View};
use crate::quota::subpool::{self, Fed, Sub};
use crate::store::layout::Space;
use crate::store::{Item, Store, StoreError, StoreErrorKind};

/// See the [module](self).
pub(crate) struct Whole {
    pub(crate) root: View,
    /// The highest use already alerted, in atoms.
    pub(crate) alerted: i64,
    #[cfg(feature = "stripe")]
    root_item: Item,
    feeds: BTreeMap<SubPoolNumber, Fed>,
    subs: BTreeMap<SubPoolNumber, Item>,
}

impl Whole {
    /// Reads it: one read, and one for each sub-pool that was ever fed. `None`: no such pool.
    pub(crate) async fn read(
        store: &dyn Store,
        space: &Space,
        id: &PoolId,
    ) -> Result<Option<Self>, StoreError> {
        let Some(root_item) = store.read(id.key(space)).await? else { return Ok(None) };
        let (root, feeds) = (View::read(&root_item, WriterId::NONE)?, subpool::feeds(&root_item)?);
        let items = read_subs(store, space, id, feeds.keys().copied()).await?;
        let subs = items.into_iter().filter_map(|(shard, item)| Some((shard, item?))).collect();
        Ok(Some(Self {
            root,
            alerted: pool::alerted(&root_item),
            #[cfg(feature = "stripe")]
            root_item,
            feeds,
            subs,
        }))
    }

    /// Free units, in all its items. Negative after a limit was lowered.
    pub(crate) fn free(&self) -> Result<i64, StoreError> {
        let mut free = self.root.free;
        free = free.saturating_sub(pool::atoms(self.owed_under_way()?));
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

    /// Units owed by late use under these terms, in all its items.
    pub(crate) fn owed(&self, terms: Terms) -> Result<u64, StoreError> {
        Ok(self.root.owing(self.owed_under_way()?).owed_under(terms))
    }

    /// Charges to writers of sub-pools that the root does not know of yet.
    fn owed_under_way(&self) -> Result<u64, StoreError> {
        let mut sum = 0_u64;
        for (shard, item) in &self.subs {
            let known = self.feeds.get(shard).map_or(0, |fed| fed.owed);
            sum = sum.saturating_add(Sub::read(item)?.owed.saturating_sub(known));
        }
        Ok(sum)
    }

    /// Every writer's entry.
    #[cfg(feature = "stripe")]
    pub(crate) fn entries(&self) -> Result<Vec<(WriterId, Entry)>, StoreError> {
        let mut entries = pool::entries(&self.root_item)?;
        for sub in self.subs.values() {
            entries.extend(pool::entries(sub)?);
        }
        Ok(entries)
    }

    /// Units that writers have taken out of it, and whether every item agrees with what is held and
    /// spent there.
    #[cfg(feature = "stripe")]
    pub(crate) fn taken(&self) -> Result<(i64, bool), StoreError> {
        let fed = self.feeds.values().fold(0_u64, |sum, fed| sum.saturating_add(fed.taken()));
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

/// Reads sub-pools of a pool, all at once; `None`: not created yet.
pub(super) async fn read_subs(
    store: &dyn Store,
    space: &Space,
    id: &PoolId,
    shards: impl IntoIterator<Item = SubPoolNumber>,
) -> Result<BTreeMap<SubPoolNumber, Option<Item>>, StoreError> {
    let mut calls = JoinSet::new();
    for shard in shards {
        let read = store.read(id.key_of(space, Some(shard)));
        calls.spawn(async move { (shard, read.await) });
    }
    let mut items = BTreeMap::new();
    while let Some(ended) = calls.join_next().await {
        // A missing one would make its units look in transit.
        let (shard, item) = ended.map_err(|panicked| {
            let message = format!("a sub-pool could not be read: {panicked}");
            StoreError::new(StoreErrorKind::Unavailable, message)
        })?;
        items.insert(shard, item?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SubPoolNumber, Surrogate};
    use crate::quota::demand::Want;
    use crate::quota::pool::{Entry, Terms};
    use crate::quota::subpool::{Root, SeekStep};
    use crate::store::{Memory, Write};

    const SHARD: SubPoolNumber = SubPoolNumber::test(3);

    struct Table(Memory, Space, PoolId);

    impl Table {
        async fn write(&self, write: Write) {
            self.0.write(write).await.unwrap();
        }

        async fn read(&self, shard: Option<SubPoolNumber>) -> Option<Item> {
            self.0.read(self.2.key_of(&self.1, shard)).await.unwrap()
        }

        /// Makes one write to feed the sub-pool, or to empty it.
        async fn move_on(&self, need: Option<u64>) {
            let root = Root::read(&self.read(None).await.unwrap()).unwrap();
            let sub = self.read(Some(SHARD)).await.map(|sub| Sub::read(&sub).unwrap());
            let keys = (&self.2.key(&self.1), &self.2.key_of(&self.1, Some(SHARD)));
            let terms = root.view.terms;
            let next = match need {
                Some(need) => {
                    let want = Want { need, wish: 1, terms, may_make: true, of_root: false };
                    subpool::next(keys, SHARD, &root, sub.as_ref(), want)
                }
                None => subpool::drain(keys, SHARD, &root, sub.as_ref(), true),
            };
            match next {
                SeekStep::Root(write) | SeekStep::Sub(write) => self.write(write).await,
                SeekStep::Done => panic!("nothing to do"),
            }
        }

        async fn whole(&self) -> Whole {
            Whole::read(&self.0, &self.1, &self.2).await.unwrap().unwrap()
        }
    }

    /// Free units, and the audit's view: taken, balanced, entries.
    type Told = (i64, Option<((i64, bool), usize)>);

    async fn told(table: &Table) -> Told {
        let whole = table.whole().await;
        #[cfg(feature = "stripe")]
        let taken = Some((whole.taken().unwrap(), whole.entries().unwrap().len()));
        #[cfg(not(feature = "stripe"))]
        let taken = None;
        (whole.free().unwrap(), taken)
    }

    fn expected(free: i64, taken: i64, entries: usize) -> Told {
        (free, cfg!(feature = "stripe").then_some(((taken, true), entries)))
    }

    #[tokio::test]
    async fn units_are_free_wherever_they_are_and_taken_only_by_writers() {
        let (tenant, limit) = (Surrogate::test(1), "jobs/day".into());
        let id = PoolId { tenant, limit, scope: 0, start_ms: 0 };
        let table = Table(Memory::new(), Space::new("test"), id);
        let entry = |op, held| Entry { op, held, preauthorised: held };
        let terms = Terms { limit: 100, rev: 1 };
        let key = table.2.key(&table.1);
        table.write(pool::create(key, WriterId::test(7), terms, entry(1, 10), None)).await;
        assert_eq!(told(&table).await, expected(90, 10, 1));

        table.move_on(Some(20)).await; // in transit, in no item yet
        assert_eq!(told(&table).await, expected(90, 10, 1));
        table.move_on(Some(20)).await;
        assert_eq!(told(&table).await, expected(90, 10, 1));

        let sub = table.read(Some(SHARD)).await.unwrap();
        let (key, view) =
            (table.2.key_of(&table.1, Some(SHARD)), View::read(&sub, WriterId::test(8)).unwrap());
        table.write(pool::grant(key, WriterId::test(8), &view, entry(2, 5))).await;
        assert_eq!(told(&table).await, expected(85, 15, 2));

        table.move_on(None).await; // in transit back
        assert_eq!(told(&table).await, expected(85, 15, 2));
        table.move_on(None).await;
        assert_eq!(told(&table).await, expected(85, 15, 2));
        assert_eq!(table.whole().await.root.free, 85);
    }
}

//! Gives the task that shares rates among nodes access to their buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Inner;
use crate::clock::Clock;
use crate::error::Error;
use crate::ids::{NodeId, WriterId};
use crate::payers::purse::bucket_of;
use crate::policy::Together;
use crate::policy::bucket::{Bucket, BucketRule};
use crate::policy::resolve::LiveCatalog;
use crate::policy::scoped::ScopedKey;
use crate::rates::{self, Asked, Buckets, LimitId};
use crate::store::Store;
use crate::store::layout::Space;

/// Tells the other nodes of this one, where it shares the store with any, and puts its part of the
/// rates into force. Also where no plan has a rate: the next one may. With `strict` a rate that
/// does not say is leased by the slot, and where all are leased so no
/// other node need know of this one.
pub(super) async fn join(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    space: &Space,
    live: &ArcSwap<LiveCatalog>,
    me: NodeId,
    strict: bool,
) -> Result<Option<rates::Joined>, Error> {
    if !store.promise().shared {
        return Ok(None);
    }
    let plans = &live.load().catalog.plans;
    let mut rates = plans.iter().flat_map(|plan| plan.rates.values().flatten());
    if strict && rates.all(|rate| rate.strict != Some(false)) {
        live.rcu(|live| live.next().together(Together::Leased));
        return Ok(None);
    }
    let joined = rates::join(store.clone(), clock.clone(), space.clone(), me).await?;
    let together = Together::Among { nodes: joined.nodes, strict };
    live.rcu(|live| live.next().together(together));
    Ok(Some(joined))
}

impl Inner {
    /// Looks at a bucket, if it is in memory.
    fn with_bucket<T>(
        &self,
        id: &LimitId,
        look: impl FnOnce(&BucketRule, &Bucket) -> T,
    ) -> Option<T> {
        let sheet = self.tenants.active.get(&id.tenant)?.last_sheet();
        let index = sheet.policy.rates.find(|rate| rate.id == id.rate)?;
        let (rate, bucket) = bucket_of(&sheet, index);
        if rate.slot_pool.is_some() {
            return None; // leased by the slot: it has no shares
        }
        if let Some(bucket) = bucket {
            return Some(look(&rate.rule, bucket));
        }
        let key = ScopedKey {
            tenant: id.tenant,
            limit: rate.id.clone(),
            value: id.scope,
            start_ms: 0,
            incarnation: WriterId::NONE,
        };
        let used = self.hub.scoped.known_bucket(&key)?;
        Some(look(&rate.rule, used.under(&rate.rule, self.clock.now().mono_ns)))
    }
}

impl Buckets for Inner {
    fn asked(&self, shared: &[LimitId]) -> BTreeMap<LimitId, Asked> {
        let mut ids: BTreeSet<LimitId> = self.hub.throttled.take();
        ids.extend(shared.iter().cloned());
        let asked = |id: LimitId| {
            let asked = self.with_bucket(&id, |rule, bucket| Asked {
                units: bucket.take_asked(),
                interval_ns: rule.whole_interval_ns(),
            })?;
            Some((id, asked))
        };
        ids.into_iter().filter_map(asked).collect()
    }

    fn has(&self, id: &LimitId) -> bool {
        self.with_bucket(id, |_, _| ()).is_some()
    }

    fn among(&self, nodes: usize) {
        self.catalogs.live.rcu(|live| live.next().among(nodes));
    }

    fn share(&self, id: &LimitId, millionths: Option<u32>) {
        let now_ns = self.clock.now().mono_ns;
        self.with_bucket(id, |rule, bucket| rule.set_share(bucket, millionths, now_ns));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Item, Key, Memory, Page, Promise, Query, StoreFuture, Write, Written};
    use crate::{Ask, ManualClock, testing};

    /// A store in memory that says several processes share it.
    struct Shared(Memory);

    impl Store for Shared {
        fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
            self.0.read(key)
        }

        fn write(&self, write: Write) -> StoreFuture<Written> {
            self.0.write(write)
        }

        fn query(&self, query: Query) -> StoreFuture<Page> {
            self.0.query(query)
        }

        fn promise(&self) -> Promise {
            Promise { kind: "shared", survives: "nothing", shared: true }
        }

        fn close(&self) -> StoreFuture<()> {
            self.0.close()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leases_of_a_strict_rates_slots_go_soon_after_their_slot() {
        let plans = r#"
            default-plan = "free"
            [plan.free]
            rate.default = { limit = "10/s", strict = true }
        "#;
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let builder = testing::builder(plans).store(Shared(Memory::new())).clock(clock.clone());
        let gate = builder.open().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let mut most = 0;
        for _ in 0..200 {
            gate.admit(Ask::new(&acme, "call")).await.unwrap().settle();
            clock.advance(Duration::from_secs(5));
            tokio::time::sleep(Duration::from_secs(5)).await;
            most = most.max(gate.inner.tenants.leases().len());
        }
        assert!(most <= 4, "{most} leases of 200 slots");
        gate.close().await.unwrap();
    }
}

//! Restoring from a backup: makes a restored table fit for use. No earlier lease is valid any more.
//!
//! The copy does not contain what was used after it was made. Its writers may have served all that
//! their entries hold, and more, so none of that is given out again. The operator decides about the
//! units that were free in the copy ([`SinceCopy`]).
//!
//! # What is promised
//!
//! 1. No earlier writer can write or lease any more: its log ends with a seal, and its entries are
//!    gone.
//! 2. Units that a process held when the copy was made are spent, and so are those of a sub-pool
//!    whose pool was copied at another instant, where the two disagree.
//! 3. With [`SinceCopy::Spent`] no pool of the copy gives out another unit in its window: with what
//!    was used after the copy, no tenant is above a limit by any of them. With [`SinceCopy::Free`]
//!    tenants may use again, at most, what they were granted after the copy was made.
//! 4. Identifiers of billing entries never equal earlier ones: the ledger has another generation.
//! 5. Nothing is sent to the billing service before an operator has stated what was sent since the
//!    copy was made (`billing/restored.rs`).
//!
//! Not promised: pools that were made after the copy are not in it, and are made anew, full; use
//! and keys that came after it are not on record. Only for a table without other writers.

use std::sync::Arc;

use super::{GateBuilder, stores};
use crate::billing::restored;
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::ids::{SubPoolNumber, WriterId};
use crate::ledger::totals::Ledger;
use crate::quota::lease::Writer;
use crate::quota::pool::{self, PoolId};
use crate::quota::subpool::{self, Root, SeekStep, Sub};
use crate::store::layout::Space;
use crate::store::store_id::StoreId;
use crate::store::{
    Change, Item, Store, StoreError, StoreErrorKind, Value, When, Write, Written, until_known,
};

/// The attribute of the ledger's item, beside its id: see `billing/item.rs`.
const GENERATION: &str = "generation";

/// How often a pool is read anew because it had changed meanwhile: there should be no other writer.
const TRIES: usize = 64;

/// Whether units that were free in the backup count as used: some of them may have been used since
/// it was made. The argument of [`GateBuilder::restore`](crate::GateBuilder::restore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceCopy {
    /// They count as used: no limit is exceeded, but a tenant may get less than its limit until the
    /// window ends.
    Spent,
    /// They are free: a tenant may use again, at most, what it was granted after the backup.
    Free,
}

/// The numbers of a [`GateBuilder::restore`]. Nothing is sent to Stripe from then on until
/// `Gate::resume_reports` is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Number of logs that were ended.
    pub logs: usize,
    /// Number of pools that were examined.
    pub pools: usize,
    /// Atoms of those pools that now count as used: those held, and with [`SinceCopy::Spent`] those
    /// free.
    pub spent: u64,
}

impl GateBuilder {
    /// Makes a store fit for use after it was restored from a backup. Stop every process that uses
    /// it, call this once, then open gates; with `[stripe]`, continue with `Gate::resume_reports`.
    /// It may be repeated, also after it was interrupted.
    ///
    /// # Errors
    ///
    /// The service file is wrong, the store fails, or another process writes to it.
    pub async fn restore(&self, since: SinceCopy) -> Result<Restored, Error> {
        let config = self.config()?;
        let store = match self.store.clone() {
            Some(store) => store,
            None => stores::open(&config.store.kind).await?,
        };
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        let space = Space::new(&config.store.space);
        let restored = restore(&store, &space, &*clock, since).await;
        if self.store.is_none() {
            store.close().await?; // a file lets one in at a time
        }
        Ok(restored?)
    }
}

async fn restore(
    store: &Arc<dyn Store>,
    space: &Space,
    clock: &dyn Clock,
    since: SinceCopy,
) -> Result<Restored, StoreError> {
    store.check().await?;
    // Before anything of the copy is taken for what is true.
    StoreId::renew(&**store, space).await?;
    let bills = next_generation(&**store, space, clock.now().wall_ms).await?;
    let reader = Writer { incarnation: WriterId::NONE, space: space.clone() };
    let ledger = Ledger::new(store.clone(), reader);
    let (logs, pools) = ledger.seal_all(clock.now().wall_ms).await?;
    let now_ms = clock.now().wall_ms;
    let uses = ledger.by_period(now_ms).await?;
    if !bills && uses.iter().any(|used| used.account.is_some()) {
        restored::begin(&**store, space, now_ms).await?;
    }
    restored::mark(&**store, space, uses, now_ms).await?;
    let mut done = Restored { logs, pools: pools.len(), spent: 0 };
    for pool in &pools {
        for spent in [
            spend_subs(&**store, space, pool, since).await?,
            spend(&**store, space, pool, since).await?,
        ] {
            done.spent = done.spent.saturating_add(spent);
        }
    }
    Ok(done)
}

/// Raises the generation of the ledger, if this table bills, and lets its reports wait.
async fn next_generation(
    store: &dyn Store,
    space: &Space,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let Some(item) = store.read(space.ledger()).await? else { return Ok(false) };
    let unreadable = || StoreError::new(StoreErrorKind::Corrupt, "the ledger's generation");
    let known = item.int(GENERATION).ok_or_else(unreadable)?;
    let write = Write {
        key: space.ledger(),
        when: vec![When::Equals(GENERATION.into(), Value::Int(known))],
        change: [Change::Set(GENERATION.into(), Value::Int(known.saturating_add(1)))]
            .into_iter()
            .chain(restored::wait(now_ms))
            .collect(),
    };
    // Refused: its own first try, or another restore of the same. It was raised.
    until_known(store, write).await.map(|_| true)
}

/// Takes out of a pool what may have been used. Returns how much that was.
async fn spend(
    store: &dyn Store,
    space: &Space,
    pool: &PoolId,
    since: SinceCopy,
) -> Result<u64, StoreError> {
    let (key, mut spent) = (pool.key(space), 0_u64);
    for _ in 0..TRIES {
        // The item may have gone with its window.
        let Some(item) = store.read(key.clone()).await? else { return Ok(spent) };
        let (write, units) = match next_entry(&item)? {
            Some((writer, entry)) => {
                (pool::fold(key.clone(), writer, entry, entry.held), entry.held)
            }
            None => match pool::close(key.clone(), &item, since == SinceCopy::Spent)? {
                Some(close) => close,
                None => return Ok(spent),
            },
        };
        if let Written::Applied(_) = until_known(store, write).await? {
            spent = spent.saturating_add(units);
        }
    }
    Err(goes_on_changing())
}

/// Does the same for the pool's sub-pools. Units on their way between two items arrive first,
/// because they would do so later.
async fn spend_subs(
    store: &dyn Store,
    space: &Space,
    pool: &PoolId,
    since: SinceCopy,
) -> Result<u64, StoreError> {
    let Some(item) = store.read(pool.key(space)).await? else { return Ok(0) };
    let mut spent = 0_u64;
    for shard in subpool::may_be(&item)? {
        spent = spent.saturating_add(spend_sub(store, space, (pool, shard), since).await?);
    }
    Ok(spent)
}

async fn spend_sub(
    store: &dyn Store,
    space: &Space,
    (pool, shard): (&PoolId, SubPoolNumber),
    since: SinceCopy,
) -> Result<u64, StoreError> {
    let (root_key, key) = (pool.key(space), pool.key_of(space, Some(shard)));
    let (keys, mut spent) = ((&root_key, &key), 0_u64);
    for _ in 0..TRIES {
        let Some(item) = store.read(root_key.clone()).await? else { return Ok(spent) };
        let root = Root::read(&item)?;
        let item = store.read(key.clone()).await?;
        let sub = item.as_ref().map(Sub::read).transpose()?;
        if let Some(SeekStep::Root(write) | SeekStep::Sub(write)) =
            subpool::arrive(keys, shard, &root, sub.as_ref(), true)
        {
            until_known(store, write).await?;
            continue;
        }
        let Some((item, sub)) = item.zip(sub) else { return Ok(spent) };
        // What a root of another instant does not know of would be there twice.
        let is_used = since == SinceCopy::Spent || !sub.is_known_to(&root, shard);
        let (write, units) = match next_entry(&item)? {
            Some((writer, entry)) => {
                (pool::fold(key.clone(), writer, entry, entry.held), entry.held)
            }
            None if is_used => match pool::close(key.clone(), &item, true)? {
                Some(close) => close,
                None if sub.is_known_to(&root, shard) => return Ok(spent),
                None => (subpool::agree(key.clone(), shard, &root, &sub), 0),
            },
            None => match subpool::drain(keys, shard, &root, Some(&sub), true) {
                SeekStep::Root(write) | SeekStep::Sub(write) => (write, 0),
                SeekStep::Done => return Ok(spent),
            },
        };
        if let Written::Applied(_) = until_known(store, write).await? {
            spent = spent.saturating_add(units);
        }
    }
    Err(goes_on_changing())
}

fn goes_on_changing() -> StoreError {
    let message = "a pool keeps changing: stop every process before restoring the table";
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn next_entry(item: &Item) -> Result<Option<(WriterId, pool::Entry)>, StoreError> {
    Ok(pool::entries(item)?.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, Memory};
    use crate::testing::{self, START_MS};
    use crate::{Ask, Gate, ManualClock};

    const LIMIT: u64 = 400;
    const PLANS: &str = r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "400/month"
    "#;

    /// A backup: every item as it stands.
    async fn copy(store: &Memory) -> Memory {
        let copy = Memory::new();
        for key in store.keys() {
            let Some(item) = store.read(key.clone()).await.unwrap() else { continue };
            let change = item.0.into_iter().map(|(name, value)| Change::Set(name, value)).collect();
            copy.write(Write { key, when: vec![], change }).await.unwrap();
        }
        copy
    }

    /// Uses up to so many units, and says how many there were.
    async fn use_up(gate: &Gate, most: u64) -> u64 {
        let acme = gate.tenant("acme").await.unwrap();
        let mut used = 0;
        while used < most {
            match gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await {
                Ok(permit) => permit.settle(),
                Err(_) => break,
            }
            used += 1;
        }
        gate.flush_now().await.unwrap();
        used
    }

    async fn restored(store: &Memory, since: SinceCopy) -> Restored {
        let builder = GateBuilder::from_text("[store]\nkind = \"memory\"\n");
        let clock = ManualClock::at_unix_ms(START_MS);
        builder.store(store.clone()).clock(clock).restore(since).await.unwrap()
    }

    fn pools(store: &Memory) -> Vec<Key> {
        store.keys().into_iter().filter(|key| key.pk.split('#').nth(2) == Some("Q")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_after_the_copy_is_never_served_beyond_a_limit() {
        for (before, after) in [(0, 30), (30, 100), (150, 250), (1, 399), (380, 100)] {
            let store = Memory::new();
            let (gate, _) = testing::gate_with(PLANS, store.clone());
            let mut served = use_up(&gate, before).await;
            let backup = copy(&store).await;
            served += use_up(&gate, after).await;
            drop(gate); // it dies with its table

            let told = restored(&backup, SinceCopy::Spent).await;
            let had_a_pool = before > 0;
            assert_eq!((told.logs, told.pools), (1, usize::from(had_a_pool)));
            let (next, _) = testing::gate_with(PLANS, backup.clone());
            let again = use_up(&next, 2 * LIMIT).await;
            if had_a_pool {
                assert_eq!(again, 0, "{before} and {after}: {served} before");
                assert!(served <= LIMIT);
            } else {
                assert_eq!(again, LIMIT, "a pool that the copy lacks is made anew");
            }
            next.close().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_what_was_free_a_tenant_gets_again_what_it_was_granted_since() {
        for (before, after) in [(30, 100), (150, 250), (1, 399)] {
            let store = Memory::new();
            let (gate, _) = testing::gate_with(PLANS, store.clone());
            use_up(&gate, before).await;
            let backup = copy(&store).await;
            let since = use_up(&gate, after).await;
            drop(gate);
            restored(&backup, SinceCopy::Free).await;
            let (next, _) = testing::gate_with(PLANS, backup.clone());
            let again = use_up(&next, 2 * LIMIT).await;
            let all = before + since + again;
            assert!(all <= LIMIT + since, "{before}, {since} since, {again} again");
            assert!(before + again <= LIMIT, "what was held is not given out again");
            next.close().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_before_is_left_and_it_can_be_done_again() {
        let store = Memory::new();
        let (gate, _) = testing::gate_with(PLANS, store.clone());
        use_up(&gate, 50).await;
        let backup = copy(&store).await;
        let first = restored(&backup, SinceCopy::Spent).await;
        assert_eq!(first.spent, LIMIT, "held and free together");
        let nothing = Restored { spent: 0, logs: 0, ..first };
        assert_eq!(restored(&backup, SinceCopy::Spent).await, nothing);
        for key in pools(&backup) {
            let item = backup.read(key).await.unwrap().unwrap();
            assert_eq!(pool::entries(&item).unwrap(), []);
            assert_eq!((item.int("free"), item.int("spent")), (Some(0), Some(LIMIT as i64)));
        }
        // A writer of before that was not stopped finds its log ended at its next record.
        drop(gate);
    }
}

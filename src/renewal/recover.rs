//! Reclaims leases of dead writers: seals the writer's log, then takes back the units above its
//! ceiling.
//!
//! What a silent process has served cannot be known; silence is only a hint for when to try. So its
//! log is ended first, by a seal in its next slot, then read, and then its entry in the pool is
//! read: in this order. Units above the larger of what the entry pre-authorised and the highest
//! ceiling in the log were not served and never will be, because the writer raises neither without
//! a write that now fails. If it lives after all it finds the seal, and goes on as another writer.
//!
//! A closed entry is folded away after a while; until then its owner, if it lives, can lower it to
//! exactly what it used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::RenewerContext;
use super::seek::FRUITLESS;
use crate::clock::{Now, nanos};
use crate::delays::Delays;
use crate::ids::{SubPoolNumber, WriterId};
use crate::ledger::record::PoolRow;
use crate::ledger::{log, slots};
use crate::overrides;
use crate::quota::lease::{Lease, Writer};
use crate::quota::pool::{self, Entry, PoolId};
use crate::quota::subpool::{self, Fed};
use crate::store::{Item, Key, StoreError, Written};

/// A writer of a shared store is left alone until its log has not moved for this long: three times
/// the interval at which live writers write, because sealing them costs more than it gains.
const SILENT: Duration = Duration::from_secs(15);

/// The same for a store that belongs to one process at a time: other writers are dead already.
const SILENT_ALONE: Duration = Duration::from_secs(1);

/// How long a closed entry waits for its owner.
const FOLD_AFTER: Duration = Duration::from_secs(30);

/// A pool is searched at most this often.
const EVERY: Duration = Duration::from_secs(2);

/// Sub-pools besides its own that one process searches at a time: each brings reads of logs.
const AT_ONCE: usize = 4;

/// Most writers, pools and sealed logs remembered; past it they are forgotten, at the cost of
/// reading them again.
const MAX_WATCHED: usize = 10_000;
const MAX_SEALED: usize = 64;

/// Known state of other writers. All of it could be read again.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Writers of this very process, before it was restarted.
    dead: HashSet<WriterId>,
    seen: Mutex<LogsSeen>,
}

#[derive(Debug, Default)]
struct LogsSeen {
    writers: HashMap<WriterId, Watch>,
    /// When a pool may be searched again.
    pools: HashMap<PoolId, u64>,
    /// When an entry was first seen closed.
    closed: HashMap<(WriterId, PoolId), u64>,
    /// When other sub-pools of a pool may be searched again, and the pauses after that.
    gathers: HashMap<PoolId, (u64, Delays)>,
    /// The sub-pool at which the next search for dead writers goes on.
    cursors: HashMap<PoolId, SubPoolNumber>,
    /// All rows of ended logs.
    sealed: HashMap<WriterId, Arc<HashMap<PoolId, PoolRow>>>,
}

/// How far a log was read, and since when it has not moved.
#[derive(Clone, Copy, Debug)]
struct Watch {
    next: u64,
    sealed: bool,
    since_ns: u64,
}

impl Recovery {
    /// `dead` are the writers of the journal that this process has carried over.
    pub(crate) fn new(dead: Vec<WriterId>) -> Self {
        Self { dead: dead.into_iter().collect(), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, LogsSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this pool is due for a search.
    fn is_due(&self, pool: &PoolId, now: Now) -> bool {
        let mut seen = self.seen();
        if seen.pools.len() >= MAX_WATCHED {
            seen.pools.clear();
            seen.closed.clear();
        }
        let until = seen.pools.entry(pool.clone()).or_default();
        let due = now.mono_ns >= *until;
        if due {
            *until = now.mono_ns.saturating_add(nanos(EVERY));
        }
        due
    }

    /// Whether to look for units in other sub-pools.
    pub(super) fn gather_is_due(&self, pool: &PoolId, now: Now) -> bool {
        self.seen().gathers.get(pool).is_none_or(|(until, _)| now.mono_ns >= *until)
    }

    /// Notes a search of other sub-pools, and whether it gained units.
    pub(super) fn gathered(&self, pool: &PoolId, gained: bool, now: Now) {
        let mut seen = self.seen();
        if seen.gathers.len() >= MAX_WATCHED {
            seen.gathers.clear();
        }
        let (until_ns, pauses) = seen.gathers.entry(pool.clone()).or_insert((0, FRUITLESS));
        if gained {
            *pauses = FRUITLESS;
        }
        let pause = pauses.step();
        *until_ns = now.mono_ns.saturating_add(if gained { 0 } else { nanos(pause) });
    }

    /// The sub-pools to search for dead writers this time.
    fn turn(
        &self,
        pool: &PoolId,
        own: Option<SubPoolNumber>,
        all: &BTreeMap<SubPoolNumber, Fed>,
    ) -> Vec<SubPoolNumber> {
        let mut seen = self.seen();
        if seen.cursors.len() >= MAX_WATCHED {
            seen.cursors.clear();
        }
        let from = seen.cursors.get(pool).copied().unwrap_or_default();
        let others = all.range(from..).chain(all.range(..from)).map(|(shard, _)| *shard);
        let turn: Vec<SubPoolNumber> =
            others.filter(|shard| Some(*shard) != own).take(AT_ONCE).collect();
        let next = turn.last().map_or_else(SubPoolNumber::default, |last| last.next());
        seen.cursors.insert(pool.clone(), next);
        own.into_iter().chain(turn).collect()
    }

    /// How long this entry has been known to be closed.
    fn closed_for(&self, writer: WriterId, pool: &PoolId, now: Now) -> u64 {
        let mut seen = self.seen();
        let since = *seen.closed.entry((writer, pool.clone())).or_insert(now.mono_ns);
        now.mono_ns.saturating_sub(since)
    }
}

/// Looks for dead writers' units in the pool of a lease that got none. True: there may be some now.
pub(super) async fn recover(ctx: &RenewerContext, lease: &Lease) -> Result<bool, StoreError> {
    let now = ctx.hub.clock.now();
    if !ctx.recovery.is_due(lease.pool(), now) {
        return Ok(false);
    }
    let pool = lease.pool();
    let Some(root) = ctx.store.read(pool.key(&ctx.space)).await? else {
        return Ok(false);
    };
    let mut gained = look_through(ctx, lease, None, &root).await?;
    let subs = subpool::feeds(&root)?;
    let turn = ctx.recovery.turn(pool, lease.shard(), &subs);
    for shard in turn {
        let key = pool.key_of(&ctx.space, Some(shard));
        if let Some(item) = ctx.store.read(key).await? {
            gained |= look_through(ctx, lease, Some(shard), &item).await?;
        }
    }
    if gained && !subs.is_empty() {
        ctx.recovery.gathered(pool, true, now); // look at once for what is free there
    }
    Ok(gained)
}

/// Searches one item of a pool for units of dead writers.
async fn look_through(
    ctx: &RenewerContext,
    lease: &Lease,
    shard: Option<SubPoolNumber>,
    item: &Item,
) -> Result<bool, StoreError> {
    let (mut gained, pool) = (false, lease.pool());
    let key = pool.key_of(&ctx.space, shard);
    for (incarnation, entry) in pool::entries(item)? {
        if incarnation == lease.incarnation() || incarnation == ctx.hub.incarnation.current() {
            continue;
        }
        let writer = Writer { space: ctx.space.clone(), incarnation };
        let other = Other { ctx, pool, key: &key, writer };
        gained |= other.look(entry).await?;
    }
    Ok(gained)
}

/// Another writer's entry in a pool.
struct Other<'a> {
    ctx: &'a RenewerContext,
    pool: &'a PoolId,
    key: &'a Key,
    writer: Writer,
}

impl Other<'_> {
    async fn look(&self, entry: Entry) -> Result<bool, StoreError> {
        let (recovery, of) = (&self.ctx.recovery, self.writer.incarnation);
        if entry.is_closed() {
            let now = self.ctx.hub.clock.now();
            if self.is_dead() || recovery.closed_for(of, self.pool, now) > nanos(FOLD_AFTER) {
                let fold = pool::fold(self.key.clone(), of, entry, entry.held);
                self.ctx.store.write(fold).await?;
            }
            return Ok(false);
        }
        let all = entry.held <= entry.preauthorised;
        if all {
            return Ok(false); // all of it may have been served
        }
        let watch = self.watch().await?;
        if !watch.sealed && !self.seal(watch, entry).await? {
            return Ok(false);
        }
        self.reclaim().await
    }

    /// Reads the rest of its log.
    async fn watch(&self) -> Result<Watch, StoreError> {
        let (recovery, of) = (&self.ctx.recovery, self.writer.incarnation);
        let known = recovery.seen().writers.get(&of).copied();
        if let Some(known) = known.filter(|watch| watch.sealed) {
            return Ok(known);
        }
        // From its last known slot, to see whether that one is a seal.
        let from = known.map_or(0, |watch| watch.next.saturating_sub(1));
        let end = log::read_end(&*self.ctx.store, &self.writer, from).await?;
        let now_ns = self.ctx.hub.clock.now().mono_ns;
        let moved = known.is_none_or(|watch| watch.next != end.next);
        let since_ns = known.filter(|_| !moved).map_or(now_ns, |watch| watch.since_ns);
        let watch = Watch { next: end.next, sealed: end.sealed, since_ns };
        let mut seen = recovery.seen();
        if seen.writers.len() >= MAX_WATCHED {
            seen.writers.clear();
        }
        seen.writers.insert(of, watch);
        Ok(watch)
    }

    /// Ends its log, if it is silent and there is something to gain. True: it has ended.
    async fn seal(&self, watch: Watch, entry: Entry) -> Result<bool, StoreError> {
        let now = self.ctx.hub.clock.now();
        let patience = if self.ctx.store.promise().shared { SILENT } else { SILENT_ALONE };
        let silent =
            now.mono_ns.saturating_sub(watch.since_ns) >= nanos(overrides::patience(patience));
        if !silent && !self.is_dead() {
            return Ok(false);
        }
        if entry.held <= self.kept(entry, self.row().await?) {
            return Ok(false);
        }
        let seal = log::seal(&self.writer, watch.next);
        Ok(match self.ctx.store.write(seal).await? {
            Written::Applied(_) => true,
            // It lives, or another process was faster.
            Written::Refused(item) => item.is_some_and(|item| slots::is_seal(&item)),
        })
    }

    /// Takes back what a writer with an ended log cannot have served.
    async fn reclaim(&self) -> Result<bool, StoreError> {
        let row = self.sealed_row().await?;
        // The entry is read after the log: a grant may have come in between, with more
        // pre-authorised.
        let Some(item) = self.ctx.store.read(self.key.clone()).await? else {
            return Ok(false);
        };
        let of = self.writer.incarnation;
        let entry = pool::entries(&item)?.into_iter().find(|(writer, _)| *writer == of);
        let Some((_, entry)) = entry.filter(|(_, entry)| !entry.is_closed()) else {
            return Ok(false);
        };
        let keep = self.kept(entry, row);
        if keep >= entry.held {
            return Ok(false);
        }
        let key = self.key.clone();
        let write = if self.is_dead() {
            pool::fold(key, of, entry, keep)
        } else {
            let Ok(op) = crate::random::u64() else { return Ok(false) };
            pool::reclaim(key, of, entry, op, keep)
        };
        let written = self.ctx.store.write(write).await?;
        let applied = matches!(written, Written::Applied(_));
        if applied {
            let units = entry.held - keep;
            tracing::info!(units, "reclaimed units of a dead process");
        }
        Ok(applied)
    }

    /// Its row for this pool, read from its whole log.
    async fn row(&self) -> Result<PoolRow, StoreError> {
        let (mut row, own) = (PoolRow::default(), self.writer.incarnation);
        let fold = |rows: crate::ledger::record::Rows, of| {
            let own = rows.pools.get(self.pool).filter(|_| of == own);
            own.into_iter().for_each(|own| row.raise(*own));
        };
        log::read(&*self.ctx.store, &self.writer, 0, fold).await?;
        Ok(row)
    }

    /// The same for an ended log, which is read once for all pools.
    async fn sealed_row(&self) -> Result<PoolRow, StoreError> {
        let (recovery, own) = (&self.ctx.recovery, self.writer.incarnation);
        let known = recovery.seen().sealed.get(&own).cloned();
        let rows = match known {
            Some(rows) => rows,
            None => {
                let mut rows = HashMap::<PoolId, PoolRow>::new();
                let fold = |news: crate::ledger::record::Rows, of| {
                    for (pool, row) in news.pools.into_iter().filter(|_| of == own) {
                        rows.entry(pool).or_default().raise(row);
                    }
                };
                log::read(&*self.ctx.store, &self.writer, 0, fold).await?;
                let rows = Arc::new(rows);
                let mut seen = recovery.seen();
                if seen.sealed.len() >= MAX_SEALED {
                    seen.sealed.clear();
                }
                seen.sealed.insert(own, rows.clone());
                rows
            }
        };
        Ok(rows.get(self.pool).copied().unwrap_or_default())
    }

    /// What a writer with an ended log may have served. A total above both was served beyond the
    /// lease, by a cost learned late.
    fn kept(&self, entry: Entry, row: PoolRow) -> u64 {
        entry.preauthorised.max(row.ceiling).max(row.total).min(entry.held)
    }

    fn is_dead(&self) -> bool {
        self.ctx.recovery.dead.contains(&self.writer.incarnation)
    }
}

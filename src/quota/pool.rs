//! A pool: the durable units of one limit in one window, or of one grant. Its item, and the writes
//! that move units between the pool and a writer's entry in it.
//!
//! A hard quota is an escrow (O'Neil, *The Escrow Transactional Method*, 1986): `limit - free`
//! equals what all entries hold plus what is `spent`, after every write. Each write names the whole
//! entry it replaces, so the operations of one writer form a chain: a duplicate or late copy finds
//! another entry and changes nothing.
//!
//! Pure: makes writes and reads answers, and calls no store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Every, Window};
use crate::ids::{SubPoolNumber, Surrogate, WriterId};
use crate::store::layout::{self, Space, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, When, Write};

/// Format of a pool item; and of one that has sub-pools, or is one.
const FORMAT: i64 = 1;
pub(crate) const FORMAT_SPLIT: i64 = 2;

pub(crate) const LIMIT: &str = "limit";
pub(crate) const REV: &str = "rev";
pub(crate) const FREE: &str = "free";
pub(crate) const SPENT: &str = "spent";
pub(crate) const GEN: &str = "gen";
/// Units of late use beyond the limit: taken out of what is free, which goes negative. Excludes
/// what has been paid of them since.
pub(crate) const DEBT: &str = "debt";
/// Whether the limit was changed within its window.
const MOVED: &str = "moved";
/// In a sub-pool: what its root is to owe for its writers, and the root's limit as last seen.
pub(crate) const OWED: &str = "owed";
pub(crate) const OF: &str = "of";
/// How much of such debts was paid in all, by grants or from beyond the limit: added to the limit
/// of this window.
const PAID: &str = "paid";
/// The highest use already alerted, in atoms.
const ALERT: &str = "alert";

/// How long a pool outlives its window. Deleted early, it could be created again, full, by a late
/// call: from a partitioned node, or by a clock that is behind. Also longer than any month, so that
/// a closed period can be audited against its pools.
const KEEP_MS: i64 = 40 * 86_400_000;

/// How long the pool of a slot outlives it: longer than any clock is behind.
const KEEP_SLOT_MS: i64 = 3_600_000;

/// Identifies a pool: the tenant, limit and scope, and the start of its window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PoolId {
    pub(crate) tenant: Surrogate,
    /// The limit's name (`requests/month`), or a grant's (`grant/welcome`).
    pub(crate) limit: Arc<str>,
    /// Hash of its key, user or address; 0 for the whole tenant.
    pub(crate) scope: u128,
    /// Start of the window.
    pub(crate) start_ms: i64,
}

impl PoolId {
    /// Whether its units were given once: what is lost of them is lost for good.
    pub(crate) fn is_once(&self) -> bool {
        self.limit.starts_with("grant/")
    }

    pub(crate) fn key(&self, space: &Space) -> Key {
        space.pool(self.tenant, &self.limit, self.scope, self.start_ms)
    }

    /// The key of one of its sub-pools; `None`: its own.
    pub(crate) fn key_of(&self, space: &Space, shard: Option<SubPoolNumber>) -> Key {
        let key = self.key(space);
        match shard {
            Some(shard) => space.sub_pool(key, shard),
            None => key,
        }
    }
}

/// One writer's entry in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The last operation that changed it; unique within the writer.
    pub(crate) op: u64,
    /// Atoms taken and not given back, served or not.
    pub(crate) held: u64,
    /// The use this entry allows before any record: a lease may serve the smaller of `held` and the
    /// larger of this and the highest ceiling in the writer's log.
    pub(crate) preauthorised: u64,
}

/// Marks the operation that closed an entry: its writer's log is sealed, and what it cannot have
/// served has been taken back. A writer's own operations count from 1 and never get there.
const CLOSED: u64 = 1 << 63;

impl Entry {
    /// The entry of a sealed writer, with what it may have served. `op` is drawn at random.
    pub(crate) fn closed(op: u64, kept: u64) -> Self {
        Self { op: op | CLOSED, held: kept, preauthorised: kept }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.op & CLOSED != 0
    }
}

/// A limit as the writing process's catalog has it: the larger `rev` wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) limit: i64,
    /// Catalog revision, then tenant version.
    pub(crate) rev: i64,
}

/// A pool as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) terms: Terms,
    /// Free atoms. Negative after a limit was lowered below what is held.
    pub(crate) free: i64,
    /// How many closed entries have been folded away: a first grant names it, so that a late copy
    /// of an old first grant cannot be applied again.
    pub(crate) generation: i64,
    /// The entry of the reading writer.
    pub(crate) mine: Option<Entry>,
    /// How many sub-pools hold some of its units.
    pub(crate) sub_pools: u16,
    /// Atoms of late use charged and not paid since, as far as `free` shows; `None`: there never
    /// were any.
    debt: Option<i64>,
    /// Whether the limit was changed since the pool was created.
    pub(crate) moved: bool,
}

/// The highest use of a pool that was already alerted, in atoms. It is not in the [`View`], which
/// every lease keeps.
pub(crate) fn alerted(item: &Item) -> i64 {
    item.int(ALERT).unwrap_or(0)
}

impl View {
    /// Reads an item as `writer` sees it. The terms of a sub-pool are those of its root.
    pub(crate) fn read(item: &Item, writer: WriterId) -> Result<Self, StoreError> {
        check(item)?;
        let int = |name: &str| item.int(name).ok_or_else(|| damaged(name));
        let mine = match item.bytes(&entry_name(writer)) {
            Some(bytes) => Some(postcard::from_bytes(bytes).map_err(|_| damaged("an entry"))?),
            None => None,
        };
        Ok(Self {
            terms: Terms { limit: item.int(OF).map_or_else(|| int(LIMIT), Ok)?, rev: int(REV)? },
            free: int(FREE)?,
            generation: int(GEN)?,
            mine,
            sub_pools: u16::try_from(sub_pools(item).count()).unwrap_or(u16::MAX),
            debt: item.int(DEBT),
            moved: item.int(MOVED).is_some(),
        })
    }

    /// Atoms owed by late use. Units freed since and a raised limit have paid part of it; a lowered
    /// limit makes no debt.
    pub(crate) fn owed(&self) -> u64 {
        self.owed_under(self.terms)
    }

    /// The same under these terms.
    pub(crate) fn owed_under(&self, terms: Terms) -> u64 {
        let free = self.free_under(terms).max(self.free);
        free.saturating_neg().min(self.debt.unwrap_or(0)).max(0).unsigned_abs()
    }

    /// The free units under these terms.
    pub(crate) fn free_under(&self, terms: Terms) -> i64 {
        let is_newer = terms.rev > self.terms.rev;
        let moved = if is_newer { terms.limit.saturating_sub(self.terms.limit) } else { 0 };
        self.free.saturating_add(moved)
    }

    /// The same with a debt that is not in it yet.
    pub(crate) fn owing(self, n: u64) -> Self {
        let debt = self.debt.unwrap_or(0).saturating_add(atoms(n));
        Self { free: self.free.saturating_sub(atoms(n)), debt: Some(debt), ..self }
    }
}

/// When the store may forget a pool of this window, in Unix seconds; `None`: never.
///
/// A pool is identified by its window's start, so the end must be final when the pool is created. A
/// grant's end may move with its expiry, a term's with the contract: a pool deleted by an end that
/// has moved since would make its units available again. Such pools are few, and stay.
pub(crate) fn ttl(every: Every, window: Window) -> Option<i64> {
    let sure = match every {
        Every::Hour | Every::Day | Every::Week | Every::Month | Every::Year => true,
        // Another anchor moves the end of a cycle that begins at the same instant by days at most.
        Every::Cycle => true,
        Every::Term | Every::Once => false,
    };
    let until_ms = window.end_ms.checked_add(KEEP_MS)?;
    sure.then(|| until_ms.saturating_add(999).div_euclid(1_000))
}

/// The same for a slot of a strict rate. Created again later it would serve nothing, for no process
/// is in that slot any more.
pub(crate) fn slot_ttl(window: Window) -> i64 {
    window.end_ms.saturating_add(KEEP_SLOT_MS).div_euclid(1_000)
}

/// The first write of a pool: creates it with `entry.held` of its units taken at once, to be
/// deleted at its [`ttl`].
pub(crate) fn create(
    key: Key,
    writer: WriterId,
    terms: Terms,
    entry: Entry,
    ttl: Option<i64>,
) -> Write {
    let (format_name, format_value) = layout::format(FORMAT);
    let free = terms.limit.saturating_sub(atoms(entry.held));
    let mut change = vec![
        Change::Set(format_name, format_value),
        Change::Set(LIMIT.into(), Value::Int(terms.limit)),
        Change::Set(REV.into(), Value::Int(terms.rev)),
        Change::Set(FREE.into(), Value::Int(free)),
        Change::Set(SPENT.into(), Value::Int(0)),
        Change::Set(GEN.into(), Value::Int(0)),
        Change::Set(ALERT.into(), Value::Int(0)),
        Change::Set(entry_name(writer), entry_value(entry)),
    ];
    change.extend(ttl.map(|ttl| Change::Set(Item::TTL.into(), Value::Int(ttl))));
    Write { key, when: vec![When::Absent], change }
}

/// Takes `next.held - mine.held` units, if they are free.
pub(crate) fn grant(key: Key, writer: WriterId, view: &View, next: Entry) -> Write {
    let more = atoms(next.held).saturating_sub(view.mine.map_or(0, |e| atoms(e.held)));
    let mut when = chained(writer, view);
    when.push(When::AtLeast(FREE.into(), more));
    Write {
        key,
        when,
        change: vec![
            Change::Add(FREE.into(), more.saturating_neg()),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// Takes `next.held - mine.held` units, free or not: they have been used, and nothing pays for
/// them. They are a debt until something does.
pub(crate) fn charge(key: Key, writer: WriterId, view: &View, next: Entry) -> Write {
    let more = atoms(next.held).saturating_sub(view.mine.map_or(0, |e| atoms(e.held)));
    Write {
        key,
        when: chained(writer, view),
        change: vec![
            Change::Add(FREE.into(), more.saturating_neg()),
            Change::Add(DEBT.into(), more),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// The same for a missing pool: creates it.
pub(crate) fn create_charged(
    key: Key,
    writer: WriterId,
    terms: Terms,
    entry: Entry,
    ttl: Option<i64>,
) -> Write {
    let mut write = create(key, writer, terms, entry, ttl);
    write.change.push(Change::Set(DEBT.into(), Value::Int(atoms(entry.held))));
    write
}

/// Pays `n` units of a debt with units taken elsewhere, only while that much is owed. `next` has
/// the units it had.
pub(crate) fn pay(key: Key, writer: WriterId, view: &View, next: Entry, n: u64) -> Write {
    let n = atoms(n);
    let mut when = chained(writer, view);
    when.push(When::Below(FREE.into(), 1 - n));
    // Another process may have paid it meanwhile: a lowered limit alone can make `free` negative.
    when.push(When::AtLeast(DEBT.into(), n));
    Write {
        key,
        when,
        change: vec![
            Change::Add(FREE.into(), n),
            Change::Add(DEBT.into(), n.saturating_neg()),
            Change::Add(PAID.into(), n),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// The same by a writer whose entry is in a sub-pool: the number of its last payment stands in for
/// the entry. It was `before`, and will be `payment`.
pub(crate) fn pay_from_sub_pool(
    key: Key,
    writer: WriterId,
    (before, payment): (Option<u64>, u64),
    n: u64,
) -> Write {
    let (name, n) = (payment_name(writer), atoms(n));
    let last = match before {
        Some(before) => When::Equals(name.clone(), Value::Int(atoms(before))),
        None => When::Missing(name.clone()),
    };
    Write {
        key,
        when: vec![last, When::Below(FREE.into(), 1 - n), When::AtLeast(DEBT.into(), n)],
        change: vec![
            Change::Add(FREE.into(), n),
            Change::Add(DEBT.into(), n.saturating_neg()),
            Change::Add(PAID.into(), n),
            Change::Set(name, Value::Int(atoms(payment))),
        ],
    }
}

/// The number of this sub-pool writer's last payment here.
pub(crate) fn last_payment(item: &Item, writer: WriterId) -> Option<u64> {
    item.int(&payment_name(writer)).and_then(|payment| u64::try_from(payment).ok())
}

/// Gives `mine.held - next.held` units back. The caller has lowered its own limit before.
pub(crate) fn give(key: Key, writer: WriterId, view: &View, next: Entry) -> Write {
    let back = view.mine.map_or(0, |e| atoms(e.held)).saturating_sub(atoms(next.held));
    Write {
        key,
        when: chained(writer, view),
        change: vec![
            Change::Add(FREE.into(), back),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// Gives back all but `used` and folds the entry away: what it used becomes `spent`. Only its
/// writer may, once nothing of it is open; any process may fold a closed entry, as used in full.
pub(crate) fn fold(key: Key, writer: WriterId, entry: Entry, used: u64) -> Write {
    let kept = used.min(entry.held);
    Write {
        key,
        when: vec![When::Equals(entry_name(writer), entry_value(entry))],
        change: vec![
            Change::Add(FREE.into(), atoms(entry.held - kept)),
            Change::Add(SPENT.into(), atoms(kept)),
            Change::Add(GEN.into(), 1),
            Change::Remove(entry_name(writer)),
        ],
    }
}

/// Takes back all but `kept` from a sealed writer's entry.
pub(crate) fn reclaim(key: Key, writer: WriterId, entry: Entry, op: u64, kept: u64) -> Write {
    let next = Entry::closed(op, kept.min(entry.held));
    Write {
        key,
        when: vec![When::Equals(entry_name(writer), entry_value(entry))],
        change: vec![
            Change::Add(FREE.into(), atoms(entry.held - next.held)),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// Counts all that is free as used, if `wanted`: in a pool from a backup, what was granted since
/// cannot be known. Returns the write and its units; `None`: nothing is free.
pub(crate) fn close(
    key: Key,
    item: &Item,
    wanted: bool,
) -> Result<Option<(Write, u64)>, StoreError> {
    let free = item.int(FREE).ok_or_else(|| damaged(FREE))?;
    if !wanted || free <= 0 {
        return Ok(None);
    }
    let write = Write {
        key,
        when: vec![When::Equals(FREE.into(), Value::Int(free))],
        change: vec![
            Change::Add(FREE.into(), free.saturating_neg()),
            Change::Add(SPENT.into(), free),
            Change::Add(GEN.into(), 1),
        ],
    };
    Ok(Some((write, free.unsigned_abs())))
}

/// Records an alert at this much use: once, for the first writer.
pub(crate) fn alert(key: Key, at: i64) -> Write {
    Write {
        key,
        when: vec![When::Below(ALERT.into(), at)],
        change: vec![Change::Set(ALERT.into(), Value::Int(at))],
    }
}

/// Changes the limit, once, for the first writer; an older revision never wins.
pub(crate) fn relimit(key: Key, view: &View, terms: Terms) -> Write {
    let mut when = vec![
        When::Equals(LIMIT.into(), Value::Int(view.terms.limit)),
        When::Below(REV.into(), terms.rev),
    ];
    let mut change = vec![
        Change::Add(FREE.into(), terms.limit.saturating_sub(view.terms.limit)),
        Change::Set(LIMIT.into(), Value::Int(terms.limit)),
        Change::Set(REV.into(), Value::Int(terms.rev)),
        Change::Set(MOVED.into(), Value::Int(1)),
    ];
    if terms.limit < view.terms.limit {
        // What freed units or a raised limit have paid stays paid, for every debt, including one
        // charged since this view.
        when.push(match view.debt {
            Some(debt) => When::Equals(DEBT.into(), Value::Int(debt)),
            None => When::Missing(DEBT.into()),
        });
        if let Some(debt) = view.debt.filter(|debt| *debt > 0) {
            let paid = debt.saturating_sub(atoms(view.owed()));
            when.push(When::Below(FREE.into(), view.free.saturating_add(1)));
            change.push(Change::Add(DEBT.into(), paid.saturating_neg()));
        }
    }
    Write { key, when, change }
}

/// Takes `next.held - mine.held` units in a sub-pool, free or not: its root owes them. What the
/// sub-pool has free stays free, and the total that rises here is what the root learns of it by.
pub(crate) fn charge_to_root(key: Key, writer: WriterId, view: &View, next: Entry) -> Write {
    let more = atoms(next.held).saturating_sub(view.mine.map_or(0, |e| atoms(e.held)));
    Write {
        key,
        when: chained(writer, view),
        change: vec![
            Change::Add(LIMIT.into(), more),
            Change::Add(OWED.into(), more),
            Change::Set(entry_name(writer), entry_value(next)),
        ],
    }
}

/// The entry must be exactly the one we know; for a first grant, absent in the generation we saw.
fn chained(writer: WriterId, view: &View) -> Vec<When> {
    match view.mine {
        Some(entry) => vec![When::Equals(entry_name(writer), entry_value(entry))],
        None => vec![
            When::Missing(entry_name(writer)),
            When::Equals(GEN.into(), Value::Int(view.generation)),
        ],
    }
}

/// A pool item's own figures: atoms taken out of it, and those of them that are spent.
#[cfg(feature = "stripe")]
pub(crate) fn taken(item: &Item) -> Result<(i64, i64), StoreError> {
    check(item)?;
    let int = |name: &str| item.int(name).ok_or_else(|| damaged(name));
    let limit = int(LIMIT)?.saturating_add(item.int(PAID).unwrap_or(0));
    Ok((limit.saturating_sub(int(FREE)?), int(SPENT)?))
}

/// Every writer's entry.
pub(crate) fn entries(item: &Item) -> Result<Vec<(WriterId, Entry)>, StoreError> {
    let named = item.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("e#")?, value)));
    let entry = |(name, value): (&str, &Value)| {
        let Value::Bytes(bytes) = value else { return Err(damaged("an entry")) };
        let writer = layout::writer(name).ok_or_else(|| damaged("an entry's name"))?;
        Ok((writer, postcard::from_bytes(bytes).map_err(|_| damaged("an entry"))?))
    };
    named.map(entry).collect()
}

/// The records of its sub-pools, each by its number as text.
pub(crate) fn sub_pools(item: &Item) -> impl Iterator<Item = (&str, &Value)> {
    item.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("s#")?, value)))
}

fn entry_name(writer: WriterId) -> Name {
    format!("e#{writer}").into()
}

fn payment_name(writer: WriterId) -> Name {
    format!("p#{writer}").into()
}

fn entry_value(entry: Entry) -> Value {
    Value::Bytes(postcard::to_stdvec(&entry).expect("three integers always encode"))
}

/// Checks that this binary knows all of the item's format.
fn check(item: &Item) -> Result<(), StoreError> {
    match item.int(layout::FORMAT) {
        Some(FORMAT) => Ok(()),
        _ => check_format(item, FORMAT_SPLIT, "a pool"),
    }
}

pub(crate) fn atoms(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a pool item cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, Store, Written};

    const HOUR_MS: i64 = 3_600_000;

    fn made(every: Every, window: Window) -> Item {
        let id = PoolId {
            tenant: Surrogate::test(1),
            limit: "jobs/hour".into(),
            scope: 0,
            start_ms: window.start_ms,
        };
        let entry = Entry { op: 1, held: 3, preauthorised: 3 };
        let terms = Terms { limit: 10, rev: 1 };
        let key = id.key(&Space::new("test"));
        let sets = create(key, WriterId::test(7), terms, entry, ttl(every, window)).change;
        let set = |change| match change {
            Change::Set(name, value) => (name, value),
            other => panic!("{other:?}"),
        };
        Item(sets.into_iter().map(set).collect())
    }

    #[test]
    fn a_pool_outlives_its_window_by_forty_days_and_no_less() {
        for (end_ms, seconds) in [(HOUR_MS, 3_600), (HOUR_MS + 1, 3_601), (-1, 0)] {
            let window = Window { start_ms: end_ms - HOUR_MS, end_ms };
            let pool = made(Every::Hour, window);
            assert_eq!(pool.int("ttl"), Some(40 * 86_400 + seconds));
            assert_eq!(View::read(&pool, WriterId::test(7)).unwrap().free, 7);
        }
    }

    #[test]
    fn a_pool_whose_end_may_move_is_kept() {
        let sure = Window { start_ms: 0, end_ms: HOUR_MS };
        let endless = Window { start_ms: i64::MIN, end_ms: i64::MAX };
        for (every, window) in [
            (Every::Term, sure),
            (Every::Once, Window { start_ms: i64::MIN, ..sure }),
            (Every::Once, endless),
            (Every::Year, endless),
        ] {
            assert_eq!(made(every, window).int("ttl"), None, "{every:?}");
        }
    }

    #[test]
    fn a_slot_of_a_strict_rate_is_kept_for_an_hour_after_its_end() {
        let window = Window { start_ms: 7 * HOUR_MS, end_ms: 7 * HOUR_MS + 5_000 };
        assert_eq!(slot_ttl(window), 8 * 3_600 + 5);
    }

    #[tokio::test]
    async fn a_lowered_limit_is_no_debt_beside_one_that_another_process_has_charged_since() {
        let (store, space) = (Memory::new(), Space::new("test"));
        let id =
            PoolId { tenant: Surrogate::test(1), limit: "jobs/day".into(), scope: 0, start_ms: 0 };
        let key = || id.key(&space);
        let entry = |held| Entry { op: held, held, preauthorised: held };
        let (before, after) = (Terms { limit: 100, rev: 1 }, Terms { limit: 5, rev: 2 });
        let write = async |write| match store.write(write).await.unwrap() {
            Written::Applied(item) => (true, item.unwrap()),
            Written::Refused(item) => (false, item.unwrap()),
        };
        let (_, made) = write(create(key(), WriterId::test(7), before, entry(1), None)).await;
        let old = View::read(&made, WriterId::test(8)).unwrap();
        write(charge(
            key(),
            WriterId::test(7),
            &View::read(&made, WriterId::test(7)).unwrap(),
            entry(11),
        ))
        .await;
        let (applied, seen) = write(relimit(key(), &old, after)).await;
        assert!(!applied, "by a view without the debt");
        let (applied, seen) =
            write(relimit(key(), &View::read(&seen, WriterId::test(8)).unwrap(), after)).await;
        assert!(applied);
        let seen = View::read(&seen, WriterId::test(8)).unwrap();
        assert_eq!((seen.free, seen.owed()), (-6, 0), "what was free has paid all");
    }
}

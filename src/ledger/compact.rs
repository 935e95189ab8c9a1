//! Folding: replaces a full run of log slots with its totals, so that a log grows with the tenants
//! and days it counts and not with its flushes.
//!
//! # Laws
//!
//! 1. A run is a fixed range of [`RUN`] slots, folded only when all of them exist and the log
//!    continues after them: they never change, so every process that folds them gets the same
//!    result, and the last slot of a log, which may be its seal, stays.
//! 2. The fold is written first, complete, and read back; then the slots are removed. A reader that
//!    finds all parts of a fold reads it and skips the slots, whether or not they are gone.
//! 3. Folds are in order and without holes: run `k` is folded after run `k - 1`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::numbers::Numbered;
use super::record::{FromRows, Rows, Unpacked};
use super::slots;
use crate::ids::WriterId;
use crate::quota::lease::Writer;
use crate::store::layout;
use crate::store::{Change, Page, Query, Store, StoreError, StoreErrorKind, Value, When, Write};

/// Slots in a run: about a quarter of an hour of a busy writer.
pub(crate) const RUN: u64 = 1_024;

const PARTS: &str = "parts";

/// Delay of the next removal per KB removed, if the store charges for it: at most 200 units per
/// second, of the 1,000 that a partition takes and the writer needs too.
const PER_KB: Duration = Duration::from_millis(5);

/// Reads the folds that cover slots from `from` on. Returns the first slot after them.
pub(super) async fn read<R: FromRows>(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    fold: &mut impl FnMut(i64, R, WriterId),
) -> Result<u64, StoreError> {
    let mut range = from / RUN;
    loop {
        let Some(parts) = parts(store, writer, range).await? else {
            return Ok(from.max(range * RUN));
        };
        for (at_ms, rows, of) in parts {
            fold(at_ms, rows, of);
        }
        range += 1;
    }
}

/// Folds every full run of a writer's log from run `from_run` on, up to slot `end`. Returns the
/// first run that is not full yet.
pub(crate) async fn fold_runs(
    store: &dyn Store,
    writer: &Writer,
    end: u64,
    from_run: u64,
) -> Result<u64, StoreError> {
    let mut range = from_run;
    while (range + 1) * RUN < end {
        if parts::<Rows>(store, writer, range).await?.is_none() {
            fold_run(store, writer, range).await?;
            if parts::<Rows>(store, writer, range).await?.is_none() {
                let message = "the fold of a usage log differs from what was written";
                return Err(StoreError::new(StoreErrorKind::Corrupt, message));
            }
        }
        // Also removes what an interrupted fold left behind.
        remove(store, writer, range).await?;
        range += 1;
    }
    Ok(range)
}

async fn fold_run(store: &dyn Store, writer: &Writer, range: u64) -> Result<(), StoreError> {
    let mut by_writer = BTreeMap::<WriterId, Rows>::new();
    let (mut next, end, mut last_ms) = (range * RUN, (range + 1) * RUN, 0);
    let mut keys = Numbered::default();
    while next < end {
        let (from, page) = (next, slots::slots(store, writer, next, Some(end)).await?);
        for slot in page.slots {
            if slot.n != next {
                break;
            }
            let Unpacked::Rows(rows, carried) = slot.rows(&mut keys)? else {
                return Err(slots::damaged());
            };
            last_ms = slot.at_ms;
            by_writer.entry(carried.unwrap_or(writer.incarnation)).or_default().merge(rows);
            next += 1;
        }
        if next == from {
            let message = format!("slot {next} of a usage log is missing: run the audit");
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
    }
    let own = |of: WriterId| (of != writer.incarnation).then_some(of);
    // A fold does not contain its author, and has the time of the run's last slot: all processes
    // that fold a run write the same bytes, so concurrent folds do not disturb each other.
    let packed = |(of, rows): (&WriterId, &Rows)| rows.pack(last_ms, own(*of));
    let bodies: Vec<Vec<u8>> = by_writer.iter().flat_map(packed).collect();
    let parts = i64::try_from(bodies.len()).unwrap_or(i64::MAX);
    for (part, body) in bodies.into_iter().enumerate() {
        let (name, version) = layout::format(slots::FORMAT);
        let write = Write {
            key: writer.space.fold(writer.incarnation, range, part),
            when: Vec::new(),
            change: vec![
                Change::Set(name, version),
                Change::Set(slots::BODY.into(), Value::Bytes(body)),
                Change::Set(PARTS.into(), Value::Int(parts)),
            ],
        };
        store.write(write).await?;
    }
    Ok(())
}

/// Removes the slots of a folded run.
async fn remove(store: &dyn Store, writer: &Writer, range: u64) -> Result<(), StoreError> {
    let (mut next, end) = (range * RUN, (range + 1) * RUN);
    loop {
        let page = slots::slots(store, writer, next, Some(end)).await?.slots;
        let Some(last) = page.last() else {
            return Ok(());
        };
        next = last.n + 1;
        for slot in &page {
            if store.units().is_some() {
                let kb = slot.bytes.div_ceil(1_024).max(1);
                tokio::time::sleep(PER_KB * u32::try_from(kb).unwrap_or(u32::MAX)).await;
            }
            let key = writer.space.log(writer.incarnation, slot.n);
            store
                .write(Write { key, when: vec![When::Exists], change: vec![Change::Delete] })
                .await?;
        }
    }
}

/// The rows of a fold, if all of its parts exist.
async fn parts<R: FromRows>(
    store: &dyn Store,
    writer: &Writer,
    range: u64,
) -> Result<Option<Vec<(i64, R, WriterId)>>, StoreError> {
    let start = writer.space.fold(writer.incarnation, range, 0);
    let until = writer.space.fold(writer.incarnation, range + 1, 0).sk;
    let limit = Page::MAX_ITEMS;
    let mut query = Query { pk: start.pk, from: start.sk, until: Some(until), limit };
    let (mut all, mut wanted) = (Vec::new(), None);
    loop {
        let page = store.query(query.clone()).await?;
        for (sk, item) in &page.items {
            if *sk != writer.space.fold(writer.incarnation, range, all.len()).sk {
                return Ok(None); // one is missing
            }
            wanted = wanted.or(item.int(PARTS));
            let Unpacked::Rows(rows, carried) = slots::decode(item, &mut Numbered::default())?
            else {
                return Err(slots::damaged());
            };
            all.push((slots::made_ms(item), rows, carried.unwrap_or(writer.incarnation)));
        }
        let Some(next) = page.next else { break };
        query.from = next;
    }
    let complete = wanted.is_some_and(|wanted| all.len() as u64 >= wanted.unsigned_abs());
    Ok((complete && !all.is_empty()).then_some(all))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::Surrogate;
    use crate::ledger::log::{self, LogWriter};
    use crate::quota::pool::PoolId;
    use crate::store::layout::Space;
    use crate::store::{Item, Key, Memory, Page, Promise, StoreFuture, Written};
    use crate::testing::Faulty;

    fn rows(tenant: u128, total: u64) -> Rows {
        let pool = PoolId {
            tenant: Surrogate::test(tenant),
            limit: "requests/month".into(),
            scope: 0,
            start_ms: 0,
        };
        let row = super::super::record::PoolRow { total, ceiling: 0 };
        Rows { pools: [(pool, row)].into(), ..Rows::default() }
    }

    async fn whole(store: &Memory, writer: &Writer, from: u64) -> (u64, BTreeMap<WriterId, Rows>) {
        let mut all = BTreeMap::<WriterId, Rows>::new();
        let fold = |rows, of| all.entry(of).or_default().merge(rows);
        let next = log::read(store, writer, from, fold).await.unwrap().next;
        (next, all)
    }

    #[tokio::test]
    async fn a_folded_log_reads_as_it_did_and_is_small() {
        let store = Memory::new();
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        let mut log = LogWriter::new(writer.clone());
        for n in 0..2 * RUN + 10 {
            let carried = (n % 500 == 499).then_some(WriterId::test(3));
            let body = rows(u128::from(n % 5), n + 1).pack(0, carried).remove(0);
            let written = store.write(log.slot(&body)).await.unwrap();
            log.wrote(&body, written).unwrap();
        }
        let before = whole(&store, &writer, 0).await;
        assert_eq!(before.0, 2 * RUN + 10);
        assert_eq!(fold_runs(&store, &writer, before.0, 0).await.unwrap(), 2);
        assert_eq!(whole(&store, &writer, 0).await, before);
        let left = slots::slots(&store, &writer, 0, None).await.unwrap();
        assert_eq!(left.slots.len(), 10, "the folded slots are gone");
        // A reader in the middle of a run gets at least what it lacked, and the same end.
        let (next, late) = whole(&store, &writer, RUN + 5).await;
        assert_eq!(next, before.0);
        assert_eq!(
            late[&WriterId::test(7)].pools.values().map(|r| r.total).max(),
            before.1[&WriterId::test(7)].pools.values().map(|r| r.total).max()
        );
        // Folding again, from any run, changes nothing.
        assert_eq!(fold_runs(&store, &writer, before.0, 1).await.unwrap(), 2);
        assert_eq!(whole(&store, &writer, 0).await, before);
    }

    /// A run of slots with a tenant each: its fold has more rows than one record holds.
    async fn many_tenants(store: &dyn Store, writer: &Writer) {
        let mut log = LogWriter::new(writer.clone());
        for n in 0..RUN + 1 {
            let body = rows(u128::from(n), n + 1).pack(0, None).remove(0);
            let written = store.write(log.slot(&body)).await.unwrap();
            log.wrote(&body, written).unwrap();
        }
    }

    #[tokio::test]
    async fn a_fold_of_more_than_a_page_is_read_and_nothing_is_lost() {
        let table = Memory::new();
        let store = Faulty::scripted(table.clone(), []);
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        many_tenants(&store, &writer).await;
        let before = whole(&table, &writer, 0).await;
        store.cut_pages(1);
        assert_eq!(fold_runs(&store, &writer, RUN + 1, 0).await.unwrap(), 1);
        let parts = parts::<Rows>(&store, &writer, 0).await.unwrap().expect("it stands folded");
        assert!(parts.len() > 1, "more than a page");
        let mut read = BTreeMap::<WriterId, Rows>::new();
        let fold = |rows, of| read.entry(of).or_default().merge(rows);
        let end = log::read(&store, &writer, 0, fold).await.unwrap();
        assert_eq!((end.next, read), before);
    }

    #[tokio::test]
    async fn slots_stay_until_their_fold_has_been_read_back() {
        let table = Memory::new();
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        many_tenants(&table, &writer).await;
        let before = whole(&table, &writer, 0).await;
        // A store that acknowledges a write and loses it.
        let store = Forgets(table.clone(), writer.space.fold(WriterId::test(7), 0, 1));
        let error = fold_runs(&store, &writer, RUN + 1, 0).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert_eq!(whole(&table, &writer, 0).await, before);
    }

    /// A store that loses one item.
    struct Forgets(Memory, Key);

    impl Store for Forgets {
        fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
            self.0.read(key)
        }

        fn write(&self, write: Write) -> StoreFuture<Written> {
            if write.key == self.1 {
                return Box::pin(async { Ok(Written::Applied(None)) });
            }
            self.0.write(write)
        }

        fn query(&self, query: Query) -> StoreFuture<Page> {
            self.0.query(query)
        }

        fn promise(&self) -> Promise {
            self.0.promise()
        }

        fn close(&self) -> StoreFuture<()> {
            self.0.close()
        }
    }

    #[tokio::test]
    async fn a_fold_that_was_cut_short_is_not_believed() {
        let store = Arc::new(Memory::new());
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        many_tenants(&*store, &writer).await;
        let before = whole(&store, &writer, 0).await;
        fold_run(&*store, &writer, 0).await.unwrap();
        let parts = parts::<Rows>(&*store, &writer, 0).await.unwrap().unwrap().len();
        assert!(parts > 1, "more rows than one record holds");
        let key = writer.space.fold(WriterId::test(7), 0, parts - 1);
        let cut = Write { key, when: vec![When::Exists], change: vec![Change::Delete] };
        store.write(cut).await.unwrap();
        assert_eq!(whole(&store, &writer, 0).await, before, "read from the slots");
        fold_runs(&*store, &writer, RUN + 1, 0).await.unwrap();
        assert_eq!(whole(&store, &writer, 0).await, before);
    }
}

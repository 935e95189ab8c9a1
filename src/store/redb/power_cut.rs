//! Power cuts: a disk that keeps only what was synced, plus a random part of the rest, cut at a
//! random operation under a running store.
//!
//! After each cut: every acknowledged write is there, items are whole, and an unacknowledged write
//! is there whole or not at all. A failing run prints its seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use ::redb::{Builder, StorageBackend};

use super::Redb;
use super::file::StoreFile;
use crate::store::{Change, Item, Key, Query, Store, StoreErrorKind, Value, When, Write, Written};

/// A disk. Clones are the same disk, so a reopened file finds its data.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// Contents after a power cut.
    synced: Vec<u8>,
    /// Contents as read now.
    seen: Vec<u8>,
    /// Operations since the last sync, in order.
    unsynced: Vec<Op>,
    /// Operations until the cut; `None`: no cut.
    left: Option<u32>,
    cut: bool,
    random: Random,
}

#[derive(Clone, Debug)]
enum Op {
    Len(usize),
    Write(usize, Vec<u8>),
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Op::Len(len) => bytes.resize(*len, 0),
            Op::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl Platter {
    /// Counts one operation towards the cut.
    fn tick(&mut self) -> io::Result<()> {
        match &mut self.left {
            _ if self.cut => {}
            None => return Ok(()),
            Some(0) => self.lose_power(),
            Some(left) => {
                *left -= 1;
                return Ok(());
            }
        }
        Err(io::Error::other("no power"))
    }

    /// Keeps none, all or any subset of what was not synced, and tears writes at 512 bytes.
    fn lose_power(&mut self) {
        self.cut = true;
        let keep = self.random.below(4);
        let mut kept = self.synced.clone();
        for op in std::mem::take(&mut self.unsynced) {
            let survives = match keep {
                0 => false,
                1 => true,
                _ => self.random.below(2) == 0,
            };
            match op {
                Op::Write(at, data) if survives && keep == 3 => {
                    for (i, sector) in data.chunks(512).enumerate() {
                        if self.random.below(2) == 0 {
                            Op::Write(at + i * 512, sector.to_vec()).apply(&mut kept);
                        }
                    }
                }
                op if survives => op.apply(&mut kept),
                _ => {}
            }
        }
        self.synced = kept;
    }
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let platter = Platter { random: Random(seed), ..Platter::default() };
        Self(Arc::new(Mutex::new(platter)))
    }

    /// Restores power for so many operations, from what the last cut left.
    pub(super) fn power_on(&self, operations: Option<u32>) {
        let mut disk = self.0.lock().unwrap();
        if !disk.cut {
            disk.synced = disk.seen.clone();
        }
        disk.seen = disk.synced.clone();
        disk.unsynced.clear();
        disk.cut = false;
        disk.left = operations;
    }

    /// Cuts the power before the n-th operation from now.
    pub(super) fn cut_after(&self, operations: u32) {
        self.0.lock().unwrap().left = Some(operations);
    }

    pub(super) fn cut_now(&self) {
        self.0.lock().unwrap().lose_power();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.lock().unwrap().cut
    }

    pub(super) fn open(&self) -> Redb {
        let disk = self.clone();
        let open = move || {
            // Small regions, so that a test file is not megabytes.
            Builder::new().set_cache_size(1 << 20).create_with_backend(disk.clone())
        };
        Redb::start(StoreFile::with(Box::new(open)).expect("a cut file opens again")).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let at = offset as usize;
        let bytes = disk.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.tick()?;
        let op = Op::Len(len as usize);
        op.apply(&mut disk.seen);
        disk.unsynced.push(op);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.tick()?;
        disk.unsynced.clear();
        disk.synced = disk.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.tick()?;
        let op = Op::Write(offset as usize, data.to_vec());
        op.apply(&mut disk.seen);
        disk.unsynced.push(op);
        Ok(())
    }
}

/// SplitMix64: the whole run follows from its seed.
#[derive(Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn key(slot: u64) -> Key {
    Key { pk: "slots".into(), sk: format!("{slot:02}") }
}

/// A whole new item with a number: `copy` repeats the number, so that half an item would show.
fn put(slot: u64, number: i64, padding: usize) -> Write {
    let change = vec![
        Change::Set("number".into(), Value::Int(number)),
        Change::Set("copy".into(), Value::Text(number.to_string())),
        Change::Set("padding".into(), Value::Bytes(vec![number as u8; padding])),
    ];
    Write { key: key(slot), when: vec![], change }
}

fn number_of(item: &Item) -> i64 {
    let number = item.int("number").unwrap();
    assert_eq!(item.text("copy").unwrap(), number.to_string(), "an item is whole");
    assert!(item.bytes("padding").unwrap().iter().all(|byte| *byte == number as u8));
    number
}

/// Numbers allowed in each slot: the acknowledged one, and those written after it.
#[derive(Default)]
struct Expected(BTreeMap<u64, Vec<i64>>);

impl Expected {
    async fn check(&mut self, store: &Redb) {
        for (slot, allowed) in &mut self.0 {
            let found = store.read(key(*slot)).await.unwrap();
            let found = found.as_ref().map_or(0, number_of);
            assert!(allowed.contains(&found), "slot {slot} holds {found}, not one of {allowed:?}");
            *allowed = vec![found];
        }
    }
}

async fn one_life(seed: u64) {
    let disk = Disk::new(seed);
    let mut random = Random(!seed);
    let mut expected = Expected((0..8).map(|slot| (slot, vec![0])).collect());
    let mut number = 0;
    for _ in 0..6 {
        disk.power_on(None);
        let store = disk.open();
        expected.check(&store).await;
        disk.cut_after(random.below(160) as u32);
        loop {
            let mut running = Vec::new();
            for _ in 0..=random.below(4) {
                number += 1;
                let (slot, padding) = (random.below(8), random.below(6_000) as usize);
                expected.0.get_mut(&slot).unwrap().push(number);
                let write = store.write(put(slot, number, padding));
                running.push((slot, number, tokio::spawn(write)));
            }
            let mut failed = false;
            let mut acknowledged: BTreeMap<u64, i64> = BTreeMap::new();
            for (slot, number, write) in running {
                match write.await.unwrap() {
                    Ok(Written::Applied(_)) => {
                        acknowledged.insert(slot, number);
                    }
                    Ok(Written::Refused(_)) => panic!("an unconditional write is not refused"),
                    Err(error) => {
                        failed = true;
                        match error.kind {
                            StoreErrorKind::Unknown => {}
                            StoreErrorKind::Unavailable => {
                                let allowed = expected.0.get_mut(&slot).unwrap();
                                allowed.retain(|other| *other != number);
                            }
                            _ => panic!("{error}"),
                        }
                    }
                }
            }
            for (slot, acknowledged) in acknowledged {
                let allowed = expected.0.get_mut(&slot).unwrap();
                allowed.retain(|number| *number >= acknowledged);
            }
            if failed {
                break;
            }
        }
        store.close().await.unwrap();
    }
    disk.power_on(None);
    expected.check(&disk.open()).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_every_power_cut() {
    for seed in 0..60 {
        let life = tokio::spawn(one_life(seed));
        assert!(life.await.is_ok(), "failed with seed {seed}");
    }
}

/// Checks the disk, not the store: without it the test above could not fail.
#[test]
fn the_disk_loses_what_was_not_synced() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = Disk::new(seed);
        disk.set_len(1).unwrap();
        disk.write(0, b"a").unwrap();
        disk.sync_data().unwrap();
        disk.write(0, b"b").unwrap();
        disk.cut_after(0);
        disk.sync_data().unwrap_err();
        disk.power_on(None);
        let mut byte = [0];
        disk.read(0, &mut byte).unwrap();
        lost += u32::from(byte == *b"a");
    }
    assert!((1..40).contains(&lost), "some cuts lose the write, some do not: {lost}");
}

#[tokio::test]
async fn a_disk_that_failed_for_a_while_is_taken_up_again() {
    let disk = Disk::new(1);
    let store = disk.open();
    store.write(put(0, 1, 10)).await.unwrap();
    disk.cut_after(1);
    let take = Write { when: vec![When::Equals("number".into(), Value::Int(1))], ..put(0, 2, 10) };
    let error = store.write(take.clone()).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    store.write(take.clone()).await.unwrap_err();

    disk.power_on(None);
    // The identical write again, until there is an answer: it was applied exactly once.
    let mut answer = store.write(take.clone()).await;
    for _ in 0..2 {
        if answer.is_err() {
            answer = store.write(take.clone()).await;
        }
    }
    let (Written::Applied(item) | Written::Refused(item)) = answer.unwrap();
    assert_eq!(number_of(&item.unwrap()), 2);
    let all = Query { pk: "slots".into(), from: String::new(), until: None, limit: 9 };
    assert_eq!(store.query(all).await.unwrap().items.len(), 1);
}

//! The outbox's item in the store: its key, its version, and writes whose reply may be lost.

use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::decisions::{self, OutboxDecision};
use super::outbox::{Outbox, OutboxEntry};
use crate::clock::time_at;
use crate::identity::hex;
use crate::ids::Surrogate;
use crate::store::layout::{self, Space, check_format};
use crate::store::{
    Change, Item, Key, Store, StoreError, StoreErrorKind, Value, When, Write, Written,
    until_known_at_once,
};

/// Format of an outbox item.
const FORMAT: i64 = 3;

const BODY: &str = "body";
const VERSION: &str = "version";
/// Writer of this version: distinguishes our own write from an identical one by another process.
const BY: &str = "by";

const LEDGER: &str = "ledger";
const GENERATION: &str = "generation";

/// The identity of an item: amounts owed are kept apart by each of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ItemId {
    /// The billing account in force when the use was admitted.
    pub account: Arc<str>,
    /// The tenant.
    pub tenant: Surrogate,
    /// The meter.
    pub meter: Arc<str>,
    /// Atoms to the meter's unit when it was counted: use counted at another scale is another item.
    pub scale: u64,
    /// When the billing period began, Unix milliseconds.
    pub(crate) period_ms: i64,
}

impl ItemId {
    /// When the billing period began.
    pub fn period(&self) -> SystemTime {
        time_at(self.period_ms)
    }

    pub(super) fn key(&self, space: &Space) -> Key {
        space.outbox(&self.account, self.tenant, &self.meter, self.scale, self.period_ms)
    }
}

/// The write that makes the table's ledger under an id of its own, with more changes beside it.
pub(super) fn new_ledger<const N: usize>(
    space: &Space,
    more: [Change; N],
) -> Result<Write, StoreError> {
    let mut random = [0; 16];
    crate::random::fill(&mut random).map_err(|error| {
        StoreError::new(StoreErrorKind::Unavailable, format!("no random bytes: {error}"))
    })?;
    let (name, version) = layout::format(FORMAT);
    let mut change = vec![
        Change::Set(name, version),
        Change::Set(LEDGER.into(), Value::Text(hex(&random))),
        Change::Set(GENERATION.into(), Value::Int(0)),
    ];
    change.extend(more);
    Ok(Write { key: space.ledger(), when: vec![When::Absent], change })
}

/// The ledger that identifiers belong to: those of two ledgers, or from before and after a restore,
/// never collide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdSpace {
    ledger: String,
    generation: i64,
    account: String,
}

impl IdSpace {
    /// Reads the table's id, or generates it. `account` is the sink's.
    pub(super) async fn open(
        store: &dyn Store,
        space: &Space,
        account: String,
    ) -> Result<Self, StoreError> {
        // Ours, or that of a faster process: the stored one is the table's.
        let item = match make(store, new_ledger(space, [])?).await? {
            Written::Applied(item) | Written::Refused(item) => item,
        };
        let damaged = || StoreError::new(StoreErrorKind::Corrupt, "the ledger's id cannot be read");
        let item = item.ok_or_else(damaged)?;
        check_format(&item, FORMAT, "the ledger's id")?;
        let ledger = item.text(LEDGER).ok_or_else(damaged)?.to_owned();
        let generation = item.int(GENERATION).ok_or_else(damaged)?;
        Ok(Self { ledger, generation, account })
    }

    /// The identifier of an entry: depends on neither the attempt nor the value.
    pub(super) fn identifier(&self, id: &ItemId, entry: &OutboxEntry) -> String {
        let mut hash = Sha256::new();
        let numbers = format!("{} {} {} {}", self.generation, id.scale, id.period_ms, entry.k);
        let tenant = id.tenant.to_string();
        let parts = [&self.ledger, &self.account, &tenant, &*id.account, &*id.meter, &numbers];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("tg_{}", hex(&hash.finalize()))
    }
}

/// An outbox as read or written, with the version that guards the next write.
#[derive(Clone, Debug)]
pub(super) struct Versioned {
    pub(super) outbox: Outbox,
    /// What operators have decided about its entries, the latest last.
    pub(super) decided: Vec<OutboxDecision>,
    version: i64,
}

pub(super) async fn read(store: &dyn Store, key: Key) -> Result<Versioned, StoreError> {
    match store.read(key).await? {
        None => Ok(Versioned { outbox: Outbox::default(), decided: Vec::new(), version: 0 }),
        Some(item) => decode(&item),
    }
}

/// Writes the successor of `before`, and returns it with its version. `None`: another process was
/// faster; start over from a read.
pub(super) async fn write(
    store: &dyn Store,
    key: Key,
    before: &Versioned,
    outbox: Outbox,
) -> Result<Option<Versioned>, StoreError> {
    write_with(store, key, before, outbox, None).await
}

/// The same with an operator's decision.
pub(super) async fn write_with(
    store: &dyn Store,
    key: Key,
    before: &Versioned,
    outbox: Outbox,
    made: Option<OutboxDecision>,
) -> Result<Option<Versioned>, StoreError> {
    let version = before.version.saturating_add(1);
    let body = postcard::to_stdvec(&outbox)
        .map_err(|_| StoreError::new(StoreErrorKind::Invalid, "an outbox does not encode"))?;
    let mut by = [0; 8];
    crate::random::fill(&mut by).map_err(|error| {
        StoreError::new(StoreErrorKind::Unavailable, format!("no random bytes: {error}"))
    })?;
    let by = i64::from_be_bytes(by);
    let when = match before.version {
        0 => vec![When::Absent],
        known => vec![When::Equals(VERSION.into(), Value::Int(known))],
    };
    let (name, format) = layout::format(FORMAT);
    let mut change = vec![
        Change::Set(name, format),
        Change::Set(VERSION.into(), Value::Int(version)),
        Change::Set(BY.into(), Value::Int(by)),
        Change::Set(BODY.into(), Value::Bytes(body)),
    ];
    let mut decided = before.decided.clone();
    if let Some(made) = made {
        let (all, kept) = decisions::with(&decided, made)?;
        decided = all;
        change.push(kept);
    }
    let ours = match make(store, Write { key, when, change }).await? {
        Written::Applied(_) => true,
        // After a lost reply the repeat is refused by our own first write.
        Written::Refused(item) => {
            item.is_some_and(|item| item.int(VERSION) == Some(version) && item.int(BY) == Some(by))
        }
    };
    Ok(ours.then_some(Versioned { outbox, decided, version }))
}

/// Repeats a write while its outcome is unknown.
pub(super) async fn make(store: &dyn Store, write: Write) -> Result<Written, StoreError> {
    Ok(until_known_at_once(store, write).await?.0)
}

fn decode(item: &Item) -> Result<Versioned, StoreError> {
    check_format(item, FORMAT, "an outbox")?;
    let decided = decisions::in_item(item)?;
    let parts = || {
        let outbox = postcard::from_bytes(item.bytes(BODY)?).ok()?;
        Some(Versioned { outbox, decided, version: item.int(VERSION)? })
    };
    parts().ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "an outbox cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use crate::testing::{Fault, Faulty};

    #[tokio::test]
    async fn of_two_who_write_one_version_the_first_has_written() {
        let key = || Key { pk: "1#s#B#x".into(), sk: "0".into() };
        let store = Memory::new();
        for version in 1..=2 {
            let before = read(&store, key()).await.unwrap();
            // Its reply is lost: the repeat is refused because of its own first write.
            let loses = Faulty::scripted(store.clone(), [Fault::LoseReply]);
            let first = write(&loses, key(), &before, Outbox::default()).await.unwrap();
            assert_eq!(first.unwrap().version, version);
            let second = write(&store, key(), &before, Outbox::default()).await.unwrap();
            assert!(second.is_none(), "version {version}");
        }
        let before = Versioned { outbox: Outbox::default(), decided: Vec::new(), version: 1 };
        let late = write(&store, key(), &before, Outbox::default()).await.unwrap();
        assert!(late.is_none(), "of a version that is over");
    }
}

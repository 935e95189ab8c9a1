//! The store: items that are read strongly and written one at a time under conditions. Ready to use
//! are [`Memory`], `Redb` (feature `redb`) and `DynamoDb` (feature `dynamodb`); another database
//! implements [`Store`].
//!
//! # Laws
//!
//! Every store keeps them, and `tests/store/conformance/` runs them against each one:
//!
//! 1. **One item at a time.** A [`Write`] names one key; its conditions are tested and its changes
//!    applied as one step that no other write can come between. Nothing spans two items.
//! 2. **All or nothing.** If one condition fails, nothing changes, and the current item is returned
//!    in [`Written::Refused`] (`None` if there is none).
//! 3. **Three outcomes.** `Ok` is definite. A write that fails with [`StoreErrorKind::Unknown`] may
//!    or may not have been applied; with any other kind it was not. The caller repeats the
//!    identical write and judges by the item that comes back.
//! 4. **Durable before it is answered.** What `Ok(Applied)` acknowledged survives the death of this
//!    process, and on a store that says so in [`Promise::survives`], of the machine.
//! 5. **Strong reads.** A read or a query that starts after a write was answered sees it.
//! 6. **Ordered.** A query returns the items of one partition by ascending sort key, compared as
//!    bytes, in pages. A page ends at the query's limit or anywhere before it, never in the middle
//!    of an item: only [`Page::next`] says whether there may be more, not how many items came. A
//!    page that has a `next` holds at least one item.
//! 7. **Bounded.** An item above [`Item::MAX_BYTES`] is refused as invalid, whole. Writes that
//!    cannot be queued are refused as throttled, never queued without bound.
//! 8. **Expiry.** An item whose attribute [`Item::TTL`] is a whole number may vanish at any time
//!    once that many seconds have passed since 1970, and never before by itself. Nothing else makes
//!    an item expire, and no time of removal is promised.
//!
//! The shape is that of a DynamoDB item table (`UpdateItem` with a condition expression and
//! `ReturnValuesOnConditionCheckFailure=ALL_OLD`), so that a write maps to one call there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

mod apply;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod expiry;
pub(crate) mod layout;
mod lock;
mod memory;
mod reach;
#[cfg(feature = "redb")]
mod redb;
mod retry;
pub(crate) mod store_id;

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::{DynamoDb, WarmThroughput};
#[cfg(feature = "redb")]
pub use self::redb::Redb;
#[cfg(feature = "redb")]
#[doc(hidden)]
pub use self::redb::Replacement;
pub(crate) use lock::Lock;
pub use memory::Memory;
pub(crate) use reach::Reach;
pub(crate) use retry::{repeat, until_known, until_known_at_once};

/// Most items one [`Store::expire`] removes: as many as the embedded store puts in one transaction.
#[doc(hidden)]
pub const MAX_EXPIRED_ITEMS: usize = 512;

/// The key of an item: its partition and its place in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The partition. Items of one partition can be queried together.
    pub pk: String,
    /// The place within the partition, compared as bytes.
    pub sk: String,
}

impl Key {
    /// Longest partition key, in bytes: DynamoDB's limit.
    pub const MAX_PK_BYTES: usize = 2_048;

    /// Longest sort key, in bytes: DynamoDB's limit.
    pub const MAX_SK_BYTES: usize = 1_024;
}

/// The attribute in which the DynamoDB store keeps the version of its encoding.
pub(crate) const ITEM_FORMAT: &str = "tallygate";

/// The name of an attribute: not empty, and none of `pk`, `sk` and `tallygate`, which DynamoDB
/// items use themselves.
pub type Name = Cow<'static, str>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// An item: named attributes. What [`Store::read`] and [`Store::query`] return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item(pub BTreeMap<Name, Value>);

impl Item {
    /// Largest item in bytes, keys and attribute names included: what a DynamoDB item may hold.
    pub const MAX_BYTES: usize = 400 * 1024;

    /// The attribute by which an item expires, in seconds since 1970; see law 8. DynamoDB's own
    /// expiry is to be enabled on this attribute.
    pub const TTL: &'static str = "ttl";

    /// The attribute as a whole number, if it is one.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// The attribute as text, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The attribute as bytes, if it is bytes.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.0.get(name) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

/// A condition on the item before the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// There is no item.
    Absent,
    /// There is an item.
    Exists,
    /// The attribute is there and equals this value.
    Equals(Name, Value),
    /// The attribute (or the whole item) is not there.
    Missing(Name),
    /// The attribute is a number and is at least this.
    AtLeast(Name, i64),
    /// The attribute is a number and is less than this.
    Below(Name, i64),
}

/// A change of the item. Changes of one write name distinct attributes. Any change but
/// [`Change::Delete`] creates a missing item, though it may then hold no attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the attribute, replacing any value.
    Set(Name, Value),
    /// Adds to a number; a missing attribute counts as 0. Only used under a condition that a repeat
    /// of the same write cannot meet again.
    Add(Name, i64),
    /// Removes the attribute.
    Remove(Name),
    /// Deletes the whole item. Stands alone.
    Delete,
}

/// One conditional write of one item. The argument of [`Store::write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The item.
    pub key: Key,
    /// All of these must hold; none means unconditional.
    pub when: Vec<When>,
    /// The changes; never empty.
    pub change: Vec<Change>,
}

/// The definite answer to a [`Write`]. [`Store::write`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The conditions held and the changes were made: the item after the write (`None` if it was
    /// deleted).
    Applied(Option<Item>),
    /// A condition failed and nothing changed: the current item (`None` if there is none).
    Refused(Option<Item>),
}

/// A range of items of one partition, in order. The argument of [`Store::query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The partition.
    pub pk: String,
    /// First sort key wanted (inclusive); empty for the start of the partition.
    pub from: String,
    /// First sort key not wanted (exclusive); `None` for no end.
    pub until: Option<String>,
    /// Most items wanted, at least 1; a page holds at most [`Page::MAX_ITEMS`].
    pub limit: usize,
}

/// A page of a [`Query`]. [`Store::query`] returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Sort keys and items, ascending.
    pub items: Vec<(String, Item)>,
    /// Start of the next page, if there may be more, regardless of how many items this one has.
    pub next: Option<String>,
}

impl Page {
    /// Most items of one page, whatever its [`Query`] asks for.
    pub const MAX_ITEMS: usize = 1_000;
}

/// The durability of an acknowledged write, logged at start-up. [`Store::promise`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Name of the kind of store: `memory`, `redb`, `dynamodb`.
    pub kind: &'static str,
    /// The largest loss an acknowledged write survives: of `nothing`, the `process`, the `machine`,
    /// or its `data centre`.
    pub survives: &'static str,
    /// Whether several processes may share it.
    pub shared: bool,
}

/// Units that the service behind a store has charged since the store was made, as that service
/// counts them. [`Store::units`] returns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units read: on DynamoDB 4 KB each.
    pub read: u64,
    /// Units written: on DynamoDB 1 KB each.
    pub write: u64,
}

/// The future of a store call. It owns its data. Nothing happens before it is first polled; a write
/// whose future is dropped after that may or may not be applied.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// A table of items; the [module](self) states the laws that an implementation must keep. Pass it
/// to [`GateBuilder::store`](crate::GateBuilder::store).
pub trait Store: Send + Sync + 'static {
    /// The item, read strongly, or `None`.
    fn read(&self, key: Key) -> StoreFuture<Option<Item>>;

    /// Makes one conditional write.
    fn write(&self, write: Write) -> StoreFuture<Written>;

    /// A page of a partition, read strongly.
    fn query(&self, query: Query) -> StoreFuture<Page>;

    /// Removes some of the items that have expired by `now_ms` (Unix milliseconds), at most 512,
    /// and returns how many.
    ///
    /// Each call examines a bounded part of the table and the next one continues after it, so 0
    /// means that this part held none. A store whose service expires items by itself answers 0, as
    /// the default does.
    fn expire(&self, now_ms: i64) -> StoreFuture<usize> {
        let _ = now_ms;
        Box::pin(async { Ok(0) })
    }

    /// The store's name and location, for errors and the log.
    fn name(&self) -> String {
        format!("the store ({})", self.promise().kind)
    }

    /// Checks that the store can serve, and reports what is wrong with it: a gate asks once, before
    /// anything else. A store that can always serve once it is made answers `Ok`, as the default
    /// does.
    fn check(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    /// Writes all items, as they are at one moment, into a new file, while other calls go on. Only
    /// a store in a file of its own does, which the default is not. For `Gate::backup`.
    #[doc(hidden)]
    fn back_up(&self, to: PathBuf) -> StoreFuture<StoreCopy> {
        let message = format!(
            "{} is not in a file, so that no backup can be written to {}: a table of DynamoDB has \
             point-in-time recovery and on-demand backups (docs/storage.md)",
            self.name(),
            to.display(),
        );
        Box::pin(async move { Err(StoreError::new(StoreErrorKind::Invalid, message)) })
    }

    /// Units that the service behind this store has charged so far; `None`, the default, where
    /// calls cost nothing.
    fn units(&self) -> Option<Units> {
        None
    }

    /// What this store promises about acknowledged writes.
    fn promise(&self) -> Promise;

    /// Finishes accepted calls and releases the file or connection. Later calls are refused as
    /// unavailable.
    fn close(&self) -> StoreFuture<()>;
}

/// What a copy of a store holds. For the operator's command.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCopy {
    /// Number of items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sum of their checksums, which are of keys and bytes.
    pub checksum: u64,
}

/// Why a store call did not succeed. Its kind says whether the call may be repeated.
#[derive(Clone, Debug, thiserror::Error)]
#[error("store: {message}")]
pub struct StoreError {
    /// The kind, which determines what the caller can do.
    pub kind: StoreErrorKind,
    /// A description of the failure, without any key or secret.
    pub message: String,
}

/// Kinds of [`StoreError`], by what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Not applied; the store is out of reach. Try again later.
    Unavailable,
    /// Not applied; too many calls at once. Try again, slower.
    Throttled,
    /// May or may not have been applied. Repeat the identical call.
    Unknown,
    /// Not applied and never will be: too large, malformed.
    Invalid,
    /// The stored data cannot be read: another format version, or damage. Not applied.
    Corrupt,
}

impl StoreErrorKind {
    /// The name of this kind in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
        }
    }
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        !matches!(self.kind, StoreErrorKind::Invalid | StoreErrorKind::Corrupt)
    }
}

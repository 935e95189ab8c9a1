//! The file itself: a batch of writes as one transaction, reads from a snapshot, and the opening
//! that follows a failure of the disk.
//!
//! The table's key is the pair (partition, sort key), which redb compares one after the other, each
//! as bytes: a partition is a range, and no partition's name can reach into another. An item is its
//! postcard encoding. After the first failed read, write or sync redb refuses all further calls
//! until the file is opened anew, so the next call does that.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageError, Table, TableDefinition, TableError,
};

use super::Expired;
use crate::store::apply::{Verdict, apply, check_query};
use crate::store::expiry::{Part, Place};
use crate::store::{Item, Key, Page, Query, StoreError, StoreErrorKind, Write, Written};

type ItemKey = (&'static str, &'static str);

/// The one table. A change of how keys or items are encoded is another name.
const ITEMS: TableDefinition<'_, ItemKey, &[u8]> = TableDefinition::new("items-1");

/// Pages of the file kept in memory. redb's own default is a gigabyte, too much for a guest.
const CACHE_BYTES: usize = 64 << 20;

type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An open store file.
pub(super) struct StoreFile {
    /// `None` between a failure of the disk and the opening that succeeds.
    database: RwLock<Option<Database>>,
    /// Set by whoever saw the disk fail.
    failed: AtomicBool,
    open: Open,
}

impl StoreFile {
    /// Opens the file at this path, or makes it.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let owned: PathBuf = path.to_owned();
        let file =
            Self::with(Box::new(move || Builder::new().set_cache_size(CACHE_BYTES).create(&owned)))
                .map_err(|error| open_error(path, error))?;
        sync_directory(path)?;
        Ok(file)
    }

    /// Opens a database by this function, now and after each failure of the disk.
    pub(super) fn with(open: Open) -> Result<Self, DatabaseError> {
        let database = open()?;
        Ok(Self { database: RwLock::new(Some(database)), failed: AtomicBool::new(false), open })
    }

    /// Applies writes in order in one transaction. There is one answer for each.
    pub(super) fn write(&self, writes: &[Write]) -> Vec<Result<Written, StoreError>> {
        let result = self.session(|database| self.transaction(database, writes));
        result.unwrap_or_else(|error| writes.iter().map(|_| Err(error.clone())).collect())
    }

    /// Lends a snapshot that holds everything committed so far.
    pub(super) fn read(&self, answer: impl FnOnce(Result<&Snapshot<'_>, StoreError>)) {
        let mut answer = Some(answer);
        let mut tell = |result: Result<&Snapshot<'_>, StoreError>| {
            if let Some(answer) = answer.take() {
                answer(result);
            }
        };
        let lent = self.session(|database| {
            let transaction = database.begin_read().map_err(|e| self.not_done(e))?;
            let items = match transaction.open_table(ITEMS) {
                Ok(items) => Some(items),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(self.not_done(error)),
            };
            tell(Ok(&Snapshot { file: self, items }));
            Ok(())
        });
        if let Err(error) = lent {
            tell(Err(error));
        }
    }

    /// The database, opened anew if the disk had failed.
    fn session<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            // The other thread may have been here first.
            if self.failed.load(Ordering::Acquire) {
                *database = None;
                *database = Some((self.open)().map_err(unavailable)?);
                self.failed.store(false, Ordering::Release);
            }
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match database.as_ref() {
            Some(database) => work(database),
            None => Err(unavailable("it could not be opened again after a failure")),
        }
    }

    fn transaction(
        &self,
        database: &Database,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let mut transaction = database.begin_write().map_err(|e| self.not_done(e))?;
        transaction.set_durability(Durability::Immediate).map_err(|e| self.not_done(e))?;
        let mut answers = Vec::with_capacity(writes.len());
        {
            let mut items = transaction.open_table(ITEMS).map_err(|e| self.not_done(e))?;
            for write in writes {
                // A failure of the disk ends the batch, uncommitted; a write that is itself at
                // fault has changed nothing and leaves the others alone.
                answers.push(self.apply(&mut items, write)?);
            }
        }
        if !answers.iter().any(|answer| matches!(answer, Ok(Written::Applied(_)))) {
            return Ok(answers);
        }
        transaction.commit().map_err(|error| {
            self.failed.store(true, Ordering::Release);
            StoreError::new(StoreErrorKind::Unknown, format!("a commit failed: {error}"))
        })?;
        Ok(answers)
    }

    /// The outer error is the disk's, the inner one the write's own.
    fn apply(
        &self,
        items: &mut Table<'_, ItemKey, &'static [u8]>,
        write: &Write,
    ) -> Result<Result<Written, StoreError>, StoreError> {
        let key = (write.key.pk.as_str(), write.key.sk.as_str());
        let old = match items.get(key).map_err(|e| self.not_done(e))? {
            None => None,
            Some(bytes) => match decode(bytes.value()) {
                Ok(item) => Some(item),
                Err(corrupt) => return Ok(Err(corrupt)),
            },
        };
        let new = match apply(old.as_ref(), write) {
            Ok(Verdict::Apply(new)) => new,
            Ok(Verdict::Refuse) => return Ok(Ok(Written::Refused(old))),
            Err(invalid) => return Ok(Err(invalid)),
        };
        match &new {
            Some(item) => {
                let bytes = match encode(item) {
                    Ok(bytes) => bytes,
                    Err(invalid) => return Ok(Err(invalid)),
                };
                items.insert(key, bytes.as_slice()).map_err(|e| self.not_done(e))?;
            }
            None => drop(items.remove(key).map_err(|e| self.not_done(e))?),
        }
        Ok(Ok(Written::Applied(new)))
    }

    /// A failure before any commit: nothing was applied, and the file is opened anew next time.
    fn not_done(&self, error: impl Into<::redb::Error>) -> StoreError {
        self.failed.store(true, Ordering::Release);
        match error.into() {
            ::redb::Error::Corrupted(what) => StoreError::new(
                StoreErrorKind::Corrupt,
                format!("the store file is damaged ({what}): restore it from a copy"),
            ),
            error => unavailable(error),
        }
    }
}

/// The file as it stood at one moment.
pub(super) struct Snapshot<'a> {
    file: &'a StoreFile,
    /// `None` before the first write of all.
    items: Option<ReadOnlyTable<ItemKey, &'static [u8]>>,
}

impl Snapshot<'_> {
    pub(super) fn item(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let Some(items) = &self.items else {
            return Ok(None);
        };
        let bytes = items.get((key.pk.as_str(), key.sk.as_str()));
        bytes.map_err(|e| self.file.not_done(e))?.map(|bytes| decode(bytes.value())).transpose()
    }

    pub(super) fn page(&self, query: Query) -> Result<Page, StoreError> {
        let limit = check_query(&query)?;
        let mut page = Page::default();
        let Some(items) = &self.items else {
            return Ok(page);
        };
        let from = (query.pk.as_str(), query.from.as_str());
        for entry in items.range(from..).map_err(|e| self.file.not_done(e))? {
            let (key, bytes) = entry.map_err(|e| self.file.not_done(e))?;
            let (pk, sk) = key.value();
            if pk != query.pk || query.until.as_deref().is_some_and(|until| sk >= until) {
                break;
            }
            if page.items.len() == limit {
                page.next = Some(sk.to_owned());
                break;
            }
            page.items.push((sk.to_owned(), decode(bytes.value())?));
        }
        Ok(page)
    }

    /// What has expired, in the part of the table that begins at this place. Damaged items are
    /// passed by: whoever reads them is told.
    pub(super) fn expired(&self, now_ms: i64, place: Place) -> Result<Expired, StoreError> {
        let (mut part, mut next) = (Part::new(now_ms), None);
        let Some(items) = &self.items else {
            return Ok(Expired { found: part.found, next });
        };
        // No key sorts before this one.
        let from = place.as_ref().map_or(("", ""), |key| (key.pk.as_str(), key.sk.as_str()));
        for entry in items.range(from..).map_err(|e| self.file.not_done(e))? {
            let (key, bytes) = entry.map_err(|e| self.file.not_done(e))?;
            let (pk, sk) = key.value();
            let key = || Key { pk: pk.to_owned(), sk: sk.to_owned() };
            if part.is_full() {
                next = Some(key());
                break;
            }
            let bytes = bytes.value();
            part.look(decode(bytes).ok().as_ref(), bytes.len(), key);
        }
        Ok(Expired { found: part.found, next })
    }
}

fn encode(item: &Item) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(item).map_err(|error| {
        StoreError::new(StoreErrorKind::Invalid, format!("an item cannot be encoded: {error}"))
    })
}

/// Reads all of the bytes or none: what is left over would be damage that nobody saw.
fn decode(bytes: &[u8]) -> Result<Item, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((item, [])) => Ok(item),
        _ => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "an item in the file cannot be decoded: restore it from a copy, and check the disk",
        )),
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("the store file does not answer: {error}"))
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    use StoreErrorKind::{Corrupt, Unavailable};
    let path = path.display();
    let (kind, message) = match error {
        DatabaseError::DatabaseAlreadyOpen => (
            Unavailable,
            format!(
                "{path} is already open in another process: several processes need a shared store \
                 such as DynamoDB"
            ),
        ),
        DatabaseError::UpgradeRequired(version) => {
            (Corrupt, format!("{path} has file format {version}, which this binary does not read"))
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            (Unavailable, format!("{path} cannot be opened: {error}"))
        }
        error => (Corrupt, format!("{path} cannot be read as a store: {error}")),
    };
    StoreError::new(kind, message)
}

/// A file that was just made is not there after a power cut until its directory is synced too.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if !cfg!(unix) {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| {
        StoreError::new(
            StoreErrorKind::Unavailable,
            format!("{} cannot be synced: {error}", directory.display()),
        )
    })
}

/// Writes bytes that are no item, as damage or a forger would.
#[cfg(test)]
pub(super) fn forge(path: &Path, key: (&str, &str), bytes: &[u8]) {
    let written = (|| {
        let transaction = Database::open(path)?.begin_write()?;
        transaction.open_table(ITEMS)?.insert(key, bytes)?;
        transaction.commit()?;
        Ok::<(), redb::Error>(())
    })();
    written.expect("a test's own file can be written");
}

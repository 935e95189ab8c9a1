//! The file itself: a batch of writes as one transaction, reads from a snapshot, and reopening
//! after a disk failure.
//!
//! The table's key is the pair (partition, sort key), which redb compares one after the other, each
//! as bytes: a partition is a range, and no partition's name can reach into another. An item is its
//! postcard encoding and a checksum. After the first failed read, write or sync redb refuses all
//! further calls until the file is reopened, so the next call reopens it, and never creates one.
//!
//! redb panics on some damaged files. A panic is caught around every use of it and is an error like
//! any other: the threads live on, and the database is dropped and reopened before it is used
//! again. (A program that aborts on panics aborts here as well.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use ::redb::backends::FileBackend;
use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageError, Table, TableDefinition, TableError,
};

use super::checked::{Tally, decode, encode};
use super::copy::Snapshot;
use super::place::{self, OpenFilePath as OnDisk};
use super::verify::Depth;
use super::{Expired, closed};
use crate::store::apply::{Verdict, apply, check_query};
use crate::store::expiry::{SweepCursor, SweepPart};
use crate::store::{Item, Key, Page, Query, StoreError, StoreErrorKind, Write, Written};

pub(super) type ItemKey = (&'static str, &'static str);

/// The one table. A new encoding of keys or items takes a new name.
pub(super) const ITEMS: TableDefinition<'_, ItemKey, &[u8]> = TableDefinition::new("items-2");

/// One row: the number of items, and the sum of their keys' hashes.
pub(super) const TALLY: TableDefinition<'_, (), (u64, u64)> = TableDefinition::new("tally-1");

/// Pages of the file kept in memory. redb's own default is a gigabyte, too much for a guest.
pub(super) const CACHE_BYTES: usize = 64 << 20;

type OpenFile = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An open store file.
pub(super) struct StoreFile {
    /// `None` between a disk failure and a successful reopening.
    database: RwLock<Option<Database>>,
    /// Set by the thread that saw the disk fail.
    failed: AtomicBool,
    open: OpenFile,
    /// `None` for a test's own disk, and for a file that was refused.
    on_disk: Option<OnDisk>,
    /// It was closed whole, and so not read when it was opened; until the reading beside has ended.
    is_unread: AtomicBool,
    /// Items are missing, as was found while it served.
    pub(super) damage: OnceLock<StoreError>,
}

impl StoreFile {
    /// Opens the file at this path, or creates it where the place is plainly new. Where it was not
    /// closed whole, all of it is read, and anything missing is an error; otherwise the caller
    /// reads it beside its work ([`Self::read_beside`]).
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        place::prepare(path, |fresh| guarded(|| fill(fresh)).and_then(|filled| filled))?;
        let found = closed::state_of(path);
        let owned: PathBuf = path.to_owned();
        let open = move || Builder::new().set_cache_size(CACHE_BYTES).open(&owned);
        let opened = guarded(|| Self::with(Box::new(open)));
        let opened = opened.map_err(|error| at_path(path, error))?;
        let mut file = opened.map_err(|error| open_error(path, error))?;
        let on_disk = OnDisk::of(path)?;
        let is_unread = closed::take(path, found.as_deref())?;
        file.is_unread = is_unread.into();
        let depth = if is_unread { Depth::Sizes } else { Depth::All };
        file.verify(depth).map_err(|error| at_path(path, error))?;
        file.on_disk = Some(on_disk);
        Ok(file)
    }

    /// Opens a database with this function, now and after each disk failure.
    pub(super) fn with(open: OpenFile) -> Result<Self, DatabaseError> {
        let database = RwLock::new(Some(open()?));
        Ok(Self {
            database,
            failed: AtomicBool::new(false),
            open,
            on_disk: None,
            is_unread: AtomicBool::new(false),
            damage: OnceLock::new(),
        })
    }

    /// Whether all of it is still to be read.
    pub(super) fn is_unread(&self) -> bool {
        self.is_unread.load(Ordering::Acquire)
    }

    /// All of it has been read, and nothing is missing.
    pub(super) fn is_read(&self) {
        self.is_unread.store(false, Ordering::Release);
    }

    /// An error of its contents, with its name and the remedy.
    pub(super) fn named(&self, error: StoreError) -> StoreError {
        match &self.on_disk {
            Some(on_disk) => at_path(on_disk.path(), error),
            None => error,
        }
    }

    /// Checks that the file is still in its place, and is not known to be damaged.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        if let Some(damage) = self.damage.get() {
            return Err(damage.clone());
        }
        self.on_disk.as_ref().map_or(Ok(()), OnDisk::look)
    }

    /// Simulates a disk failure.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    #[cfg(test)]
    pub(super) fn is_known_gone(&self) -> bool {
        self.on_disk.as_ref().is_some_and(OnDisk::is_known_gone)
    }

    /// Applies writes in order in one transaction. There is one answer for each.
    pub(super) fn write(&self, writes: &[Write]) -> Vec<Result<Written, StoreError>> {
        let result = self.look().and_then(|()| {
            let written = self.session(|database| self.transaction(database, writes))?;
            // The next process to open the file finds it by its name.
            self.look().map_err(|gone| StoreError::new(StoreErrorKind::Unknown, gone.message))?;
            Ok(written)
        });
        result.unwrap_or_else(|error| writes.iter().map(|_| Err(error.clone())).collect())
    }

    /// Passes a snapshot that holds everything committed so far.
    pub(super) fn read(&self, answer: impl FnOnce(Result<&FileSnapshot<'_>, StoreError>)) {
        let mut answer = Some(answer);
        let mut tell = |result: Result<&FileSnapshot<'_>, StoreError>| {
            if let Some(answer) = answer.take() {
                answer(result);
            }
        };
        let lent = self.look().and_then(|()| {
            self.session(|database| {
                let transaction = database.begin_read().map_err(|e| self.not_done(e))?;
                let items = match transaction.open_table(ITEMS) {
                    Ok(items) => Some(items),
                    Err(TableError::TableDoesNotExist(_)) => None,
                    Err(error) => return Err(self.not_done(error)),
                };
                tell(Ok(&FileSnapshot { file: self, items }));
                Ok(())
            })
        });
        if let Err(error) = lent {
            tell(Err(error));
        }
    }

    /// A snapshot of everything, for a copy.
    pub(super) fn whole(&self) -> Result<Snapshot, StoreError> {
        self.look()?;
        self.session(|database| {
            let transaction = database.begin_read().map_err(|e| self.not_done(e))?;
            let incomplete = |error: TableError| match error {
                TableError::TableDoesNotExist(_) => {
                    StoreError::new(StoreErrorKind::Corrupt, "it is no whole store")
                }
                error => self.not_done(error),
            };
            let items = transaction.open_table(ITEMS).map_err(incomplete)?;
            let row = transaction.open_table(TALLY).map_err(incomplete)?;
            let tally = read_tally(&row).map_err(|e| self.not_done(e))?;
            Ok(Snapshot { items, tally: tally.unwrap_or_default() })
        })
    }

    /// The database, reopened if the disk had failed.
    pub(super) fn session<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            // The other thread may have been faster.
            if self.failed.load(Ordering::Acquire) {
                let failed = database.take();
                // A broken database may panic once more when dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
                let opened = guarded(|| (self.open)())?;
                *database = Some(opened.map_err(unavailable)?);
                self.failed.store(false, Ordering::Release);
            }
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match database.as_ref() {
            Some(database) => guarded(|| work(database)).unwrap_or_else(|panicked| {
                self.failed.store(true, Ordering::Release);
                Err(panicked)
            }),
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
            let mut row = transaction.open_table(TALLY).map_err(|e| self.not_done(e))?;
            let before = read_tally(&row).map_err(|e| self.not_done(e))?;
            let mut tally = before.unwrap_or_default();
            for write in writes {
                // A disk failure ends the batch, uncommitted; a write that is itself at fault has
                // changed nothing and leaves the others alone.
                answers.push(self.apply(&mut items, &mut tally, write)?);
            }
            if before != Some(tally) {
                row.insert((), (tally.items, tally.sum)).map_err(|e| self.not_done(e))?;
            }
        }
        if !answers.iter().any(|answer| matches!(answer, Ok(Written::Applied(_)))) {
            return Ok(answers);
        }
        let failed = |error: &dyn std::fmt::Display| {
            self.failed.store(true, Ordering::Release);
            StoreError::new(StoreErrorKind::Unknown, format!("a commit failed: {error}"))
        };
        let committed = guarded(|| transaction.commit()).map_err(|panicked| failed(&panicked))?;
        committed.map_err(|error| failed(&error))?;
        Ok(answers)
    }

    /// The outer error is the disk's, the inner one the write's own.
    fn apply(
        &self,
        items: &mut Table<'_, ItemKey, &'static [u8]>,
        tally: &mut Tally,
        write: &Write,
    ) -> Result<Result<Written, StoreError>, StoreError> {
        let key = (write.key.pk.as_str(), write.key.sk.as_str());
        let old = match items.get(key).map_err(|e| self.not_done(e))? {
            None => None,
            Some(bytes) => match decode(key, bytes.value()) {
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
                let bytes = match encode(key, item) {
                    Ok(bytes) => bytes,
                    Err(invalid) => return Ok(Err(invalid)),
                };
                let old = items.insert(key, bytes.as_slice()).map_err(|e| self.not_done(e))?;
                if old.is_none() {
                    tally.add(key);
                }
            }
            None => {
                if items.remove(key).map_err(|e| self.not_done(e))?.is_some() {
                    tally.remove(key);
                }
            }
        }
        Ok(Ok(Written::Applied(new)))
    }

    /// A failure before any commit: nothing was applied, and the file is reopened next time.
    pub(super) fn not_done(&self, error: impl Into<::redb::Error>) -> StoreError {
        self.failed.store(true, Ordering::Release);
        failed(error)
    }
}

impl Drop for StoreFile {
    /// Closes the database, and then notes that it was closed whole: not where it was opened by
    /// such a note and has not been read to its end, so that no note stands upon another.
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let closed = guarded(|| drop(database));
        let is_whole = closed.is_ok() && !*self.failed.get_mut() && !self.is_unread();
        let Some(on_disk) = self.on_disk.as_ref().filter(|_| is_whole && self.look().is_ok())
        else {
            return;
        };
        if let Err(error) = closed::note(on_disk.path()) {
            tracing::debug!(%error, "no note of a clean close: the next start reads it all first");
        }
    }
}

/// An error of redb as a store's.
pub(super) fn failed(error: impl Into<::redb::Error>) -> StoreError {
    match error.into() {
        ::redb::Error::Corrupted(what) => StoreError::new(
            StoreErrorKind::Corrupt,
            format!("the store file is damaged ({what}): restore it from a copy"),
        ),
        error => unavailable(error),
    }
}

/// The file at one moment.
pub(super) struct FileSnapshot<'a> {
    file: &'a StoreFile,
    /// `None` before the very first write.
    items: Option<ReadOnlyTable<ItemKey, &'static [u8]>>,
}

impl FileSnapshot<'_> {
    pub(super) fn item(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let Some(items) = &self.items else {
            return Ok(None);
        };
        let key = (key.pk.as_str(), key.sk.as_str());
        let bytes = items.get(key).map_err(|e| self.file.not_done(e))?;
        bytes.map(|bytes| decode(key, bytes.value())).transpose()
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
            page.items.push((sk.to_owned(), decode((pk, sk), bytes.value())?));
        }
        Ok(page)
    }

    /// Expired items in the part of the table that begins at this cursor. Damaged items are
    /// skipped: their readers get the error.
    pub(super) fn expired(&self, now_ms: i64, place: SweepCursor) -> Result<Expired, StoreError> {
        let (mut part, mut next) = (SweepPart::new(now_ms), None);
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
            part.look(decode((pk, sk), bytes).ok().as_ref(), bytes.len(), key);
        }
        Ok(Expired { found: part.found, next })
    }
}

/// Creates a store in an empty file.
fn fill(fresh: std::fs::File) -> Result<(), StoreError> {
    let filled = (|| {
        // As `create_file` does, which redb has deprecated since 4.5.
        let file = FileBackend::new(fresh)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ITEMS)?;
        transaction.open_table(TALLY)?.insert((), (0, 0))?;
        transaction.commit()?;
        Ok::<(), ::redb::Error>(())
    })();
    filled.map_err(|error| {
        StoreError::new(
            StoreErrorKind::Unavailable,
            format!("the store cannot be created: {error}"),
        )
    })
}

pub(super) fn read_tally(
    table: &impl ReadableTable<(), (u64, u64)>,
) -> Result<Option<Tally>, StorageError> {
    let row = table.get(())?.map(|row| row.value());
    Ok(row.map(|(items, sum)| Tally { items, sum }))
}

/// Turns a redb panic, its reaction to some kinds of damage, into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        // Truncated: a reason may quote what is in the file.
        let text: String = text.chars().take(REASON_CHARS).collect();
        StoreError::new(
            StoreErrorKind::Corrupt,
            format!(
                "the store file is damaged ({text}): stop this process, keep the file, and \
                 restore it from a copy (docs/storage.md)"
            ),
        )
    })
}

/// Most characters of a panic's reason that are shown: what was expected, not what was found.
const REASON_CHARS: usize = 80;

/// Adds the file's name and the remedy to a damage error.
fn at_path(path: &Path, error: StoreError) -> StoreError {
    if error.kind != StoreErrorKind::Corrupt {
        return error;
    }
    let message = format!(
        "{} is damaged: {}. It was left as it is. Keep it, put a copy in its place, and see \
         \"A table from a backup\" in docs/storage.md before a gate is opened on the copy",
        path.display(),
        error.message.trim_end_matches('.')
    );
    StoreError::new(StoreErrorKind::Corrupt, message)
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("the store file does not answer: {error}"))
}

pub(super) fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    use StoreErrorKind::{Corrupt, Unavailable};
    // A file that ends within what every store begins with, as a copy that was cut.
    let is_cut = |error: &std::io::Error| error.kind() == std::io::ErrorKind::UnexpectedEof;
    let path = path.display();
    let (kind, message) = match error {
        DatabaseError::DatabaseAlreadyOpen => (
            Unavailable,
            format!(
                "{path} is already open in another process, which may be a `tallygate` command: \
                 several processes need a shared store such as DynamoDB"
            ),
        ),
        DatabaseError::UpgradeRequired(version) => {
            (Corrupt, format!("{path} has file format {version}, which this binary does not read"))
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData && !is_cut(&error) =>
        {
            (Unavailable, format!("{path} cannot be opened: {error}"))
        }
        error => (
            Corrupt,
            format!(
                "{path} cannot be read as a store: {error}. Keep it, put a copy in its place, and \
                 see \"A table from a backup\" in docs/storage.md before a gate is opened on it"
            ),
        ),
    };
    StoreError::new(kind, message)
}

/// Writes bytes that are not an item, as damage or a forger would.
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

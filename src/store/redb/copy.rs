//! Copies of the store: a backup from a snapshot, and a copy that takes the store's place.
//!
//! # Laws
//!
//! 1. A backup appears under its name only when it is complete: it is written beside it, synced,
//!    opened, and counted, and then linked. A file that is there is not replaced.
//! 2. It holds one instant, and holds up no call meanwhile: it is read from a snapshot.
//! 3. Where an item is damaged or missing, in the store or in the copy, nothing is made.
//! 4. A copy is read, and made fit for use, beside the store before it takes its place. The store
//!    that was there stays beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::redb::backends::FileBackend;
use ::redb::{Builder, DatabaseError, ReadOnlyTable, ReadableTable, Table};

use super::checked::{Tally, checksum};
use super::file::{self, CACHE_BYTES, ITEMS, ItemKey, StoreFile, TALLY};
use super::{Redb, place};
use crate::store::{Store, StoreCopy, StoreError, StoreErrorKind};

/// Everything in a file at one moment.
pub(super) struct Snapshot {
    pub(super) items: ReadOnlyTable<ItemKey, &'static [u8]>,
    pub(super) tally: Tally,
}

impl Snapshot {
    /// Passes every item on. Fails if one is damaged or missing.
    fn each(
        &self,
        mut pass: impl FnMut((&str, &str), &[u8]) -> Result<(), StoreError>,
    ) -> Result<StoreCopy, StoreError> {
        let (mut found, mut copy) = (Tally::default(), StoreCopy::default());
        for entry in self.items.iter().map_err(file::failed)? {
            let (key, bytes) = entry.map_err(file::failed)?;
            let (key, bytes) = (key.value(), bytes.value());
            let sum = checksum(key, bytes).ok_or_else(|| damaged("an item is damaged"))?;
            // An item in the iteration may still not be found by its key.
            if self.items.get(key).map_err(file::failed)?.is_some() {
                found.add(key);
            }
            copy.bytes = copy.bytes.saturating_add(bytes.len() as u64);
            copy.checksum = copy.checksum.wrapping_add(sum);
            pass(key, bytes)?;
        }
        if found != self.tally {
            let what = format!("{} of {} items were found", found.items, self.tally.items);
            return Err(damaged(&what));
        }
        copy.items = found.items;
        Ok(copy)
    }
}

/// Writes a backup of the file, as it is now. Blocks.
pub(super) fn back_up(from: &StoreFile, to: &Path) -> Result<StoreCopy, StoreError> {
    let whole = from.whole()?;
    let made = place::make_new(to, |fresh, beside| {
        let read = guarded(|| write(&whole, fresh))?;
        let written = check(beside)?;
        match read == written {
            true => Ok(written),
            false => Err(damaged("the copy differs from the store: check the disk")),
        }
    })?;
    let made = made.ok_or_else(|| is_there(to))?;
    place::sync_directory(to)?;
    Ok(made)
}

/// Writes all of it into an empty file, in one transaction: cut short, the file has no table.
pub(super) fn write(whole: &Snapshot, fresh: File) -> Result<StoreCopy, StoreError> {
    let backend = FileBackend::new(fresh).map_err(file::failed)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    let transaction = database.map_err(file::failed)?.begin_write().map_err(file::failed)?;
    let copy = {
        let mut items: Table<'_, ItemKey, &'static [u8]> =
            transaction.open_table(ITEMS).map_err(file::failed)?;
        whole.each(|key, bytes| items.insert(key, bytes).map(drop).map_err(file::failed))?
    };
    let Tally { items, sum } = whole.tally;
    let mut row = transaction.open_table(TALLY).map_err(file::failed)?;
    row.insert((), (items, sum)).map_err(file::failed)?;
    drop(row);
    transaction.commit().map_err(file::failed)?;
    Ok(copy)
}

/// Reads all of a file.
pub(super) fn count(file: &StoreFile) -> Result<StoreCopy, StoreError> {
    let whole = file.whole()?;
    guarded(|| whole.each(|_, _| Ok(())))
}

/// Opens a copy and reads all of it.
fn check(path: &Path) -> Result<StoreCopy, StoreError> {
    let counted = count(&opened(path)?)?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| cannot(path, &error))?;
    Ok(counted)
}

/// Opens a file that is not the store's, so that it has no marker.
fn opened(path: &Path) -> Result<StoreFile, StoreError> {
    let owned = path.to_owned();
    let open = move || Builder::new().set_cache_size(CACHE_BYTES).open(&owned);
    let opened = file::guarded(|| StoreFile::with(Box::new(open)))?;
    opened.map_err(|error| file::open_error(path, error))
}

/// A copy that is to take the store's place. Where it does not, it leaves nothing.
#[doc(hidden)]
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    beside: PathBuf,
    store: Redb,
    copy: StoreCopy,
}

impl Redb {
    /// Reads a copy, and puts what it holds beside the store. Blocks. For the operator's command.
    ///
    /// # Errors
    ///
    /// The copy cannot be read, or something in it is damaged or missing.
    #[doc(hidden)]
    pub fn replacement(copy: &Path, store: &Path) -> Result<Replacement, StoreError> {
        fs::metadata(copy).map_err(|error| cannot(copy, &error))?;
        let (beside, mut to) = place::beside(store)?;
        let read = (|| {
            let mut from = File::open(copy).map_err(|error| cannot(copy, &error))?;
            std::io::copy(&mut from, &mut to).map_err(|error| cannot(&beside, &error))?;
            to.sync_all().map_err(|error| cannot(&beside, &error))?;
            let counted = check(&beside).map_err(|error| of_copy(copy, error))?;
            Ok((counted, Self::start(opened(&beside)?)?))
        })();
        match read {
            Ok((counted, own)) => {
                Ok(Replacement { path: store.to_owned(), beside, store: own, copy: counted })
            }
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(error)
            }
        }
    }
}

impl Replacement {
    /// What the copy held when it was read.
    pub fn copy(&self) -> StoreCopy {
        self.copy
    }

    /// The store beside the other one, to be made fit for use.
    pub fn store(&self) -> Redb {
        self.store.clone()
    }

    /// Takes the store's place. `set_aside`: one that is there is kept beside it, under the name
    /// that comes back.
    ///
    /// # Errors
    ///
    /// A store is there, or is open in another process; or the disk fails.
    pub async fn put(self, set_aside: bool) -> Result<Option<PathBuf>, StoreError> {
        self.store.close().await?;
        let is_there_now = self.path.try_exists().map_err(|error| cannot(&self.path, &error))?;
        let aside = match (is_there_now, set_aside) {
            (false, _) => None,
            (true, false) => return Err(is_there(&self.path)),
            (true, true) => Some(self.set_aside()?),
        };
        if let Err(error) = place::link(&self.beside, &self.path) {
            if let Some(aside) = &aside {
                let _ = place::link(aside, &self.path);
            }
            return Err(error);
        }
        // It finds the file, and makes what is missing beside it.
        place::prepare(&self.path, |_| Err(is_there(&self.path)))?;
        Ok(aside)
    }

    /// Moves the store that is there out of the way, unless a process has it open.
    fn set_aside(&self) -> Result<PathBuf, StoreError> {
        // Held until it is moved, so that no process opens it in between.
        let held = Builder::new().open_read_only(&self.path);
        if let Err(error @ DatabaseError::DatabaseAlreadyOpen) = held {
            return Err(file::open_error(&self.path, error));
        }
        let aside = place::drawn(&self.path, "before")?;
        fs::rename(&self.path, &aside).map_err(|error| cannot(&self.path, &error))?;
        Ok(aside)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Put in place, it has two names until here.
        let _ = fs::remove_file(&self.beside);
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    file::guarded(work)?
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("{what}, so that nothing was copied"))
}

fn of_copy(copy: &Path, error: StoreError) -> StoreError {
    let message = format!("{}: {}", copy.display(), error.message);
    StoreError::new(error.kind, message)
}

fn is_there(path: &Path) -> StoreError {
    let message = format!("{} is there, and is left as it is", path.display());
    StoreError::new(StoreErrorKind::Invalid, message)
}

fn cannot(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    let message = format!("{}: {error}", path.display());
    StoreError::new(StoreErrorKind::Unavailable, message)
}

//! The reading of a whole file: that no item is missing, and which are damaged.
//!
//! At opening, unless the file was closed whole: then beside the requests, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};

use ::redb::{ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use ::redb::{TableError, TableHandle};
use tokio::sync::watch;

use super::LOOK_EVERY;
use super::checked::{Tally, is_whole};
use super::file::{ITEMS, StoreFile, TALLY, read_tally};
use crate::store::{StoreError, StoreErrorKind};

/// Items between two looks for the end of the store: some milliseconds on a slow disk.
const ITEMS_AT_ONCE: u64 = 512;

/// How much of the file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Its tables, and how many items they say they have.
    Sizes,
    /// All of it.
    All,
}

impl StoreFile {
    /// Checks a file that has a tally. Missing items are an error; damaged ones are counted in the
    /// log, and are an error for their readers.
    pub(super) fn verify(&self, depth: Depth) -> Result<(), StoreError> {
        self.verify_while(depth, &mut || true).map(|_| ())
    }

    /// The same, as long as it `may_go_on`. Returns whether it came to its end.
    fn verify_while(
        &self,
        depth: Depth,
        may_go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StoreError> {
        self.session(|database| {
            let transaction = database.begin_read().map_err(|e| self.not_done(e))?;
            self.check_tables(&transaction)?;
            let noted = match transaction.open_table(TALLY) {
                Ok(tally) => read_tally(&tally).map_err(|e| self.not_done(e))?,
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(self.not_done(error)),
            };
            let (mut found, mut damaged) = (Tally::default(), 0u64);
            match transaction.open_table(ITEMS) {
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(self.not_done(error)),
                Ok(items) if depth == Depth::Sizes => {
                    found.items = items.len().map_err(|e| self.not_done(e))?;
                    found.sum = noted.unwrap_or_default().sum;
                }
                Ok(items) => {
                    for (n, entry) in items.iter().map_err(|e| self.not_done(e))?.enumerate() {
                        if (n as u64).is_multiple_of(ITEMS_AT_ONCE) && !may_go_on() {
                            return Ok(false);
                        }
                        let (key, bytes) = entry.map_err(|e| self.not_done(e))?;
                        // An item in the iteration may still not be found by its key: the lookup
                        // takes other pages.
                        let is_found = items.get(key.value()).map_err(|e| self.not_done(e))?;
                        if is_found.is_some() {
                            found.add(key.value());
                        }
                        damaged += u64::from(!is_whole(key.value(), bytes.value()));
                    }
                }
            }
            check_tally(noted, found)?;
            if damaged > 0 {
                tracing::error!(
                    items = damaged,
                    "the store file is damaged: these items cannot be read. Restore the file from \
                     a copy, and check the disk"
                );
            }
            Ok(true)
        })
    }

    fn check_tables(&self, transaction: &ReadTransaction) -> Result<(), StoreError> {
        for table in transaction.list_tables().map_err(|e| self.not_done(e))? {
            if ![ITEMS.name(), TALLY.name()].contains(&table.name()) {
                let what = format!("it has a table `{}` of another version", table.name());
                return Err(StoreError::new(StoreErrorKind::Corrupt, what));
            }
        }
        Ok(())
    }

    /// Reads all of the file while it serves, until the store is closed. From the moment in which
    /// an item is found missing, nothing is answered: what is left would grant its units once more.
    pub(super) fn read_beside(&self, ends: &Receiver<()>) {
        let mut may_go_on = || ends.try_recv() != Err(TryRecvError::Disconnected);
        loop {
            let error = match self.verify_while(Depth::All, &mut may_go_on) {
                Ok(true) => return self.is_read(),
                Ok(false) => return,
                Err(error) => error,
            };
            if error.kind == StoreErrorKind::Corrupt {
                let error = self.named(error);
                tracing::error!("{error}");
                crate::telemetry::degraded("store", true);
                let _ = self.damage.set(error);
                return;
            }
            // The disk fails, which its calls report: it is read once it is there again.
            if let Err(RecvTimeoutError::Disconnected) = ends.recv_timeout(LOOK_EVERY) {
                return;
            }
        }
    }
}

fn check_tally(noted: Option<Tally>, found: Tally) -> Result<(), StoreError> {
    let items = found.items;
    let what = match noted {
        Some(noted) if noted == found => return Ok(()),
        Some(noted) if noted.items == items => {
            format!("its {items} items are not all those that it had")
        }
        Some(noted) => format!("{items} of {} items were found", noted.items),
        None => format!("{items} of an unknown number of items were found"),
    };
    Err(StoreError::new(StoreErrorKind::Corrupt, what))
}

/// The thread that reads a file which was served from unread.
pub(super) fn beside(file: Arc<StoreFile>, ends: &Receiver<()>, alive: Arc<watch::Sender<()>>) {
    file.read_beside(ends);
    drop(file);
    drop(alive);
}

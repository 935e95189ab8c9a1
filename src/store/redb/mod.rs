//! The embedded store: one redb file, no server.
//!
//! Two threads serve the file, a third checks that it is still there, and a fourth reads all of it
//! where it was opened unread. The writer takes everything that is queued, applies it in order
//! inside one transaction, syncs once and only then answers: a group commit, so that a hundred
//! waiting writes cost one sync. The reader answers reads and queries from snapshots. No thread of
//! the executor ever waits for the disk.
//!
//! An acknowledged write survives the death of the machine, provided the disk keeps what it reports
//! as synced. A file belongs to one process: a second one is refused when it opens it.
//! `docs/storage.md` says what to do then, and what else a file does not do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::apply::{check_key, check_query, check_write};
use super::expiry::{SweepCursor, removal};
use super::{
    Item, Key, Page, Promise, Query, Store, StoreCopy, StoreError, StoreErrorKind, StoreFuture,
    Write, Written,
};
#[doc(hidden)]
pub use copy::Replacement;
use file::StoreFile;

mod checked;
mod closed;
mod copy;
#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod damage_tests;
mod file;
#[cfg(test)]
mod gate_power_cut;
mod place;
#[cfg(test)]
mod power_cut;
mod verify;
mod worker;

/// Interval of the check for the file: its loss is known within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Most writes waiting for the writer. At some hundred commits a second with a full batch each, the
/// last of them waits well under a second; beyond it callers get the throttled error.
const QUEUE_MAX: usize = 4_096;

/// Writes in one transaction: enough that the sync no longer dominates the cost of a write, few
/// enough that a batch of the largest items stays within 200 MB.
const BATCH_MAX: usize = 512;

/// Most reads and queries waiting for the reader. They cost no sync.
const READ_QUEUE_MAX: usize = 1_024;

/// A store in one file.
///
/// Clones are the same handle: closing one closes all. When the last is dropped, accepted calls are
/// still finished, but in the background; a program that reopens the file, or that exits, awaits
/// [`Store::close`] first.
#[derive(Clone, Debug)]
pub struct Redb(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// `None` once closed. The threads end when the queues are dropped and empty.
    lanes: Mutex<Option<Queues>>,
    /// Closed when both threads have released the file.
    open: watch::Receiver<()>,
    /// Resume point of the expiry sweep.
    unswept: Mutex<SweepCursor>,
}

/// The queues of the two threads.
#[derive(Clone, Debug)]
struct Queues {
    writes: mpsc::Sender<WriteJob>,
    reads: mpsc::Sender<ReadJob>,
    /// Ends the thread that checks for the file when dropped.
    _looks: std::sync::mpsc::Sender<()>,
    /// The same for the one that reads all of it.
    _reading: std::sync::mpsc::Sender<()>,
    /// For copies, as long as the store is open: a close waits for those that are being made.
    file: Weak<StoreFile>,
    alive: Weak<watch::Sender<()>>,
}

type CallReply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write and the channel for its answer.
struct WriteJob(Write, CallReply<Written>);

/// A job that only reads, and the channel for its answer.
enum ReadJob {
    Read(Key, CallReply<Option<Item>>),
    Query(Query, CallReply<Page>),
    /// Items expired by this instant, in the part of the table that begins here.
    Expired(i64, SweepCursor, CallReply<Expired>),
}

/// Result of one part of a sweep: keys with their passed `ttl`, and where the next part begins.
struct Expired {
    found: Vec<(Key, i64)>,
    next: SweepCursor,
}

impl Redb {
    /// Opens the file, and creates it where the place is plainly new: neither the file nor its
    /// marker (`PATH.made`) exists. Blocks where the file was not closed whole: all of it is read
    /// then, a few times, at about a second for a gigabyte each. One that was is read beside the
    /// calls; should an item be missing, they are refused from then on.
    ///
    /// # Errors
    ///
    /// Unavailable if the file is already open, here or in another process, or cannot be created or
    /// read; corrupt if it is missing, empty or damaged, not a redb file, or in a format unknown to
    /// this binary. A refused file is left where it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::start(StoreFile::at(path.as_ref())?)
    }

    /// Reads all of it, as a backup does. Blocks. For the operator's command.
    ///
    /// # Errors
    ///
    /// An item is damaged or missing, or the store is closed.
    #[doc(hidden)]
    pub fn counted(&self) -> Result<StoreCopy, StoreError> {
        copy::count(&self.0.file()?.0)
    }

    /// Whether [`open`](Self::open) would make a new file.
    pub(crate) fn is_new_at(path: &Path) -> bool {
        place::is_new(path)
    }

    fn start(file: StoreFile) -> Result<Self, StoreError> {
        Self::serve(Arc::new(file))
    }

    fn serve(file: Arc<StoreFile>) -> Result<Self, StoreError> {
        let (writes, write_queue) = mpsc::channel(QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(READ_QUEUE_MAX);
        let (alive, open) = watch::channel(());
        let alive = Arc::new(alive);
        let (at, still) = (file.clone(), alive.clone());
        let for_copies = (Arc::downgrade(&file), Arc::downgrade(&alive));
        spawn("tallygate-write", move || worker::write(at, write_queue, still))?;
        let (looked_for, still) = (file.clone(), alive.clone());
        let (looks, looking) = std::sync::mpsc::channel();
        spawn("tallygate-look", move || worker::look(looked_for, &looking, still))?;
        let (reading, ends) = std::sync::mpsc::channel();
        if file.is_unread() {
            let (unread, still) = (file.clone(), alive.clone());
            spawn("tallygate-verify", move || verify::beside(unread, &ends, still))?;
        }
        spawn("tallygate-read", move || worker::read(file, read_queue, alive))?;
        let (file, alive) = for_copies;
        let lanes = Queues { writes, reads, _looks: looks, _reading: reading, file, alive };
        let lanes = Mutex::new(Some(lanes));
        let unswept = Mutex::default();
        Ok(Self(Arc::new(Handle { lanes, open, unswept })))
    }
}

impl Store for Redb {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        let handle = self.0.clone();
        Box::pin(async move {
            check_key(&key)?;
            let (answer, answered) = oneshot::channel();
            handle.queue(|lanes| &lanes.reads, ReadJob::Read(key, answer))?;
            answered.await.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unavailable)))
        })
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        let handle = self.0.clone();
        Box::pin(async move {
            check_write(&write)?;
            handle.submit(write)?.await.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unknown)))
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        let handle = self.0.clone();
        Box::pin(async move {
            check_query(&query)?;
            let (answer, answered) = oneshot::channel();
            handle.queue(|lanes| &lanes.reads, ReadJob::Query(query, answer))?;
            answered.await.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unavailable)))
        })
    }

    /// The reader finds expired items, and the writer removes them among other writes: a sweep has
    /// no transaction of its own for others to wait for.
    fn expire(&self, now_ms: i64) -> StoreFuture<usize> {
        let handle = self.0.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let place = handle.unswept().clone();
            let job = ReadJob::Expired(now_ms, place, answer);
            handle.queue(|lanes| &lanes.reads, job)?;
            let Expired { found, next } =
                answered.await.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unavailable)))?;
            let mut removals = Vec::with_capacity(found.len());
            for (key, ttl) in found {
                removals.push(handle.submit(removal(key, ttl))?);
            }
            let mut removed = 0;
            for answered in removals {
                let written =
                    answered.await.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unknown)))?;
                removed += usize::from(matches!(written, Written::Applied(_)));
            }
            // Only now: items that could not be removed are examined again.
            *handle.unswept() = next;
            Ok(removed)
        })
    }

    /// On a thread of its own, from a snapshot: other calls go on.
    fn back_up(&self, to: PathBuf) -> StoreFuture<StoreCopy> {
        let handle = self.0.clone();
        Box::pin(async move {
            let (file, alive) = handle.file()?;
            let copy = move || {
                let copied = copy::back_up(&file, &to);
                drop(file);
                drop(alive);
                copied
            };
            let copied = tokio::task::spawn_blocking(copy).await;
            copied.unwrap_or_else(|_| Err(ended(StoreErrorKind::Unavailable)))
        })
    }

    fn promise(&self) -> Promise {
        Promise { kind: "redb", survives: "machine", shared: false }
    }

    fn close(&self) -> StoreFuture<()> {
        let handle = self.0.clone();
        Box::pin(async move {
            drop(handle.lanes.lock().unwrap_or_else(PoisonError::into_inner).take());
            let mut open = handle.open.clone();
            while open.changed().await.is_ok() {}
            Ok(())
        })
    }
}

impl Handle {
    /// Queues a write for the writer.
    fn submit(
        &self,
        write: Write,
    ) -> Result<oneshot::Receiver<Result<Written, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue(|lanes| &lanes.writes, WriteJob(write, answer))?;
        Ok(answered)
    }

    /// The file, and what says that it is open.
    fn file(&self) -> Result<(Arc<StoreFile>, Arc<watch::Sender<()>>), StoreError> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let file = lanes.as_ref().and_then(|it| Some((it.file.upgrade()?, it.alive.upgrade()?)));
        file.ok_or_else(|| StoreError::new(StoreErrorKind::Unavailable, "the store is closed"))
    }

    fn unswept(&self) -> MutexGuard<'_, SweepCursor> {
        self.unswept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job in its queue, or returns why not. Never waits.
    fn queue<T>(
        &self,
        lane: impl FnOnce(&Queues) -> &mpsc::Sender<T>,
        job: T,
    ) -> Result<(), StoreError> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lanes) = lanes.as_ref() else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is closed"));
        };
        lane(lanes).try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::new(
                StoreErrorKind::Throttled,
                "the disk does not keep up: too many calls wait for it",
            ),
            TrySendError::Closed(_) => ended(StoreErrorKind::Unavailable),
        })
    }
}

/// The error of a call dropped without an answer, which takes a redb panic while it was served. A
/// write may have been applied.
fn ended(kind: StoreErrorKind) -> StoreError {
    StoreError::new(
        kind,
        "the store file could not be read: if this goes on it is damaged, restore it from a copy",
    )
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(|error| {
        StoreError::new(StoreErrorKind::Unavailable, format!("no thread for the store: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Value};

    fn set(sk: &str, n: i64) -> Write {
        let key = Key { pk: "p".into(), sk: sk.into() };
        Write { key, when: vec![], change: vec![Change::Set("n".into(), Value::Int(n))] }
    }

    #[test]
    fn a_file_in_use_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let _first = Redb::open(&path).unwrap();
        let error = Redb::open(&path).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.message.contains("already open"), "{error}");
        assert!(error.message.contains("shared store"), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plans.toml");
        let text = "default-plan = \"free\"\n".repeat(1_000);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Redb::open(&path).unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[tokio::test]
    async fn a_forged_item_is_corrupt_and_its_neighbour_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Redb::open(&path).unwrap();
        store.write(set("good", 1)).await.unwrap();
        store.write(set("bad", 1)).await.unwrap();
        store.close().await.unwrap();
        file::forge(&path, ("p", "bad"), &[0xff; 7]);

        let store = Redb::open(&path).unwrap();
        let read = |sk: &str| store.read(Key { pk: "p".into(), sk: sk.into() });
        assert_eq!(read("good").await.unwrap().unwrap().int("n"), Some(1));
        assert_eq!(read("bad").await.unwrap_err().kind, StoreErrorKind::Corrupt);
        let all = Query { pk: "p".into(), from: String::new(), until: None, limit: 9 };
        assert_eq!(store.query(all).await.unwrap_err().kind, StoreErrorKind::Corrupt);
        let error = store.write(set("bad", 2)).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(!error.message.contains("bad"), "an error names no key: {error}");
        store.write(set("good", 3)).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_close_finishes_what_was_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Redb::open(&path).unwrap();
        let mut waiting = Vec::new();
        let mut throttled = 0;
        // One poll puts a write in the queue; nothing here waits for an answer, so the queue fills
        // faster than any disk empties it.
        for n in 0..4 * QUEUE_MAX {
            let mut write = store.write(set(&format!("{n:06}"), 1));
            match futures_poll(&mut write) {
                Some(Err(error)) => {
                    assert_eq!(error.kind, StoreErrorKind::Throttled);
                    throttled += 1;
                }
                Some(Ok(_)) => {}
                None => waiting.push(write),
            }
        }
        assert!(throttled > 0, "the queue is bounded");
        store.close().await.unwrap();
        for write in waiting {
            assert!(matches!(write.await, Ok(Written::Applied(Some(_)))));
        }
        Redb::open(&path).expect("a closed store lets go of its file");
    }

    fn futures_poll<T>(future: &mut StoreFuture<T>) -> Option<Result<T, StoreError>> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => Some(result),
            std::task::Poll::Pending => None,
        }
    }
}

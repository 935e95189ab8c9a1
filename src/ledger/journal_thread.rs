//! The journal's own thread: no thread of the executor ever waits for the journal's disk.
//!
//! The flush task leaves its work in a slot, and the thread takes all of it at once. Work that is
//! left while the disk does not answer is merged in the slot: rows are totals, so it holds at most
//! one for each tenant and meter. A disk that stalls costs the loss bound (that of `fast` until it
//! answers) and nothing else.
//!
//! Owner: the flush task. The thread ends once its bell is dropped and the slot is empty, and then
//! drops the journal, which unlocks its place. [`JournalKeeper::end`] waits for that, but not long,
//! and the end of the process does not wait for it.
//!
//! On a thread with a seed the work is done at once by the caller, so that a seed gives one run.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::journal::Journal;
use super::record::{ByWriter, merge};
use crate::repeated::repeated;

/// After this long without an answer the journal counts as one that cannot be written. A disk that
/// works answers in a hundredth of it.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// How long the end of the flush waits for the thread: what the journal still holds is carried over
/// by the next start, and counts once.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Work for the journal, in the order of its fields.
#[derive(Debug, Default)]
struct Work {
    /// The store has all that came before this cut.
    stored: Option<u64>,
    /// Everything that may not be in the store: it replaces what the journal holds.
    all: Option<ByWriter>,
    /// Rows before the cut.
    before: Option<ByWriter>,
    cut: Option<u64>,
    /// Rows after it.
    after: Option<ByWriter>,
    at_ms: i64,
}

impl Work {
    fn append(&mut self, rows: ByWriter) {
        let side = if self.cut.is_some() { &mut self.after } else { &mut self.before };
        merge(side.get_or_insert_default(), rows);
    }

    fn compact(&mut self, all: ByWriter) {
        self.before = None; // part of it
        self.all = Some(all);
    }

    fn cut(&mut self, cut: u64) {
        if let Some(rows) = self.after.take() {
            merge(self.before.get_or_insert_default(), rows);
        }
        self.cut = Some(cut);
    }

    fn stored(&mut self, cut: u64) {
        if self.cut == Some(cut) {
            (self.all, self.before) = (None, None);
        }
        self.stored = Some(cut);
    }
}

/// State shared by the flush task and the thread.
#[derive(Debug, Default)]
struct JournalSlot {
    work: Work,
    /// Number of the newest work left here, and of the newest that is done.
    left: u64,
    done: u64,
    /// The journal's state: whether to compact it, and whether it lacks rows.
    is_large: bool,
    lacks_rows: bool,
}

/// The journal in the hands of the one that writes it.
#[derive(Debug)]
struct Writing {
    journal: Journal,
    slot: Arc<Mutex<JournalSlot>>,
    /// The newest cut, and the segment that began with it.
    cut: Option<(u64, u64)>,
}

impl Writing {
    /// Does what is in the slot.
    fn work(&mut self) {
        let (work, number) = {
            let mut slot = locked(&self.slot);
            (std::mem::take(&mut slot.work), slot.left)
        };
        let is_known = self.journal.lacks_rows();
        if let Err(error) = self.write(work)
            && !is_known
        {
            // Still in memory, and written with the next rows: the loss bound is that of `fast`
            // until the journal accepts them.
            tracing::error!(%error, "usage journal cannot be written");
        }
        let mut slot = locked(&self.slot);
        slot.done = number;
        (slot.is_large, slot.lacks_rows) = (self.journal.is_large(), self.journal.lacks_rows());
    }

    fn write(&mut self, work: Work) -> io::Result<()> {
        let journal = &mut self.journal;
        let mut written = Ok(());
        self.cut.iter().for_each(|cut| forget(journal, *cut, work.stored));
        if let Some(all) = work.all {
            written = journal.compact(&all, work.at_ms);
        }
        if let Some(rows) = work.before {
            written = written.and(journal.append(&rows, work.at_ms));
        }
        if let Some(cut) = work.cut {
            let begun = (cut, journal.cut());
            self.cut = Some(begun);
            forget(journal, begun, work.stored);
        }
        if let Some(rows) = work.after {
            written = written.and(journal.append(&rows, work.at_ms));
        }
        written
    }
}

/// Forgets what came before this cut if that is in the store. What came before an older one goes
/// with the next cut that is stored.
fn forget(journal: &mut Journal, (cut, segment): (u64, u64), stored: Option<u64>) {
    if stored == Some(cut) {
        journal.forget(segment);
    }
}

fn locked(slot: &Mutex<JournalSlot>) -> MutexGuard<'_, JournalSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who writes: the caller itself, or the thread.
#[derive(Debug)]
enum JournalWriter {
    Caller(Box<Writing>),
    Thread {
        /// Holds one stroke: the thread takes whatever is in the slot by then.
        bell: SyncSender<()>,
        /// Closed once the thread has ended.
        alive: watch::Receiver<()>,
    },
}

/// The flush task's side.
#[derive(Debug)]
pub(crate) struct JournalKeeper {
    slot: Arc<Mutex<JournalSlot>>,
    writer: JournalWriter,
    cuts: u64,
    /// Number of the oldest work that may not be done, and when it was left.
    waits: Option<(u64, Instant)>,
}

impl JournalKeeper {
    /// Starts the thread; fails if the system has none left.
    pub(crate) fn start(journal: Journal) -> io::Result<Self> {
        if crate::random::is_seeded() {
            return Ok(Self::by_caller(journal));
        }
        let slot = Arc::<Mutex<JournalSlot>>::default();
        let mut writing = Writing { journal, slot: slot.clone(), cut: None };
        let (bell, strokes) = sync_channel(1);
        let (end, alive) = watch::channel(());
        let run = move || {
            write(&mut writing, &strokes);
            drop(writing); // before `end`: its place can be taken again
            drop(end);
        };
        std::thread::Builder::new().name("tallygate-journal".into()).spawn(run)?;
        Ok(Self::new(slot, JournalWriter::Thread { bell, alive }))
    }

    /// One without a thread: work is done when it is left.
    pub(super) fn by_caller(journal: Journal) -> Self {
        let slot = Arc::<Mutex<JournalSlot>>::default();
        let writing = Writing { journal, slot: slot.clone(), cut: None };
        Self::new(slot, JournalWriter::Caller(Box::new(writing)))
    }

    fn new(slot: Arc<Mutex<JournalSlot>>, writer: JournalWriter) -> Self {
        Self { slot, writer, cuts: 0, waits: None }
    }

    /// Appends rows, and those that could not be appended earlier.
    pub(crate) fn append(&mut self, rows: ByWriter, at_ms: i64) {
        if !rows.is_empty() || locked(&self.slot).lacks_rows {
            self.leave(at_ms, |work| work.append(rows));
        }
        self.tell_if_late(at_ms);
    }

    /// Whether it is to be [compacted](Self::compact). Not before a cut that is left has been made:
    /// what it forgets would be rows of either side.
    pub(crate) fn is_large(&self) -> bool {
        let slot = locked(&self.slot);
        slot.is_large && slot.work.cut.is_none()
    }

    /// Replaces what the journal holds by everything that may not be in the store.
    pub(crate) fn compact(&mut self, all: ByWriter, at_ms: i64) {
        locked(&self.slot).is_large = false;
        self.leave(at_ms, |work| work.compact(all));
    }

    /// Marks a place: returns the number to name once all that came before is
    /// [`stored`](Self::stored).
    pub(crate) fn cut(&mut self, at_ms: i64) -> u64 {
        self.cuts += 1;
        let cut = self.cuts;
        self.leave(at_ms, |work| work.cut(cut));
        cut
    }

    /// Removes what came before the newest cut: it is in the store.
    pub(crate) fn stored(&mut self, cut: u64, at_ms: i64) {
        self.leave(at_ms, |work| work.stored(cut));
    }

    /// Ends the thread once it has done what was left, and waits for that: until the deadline, but
    /// no shorter than a disk that works takes, and no longer than [`END_WITHIN`].
    pub(crate) async fn end(self, deadline: Instant) {
        let JournalWriter::Thread { bell, mut alive } = self.writer else { return };
        drop(bell);
        let now = Instant::now();
        let until = deadline.min(now + END_WITHIN).max(now + ANSWER_WITHIN);
        if tokio::time::timeout_at(until, alive.changed()).await.is_err() {
            tracing::warn!(
                "the usage journal's disk does not answer: the journal stays, and the next start \
                 carries it over"
            );
        }
    }

    fn leave(&mut self, at_ms: i64, add: impl FnOnce(&mut Work)) {
        let number = {
            let mut slot = locked(&self.slot);
            add(&mut slot.work);
            slot.work.at_ms = at_ms;
            slot.left += 1;
            slot.left
        };
        match &mut self.writer {
            JournalWriter::Caller(writing) => writing.work(),
            JournalWriter::Thread { bell, .. } => {
                let _ = bell.try_send(()); // one stroke that waits is enough
                self.waits.get_or_insert_with(|| (number, Instant::now()));
            }
        }
    }

    fn tell_if_late(&mut self, at_ms: i64) {
        let done = locked(&self.slot).done;
        // Newer work has waited no longer than since now.
        self.waits.take_if(|(number, _)| *number <= done);
        if self.waits.is_some_and(|(_, since)| since.elapsed() >= ANSWER_WITHIN) {
            const TEXT: &str = "usage journal cannot be written: its disk does not answer";
            repeated!(error, at_ms, TEXT);
        }
    }
}

/// Works at each stroke, and once more at the end.
fn write(writing: &mut Writing, strokes: &Receiver<()>) {
    while strokes.recv().is_ok() {
        writing.work();
    }
    writing.work();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Surrogate, WriterId};
    use crate::ledger::record::{PoolRow, Rows};
    use crate::quota::pool::PoolId;
    use crate::store::store_id::StoreId;

    const ME: WriterId = WriterId::test(1);

    fn row(tenant: u128, total: u64) -> ByWriter {
        let pool = PoolId {
            tenant: Surrogate::test(tenant),
            limit: "requests/month".into(),
            scope: 0,
            start_ms: 0,
        };
        let row = PoolRow { total, ceiling: 0 };
        [(ME, Rows { pools: [(pool, row)].into(), ..Rows::default() })].into()
    }

    /// A keeper whose thread works only when the test says so, as on a disk that stalls.
    fn stalling(journal: Journal) -> (JournalKeeper, Writing, (Receiver<()>, watch::Sender<()>)) {
        let slot = Arc::<Mutex<JournalSlot>>::default();
        let (bell, strokes) = sync_channel(1);
        let (end, alive) = watch::channel(());
        let keeper = JournalKeeper::new(slot.clone(), JournalWriter::Thread { bell, alive });
        (keeper, Writing { journal, slot, cut: None }, (strokes, end))
    }

    #[tokio::test]
    async fn however_often_the_disk_stalls_the_journal_has_what_the_store_lacks() {
        for seed in 1..300u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("j");
            let journal = Journal::open(&path, StoreId::test(1), ME).unwrap();
            let (mut keeper, mut writing, _thread) = stalling(journal);
            let (mut pending, mut batch, mut cut) = (ByWriter::new(), ByWriter::new(), None);
            for total in 1..60 {
                match random(8) {
                    0..3 => {
                        let rows = row(u128::from(random(4)), total);
                        keeper.append(rows.clone(), 0);
                        merge(&mut pending, rows);
                    }
                    3 if cut.is_none() => {
                        batch = std::mem::take(&mut pending);
                        cut = Some(keeper.cut(0));
                    }
                    // It is written, or comes to nothing: another process has sealed the log.
                    3 if random(4) > 0 => {
                        cut.take().into_iter().for_each(|cut| keeper.stored(cut, 0));
                        batch.clear();
                    }
                    3 => {
                        cut = None;
                        merge(&mut pending, std::mem::take(&mut batch));
                    }
                    4 => {
                        locked(&keeper.slot).is_large = true;
                        if keeper.is_large() {
                            let mut all = batch.clone();
                            merge(&mut all, pending.clone());
                            keeper.compact(all, 0);
                        }
                    }
                    _ => writing.work(),
                }
            }
            writing.work();
            let found: ByWriter = Journal::recover(&path).unwrap().into_iter().collect();
            let mut all = found.clone();
            merge(&mut all, batch);
            merge(&mut all, pending);
            let (found, all) = (found.get(&ME), all.get(&ME));
            assert_eq!(found.map(|it| &it.pools), all.map(|it| &it.pools), "seed {seed}");

            let cut = keeper.cut(0);
            keeper.stored(cut, 0);
            writing.work();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_is_named_and_holds_up_the_end_for_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("j"), StoreId::test(1), ME).unwrap();
        let (mut keeper, mut writing, _thread) = stalling(journal);
        let mut said = async |total| {
            tokio::time::advance(ANSWER_WITHIN).await;
            crate::testing::heard::lines(|| keeper.append(row(1, total), total as i64 * 1_000))
        };
        assert_eq!(said(1).await, [""; 0]);
        assert!(said(2).await[0].contains("its disk does not answer"));
        writing.work();
        assert_eq!(said(3).await, [""; 0], "it answers again");
        let begun = Instant::now();
        keeper.end(begun + Duration::from_secs(10)).await;
        assert_eq!(begun.elapsed(), END_WITHIN);
    }
}

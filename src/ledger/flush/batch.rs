//! One flush's batch: collected, packed into records, and complete once all of them are in the
//! store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::Mode;
use super::super::collect::rows_of;
use super::super::record::{ByWriter, Rows, merge};
use super::{ALIVE, FlushPart, Task};
use crate::store::StoreError;

impl Task {
    /// Collects what changed since the last time: totals to `pending`, and to the journal.
    pub(super) fn collect(&mut self) {
        let collection = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let (rows, used) = rows_of(&self.hub.unrecorded.take(), &mut self.units);
        for lease in used {
            // Held units that could have paid a debt were used instead: it is charged now.
            if lease.is_in_debt() {
                self.hub.renewals.wake(&lease);
            }
            if lease.due_alert(None).is_some() {
                // The renewer that asks for its units also raises its alerts.
                self.hub.renewals.wake(&lease);
            }
            self.ceilings.note(lease);
        }
        if rows.is_empty() && self.pending.is_empty() && self.batch.is_empty() {
            self.done.send_replace(collection);
        }
        self.keep(rows);
    }

    /// Keeps rows until they are in the store: in `pending`, and in the journal.
    fn keep(&mut self, rows: ByWriter) {
        if !rows.is_empty() {
            self.pending_since_ns.get_or_insert(self.hub.clock.now().mono_ns);
            self.backlog.waits_since(self.oldest_ns());
        }
        if let Some(mut journal) = self.journal.take() {
            let at_ms = self.hub.clock.now().wall_ms;
            journal.append(rows.clone(), at_ms);
            merge(&mut self.pending, rows);
            if journal.is_large() {
                journal.compact(self.unacknowledged(), at_ms);
            }
            self.journal = Some(journal);
        } else {
            merge(&mut self.pending, rows);
        }
    }

    /// Everything that may not be in the store: pending rows, and the batch in flight.
    fn unacknowledged(&self) -> ByWriter {
        let mut all = self.batch_rows.clone();
        merge(&mut all, self.pending.clone());
        // A ceiling is valid only once on record, and for no later process.
        let pools = all.values_mut().flat_map(|rows| rows.pools.values_mut());
        pools.for_each(|row| row.ceiling = 0);
        all
    }

    pub(super) fn begin_batch(&mut self, part: FlushPart) {
        if !self.batch.is_empty() {
            return;
        }
        if part == FlushPart::Ceilings {
            self.begin_ceilings();
            return;
        }
        let (now, writer) = (self.hub.clock.now(), self.log.incarnation());
        self.hub.raises.take().into_iter().for_each(|lease| self.ceilings.note(lease));
        self.ceilings.note_reclaimable(self.hub.raises.take_reclaimable(), now);
        self.ceilings.propose(writer, now, &mut self.pending);
        self.ceilings.give_back_quiet(&self.hub, now);
        if self.pending.is_empty() {
            let silent = self.store.promise().shared && self.flushed.elapsed() >= ALIVE;
            let asleep = self.hub.idle_units.are_held(now.wall_ms);
            if self.flushed.elapsed() >= ALIVE {
                self.log.is_quiet();
            }
            if silent && (self.ceilings.holds_units(now) || asleep) {
                self.batch = vec![Rows::pack_nothing(now.wall_ms)];
                self.batch_covers = self.begun.load(Ordering::Acquire);
            }
            return;
        }
        let rows = std::mem::take(&mut self.pending);
        crate::telemetry::flush_batch(rows.values().map(Rows::len).sum());
        self.begun_ns = now.mono_ns;
        self.batch = self.log.pack(&rows, now.wall_ms);
        self.batch_rows = rows;
        self.batch_since_ns = self.pending_since_ns.take();
        self.batch_covers = self.begun.load(Ordering::Acquire);
        self.forget = self.journal.as_mut().map(|journal| journal.cut(now.wall_ms));
    }

    /// Starts a batch of the ceilings that requests wait for. Pending rows stay pending.
    fn begin_ceilings(&mut self) {
        let (now, writer) = (self.hub.clock.now(), self.log.incarnation());
        let mut rows = ByWriter::new();
        self.ceilings.propose_at_once(self.hub.raises.take(), writer, now, &mut rows);
        if rows.is_empty() {
            return;
        }
        self.begun_ns = now.mono_ns;
        self.batch = self.log.pack(&rows, now.wall_ms);
        self.batch_rows = rows;
        self.batch_covers = *self.done.borrow();
    }

    pub(super) fn batch_written(&mut self) {
        if !self.batch.is_empty() {
            return;
        }
        self.batch_rows.clear();
        self.batch_since_ns = None;
        self.ceilings.logged(&self.hub);
        self.tell_lag();
        let begun_ns = std::mem::take(&mut self.begun_ns);
        if begun_ns != 0 {
            let lag = self.hub.clock.now().mono_ns.saturating_sub(begun_ns);
            let held_back = std::mem::take(&mut self.held_back);
            self.ceilings.record_took(Duration::from_nanos(lag) + held_back);
        }
        if let (Some(journal), Some(cut)) = (&mut self.journal, self.forget.take()) {
            journal.stored(cut, self.hub.clock.now().wall_ms);
        }
        let done = if self.pending.is_empty() {
            self.begun.load(Ordering::Acquire)
        } else {
            self.batch_covers
        };
        self.done.send_if_modified(|known| {
            let news = done > *known;
            *known = done.max(*known);
            news
        });
        if !self.pending.is_empty() && self.settings.mode == Mode::Durable {
            self.hub.unrecorded.hurry();
        }
    }

    /// Notes that a record is in the store, or a new log begun.
    pub(super) fn succeeded(&mut self) {
        if self.backlog.set_error(None).is_some() {
            crate::telemetry::degraded("flush", false);
        }
    }

    pub(super) fn failed(&mut self, error: StoreError) {
        self.backlog.set_error(Some(error));
        crate::telemetry::degraded("flush", true);
        self.tell_lag();
    }

    /// Reports how long the oldest unwritten usage has waited.
    fn tell_lag(&self) {
        let (now_ns, since_ns) = (self.hub.clock.now().mono_ns, self.oldest_ns());
        self.backlog.waits_since(since_ns);
        let age_ns = since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        crate::telemetry::flush_lag(age_ns as f64 / 1e9);
    }

    /// Since when the oldest unwritten usage has waited.
    fn oldest_ns(&self) -> Option<u64> {
        self.batch_since_ns.or(self.pending_since_ns)
    }

    /// Ends the journal; what it holds goes with it if all of that is in the store.
    pub(super) async fn end_journal(&mut self, is_stored: bool, deadline: Instant) {
        let Some(mut journal) = self.journal.take() else { return };
        if is_stored {
            let at_ms = self.hub.clock.now().wall_ms;
            let all = journal.cut(at_ms);
            journal.stored(all, at_ms);
        }
        journal.end(deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::super::super::journal::Journal;
    use super::super::super::journal_thread::JournalKeeper;
    use super::super::super::log::LogWriter;
    use super::super::FlushSettings;
    use super::*;
    use crate::ManualClock;
    use crate::ids::{Surrogate, WriterId};
    use crate::ledger::record::PoolRow;
    use crate::quota::lease::Writer;
    use crate::quota::pool::PoolId;
    use crate::sheets::hub::Hub;
    use crate::store::Memory;
    use crate::store::layout::Space;
    use crate::store::store_id::StoreId;

    const ME: WriterId = WriterId::test(7);

    fn task(journal: Journal) -> Task {
        let (hub, _queue) = Hub::new(Arc::new(ManualClock::at_unix_ms(0)));
        let log = LogWriter::new(Writer { space: Space::new("test"), incarnation: ME });
        let every = Duration::from_secs(1);
        let settings = FlushSettings { mode: Mode::Journal, every, max_write_units: 100 };
        let (journal, (done, _)) = (JournalKeeper::by_caller(journal), watch::channel(0));
        Task::new(hub, Arc::new(Memory::new()), log, Some(journal), settings, done)
    }

    fn used(tenants: std::ops::Range<u128>, total: u64) -> ByWriter {
        let row = |n| {
            let (tenant, limit) = (Surrogate::test(n), "requests/month".into());
            let pool = PoolId { tenant, limit, scope: 0, start_ms: 0 };
            (pool, PoolRow { total, ceiling: 0 })
        };
        [(ME, Rows { pools: tenants.map(row).collect(), ..Rows::default() })].into()
    }

    /// A long outage: a batch that cannot be written, and so much behind it that the journal is
    /// rewritten. Then the process dies.
    #[tokio::test]
    async fn a_journal_that_is_rewritten_keeps_the_batch_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, StoreId::test(1), ME).unwrap();
        journal.compact_at = 2_000;
        let mut task = task(journal);
        task.keep(used(0..100, 1));
        task.begin_batch(FlushPart::All);
        assert!(!task.batch.is_empty() && task.pending.is_empty());
        // Half of them go on growing.
        let before = std::fs::read_dir(folder.path()).unwrap().count();
        for total in 2..40 {
            task.keep(used(50..100, total));
        }
        assert!(std::fs::read_dir(folder.path()).unwrap().count() <= before, "it was rewritten");

        let mut all = used(0..50, 1);
        merge(&mut all, used(50..100, 39));
        assert_eq!(Journal::recover(&path).unwrap(), all.into_iter().collect::<Vec<_>>());
    }
}

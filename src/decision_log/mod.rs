//! The log of decisions: which requests and other work were refused and why, and a sample of those
//! that were admitted, as lines of JSON in files that any tool reads.
//!
//! # Laws
//!
//! 1. **Beside the decision.** A decision hands over a record, or none, and never waits: for no
//!    disk, no lock that is held during I/O, no place in a queue. Of an admission it hands over
//!    what the record is made of.
//! 2. **A disk that fails loses lines, and no request.** What is lost is counted
//!    (`tallygate_decisions_unlogged_total`) and said once until lines are written again.
//! 3. **Bounded**: the queue by [`QUEUE`], the files by `max-bytes`, the refusals in memory by
//!    [`recent`].
//! 4. **Ids only.** A record has no header, no path, no credential, no address.
//! 5. A line is whole or skipped: a process that is killed leaves at most one torn line, at the end
//!    of the file, which the next process ends and readers skip.
//!
//! The refusals that are kept in memory are kept without a log as well; with one they begin with
//! those at the end of its files.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

use crate::config::DecisionsConfig;
use crate::task::OwnedTask;
use crate::telemetry;

mod file;
mod recent;
mod record;
mod sampler;
#[cfg(test)]
mod tests;
mod writer;

use recent::RecentDecisions;
use sampler::Sampler;

pub(crate) use record::{DecisionParts, kind, number};
pub use record::{DecisionRecord, LimitAsked};

/// Records waiting to be written: as many refusals as a process makes in a tenth of a second under
/// a flood, and about 4 MB. What does not fit is counted and left out.
pub(crate) const QUEUE: usize = 8_192;

/// A close waits this long for the lines in hand: a disk that works takes milliseconds, and a
/// machine that is busy has some turns.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// The log of one gate, and the refusals in its memory.
pub(crate) struct DecisionLog {
    recent: RecentDecisions,
    on: Option<On>,
}

/// What is there if the service file has `[decisions]`.
struct On {
    sampler: Sampler,
    queue: mpsc::Sender<Unwritten>,
    task: OwnedTask,
    losing: Arc<Losing>,
}

/// A decision that is to be written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    Made(Arc<DecisionRecord>),
    /// An admission: its record is made where it is written.
    Sampled(Box<dyn SampledDecision>),
}

/// What the record of an admission is made of.
pub(crate) trait SampledDecision: fmt::Debug + Send + Sync {
    /// The record.
    fn record(&self) -> DecisionRecord;
}

impl From<DecisionRecord> for Unwritten {
    fn from(record: DecisionRecord) -> Self {
        Self::Made(Arc::new(record))
    }
}

/// Whether lines are being lost, so that it is said once and not by every line.
#[derive(Debug, Default)]
struct Losing {
    is: AtomicBool,
    /// How many were lost so far.
    lines: AtomicU64,
    /// Lines in the queue or being written.
    in_hand: AtomicU64,
}

impl Losing {
    /// Counts lines that are lost, and says so if those before were not.
    fn lost(&self, lines: usize, cause: &'static str, error: &dyn std::fmt::Display) {
        telemetry::decisions_unlogged(cause, lines as u64);
        let before = self.lines.fetch_add(lines as u64, Ordering::Relaxed);
        if !self.is.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause,
                before,
                %error,
                "the log of decisions loses lines. They are counted in \
                 tallygate_decisions_unlogged_total; this is logged once, until lines are written \
                 again"
            );
        }
    }

    /// Lines that were written, or lost. [`cut`](Self::cut) may have counted them meanwhile.
    fn out_of_hand(&self, lines: u64) {
        let less = |in_hand: u64| Some(in_hand.saturating_sub(lines));
        let _ = self.in_hand.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Counts what is in hand as lost: it will not be written.
    fn cut(&self) -> u64 {
        let lines = self.in_hand.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let why = "the gate has ended before they were written";
            self.lost(usize::try_from(lines).unwrap_or(usize::MAX), "closing", &why);
        }
        lines
    }

    /// Lines are written again.
    fn is_over(&self) {
        if self.is.swap(false, Ordering::Relaxed) {
            tracing::info!("the log of decisions is written again");
        }
    }
}

impl DecisionLog {
    /// Fails where [`open`](Self::open) would, and leaves nothing behind.
    pub(crate) async fn check(config: Option<&DecisionsConfig>) -> std::io::Result<()> {
        match config {
            Some(config) => writer::check(config.clone()).await,
            None => Ok(()),
        }
    }

    /// Opens the log, if there is to be one, and begins with the refusals at its end.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or is none.
    pub(crate) async fn open(config: Option<&DecisionsConfig>) -> std::io::Result<Self> {
        let recent = RecentDecisions::default();
        let Some(config) = config else { return Ok(Self { recent, on: None }) };
        let (files, before) = writer::open(config.clone()).await?;
        before.into_iter().for_each(|record| recent.note(Arc::new(record)));
        let (send, queue) = mpsc::channel(QUEUE);
        let losing = Arc::new(Losing::default());
        let says = losing.clone();
        let task = OwnedTask::start(|stop| writer::write(files, queue, stop, says));
        let on = On { sampler: Sampler::one_in(config.admissions), queue: send, task, losing };
        Ok(Self { recent, on: Some(on) })
    }

    /// Whether an admission that has just been decided is to be recorded.
    #[inline]
    pub(crate) fn takes_admission(&self) -> bool {
        match &self.on {
            None => false,
            Some(on) => on.sampler.takes(),
        }
    }

    /// Whether there is a log.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// One in how many admissions is recorded.
    pub(crate) fn one_in(&self) -> Option<u32> {
        self.on.as_ref().map(|on| on.sampler.every())
    }

    /// Takes a decision: refusals into memory, all of them into the log.
    #[cold]
    pub(crate) fn take(&self, record: impl Into<Unwritten>) {
        let record = record.into();
        if let Unwritten::Made(record) = &record
            && record.is_refusal()
        {
            self.recent.note(record.clone());
        }
        let Some(on) = &self.on else { return };
        on.losing.in_hand.fetch_add(1, Ordering::Relaxed);
        let Err(full) = on.queue.try_send(record) else { return };
        on.losing.out_of_hand(1);
        match full {
            TrySendError::Full(_) => {
                on.losing.lost(1, "queue", &format_args!("more than {QUEUE} wait to be written"));
            }
            TrySendError::Closed(_) => on.losing.lost(1, "closing", &"the log has ended"),
        }
    }

    /// The last refusals in memory, newest first: of this tenant (`Some(None)`: of callers whose
    /// tenant is not known), or of all.
    pub(crate) fn refusals(
        &self,
        of: Option<Option<&str>>,
        most: usize,
    ) -> Vec<Arc<DecisionRecord>> {
        self.recent.last(of, most)
    }

    /// Forgets the refusals in memory of a tenant that was erased.
    pub(crate) fn forget(&self, tenant: &str) {
        self.recent.forget(tenant);
    }

    /// Writes what is in hand and ends the log, within 3 s; counts what is not written by then.
    pub(crate) async fn close(&self, deadline: Instant, now: Instant) {
        let Some(on) = &self.on else { return };
        on.task.stop();
        if on.task.ended_by(deadline.min(now + CLOSE_WITHIN)).await.is_err() {
            let lines = on.losing.cut();
            tracing::warn!(lines, "the log of decisions was not written to its end in time");
        }
    }
}

impl Drop for On {
    fn drop(&mut self) {
        self.losing.cut();
    }
}

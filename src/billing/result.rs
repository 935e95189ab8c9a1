//! What came of reporting: the result of a run, and why one did not succeed.

use super::item::ItemId;
use super::sink::SinkError;
use crate::store::StoreError;

/// An entry that waits for an operator: [`Stopped`](super::Stopped) is the reason, in the audit.
/// Pass it to `Gate::decide_stopped`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoppedEntry {
    /// Its item.
    pub item: ItemId,
    /// Its number in the item.
    pub k: u64,
}

/// The result of one run. `Gate::report_now` returns it. Entries in [`stopped`](Self::stopped) wait
/// for `Gate::decide_stopped`; what failed otherwise is tried again by the next run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Entries accepted.
    pub sent: u64,
    /// Their units.
    pub units: u64,
    /// Entries verified.
    pub verified: u64,
    /// Open entries: sent without an answer, or waiting.
    pub open: u64,
    /// The minute of the oldest of them, Unix seconds.
    pub(crate) oldest_s: Option<i64>,
    /// Entries that wait for an operator.
    pub stopped: Vec<StoppedEntry>,
    /// Entries sent in this run without a definite answer, and why. They are open.
    #[doc(hidden)]
    pub unanswered: Vec<(StoppedEntry, String)>,
    /// Units that are owed and in no entry yet: they wait for a minute of their own, for entries to
    /// be verified, or, after a restore, for the service's sums.
    #[doc(hidden)]
    pub waiting: u64,
    /// Items with an accepted entry that the service does not count, without a reported rejection.
    pub doubtful: Vec<ItemId>,
    /// Items with units that are too old to be sent, and are not carried.
    pub too_old: Vec<ItemId>,
    /// Items not fully processed, and why.
    pub failed: Vec<(ItemId, String)>,
}

/// Why a run, or a part of it, did not succeed. What is owed stays on record, and the next run
/// sends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// There is no billing service in the service file.
    #[error("the service file has no [stripe]")]
    NoService,
    /// Use could not be written to the ledger.
    #[error(transparent)]
    Flush(#[from] crate::ledger::flush::FlushError),
    /// The table came back from a backup, and no operator has yet stated what was sent since the
    /// copy.
    #[error(
        "the table was restored from a backup: nothing is sent until Gate::resume_reports says \
         what was sent since the copy was made"
    )]
    Restored,
    /// A clock stepped, or this process was suspended: nothing was sent after that.
    #[error("a clock moved during the run")]
    ClockMoved,
}

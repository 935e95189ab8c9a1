//! Ceilings of leases on their way through the log: proposed with the record under construction,
//! and in force once it is in the store. See `quota/lease/ceiling.rs`.
//!
//! Also tracks whether this process holds units that others could take back. If so, it writes a
//! record from time to time even with nothing to record, so that it is not presumed dead.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Mode;
use super::quiet::QuietLeases;
use super::record::{ByWriter, PoolRow};
use crate::clock::Now;
use crate::holders::is_gone;
use crate::ids::WriterId;
use crate::payers::late;
use crate::quota::lease::Lease;
use crate::sheets::hub::Hub;

/// Maximum time for which a dropped lease still in `known` keeps its memory: one minute.
const PRUNE_NS: u64 = 60_000_000_000;
/// Headroom of a ceiling, in time of demand: the usage of two flushes, so that a busy lease is
/// raised before it reaches its ceiling, within this minimum and maximum. A crash strands the
/// headroom.
pub(crate) const AHEAD: Duration = Duration::from_secs(2);
const MOST_AHEAD: Duration = Duration::from_secs(20);

/// The same in mode `durable`, where one record follows the other. A record's ceiling is used until
/// the next one is in the store, so twice a record's time would do if none were late: twice that,
/// at least this long, and at most [`AHEAD`].
const RECORDS_AHEAD: u32 = 4;
const AHEAD_DURABLE: Duration = Duration::from_millis(50);

/// See the [module](self). Leases are keyed by address, which is unique while they are held here.
#[derive(Debug)]
pub(super) struct Ceilings {
    mode: Mode,
    /// How often a record is written, and how long recent ones took: rises at once, falls slowly.
    every: Duration,
    record_took: Duration,
    /// Leases used since the last record.
    used: HashMap<usize, Arc<Lease>>,
    /// Leases with units that others could take back, as far as known.
    known: HashMap<usize, Weak<Lease>>,
    /// When dropped leases were last pruned.
    pruned_ns: u64,
    /// The ceilings in the record under construction.
    proposed: Vec<(Arc<Lease>, u64)>,
    /// Those that may fall quiet; `None`: other processes share the store.
    quiet: Option<QuietLeases>,
}

impl Ceilings {
    /// `is_shared`: whether other processes may open the store at the same time.
    pub(super) fn new(mode: Mode, every: Duration, is_shared: bool) -> Self {
        let (used, known, proposed) = Default::default();
        let quiet = (!is_shared).then(QuietLeases::default);
        let (record_took, pruned_ns) = (Duration::ZERO, 0);
        Self { mode, every, record_took, used, known, pruned_ns, proposed, quiet }
    }

    /// Notes how long the last record took.
    pub(super) fn record_took(&mut self, took: Duration) {
        self.record_took = took.max((self.record_took * 7 + took * 3) / 10);
    }

    fn ahead(&self) -> Duration {
        match self.mode {
            Mode::Durable => (self.record_took * RECORDS_AHEAD).clamp(AHEAD_DURABLE, AHEAD),
            Mode::Fast | Mode::Journal => {
                ((self.every + self.record_took) * 2).clamp(AHEAD, MOST_AHEAD)
            }
        }
    }

    /// Notes a lease that has been used, or waits for a higher ceiling.
    pub(super) fn note(&mut self, lease: Arc<Lease>) {
        self.used.insert(Arc::as_ptr(&lease).addr(), lease);
    }

    /// Adds the ceilings that are due to the rows of the record under construction.
    pub(super) fn propose(&mut self, writer: WriterId, now: Now, rows: &mut ByWriter) {
        let leases: Vec<_> = self.used.drain().map(|(_, lease)| lease).collect();
        if let Some(quiet) = &mut self.quiet {
            leases.iter().for_each(|lease| quiet.note(lease, now));
        }
        self.propose_at_once(leases, writer, now, rows);
    }

    /// The same for these leases only.
    pub(super) fn propose_at_once(
        &mut self,
        mut leases: Vec<Arc<Lease>>,
        writer: WriterId,
        now: Now,
        rows: &mut ByWriter,
    ) {
        let ahead = self.ahead();
        // A hash table has no order of its own, and a seed must give one run.
        leases.sort_by(|a, b| a.pool().cmp(b.pool()));
        for lease in leases {
            if lease.incarnation() != writer {
                continue;
            }
            if let Some(ceiling) = lease.propose_ceiling(now, ahead) {
                let row = PoolRow { total: lease.total(), ceiling };
                let own = rows.entry(writer).or_default();
                own.pools.entry(lease.pool().clone()).or_default().raise(row);
                self.proposed.push((lease.clone(), ceiling));
            }
        }
    }

    /// Has leases that have fallen quiet give back what they hold, where no other process could.
    pub(super) fn give_back_quiet(&mut self, hub: &Hub, now: Now) {
        self.quiet.iter_mut().for_each(|quiet| quiet.give_back(hub, now));
    }

    /// The record is in the store: its ceilings are in force.
    pub(super) fn logged(&mut self, hub: &Hub) {
        for (lease, ceiling) in self.proposed.drain(..) {
            lease.ceiling_logged(ceiling);
            late::answered(hub, &lease);
        }
    }

    /// The record is not in the store, and never will be.
    pub(super) fn dropped(&mut self) {
        self.proposed.clear();
    }

    /// Adds leases that have been given units.
    pub(super) fn note_reclaimable(&mut self, leases: Vec<Weak<Lease>>, now: Now) {
        self.known.extend(leases.into_iter().map(|lease| (lease.as_ptr().addr(), lease)));
        if now.mono_ns.saturating_sub(self.pruned_ns) >= PRUNE_NS {
            self.pruned_ns = now.mono_ns;
            self.known.retain(|_, lease| !is_gone(lease));
            self.known.shrink_to(2 * self.known.len());
            self.used.shrink_to(self.known.len());
        }
    }

    /// Whether others could take back units of this process, in a current window.
    pub(super) fn holds_units(&mut self, now: Now) -> bool {
        let holds =
            |lease: Arc<Lease>| lease.window().end_ms > now.wall_ms && lease.may_be_reclaimed();
        self.known.retain(|_, lease| lease.upgrade().is_some_and(holds));
        !self.known.is_empty()
    }
}

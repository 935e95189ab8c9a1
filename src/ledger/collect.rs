//! Collects rows from what changed in memory, or was left in a journal. What goes to the log is
//! counted here for the metric of units, so that requests do not pay for it.

use std::path::Path;
use std::sync::Arc;

use super::journal::Journal;
use super::log::{LogWriter, Wrote};
use super::record::{ByWriter, PoolRow, UseKey};
use super::units::UnitsCounted;
use crate::ids::WriterId;
use crate::quota::lease::{Lease, Writer};
use crate::sheets::sheet::Sheet;
use crate::sheets::unrecorded::Dirty;
use crate::sheets::use_row::Risen;
use crate::store::store_id::StoreId;
use crate::store::{Store, StoreError, StoreErrorKind, until_known};
use crate::telemetry::UnitsOutcome;

/// The rows that changed, by the writer that counted them, with current totals, and the leases that
/// were used.
pub(super) fn rows_of(
    dirty: &[Dirty<Sheet>],
    units: &mut UnitsCounted,
) -> (ByWriter, Vec<Arc<Lease>>) {
    let (mut rows, mut used) = (ByWriter::new(), Vec::new());
    for item in dirty {
        match item {
            Dirty::Sheet(sheet) => {
                sheet.clear_dirty(); // before the totals are read: later changes mark it again
                rows_of_sheet(sheet, &mut rows, &mut used, units);
            }
            Dirty::Lease(lease) => {
                lease.clear_dirty();
                row_of_lease(lease, &mut rows, &mut used);
            }
        }
    }
    units.tell();
    rows.retain(|_, rows| !rows.is_empty());
    (rows, used)
}

fn rows_of_sheet(
    sheet: &Sheet,
    rows: &mut ByWriter,
    used: &mut Vec<Arc<Lease>>,
    units: &mut UnitsCounted,
) {
    let row = &sheet.row;
    for Risen { meter, total, by } in row.unlogged() {
        let Some(meter) = sheet.catalog.meters.get(usize::from(meter.0)) else {
            continue;
        };
        let plan = &sheet.policy.plan.name;
        units.note(plan, (&meter.name, meter.scale), UnitsOutcome::Used, by.used);
        units.note(plan, (&meter.name, meter.scale), UnitsOutcome::Over, by.over);
        let key = UseKey {
            tenant: sheet.tenant.surrogate,
            part: row.part,
            meter: meter.name.clone(),
            scale: meter.scale,
            period_ms: row.period_ms,
            day: row.day,
            account: row.account.clone(),
        };
        rows.entry(sheet.incarnation).or_default().uses.insert(key, total);
    }
    for lease in sheet.open_leases() {
        row_of_lease(lease, rows, used);
    }
}

fn row_of_lease(lease: &Arc<Lease>, rows: &mut ByWriter, used: &mut Vec<Arc<Lease>>) {
    if let Some(total) = lease.unlogged() {
        let own = rows.entry(lease.incarnation()).or_default();
        own.pools.insert(lease.pool().clone(), PoolRow { total, ceiling: 0 });
        used.push(lease.clone());
    }
}

/// Why the usage left by dead writers could not be carried over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// The journal cannot be used.
    #[error("the journal at {path}: {source}")]
    Journal { path: String, source: std::io::Error },
    /// The store did not accept it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Carries over what dead writers left in their journal. Returns the journal to continue with, and
/// those writers.
pub(crate) async fn recover(
    store: &dyn Store,
    writer: &Writer,
    log: &mut LogWriter,
    (path, home): (&Path, StoreId),
    at_ms: i64,
) -> Result<(Journal, Vec<WriterId>), RecoverError> {
    let unreadable = |source| RecoverError::Journal { path: path.display().to_string(), source };
    let left = Journal::recover(path).map_err(unreadable)?;
    if !left.is_empty() {
        log.register(store, at_ms).await?;
    }
    for (dead, rows) in &left {
        tracing::info!(rows = rows.len(), "carrying over usage from a journal");
        for body in rows.pack(at_ms, Some(*dead)) {
            let written = until_known(store, log.slot(&body)).await?;
            if log.wrote(&body, written)? == Wrote::Sealed {
                let message =
                    "another process presumed this one dead while it was starting: start it again";
                return Err(StoreError::new(StoreErrorKind::Unavailable, message).into());
            }
        }
    }
    let mut journal = Journal::open(path, home, writer.incarnation).map_err(unreadable)?;
    let first = journal.cut();
    journal.forget(first);
    Ok((journal, left.into_iter().map(|(dead, _)| dead).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Surrogate;
    use crate::ledger::log;
    use crate::ledger::record::Rows;
    use crate::quota::pool::PoolId;
    use crate::store::Memory;
    use crate::store::layout::Space;
    use crate::testing::{Fault, Faulty};

    /// Messages lost on the way to the store and back neither keep a process from starting nor
    /// write the usage twice.
    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_at_open_is_repeated_and_carried_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let home = StoreId::test(1);
        let pool = PoolId {
            tenant: Surrogate::test(7),
            limit: "requests/month".into(),
            scope: 0,
            start_ms: 5,
        };
        let row = PoolRow { total: 9, ceiling: 0 };
        let rows = Rows { pools: [(pool, row)].into(), ..Rows::default() };
        let left = ByWriter::from([(WriterId::test(1), rows.clone())]);
        Journal::open(&path, home, WriterId::test(1)).unwrap().append(&left, 0).unwrap();

        let lost = [Fault::LoseReply, Fault::LoseRequest, Fault::Pass];
        let store = Faulty::scripted(Memory::new(), [lost, lost, lost].concat());
        let mut log = LogWriter::begin(&store, Space::new("test"), 0).await.unwrap();
        let writer = log.writer().clone();
        let (_, dead) = recover(&store, &writer, &mut log, (&path, home), 0).await.unwrap();
        assert_eq!(dead, [WriterId::test(1)]);
        let mut read = Vec::new();
        let end = log::read(&store, &writer, 0, |rows, of| read.push((of, rows))).await.unwrap();
        assert_eq!((end.next, read), (1, vec![(WriterId::test(1), rows)]));
        assert_eq!(Journal::recover(&path).unwrap(), vec![], "and the journal is done with");
    }
}

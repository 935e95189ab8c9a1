//! Collecting: from what moved in memory, or was left in a journal, to rows.

use std::path::Path;

use super::journal::Journal;
use super::log::LogWriter;
use super::record::{Rows, UseKey};
use crate::admission::hub::Soiled;
use crate::admission::lease::Writer;
use crate::admission::sheet::Sheet;
use crate::store::Store;

/// The rows of what moved, with totals as they are now.
pub(super) fn rows_of(soiled: &[Soiled]) -> Rows {
    let mut rows = Rows::default();
    for item in soiled {
        match item {
            Soiled::Sheet(sheet) => {
                sheet.clean(); // before the totals are read: what comes after soils it again
                rows_of_sheet(sheet, &mut rows);
            }
            Soiled::Lease(lease) => {
                lease.clean();
                rows.pools.extend(lease.unlogged().map(|total| (lease.pool().clone(), total)));
            }
        }
    }
    rows
}

fn rows_of_sheet(sheet: &Sheet, rows: &mut Rows) {
    let row = &sheet.row;
    for (meter, total) in row.unlogged() {
        let Some(meter) = sheet.catalog.meters.get(usize::from(meter.0)) else {
            continue;
        };
        let key = UseKey {
            tenant: sheet.tenant.surrogate,
            part: row.part,
            meter: meter.name.clone(),
            scale: meter.scale,
            period_ms: row.period_ms,
            day: row.day,
            account: row.account.clone(),
        };
        rows.uses.insert(key, total);
    }
    for lease in sheet.open_leases() {
        rows.pools.extend(lease.unlogged().map(|total| (lease.pool().clone(), total)));
    }
}

/// Registers the writer and carries over what a dead one left in its journal. Returns the journal
/// to go on with.
pub(crate) async fn recover(
    store: &dyn Store,
    writer: &Writer,
    log: &mut LogWriter,
    path: &Path,
    at_ms: i64,
) -> Result<Journal, crate::error::Error> {
    let unreadable = |e: std::io::Error| {
        crate::error::Error::journal(format!("the journal at {} : {e}", path.display()))
    };
    let left = Journal::recover(path).map_err(unreadable)?;
    for (dead, rows) in &left {
        tracing::info!(rows = rows.len(), "carrying over usage from a journal");
        for body in rows.pack(at_ms, Some(*dead)) {
            let written = store.write(log.slot(&body)).await?;
            log.wrote(&body, written)?;
        }
    }
    let mut journal = Journal::open(path, writer.incarnation).map_err(unreadable)?;
    let first = journal.cut();
    journal.forget(first);
    Ok(journal)
}

//! Seals every log: after a table was restored, no earlier writer may continue.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::super::{log, slots};
use super::{Fold, Ledger};
use crate::quota::lease::Writer;
use crate::quota::pool::PoolId;
use crate::store::{StoreError, StoreErrorKind, Written, until_known};

/// Limit on rereading a log because it grew meanwhile: no process should be writing.
const TRIES: usize = 3;

impl Ledger {
    /// Seals every log. Returns the number of logs that were unsealed, and every pool named in a
    /// log.
    pub(crate) async fn seal_all(
        &self,
        now_ms: i64,
    ) -> Result<(usize, BTreeSet<PoolId>), StoreError> {
        let (mut sealed, mut pools) = (0, BTreeSet::new());
        for incarnation in self.writers(&Mutex::new(Fold::default()), now_ms).await? {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            sealed += usize::from(self.seal(&writer, &mut pools).await?);
        }
        Ok((sealed, pools))
    }

    /// Seals one log. Returns false if it was sealed already.
    async fn seal(
        &self,
        writer: &Writer,
        pools: &mut BTreeSet<PoolId>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let note = |rows: super::super::record::Rows, _| pools.extend(rows.pools.into_keys());
            let end = log::read(&*self.store, writer, 0, note).await?;
            if end.sealed {
                return Ok(false);
            }
            match until_known(&*self.store, log::seal(writer, end.next)).await? {
                Written::Applied(_) => return Ok(true),
                Written::Refused(Some(item)) if slots::is_seal(&item) => return Ok(true),
                Written::Refused(_) => {}
            }
        }
        let message = "a process writes to the table: stop every process before restoring it";
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    }
}

//! Ledger contents for the audit.

use std::collections::HashMap;
use std::sync::Mutex;

use super::super::log;
use super::super::record::PoolRow;
use super::{Fold, Ledger, PeriodUse, locked};
use crate::ids::WriterId;
use crate::quota::lease::Writer;
use crate::quota::pool::PoolId;
use crate::store::{StoreError, StoreErrorKind};

/// Everything in the logs, for the audit.
pub(crate) struct Examined {
    pub(crate) uses: Vec<PeriodUse>,
    pub(crate) pools: HashMap<PoolId, HashMap<WriterId, PoolRow>>,
    /// Writers whose log cannot be read to its end, and why.
    pub(crate) broken: Vec<(WriterId, String)>,
}

impl Ledger {
    /// Usage by period, read from every log's first slot regardless of what is in memory, and the
    /// pools' rows. A log that cannot be read to its end is read as far as possible, and named.
    pub(crate) async fn examine(&self, now_ms: i64) -> Result<Examined, StoreError> {
        let (fold, mut broken) = (Mutex::new(Fold::default()), Vec::new());
        let mut pools = HashMap::<PoolId, HashMap<WriterId, PoolRow>>::new();
        for incarnation in self.writers(&fold, now_ms).await? {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let mut news = Vec::new();
            let read = log::read(&*self.store, &writer, 0, |rows, of| news.push((rows, of))).await;
            for (rows, of) in news {
                for (pool, row) in &rows.pools {
                    let of_pool = pools.entry(pool.clone()).or_default();
                    of_pool.entry(of).or_default().raise(*row);
                }
                locked(&fold).take(rows, of);
            }
            match read {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    broken.push((incarnation, error.message));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Examined { uses: self.periods(&fold, now_ms).await?, pools, broken })
    }
}

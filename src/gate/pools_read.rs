//! Pools that were read from the store just now, for reports: each is read at most once a second
//! for all of them, and no tenant waits for the read of another tenant's pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::flights::Flights;
use crate::ledger::totals::is_fresh;
use crate::quota::pool::PoolId;
use crate::renewal::Whole;
use crate::store::layout::Space;
use crate::store::{Store, StoreError};

/// Pools that are remembered, for [`FRESH_MS`](crate::ledger::totals::FRESH_MS); past this those
/// that are older are forgotten.
const KEPT: usize = 4_096;

/// Pools as read from the store, with the time of the read; `None`: the pool does not exist.
type Kept = HashMap<PoolId, (i64, Option<Arc<Whole>>)>;

/// See the [module](self).
#[derive(Default)]
pub(super) struct PoolsRead {
    kept: Mutex<Kept>,
    /// Readings under way, each once for all who wait for it.
    reading: Flights<PoolId, Result<Option<Arc<Whole>>, StoreError>>,
}

impl PoolsRead {
    pub(super) async fn read(
        &self,
        store: &dyn Store,
        space: &Space,
        id: &PoolId,
        now_ms: i64,
    ) -> Result<Option<Arc<Whole>>, StoreError> {
        let known = self.with(|kept| kept.get(id).cloned());
        if let Some((_, whole)) = known.filter(|(at_ms, _)| is_fresh(*at_ms, now_ms)) {
            return Ok(whole);
        }
        let read = async {
            let whole = Whole::read(store, space, id).await?.map(Arc::new);
            self.with(|kept| {
                if kept.len() >= KEPT {
                    kept.retain(|_, (at_ms, _)| is_fresh(*at_ms, now_ms));
                }
                kept.insert(id.clone(), (now_ms, whole.clone()));
            });
            Ok::<_, StoreError>(whole)
        };
        self.reading.once(id, read).await
    }

    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! What was read of the busiest tenants, and how a tenant in such a list is shown.

use std::sync::Arc;

use serde_json::Value;

use crate::ids::Surrogate;

/// The busiest tenants over all, as they were read last, with the Unix millisecond of that; locked
/// while they are read again, so that all who ask meanwhile wait for one reading.
#[derive(Default)]
pub(crate) struct BusiestRead(pub(super) tokio::sync::Mutex<Option<(i64, Arc<ReadTenants>)>>);

/// Tenants that were read, and the number that they were chosen from.
#[derive(Default)]
pub(super) struct ReadTenants {
    pub(super) tenants: Vec<Found>,
    pub(super) compared: usize,
}

/// A tenant, and the limit that it has used the largest share of, as it is shown.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) tenant: Surrogate,
    pub(super) id: Arc<str>,
    pub(super) share: f64,
    /// When the window ends, Unix milliseconds: then it is nothing.
    pub(super) ends_ms: i64,
    /// In the form of the operator's `GET /top`.
    pub(super) shown: Value,
}

impl BusiestRead {
    /// What is asked next is read anew. A reading that runs is not waited for.
    pub(crate) fn forget(&self) {
        if let Ok(mut last) = self.0.try_lock() {
            *last = None;
        }
    }
}

impl std::fmt::Debug for BusiestRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusiestRead").finish_non_exhaustive()
    }
}

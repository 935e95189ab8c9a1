//! The parts of a tenant that outlive its sheets (see [`crate::sheets::sheet`]).

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};

use crate::directory::TenantRecord;
use crate::ids::Surrogate;
use crate::quota::lease::{Lease, SLOT_OVER_MS};
use crate::sheets::hub::Hub;

/// A lease is forgotten so long after its window, given back or not: longer than a clock that is
/// set back keeps a sheet.
const OVER_MS: i64 = 2 * 3_600_000;

/// The parts of a tenant that outlive its sheets.
#[derive(Debug)]
pub(crate) struct TenantCore {
    pub(crate) surrogate: Surrogate,
    /// The outer id.
    pub(crate) id: Arc<str>,
    /// Requests admitted and not yet settled.
    pub(crate) in_flight: AtomicU32,
    /// Requests waiting for a lease.
    pub(crate) waiting: AtomicU32,
    /// Whether the store knows that it has claims on idempotency keys.
    pub(crate) has_claims: AtomicBool,
    /// Here, so that a permit reaches it without a count of its own on what all tenants share.
    pub(crate) hub: Arc<Hub>,
    /// Every lease of the tenant as a whole, so that no two are ever of one pool: sheets of before
    /// and after an edge may both be in use.
    pub(crate) leases: Mutex<Vec<Arc<Lease>>>,
}

impl TenantCore {
    pub(crate) fn new(record: &TenantRecord, hub: &Arc<Hub>) -> Self {
        Self {
            surrogate: record.surrogate,
            id: record.id.as_str().into(),
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            has_claims: AtomicBool::new(false),
            leases: Mutex::default(),
            hub: hub.clone(),
        }
    }

    /// Atoms that requests in flight hold.
    pub(crate) fn held(&self) -> u64 {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter().fold(0, |sum, lease| sum.saturating_add(lease.open_holds()))
    }

    /// Every lease of the tenant as a whole: of its sheet, and of earlier ones that a request still
    /// draws by.
    pub(crate) fn leases(&self) -> Vec<Arc<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lease of this pool that there is, or `new` from now on.
    #[cold]
    pub(crate) fn only_lease(&self, new: Lease) -> Arc<Lease> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |lease: &&Arc<Lease>| {
            lease.pool() == new.pool() && lease.incarnation() == new.incarnation()
        };
        if let Some(known) = leases.iter().find(same) {
            known.retarget(new.terms());
            return known.clone();
        }
        let now_ms = self.hub.clock.now().wall_ms;
        leases.retain(|lease| {
            // What is left of a window that is over is of no use to anybody.
            let over_ms = if lease.is_of_slot() { SLOT_OVER_MS } else { OVER_MS };
            let is_over = lease.window().end_ms.saturating_add(over_ms) < now_ms;
            Arc::strong_count(lease) > 1 || lease.is_unlogged() || !is_over && !lease.is_returned()
        });
        let new = Arc::new(new);
        leases.push(new.clone());
        new
    }
}

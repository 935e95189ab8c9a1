//! The parts of a tenant that outlive its sheets (see [`crate::sheets::sheet`]).

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::directory::TenantRecord;
use crate::holders::{Holder, is_held_only_by};
use crate::ids::Surrogate;
use crate::quota::lease::{Lease, SLOT_OVER_MS};
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;

/// How long after its window a lease is dropped, given back or not: longer than a clock that is set
/// back keeps a sheet.
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
    /// Held here, so that a permit reaches it without a reference count of its own on shared state.
    pub(crate) hub: Arc<Hub>,
    /// Every lease of the tenant as a whole, so that no pool ever has two: sheets from before and
    /// after an edge may both be in use.
    pub(crate) leases: Mutex<Vec<Arc<Lease>>>,
    /// The sheet in force: what older ones still charge to a rate goes there.
    in_force: Mutex<Weak<Sheet>>,
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
            in_force: Mutex::default(),
            hub: hub.clone(),
        }
    }

    /// The sheet in force.
    pub(crate) fn in_force(&self) -> Option<Arc<Sheet>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Puts a sheet into force.
    pub(crate) fn put_in_force(&self, sheet: &Arc<Sheet>) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(sheet);
    }

    /// Every lease of the tenant as a whole: of its sheet, and of earlier ones that a request still
    /// draws on.
    pub(crate) fn leases(&self) -> Vec<Arc<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The existing lease of this pool, or `new`, which is then kept.
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
            // What is left of a past window has no further use.
            let over_ms = if lease.is_of_slot() { SLOT_OVER_MS } else { OVER_MS };
            let is_over = lease.window().end_ms.saturating_add(over_ms) < now_ms;
            let is_used = !is_held_only_by(lease, [Holder::Tenant]);
            is_used || lease.is_unlogged() || !is_over && !lease.is_returned()
        });
        let new = Arc::new(new);
        leases.push(new.clone());
        new
    }
}

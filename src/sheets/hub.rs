//! The state that all tenants of a gate share: queues in which the hot path leaves work for
//! background tasks, each with its owner, and settings that all tenants read. Leaving work never
//! waits.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::policy::scoped::{ScopedTable, WithoutValue};
use crate::quota::first_reads::FirstReads;
use crate::quota::idle_units::IdleUnits;
use crate::quota::incarnation::Incarnation;
use crate::quota::lease::Lease;
use crate::quota::raises::CeilingRaises;
use crate::quota::renewals::Renewals;
use crate::quota::retired::RetiredLeases;
use crate::rates::Throttled;
use crate::sheets::answers::Answers;
use crate::sheets::capacity::Capacity;
use crate::sheets::followed::Followed;
use crate::sheets::sheet::Sheet;
use crate::sheets::unrecorded::Unrecorded;
use crate::store::Reach;

/// See the [module](self).
pub(crate) struct Hub {
    pub(crate) incarnation: Arc<Incarnation>,
    pub(crate) renewals: Renewals,
    pub(crate) raises: CeilingRaises,
    pub(crate) retired: RetiredLeases,
    pub(crate) first_reads: FirstReads,
    pub(crate) idle_units: IdleUnits,
    pub(crate) answers: Answers<Sheet>,
    pub(crate) unrecorded: Unrecorded<Sheet>,
    pub(crate) throttled: Throttled,
    pub(crate) scoped: ScopedTable,
    pub(crate) without_value: WithoutValue,
    /// Permits that have not ended. On its own, so that nothing shares its cache line.
    pub(crate) open_permits: Box<AtomicU64>,
    /// The most in progress in this process; empty: not limited.
    pub(crate) capacity: OnceLock<Box<Capacity>>,
    /// Whether the store is known to be away: then no request waits for units.
    pub(crate) reach: Reach,
    /// How far the changes of the directory are known.
    pub(crate) followed: Followed,
    /// The newest revision of terms that this process has seen in a pool.
    pub(crate) newest_rev: AtomicI64,
    /// Numbers use rows.
    pub(crate) parts: AtomicU32,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Hub {
    /// Everything empty, and the renewer's end of its queue.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> (Arc<Self>, mpsc::Receiver<Arc<Lease>>) {
        let (renewals, queue) = Renewals::new(clock.clone());
        let incarnation = Arc::<Incarnation>::default();
        let hub = Self {
            retired: RetiredLeases::new(renewals.clone(), incarnation.clone(), clock.clone()),
            answers: Answers::new(renewals.clone()),
            unrecorded: Unrecorded::new(clock.clone()),
            incarnation,
            renewals,
            raises: CeilingRaises::default(),
            first_reads: FirstReads::default(),
            idle_units: IdleUnits::default(),
            throttled: Throttled::default(),
            scoped: ScopedTable::default(),
            without_value: WithoutValue::default(),
            open_permits: Box::default(),
            capacity: OnceLock::new(),
            reach: Reach::default(),
            followed: Followed::default(),
            newest_rev: AtomicI64::new(0),
            parts: AtomicU32::new(0),
            clock,
        };
        (Arc::new(hub), queue)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("unrecorded", &self.unrecorded.len()).finish_non_exhaustive()
    }
}

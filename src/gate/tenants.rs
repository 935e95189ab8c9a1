//! Tenants and their callers: the directory, what of it is in memory, and the look-ups under way.
//! How they are looked up is in `lookup.rs`, how changes reach them in `news.rs`, how they are
//! compacted in `idle.rs`, and how they are served without the directory in `guests.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::mpsc;

use super::recent::Recent;
use super::settings::Settings;
use crate::clock::Clock;
use crate::directory::{Directory, HostTenant, TenantSource};
use crate::flights::Flights;
use crate::identity::{Caller, CredentialHash, CredentialKey, UnknownCache};
use crate::ids::{ByRandomBits, Surrogate};
use crate::ledger::Mode;
use crate::patience::Progress;
use crate::places::Places;
use crate::policy::resolve::LiveCatalog;
use crate::quota::lease::Lease;
use crate::sheets::hub::Hub;
use crate::sheets::tenant_core::TenantCore;
use crate::store::StoreError;
use crate::tenants::caller::KnownCaller;
use crate::tenants::compact::{CompactCaller, CompactTenant};
use crate::tenants::tenant::LiveTenant;

/// Reads of the directory in flight. One line or tenant alone has half of them: at 10 ms a read,
/// 6,400 new callers a second.
pub(super) const READS: usize = 128;

/// Look-ups that have a place or wait for one: as many as are served in some seconds. Of one
/// tenant or line no more than are free.
const READS_IN_HAND: usize = 16_384;

/// Work for a tenant that the host's tables decide about, by the tag of its outer id.
pub(super) type ByTenant<T> = Flights<u128, Result<T, StoreError>>;

/// What the host's tables say of a tenant.
#[derive(Clone, Debug)]
pub(super) enum FromHost {
    /// There are none, or it is none of the host's tenants: the directory alone decides.
    Unasked,
    /// The host has no such tenant.
    Missing,
    Says(HostTenant),
}

/// See the [module](self).
pub(crate) struct Tenants {
    pub(crate) directory: Directory,
    /// The host's own tables of tenants.
    pub(super) source: Option<Arc<dyn TenantSource>>,
    /// By their credential's key.
    pub(crate) callers: DashMap<u128, Arc<KnownCaller>, ByRandomBits>,
    pub(crate) active: DashMap<Surrogate, Arc<LiveTenant>, ByRandomBits>,
    pub(crate) idle: IdleTenants,
    pub(super) guests: Guests,
    /// Credentials that were unknown a moment ago.
    pub(super) unknown: UnknownCache,
    /// Changes that this process has heard of.
    pub(super) recent: Recent,
    /// Places for look-ups of callers, by tenant or address.
    pub(crate) reads: Places,
    /// Look-ups under way, so that one serves all who wait for it.
    pub(super) loads: Flights<u128, Result<(), LoadFailed>>,
    /// Questions to the host's tables under way.
    pub(super) asks: ByTenant<FromHost>,
    /// Tenants of the host's that are being made.
    pub(super) makes: ByTenant<Option<Surrogate>>,
    pub(crate) refreshes: mpsc::Sender<Refresh>,
    /// Whether tenants are made on first sight.
    pub(super) creates: bool,
    pub(super) live: Arc<ArcSwap<LiveCatalog>>,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Tenants and callers that have been idle for a while: see `idle.rs`.
#[derive(Debug, Default)]
pub(crate) struct IdleTenants {
    pub(super) tenants: DashMap<Surrogate, CompactTenant>,
    pub(super) callers: DashMap<u128, CompactCaller, ByRandomBits>,
    /// Some may hold units under an incarnation that has been sealed.
    pub(super) sealed: AtomicBool,
}

impl IdleTenants {
    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }

    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Whether some may hold units under an incarnation that has been sealed.
    pub(super) fn are_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Drops a caller that is active again, or whose credential is unknown.
    pub(super) fn forget_caller(&self, probe: CredentialKey) {
        self.callers.remove(&probe.0);
    }

    pub(super) fn has_caller(&self, probe: CredentialKey) -> bool {
        self.callers.contains_key(&probe.0)
    }

    /// Drops all callers: any key may have been revoked.
    pub(super) fn forget_callers(&self) {
        self.callers.clear();
    }
}

/// Tenants served while the directory cannot be read: see `guests.rs`.
pub(crate) struct Guests {
    pub(super) hub: Arc<Hub>,
    /// By outer id.
    pub(super) tenants: DashMap<Arc<str>, Arc<LiveTenant>>,
    /// Whether there may be any: not in mode `durable`, where what is answered is recorded.
    pub(super) may_be: bool,
}

impl Guests {
    fn new(clock: Arc<dyn Clock>, mode: Mode) -> Self {
        // The other end of its queue is dropped: no lease of a guest is ever asked for.
        let (hub, _) = Hub::new(clock);
        Self { hub, tenants: DashMap::new(), may_be: mode != Mode::Durable }
    }

    /// Whether this is one.
    pub(super) fn has(&self, tenant: &TenantCore) -> bool {
        Arc::ptr_eq(&tenant.hub, &self.hub)
    }
}

/// A cached value that is to be reread before it is outdated.
#[derive(Debug)]
pub(crate) enum Refresh {
    /// The hour of a key's use is to be put on record.
    Use(CredentialHash),
    Tenant(Arc<LiveTenant>),
    /// Boxed: each place in the queue is as large as the largest of these.
    Caller(CredentialKey, Box<Wanted>),
}

/// The subject of a look-up in the directory.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// A credential, under all the hashes it may be stored by.
    Credential(Vec<CredentialHash>),
    /// A tenant named by a trusted source, with its scopes.
    Named { caller: Caller, expires_ms: i64 },
}

/// Why a caller could not be loaded.
#[derive(Clone, Debug)]
pub(super) enum LoadFailed {
    /// Too many wait.
    Busy,
    /// The store has not answered in time.
    Silent,
    Store(StoreError),
}

impl Tenants {
    /// None in memory yet.
    pub(super) fn new(
        (directory, source): (Directory, Option<Arc<dyn TenantSource>>),
        settings: &Settings,
        live: Arc<ArcSwap<LiveCatalog>>,
        hub: Arc<Hub>,
        refreshes: mpsc::Sender<Refresh>,
    ) -> Self {
        let clock = hub.clock.clone();
        Self {
            directory,
            source,
            callers: DashMap::default(),
            active: DashMap::default(),
            idle: IdleTenants::default(),
            guests: Guests::new(clock.clone(), settings.mode),
            unknown: UnknownCache::new(),
            recent: Recent::default(),
            reads: Places::new(READS, READS_IN_HAND),
            loads: Flights::default(),
            asks: ByTenant::default(),
            makes: ByTenant::default(),
            refreshes,
            creates: settings.creates(),
            live,
            hub,
            clock,
        }
    }

    /// How far the line of look-ups has come.
    pub(super) fn line_of_reads(&self) -> Progress {
        Progress { is_in_line: true, of_line: self.reads.answered(), own: 0 }
    }

    /// Every lease that may have to be given back.
    pub(super) fn all_leases(&self) -> Vec<Arc<Lease>> {
        // The retired ones are still their tenant's.
        drop(self.hub.retired.take_all());
        let mut all = self.leases();
        all.extend(self.hub.scoped.all_leases());
        in_order(all)
    }

    /// The leases of all tenants in memory, without those of keys, users and addresses.
    pub(super) fn leases(&self) -> Vec<Arc<Lease>> {
        in_order(self.active.iter().flat_map(|tenant| tenant.core.leases()).collect())
    }
}

/// A table has no order of its own, and what is done with its leases shall have one.
pub(super) fn in_order(mut leases: Vec<Arc<Lease>>) -> Vec<Arc<Lease>> {
    leases.sort_by_cached_key(|lease| (lease.pool().clone(), lease.incarnation()));
    leases
}

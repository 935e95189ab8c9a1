//! What the gate's parts share.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::OnRefusal;
#[cfg(feature = "stripe")]
use super::billing::Billing;
use super::callers::{KnownCaller, LoadFailed, Refresh};
use super::catalogs::PlanSource;
use super::guests::Guests;
use super::in_hand::InHand;
use super::maintain::Maintenance;
use super::news::Recent;
use super::scopes::Yields;
use super::idle::IdleTenants;
use super::unleased::PoolsRead;
use crate::catalog::{Catalog, RouteId};
use crate::clock::Clock;
use crate::config::{Config, FlushMode};
use crate::directory::{Check, Directory, DirectoryError, Grant, TenantRecord};
use crate::error::Error;
use crate::flights::Flights;
use crate::identity::{
    CredentialHasher, Identifier, Identify, RequestView, UnknownCache as UnknownCallers,
};
use crate::ids::Surrogate;
use crate::ledger::Mode;
use crate::ledger::claims::Settler;
use crate::ledger::flush::Flusher;
use crate::ledger::totals::Ledger;
use crate::places::Places;
use crate::policy::resolve::LiveCatalog;
use crate::quota::lease::{Lease, MOST, Writer};
use crate::rates::Sharing;
use crate::renewal::{LeaseRenewer, RenewerContext};
use crate::sheets::hub::Hub;
use crate::store::Store;
use crate::tenants::tenant::LiveTenant;
use crate::wire::WireOptions;

/// Everything the gate's parts share.
pub(crate) struct Inner {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) config: ServiceSettings,
    pub(crate) plans: PlanSource,
    /// Held from reading the plan file until it is in force: what was read first must not come
    /// into force last.
    pub(crate) reloads: tokio::sync::Mutex<()>,
    pub(crate) live: Arc<ArcSwap<LiveCatalog>>,
    pub(crate) directory: Directory,
    pub(crate) identifier: Identifier,
    pub(crate) custom: Option<Arc<dyn Identify>>,
    /// Names callers that were named by somebody we trust.
    pub(crate) prober: CredentialHasher,
    pub(crate) callers: DashMap<u128, Arc<KnownCaller>, ByProbe>,
    pub(crate) tenants: DashMap<Surrogate, Arc<LiveTenant>>,
    pub(crate) idle: IdleTenants,
    pub(super) guests: Guests,
    pub(crate) in_hand: InHand,
    /// It has been said that bodies of requests that count once are not compared.
    pub(super) said_no_digest: AtomicBool,
    pub(crate) unknown: UnknownCallers,
    /// Changes that this process has heard of.
    pub(super) recent: Recent,
    /// For look-ups of callers, by whose they are.
    pub(super) reads: Places,
    /// For claims on idempotency keys, by tenant.
    pub(super) claims: Places,
    /// Look-ups under way, so that one serves all who wait for it.
    pub(super) loads: Flights<u128, Result<(), LoadFailed>>,
    pub(crate) refreshes: mpsc::Sender<Refresh>,
    pub(crate) flusher: Flusher,
    pub(crate) renewer: LeaseRenewer,
    pub(crate) settler: Settler,
    /// What the renewer works with, for the last calls at closing.
    pub(crate) ctx: RenewerContext,
    /// Where rates are shared with other nodes.
    pub(crate) sharing: OnceLock<Sharing>,
    pub(crate) maintenance: Mutex<Option<Maintenance>>,
    pub(crate) ledger: Ledger,
    /// Pools that were read for reports just now.
    pub(super) pools_read: PoolsRead,
    pub(crate) ingest: crate::events::EventCounter,
    pub(crate) wire: WireOptions,
    pub(crate) on_refusal: Option<OnRefusal>,
    #[cfg(feature = "stripe")]
    pub(super) billing: Option<Billing>,
}

/// What is used of the service file after opening.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) identity: crate::config::IdentityConfig,
    pub(crate) yields: Yields,
    pub(crate) billing_url: Option<String>,
    pub(crate) strip_prefix: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) ingest: crate::config::IngestConfig,
    /// Hash of the token that callers of `POST /usage` present.
    pub(crate) ingest_token: Option<[u8; 32]>,
}

/// Fewest bytes of the token of `POST /usage`: anybody may try one.
const MIN_INGEST_TOKEN: usize = 16;

/// A probe is a keyed hash already: its low bits are its place in a map.
pub(crate) type ByProbe = std::hash::BuildHasherDefault<Low64>;

/// See [`ByProbe`].
#[derive(Debug, Default)]
pub(crate) struct Low64(u64);

impl std::hash::Hasher for Low64 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, probe: u128) {
        self.0 = probe as u64;
    }
}

impl ServiceSettings {
    /// Reads the secrets that are needed as long as the gate is open.
    pub(super) fn new(config: &Config, yields: Yields) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let token = config.ingest.token.as_ref().map(|token| token.resolve(&env)).transpose();
        let token = token.map_err(|error| Error::Config(error.to_string()))?;
        if let Some(token) = &token
            && token.expose().len() < MIN_INGEST_TOKEN
        {
            return Err(Error::Config(format!(
                "ingest.token has {} bytes and needs at least {MIN_INGEST_TOKEN}: make one with \
                 `openssl rand -hex 32`",
                token.expose().len()
            )));
        }
        let hash = |token: crate::config::Secret| Sha256::digest(token.expose()).into();
        Ok(Self {
            ingest: config.ingest.clone(),
            ingest_token: token.map(hash),
            identity: config.identity,
            yields,
            billing_url: config.http.billing_url.clone(),
            strip_prefix: config.http.strip_prefix.clone(),
            mode: match config.flush.mode {
                FlushMode::Fast => Mode::Fast,
                FlushMode::Journal => Mode::Journal,
                FlushMode::Durable => Mode::Durable,
            },
        })
    }
}

impl Inner {
    /// Which route of the plan file a request is on.
    #[inline]
    pub(super) fn route_of(&self, catalog: &Catalog, view: &dyn RequestView) -> Option<RouteId> {
        let path = self.strip_prefix(view.path());
        let matched = || {
            Some(match view.matched_pattern()? {
                Cow::Borrowed(pattern) => Cow::Borrowed(self.strip_prefix(pattern)),
                Cow::Owned(pattern) => Cow::Owned(self.strip_prefix(&pattern).to_owned()),
            })
        };
        catalog.routes.find_at(view.method(), path, view.reads(), matched)
    }

    /// A path, or a pattern of one, without the prefix of a gateway in front.
    fn strip_prefix<'a>(&self, path: &'a str) -> &'a str {
        let Some(prefix) = &self.config.strip_prefix else {
            return path;
        };
        path.strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with('/')).unwrap_or(path)
    }

    /// Whether tenants are made on first sight.
    pub(crate) fn creates(&self) -> bool {
        self.config.identity.unknown == crate::config::OnUnknown::Create
    }

    /// Every lease that may have to be given back.
    pub(super) fn all_leases(&self) -> Vec<Arc<Lease>> {
        // The retired ones are still their tenant's.
        drop(self.hub.take_all_retired());
        let mut all = self.tenant_leases();
        all.extend(self.hub.scoped.all_leases());
        in_order(all)
    }

    /// The leases of all tenants in memory, without those of keys, users and addresses.
    pub(super) fn tenant_leases(&self) -> Vec<Arc<Lease>> {
        in_order(self.tenants.iter().flat_map(|tenant| tenant.core.leases()).collect())
    }
}

/// A table has no order of its own, and what is done with its leases shall have one.
pub(super) fn in_order(mut leases: Vec<Arc<Lease>>) -> Vec<Arc<Lease>> {
    leases.sort_by_cached_key(|lease| (lease.pool().clone(), lease.incarnation()));
    leases
}

/// The catalog in force, as the directory checks names against it.
pub(super) struct CatalogCheck(pub(super) Arc<ArcSwap<LiveCatalog>>);

impl Check for CatalogCheck {
    fn has_plan(&self, name: &str) -> bool {
        self.0.load().catalog.plan(name).is_some()
    }

    fn has_meter(&self, name: &str) -> bool {
        self.0.load().catalog.meter(name).is_some()
    }

    fn can_spend(
        &self,
        grant: &Grant,
        record: &TenantRecord,
        now_ms: i64,
    ) -> Result<(), DirectoryError> {
        let live = self.0.load();
        let Some(meter) = live.catalog.meter(&grant.meter) else {
            return Err(DirectoryError::UnknownMeter(grant.meter.clone()));
        };
        let most = MOST / live.catalog.meters[usize::from(meter.0)].scale;
        if grant.units > most {
            return Err(DirectoryError::TooManyUnits { meter: grant.meter.clone(), most });
        }
        let plan = live.resolve(record, now_ms).policy.plan.clone();
        match plan.limits(meter) {
            true => Ok(()),
            false => Err(DirectoryError::NotLimited {
                meter: grant.meter.clone(),
                plan: plan.name.to_string(),
            }),
        }
    }

    fn changes(&self, toml: &str) -> Result<(), String> {
        let parsed = self.0.load().catalog.parse_changes(toml);
        parsed.map(|_| ()).map_err(|errors| errors.to_string())
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("tenants", &self.tenants.len())
            .field("callers", &self.callers.len())
            .finish_non_exhaustive()
    }
}

//! The state that all parts of a gate share.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::alerts::Alerts;
#[cfg(feature = "stripe")]
use super::billing::Billing;
use super::busiest_read::BusiestRead;
use super::catalogs::Catalogs;
use super::credentials::Credentials;
use super::in_hand::InHand;
use super::pools_read::PoolsRead;
use super::settings::Settings;
use super::tenants::Tenants;
use crate::catalog::{Catalog, RouteId};
use crate::clock::Clock;
use crate::decision_log::DecisionLog;
use crate::directory::{DirectoryError, Grant, PlanCheck, TenantRecord};
use crate::identity::RequestView;
use crate::ledger::claims::Settler;
use crate::ledger::flush::Flusher;
use crate::ledger::totals::Ledger;
use crate::places::Places;
use crate::policy::resolve::LiveCatalog;
use crate::quota::lease::{MOST, Writer};
use crate::rates::Sharing;
use crate::renewal::{LeaseRenewer, RenewerContext};
use crate::repeated::repeated;
use crate::sheets::hub::Hub;
use crate::task::OwnedTask;

/// Everything the gate's parts share.
pub(crate) struct Inner {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) settings: Settings,
    pub(crate) catalogs: Catalogs,
    pub(crate) credentials: Credentials,
    pub(crate) tenants: Tenants,
    pub(crate) leasing: Leasing,
    pub(crate) recording: Recording,
    pub(crate) outbound: Outbound,
    pub(crate) teardown: Teardown,
}

/// The parts that lease units.
pub(crate) struct Leasing {
    pub(crate) writer: Writer,
    pub(crate) renewer: LeaseRenewer,
    /// The renewer's context, for the last calls at closing.
    pub(crate) ctx: RenewerContext,
    /// Set where rates are shared with other nodes.
    pub(crate) sharing: OnceLock<Sharing>,
}

/// The parts that send what was recorded to others.
pub(crate) struct Outbound {
    pub(crate) alerts: Alerts,
    /// `None` without `[stripe]` in the service file.
    #[cfg(feature = "stripe")]
    pub(super) billing: Option<Billing>,
}

/// The parts that record usage and decisions, and read them.
pub(crate) struct Recording {
    pub(crate) flusher: Flusher,
    pub(crate) settler: Settler,
    pub(crate) events: crate::events::EventCounter,
    pub(crate) ledger: Ledger,
    pub(crate) decisions: DecisionLog,
    /// Pools that were read for reports just now.
    pub(super) pools_read: PoolsRead,
    /// The tenants with most use over all, as they were read for operators.
    pub(crate) busiest_read: BusiestRead,
    /// Claims on idempotency keys being written, by tenant.
    pub(super) claims: Places,
    /// Set once it was logged that bodies of keyed requests are not compared.
    pub(super) said_no_digest: AtomicBool,
}

/// The parts that end while the gate closes.
pub(crate) struct Teardown {
    pub(crate) in_hand: InHand,
    pub(crate) maintenance: OnceLock<Vec<OwnedTask>>,
    /// Set once the gate begins to close.
    pub(crate) closing: AtomicBool,
    /// The gate has closed without an error.
    pub(crate) closed: tokio::sync::OnceCell<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // One that has served no tenant (its start failed) leaves nothing behind.
        let served = !self.tenants.active.is_empty();
        if served && self.teardown.closed.get().is_none() {
            tracing::warn!(
                "the gate ends without `close`: what was counted since the last flush is at best \
                 in its journal, and the units it leased stay spent until another process takes \
                 them back. Call `gate.close().await` after the server has stopped"
            );
        }
    }
}

impl Inner {
    /// Which route of the plan file a request is on.
    #[inline]
    pub(super) fn route_of(&self, catalog: &Catalog, view: &dyn RequestView) -> Option<RouteId> {
        if let Some(name) = view.route() {
            match catalog.routes.named(name) {
                Some(named) => return Some(named),
                None => self.note_no_route(name),
            }
        }
        let path = self.strip_prefix(view.path());
        let matched = || {
            Some(match view.matched_pattern()? {
                Cow::Borrowed(pattern) => Cow::Borrowed(self.strip_prefix(pattern)),
                Cow::Owned(pattern) => Cow::Owned(self.strip_prefix(&pattern).to_owned()),
            })
        };
        let method = view.method();
        let found = catalog.routes.find_at(method, path, view.reads(), matched);
        if method == "POST" || !catalog.routes.has_calls() || !view.is_of_any_method() {
            return found;
        }
        let as_call = catalog.routes.find_at("POST", path, view.reads(), || None);
        as_call.map_or(found, |call| catalog.routes.stricter(found, Some(call)))
    }

    /// The plan file has lost a route that the host names.
    #[cold]
    fn note_no_route(&self, route: &str) {
        const TEXT: &str = "the plan file has no such route any more: patterns decide instead";
        repeated!(error, self.clock.now().wall_ms, TEXT; route);
    }

    /// A path, or a pattern of one, without the prefix of a gateway in front.
    pub(super) fn strip_prefix<'a>(&self, path: &'a str) -> &'a str {
        let Some(prefix) = &self.settings.strip_prefix else {
            return path;
        };
        path.strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with('/')).unwrap_or(path)
    }
}

/// The catalog in force, as the directory checks names against it.
pub(super) struct CatalogCheck(pub(super) Arc<ArcSwap<LiveCatalog>>);

impl PlanCheck for CatalogCheck {
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
            .field("tenants", &self.tenants.active.len())
            .field("callers", &self.tenants.callers.len())
            .finish_non_exhaustive()
    }
}

//! The plan file (`plans.toml`): parsed, checked, and lowered into a `Catalog`. A `Catalog` that
//! exists is legal. Handlers see its [`Plan`]s and their [`Feature`]s; [`PlanErrors`] says what is
//! wrong with a file.
//!
//! Everything here is data and arithmetic, without a clock or I/O: a file is passed in as text. The
//! small languages and the words of each table are described in `docs/plans.md`.
//!
//! The stages: `keys` defines the keys and their types, and `toml_file` checks the file against
//! them; `words` parses the strings. `meters`, `routes`, `rates`, `limits`, `plans`, `offers` and
//! `tenants` lower the tables, `check` validates the whole. All of them continue after a mistake
//! and record it in `Findings`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

mod check;
mod counterparts;
mod cursor;
mod effective;
mod escapes;
mod form;
mod keys;
mod limits;
mod meters;
mod model;
mod numbers;
mod offers;
mod pattern;
mod permission;
mod plans;
mod rates;
mod router;
mod routes;
mod tenants;
mod window;
mod words;

#[cfg(test)]
mod plan_files_tests;

#[doc(hidden)]
pub use model::Window;
pub(crate) use model::*;
pub use model::{Feature, Plan};
pub(crate) use numbers::gcd as common_divisor;
#[doc(hidden)]
pub(crate) use permission::{NOT_A_PERMISSION, is_permission};
pub use router::Reads;
pub(crate) use router::Routes;
pub(crate) use window::{Zone, local_day};

use crate::clock::unix_ms;
#[doc(hidden)]
pub use crate::toml_file::Warning;
use crate::toml_file::{self, Findings, TomlTable, did_you_mean, unknown_help};
pub use crate::toml_file::{FileError as PlanError, FileErrors as PlanErrors, Place};
use limits::Scene;

/// Identity of a plan file's content: SHA-256 of its bytes.
pub(crate) fn content_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The JSON Schema of a plan file, for editors; the same as `docs/plans.schema.json`.
pub fn schema() -> serde_json::Value {
    toml_file::schema(&keys::TOP, "tallygate plans.toml")
}

/// A plan file that was parsed and checked: it is legal if it exists.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Catalog {
    /// SHA-256 of the file's bytes: equal hashes mean equal files.
    pub(crate) hash: [u8; 32],
    /// The plan of tenants without one.
    pub(crate) default_plan: PlanId,
    /// The zone in which days and months turn over.
    pub(crate) timezone: Zone,
    /// Treatment of an uncached tenant by admission when the store does not answer.
    pub(crate) on_directory_error: OnDirectoryError,
    /// By [`MeterId`]; the first is `requests`, the others are in the order of the file.
    pub(crate) meters: Vec<Meter>,
    /// The routes, with the patterns of their requests.
    pub(crate) routes: Routes,
    /// By [`PlanId`], in the order of the file.
    pub(crate) plans: Vec<Plan>,
    /// In the order of the file.
    pub(crate) addons: Vec<Addon>,
    /// In the order of the file.
    pub(crate) topups: Vec<Topup>,
    /// The exceptions still in force, by the tenant's outer id.
    pub(crate) tenants: BTreeMap<Arc<str>, Exception>,
    /// The effects of payment states.
    pub(crate) billing: BillingTable,
    /// Legal, but probable mistakes; by position.
    pub warnings: Vec<Warning>,
}

/// The meaning of a Stripe price lookup key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "what Stripe sells"))]
pub(crate) enum Sold {
    /// A plan.
    Plan(PlanId),
    /// An addon, by index in [`Catalog::addons`].
    Addon(usize),
    /// A top-up, by index in [`Catalog::topups`].
    Topup(usize),
}

impl Catalog {
    /// An amount in atoms of a meter, followed by its amount in each sum that the meter feeds.
    pub(crate) fn with_sums(
        &self,
        meter: MeterId,
        n: u64,
    ) -> impl Iterator<Item = (MeterId, u64)> + '_ {
        let feeds = &self.meters[usize::from(meter.0)].feeds;
        let sums = feeds.iter().map(move |(sum, weight)| (*sum, n.saturating_mul(*weight)));
        std::iter::once((meter, n)).chain(sums)
    }

    /// Reads a plan file. `file` is its name in errors. `now` only decides which
    /// exceptions have ended: they are left out, with a warning.
    ///
    /// # Errors
    ///
    /// All errors at once. For a file that is not valid TOML, only the syntax errors, because the
    /// rest would be guesswork.
    pub fn parse(file: &str, text: &str, now: SystemTime) -> Result<Self, PlanErrors> {
        let mut report = Findings::new(file, text);
        let document = toml_file::read(&mut report, text)?;
        let top = TomlTable(document.get_ref());
        toml_file::check_table(&mut report, &keys::TOP, top, 0..0);
        let catalog = lower(&mut report, top, unix_ms(now), content_hash(text));
        let warnings = report.finish()?;
        Ok(Self { warnings, ..catalog })
    }

    /// Reads an operator's override: the words of a `[tenant.x]` table, without its header. `until`
    /// and `note` are refused: they are kept beside an override, not in it.
    ///
    /// # Errors
    ///
    /// All errors at once; the file's name is `override`.
    pub(crate) fn parse_changes(&self, text: &str) -> Result<PlanChanges, PlanErrors> {
        let mut report = Findings::new("override", text);
        let document = toml_file::read(&mut report, text)?;
        let top = TomlTable(document.get_ref());
        toml_file::check_table(&mut report, &keys::TENANT, top, 0..0);
        for key in ["until", "note"] {
            if let Some(span) = top.key_span(key) {
                let message = format!("`{key}` is kept beside an override");
                report.error(span, message, "leave the line out");
            }
        }
        let plans: Vec<Arc<str>> = self.plans.iter().map(|plan| plan.name.clone()).collect();
        let scene = Scene {
            meters: &self.meters,
            routes: self.routes.as_slice(),
            plans: &plans,
            zone: &self.timezone,
        };
        let changes = tenants::changes(&mut report, &scene, top);
        check::check_override(&mut report, self, &changes);
        report.finish().map(|_| changes)
    }

    /// The meter of this name.
    pub(crate) fn meter(&self, name: &str) -> Option<MeterId> {
        let at = self.meters.iter().position(|meter| *meter.name == *name);
        at.and_then(|n| u16::try_from(n).ok()).map(MeterId)
    }

    /// What to write instead of a meter that cannot be counted: the nearest one, or all. A sum
    /// counts its parts, so it is not among them.
    pub(crate) fn meter_help(&self, name: &str) -> String {
        let counted = self.meters.iter().filter(|meter| meter.count != MeterSource::Sum);
        unknown_help(name, counted.map(|meter| &*meter.name))
    }

    /// That no route has this name, and which the nearest is.
    pub(crate) fn no_route(&self, name: &str) -> String {
        let names = self.routes.as_slice().iter().map(|route| &*route.name);
        format!("the plan file has no route `{name}`: {}", unknown_help(name, names))
    }

    /// The plans, in the order of the file.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// The permissions that its routes ask of callers.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.routes.as_slice().iter().filter_map(|route| route.needs_permission.as_deref())
    }

    /// The names of its meters.
    #[doc(hidden)]
    pub fn meter_names(&self) -> impl Iterator<Item = &str> {
        self.meters.iter().map(|meter| &*meter.name)
    }

    /// The plan of this name.
    pub(crate) fn plan(&self, name: &str) -> Option<PlanId> {
        let at = self.plans.iter().position(|plan| *plan.name == *name);
        at.and_then(|n| u16::try_from(n).ok()).map(PlanId)
    }

    /// What to write instead of a plan that is not in the file: the nearest one, or all.
    pub(crate) fn plan_help(&self, name: &str) -> String {
        unknown_help(name, self.plans.iter().map(|plan| &*plan.name))
    }

    /// The item sold under this lookup key.
    pub(crate) fn sold_at(&self, price: &str) -> Option<Sold> {
        let has = |prices: &[String]| prices.iter().any(|known| known == price);
        let plan = self.plans.iter().position(|plan| has(&plan.prices));
        let plan = plan.and_then(|n| u16::try_from(n).ok()).map(|n| Sold::Plan(PlanId(n)));
        let addon = || self.addons.iter().position(|addon| has(&addon.prices)).map(Sold::Addon);
        let topup = || self.topups.iter().position(|topup| has(&topup.prices)).map(Sold::Topup);
        plan.or_else(addon).or_else(topup)
    }

    /// The tenant's exception, by its outer id. It may have ended.
    pub(crate) fn exception(&self, tenant: &str) -> Option<&Exception> {
        self.tenants.get(tenant)
    }
}

/// Lowers a file whose shape has been checked. With errors in the report the result is partial.
fn lower(report: &mut Findings<'_>, top: TomlTable<'_>, now_ms: i64, hash: [u8; 32]) -> Catalog {
    let timezone = timezone(report, top);
    let (meters, send) = meters::meters(report, top);
    let plan_entries = top.table("plan").map(TomlTable::entries).unwrap_or_default();
    let names: Vec<Arc<str>> = plan_entries.iter().map(|entry| Arc::from(entry.name)).collect();
    let scene = Scene { meters: &meters, routes: &[], plans: &names, zone: &timezone };
    let mut routes = routes::routes(report, top, &scene);
    let scene = Scene { routes: routes.as_slice(), ..scene };

    let plans = plans::plans(report, &plan_entries, &scene);
    let default = top.text("default-plan").and_then(|name| scene.plan(report, &name));
    let default_plan = PlanId(default.and_then(|n| u16::try_from(n).ok()).unwrap_or(0));
    let addons = offers::addons(report, top, &scene, &plans);
    let topups = offers::topups(report, top, &scene);
    let tenants = tenants::tenants(report, top, &scene, now_ms);
    let billing = tenants::billing(report, top, &scene, &plans, default_plan);
    offers::check_prices(report, top);
    routes.mark_rated(rated(&plans, &tenants));
    routes.default_auth = routes::auth(top.text("default-auth"));
    let on_directory_error = match top.text("on-directory-error").map(|word| word.text) {
        Some("default-plan") => OnDirectoryError::DefaultPlan,
        _ => OnDirectoryError::Deny,
    };
    let catalog = Catalog {
        hash,
        default_plan,
        timezone,
        on_directory_error,
        meters,
        routes,
        plans,
        addons,
        topups,
        tenants,
        billing,
        warnings: Vec::new(),
    };
    if !catalog.plans.is_empty() {
        check::check(report, &catalog, top, &send);
    }
    catalog
}

/// The routes with a rate of their own in some plan or exception.
fn rated<'a>(
    plans: &'a [Plan],
    tenants: &'a BTreeMap<Arc<str>, Exception>,
) -> impl Iterator<Item = RouteId> + 'a {
    let plans = plans.iter().flat_map(|plan| plan.rates.values());
    let tenants = tenants.values().flat_map(|tenant| tenant.changes.rates.values());
    plans.chain(tenants).flatten().filter_map(|rate| match rate.on {
        RateOn::Route(route) => Some(route),
        RateOn::All | RateOn::Default => None,
    })
}

fn timezone(report: &mut Findings<'_>, top: TomlTable<'_>) -> Zone {
    let Some(name) = top.text("timezone") else {
        return Zone::utc();
    };
    Zone::new(name.text).unwrap_or_else(|| {
        let names = Zone::names();
        let known = || names.iter().map(String::as_str);
        let help = match did_you_mean(name.text, known()) {
            Some(_) => unknown_help(name.text, known().collect::<Vec<_>>()),
            None => "write an IANA name: \"UTC\", \"Europe/Berlin\"".to_owned(),
        };
        report.error(name.span, format!("unknown time zone `{}`", name.text), help);
        Zone::utc()
    })
}

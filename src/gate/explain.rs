//! How a request of a tenant would be decided now, and why: the limits that hold for it with their
//! windows and counters, what happens without the store, and the verdict. Nothing is drawn.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::logged::{Drawn, cost};
use super::standing::{LimitReader, limit_name, route_name};
use super::{Gate, Identified};
use crate::admission::decide::without_value;
use crate::amount::Amount;
use crate::catalog::{Auth, Catalog, OnDirectoryError, OnLeaseError, Reads};
use crate::config::NoScope;
use crate::decision::{Payment, Reason};
use crate::decision_log::LimitAsked;
use crate::directory::{Grant, Override, TenantRecord};
use crate::policy::origin::{CONCURRENCY, Origin, Origins};
use crate::policy::resolve::{SetBy, Standing};
use crate::policy::taken::Limit;
use crate::policy::{CounterHome, QuotaIndex, RoutePolicy};
use crate::sheets::sheet::Sheet;
use crate::store::StoreError;
use crate::wire::{Mapping, reason_word, rfc3339};

impl Gate {
    /// How a request of this caller by this method on this path would be decided now, as a JSON
    /// object; its body is taken as empty. Counters of quotas are the store's, less what this
    /// process has served since; those of rates and of requests in flight are this process's own.
    /// For the operator's command.
    ///
    /// It is what the gate would answer this caller, but for three things (`explained_tests.rs`):
    /// of several limits that have too little left, the gate may name another, for it asks for
    /// units of all meters in one wait; a limit that never resets refuses with 402 here also where
    /// what it lacks is only held by open requests; and a pool of the store may have been read a
    /// second ago.
    ///
    /// `held` is what the caller may do. Where that is not said, it is taken to have the permission
    /// that the route asks for.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn explain(
        &self,
        who: &Identified,
        method: &str,
        path: &str,
        held: Option<&[String]>,
    ) -> Result<Value, StoreError> {
        let inner = &*self.inner;
        if let Some(read) = self.refresh_for_look(&who.tenant().0, inner.clock.now()) {
            read.await;
        }
        let now = inner.clock.now();
        let live = inner.catalogs.live.load_full();
        let sheet = who.tenant().0.sheet(&live, now);
        let catalog = &sheet.catalog;
        let path = inner.strip_prefix(path);
        let route = catalog.routes.find_at(method, path, Reads::AsItCame, || None);
        let named = route.map(|id| &catalog.routes.as_slice()[usize::from(id.0)]);
        let auth = named.map_or(catalog.routes.default_auth, |route| route.auth);
        let rules = sheet.policy.route(route);
        let scopes = who.scopes(&inner.hub.without_value);
        let here = LimitReader { inner, sheet: &sheet, scopes, now, hold: None, stored: None };
        let stored = here.read_unleased().await?;
        let reader = LimitReader { stored: Some(&stored), ..here };

        let call = (rules, Some(0));
        let in_flight = reader.in_flight(rules, Drawn::No);
        let in_flight =
            in_flight.map(|it| (Limit::None, it.named(&sheet.policy, catalog, Limit::None)));
        let asked = reader.asked_of_all(call, Drawn::No);
        let asked: Vec<_> = in_flight.into_iter().chain(asked).collect();
        let record = who.tenant().0.record();
        let origins = live.origins(&record, &sheet.policy.plan, now.wall_ms);
        let from = (&record, &origins);
        let limits: Vec<_> =
            asked.iter().map(|(limit, asked)| shown(&reader, *limit, asked, from)).collect();
        let in_force = origins.overrides.iter().filter_map(|at| record.overrides.get(*at));
        let needed = named.and_then(|route| route.needs_permission.as_ref());
        let has = |it: &Arc<str>| held.map(|held| held.iter().any(|held| **held == **it));
        let verdict = match (auth, needed) {
            (Auth::None, _) => {
                json!({ "verdict": "passed", "reason": "the route has auth = \"none\"" })
            }
            // First, as in `Gate::check`, and whatever the route's `shadow` says.
            (_, Some(needed)) if has(needed) == Some(false) => {
                refused(&Reason::PermissionMissing(needed.clone()))
            }
            _ => verdict(&reader, rules, &asked),
        };
        let mut all = json!({
            "at": rfc3339(now.wall_ms),
            "tenant": sheet.tenant.id,
            "route": route_name(&sheet.catalog, route),
            "permission": needed.map(|it| json!({ "needed": &**it, "held": has(it) })),
            "plan": sheet.policy.plan.name,
            "status": super::status_word(&sheet.standing),
            "revision": live.revision,
            "timezone": catalog.timezone.name(),
            "cost": cost(catalog, call),
            "limits": limits,
            "overrides": in_force.map(Override::id).collect::<Vec<_>>(),
            "fail_policy": fail_policy(catalog, &sheet, inner.settings.identity.no_scope),
        });
        merge(&mut all, verdict);
        Ok(all)
    }
}

pub(super) fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// A limit with its window, where its counter is, and what sets it.
pub(super) fn shown(
    reader: &LimitReader<'_>,
    limit: Limit,
    asked: &LimitAsked,
    (record, origins): (&TenantRecord, &Origins),
) -> Value {
    let sheet = reader.sheet;
    let mut shown = serde_json::to_value(asked).unwrap_or_default();
    let more = match limit {
        Limit::Quota(index) => {
            let rule = &sheet.policy.quotas[index];
            let window = sheet.window(rule.debtor);
            let end = (window.end_ms < i64::MAX).then(|| rfc3339(window.end_ms));
            json!({
                "scope": scope_word(&sheet.policy.pools[rule.debtor].place),
                "window": { "start": rfc3339(window.start_ms), "end": end },
                "counter": "store",
            })
        }
        Limit::Rate(index) => {
            let rate = &sheet.policy.rates[index];
            json!({
                "scope": scope_word(&rate.place),
                "per_seconds": seconds(rate.per),
                "counter": "process",
            })
        }
        Limit::Granted(_) => json!({ "scope": "tenant", "counter": "store" }),
        Limit::None => json!({ "scope": "tenant", "counter": "process" }),
    };
    merge(&mut shown, more);
    let id = match limit {
        Limit::Rate(index) => sheet.policy.rates[index].id.clone(),
        Limit::Quota(_) | Limit::Granted(_) => asked.name.clone(),
        Limit::None => CONCURRENCY.into(),
    };
    shown["origin"] = origin(record, origins.limits.get(&id));
    if let Limit::Granted(meter) = limit {
        let name = &*sheet.catalog.meters[usize::from(meter.0)].name;
        let now = reader.now.wall();
        let lasts = |it: &Grant| it.expires_at().is_none_or(|end| now < end);
        let own = record.grants.iter().filter(|it| it.meter == name && lasts(it));
        shown["origin"]["grants"] = own.map(|it| &*it.id).collect();
    }
    shown
}

/// What sets a limit: the plan, the plan file's table of the tenant, or an override by its id; and
/// the addons that enlarge it.
fn origin(record: &TenantRecord, of: Option<&Origin>) -> Value {
    let Some(of) = of else { return json!({ "from": "plan" }) };
    let mut shown = match of.by {
        SetBy::Plan => json!({ "from": "plan" }),
        SetBy::Exception => json!({ "from": "exception" }),
        SetBy::Override(at) => {
            let id = record.overrides.get(at).map(Override::id);
            json!({ "from": "override", "override": id })
        }
    };
    if !of.addons.is_empty() {
        let addons = of.addons.iter().map(|(name, n)| (name.to_string(), json!(n)));
        shown["addons"] = Value::Object(addons.collect());
    }
    shown
}

fn seconds(per: Duration) -> Value {
    match per.subsec_nanos() {
        0 => json!(per.as_secs()),
        _ => json!(per.as_secs_f64()),
    }
}

fn scope_word<I>(place: &CounterHome<I>) -> String {
    place.scope().map_or_else(|| "tenant".to_owned(), |scope| scope.name().to_string())
}

/// What is decided where the store or the directory does not answer, or a caller lacks a scope.
fn fail_policy(catalog: &Catalog, sheet: &Sheet, no_scope: NoScope) -> Value {
    let lease = match sheet.policy.on_lease_error() {
        OnLeaseError::Deny => "deny".to_owned(),
        OnLeaseError::Allow { basis_points } => {
            format!("allow {} %", f64::from(basis_points) / 100.0)
        }
    };
    json!({
        "on_lease_error": lease,
        "on_directory_error": match catalog.on_directory_error {
            OnDirectoryError::Deny => "deny",
            OnDirectoryError::DefaultPlan => "default-plan",
        },
        "no_scope": match no_scope {
            NoScope::Tenant => "tenant",
            NoScope::Refuse => "refuse",
            NoScope::Skip => "skip",
        },
    })
}

/// The decision, in the order of `admission/decide.rs`, on these numbers.
pub(super) fn verdict(
    reader: &LimitReader<'_>,
    rules: &RoutePolicy,
    asked: &[(Limit, LimitAsked)],
) -> Value {
    let policy = &reader.sheet.policy;
    let short = asked.iter().find(|(limit, asked)| is_refused_by(reader, *limit, asked));
    let short = short.map(|(limit, asked)| (*limit, asked.name.clone()));
    let is_full = matches!(short, Some((Limit::None, _)));
    let lacks = without_value(policy, rules, reader.scopes).filter(|_| !is_full);
    let (reason, limit) = match (&reader.sheet.standing, &rules.missing, lacks, short) {
        (Standing::Refused(reason), ..) => (reason.clone(), None),
        (_, Some(feature), ..) => (Reason::FeatureMissing(feature.clone()), None),
        (_, _, Some((scope, by)), _) => {
            (Reason::ScopeMissing(scope.name().into()), Some((Limit::None, limit_name(policy, by))))
        }
        (.., Some((limit, name))) => {
            let reason = match (limit, reader.read(limit).and_then(|it| it.resets_in)) {
                (Limit::None, _) => Reason::Concurrency,
                (_, Some(_)) => Reason::Exhausted,
                (_, None) => Reason::PaymentRequired(Payment::GrantUsedUp),
            };
            (reason, Some((limit, name)))
        }
        _ => return json!({ "verdict": "admitted", "reason": null, "limit": null }),
    };
    let yields = rules.shadow && reason.yields_to_shadow();
    let resets = |limit| Some(reader.read(limit)?.resets_in?.as_secs_f64().ceil() as u64);
    let mut found = refused(&reason);
    if yields {
        found["verdict"] = json!("shadowed");
    }
    found["limit"] = json!(limit.as_ref().map(|(_, name)| name));
    found["resets_in_seconds"] = json!(limit.and_then(|(limit, _)| resets(limit)));
    found
}

/// Whether a limit refuses what is asked of it: what it lets through beyond itself ends at its
/// `stop`.
fn is_refused_by(reader: &LimitReader<'_>, limit: Limit, asked: &LimitAsked) -> bool {
    let beyond = match limit {
        Limit::Quota(index) if asked.over => reader.left_beyond(index),
        _ => Amount::units(0),
    };
    asked.is_short_of(beyond)
}

impl LimitReader<'_> {
    /// What a quota with `over` still lets through beyond what it includes, as `payers::lanes`
    /// draws it.
    fn left_beyond(&self, index: QuotaIndex) -> Amount {
        let rule = &self.sheet.policy.quotas[index];
        // A quota within the tenant that owes anything is past its `stop`.
        let is_past = rule.quota.stop.is_some() && !rule.tenant_wide && self.debt(rule.debtor) > 0;
        let left = rule.over.filter(|_| !is_past).and_then(|over| self.remaining(over));
        // Use from before the limit was lowered counts towards the `stop`.
        let before = if rule.quota.stop.is_some() { self.overdrawn(rule.debtor) } else { 0 };
        let left = left.unwrap_or(0).saturating_sub(before);
        Amount::new(left, self.scale(rule.quota.meter))
    }
}

/// A refusal that no limit is the cause of.
fn refused(reason: &Reason) -> Value {
    json!({
        "verdict": "refused",
        "reason": reason_word(reason),
        "limit": null,
        "http_status": Mapping::of(reason).status,
        "resets_in_seconds": null,
    })
}

//! What an operator sees.

use serde_json::json;

use super::path::Route;
use super::{Admin, KnownOperator, written};
use crate::directory::Tenant;
use crate::error::Error;
use crate::gate::{Identified, TenantFilter, TenantHandle};
use crate::report::percent_decoded;
use crate::wire::{Reply, plain_problem};

/// Tenants of a page, where the request does not say how many.
const PAGE: usize = 100;
/// Most tenants of a page.
const MAX_PAGE: usize = 1_000;
/// Tenants of `GET /top`, where the request does not say how many.
const TOP: usize = 20;
/// Most of them: a list that a person reads.
const MAX_TOP: usize = 100;

impl Admin {
    /// The answer to a `GET`; `None`: nothing is shown there.
    pub(super) async fn look(
        &self,
        route: &Route,
        operator: &KnownOperator,
        query: &str,
    ) -> Result<Option<Reply>, Reply> {
        Ok(Some(match route {
            Route::Health => written::json(200, &self.health()),
            Route::Operator => {
                let (name, role) = (&operator.name, operator.role.as_str());
                written::json(200, &json!({ "name": name, "role": role }))
            }
            Route::Operators => self.operators().await?,
            Route::OperatorsHistory => self.operators_history().await?,
            #[cfg(feature = "stripe")]
            Route::Billing => self.billing(query).await?,
            #[cfg(not(feature = "stripe"))]
            Route::Billing => written::json(200, &written::bills_nothing()),
            Route::Plans => written::json(200, &self.plans()),
            Route::Top => self.top(query).await?,
            Route::Tenants => self.list(query).await?,
            Route::Tenant(id) => written::json(200, &self.tenant(&self.find(id).await?)),
            Route::Usage(id) => {
                self.gate.usage_reply(&Identified::from(&self.handle(id).await?), None).await
            }
            Route::UsageHistory(id) => {
                self.gate.history_reply(&Identified::from(&self.handle(id).await?), query).await
            }
            Route::Peek(id) => {
                let (who, asked) = (Identified::from(&self.handle(id).await?), peek_of(query)?);
                let found = self.gate.peek(&who, &asked.0, asked.1).await;
                written::json(200, &found.map_err(|error| self.refused(&error))?)
            }
            Route::History(id) => {
                let history = self.find(id).await?.history().await;
                let entries = history.map_err(|error| self.refused(&error.into()))?;
                let entries: Vec<_> = entries.iter().map(written::entry).collect();
                written::json(200, &json!({ "history": entries }))
            }
            Route::Refusals => self.refusals(None, query)?,
            Route::RefusalsOf(id) => {
                self.find(id).await?;
                self.refusals(Some(id), query)?
            }
            Route::Keys(id) => {
                let keys = self.find(id).await?.keys().await;
                let mut keys = keys.map_err(|error| self.refused(&error.into()))?;
                keys.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
                let keys: Vec<_> = keys.iter().map(written::key_of_tenant).collect();
                written::json(200, &json!({ "keys": keys }))
            }
            _ => return Ok(None),
        }))
    }

    fn health(&self) -> serde_json::Value {
        let health = self.gate.health();
        let troubles: Vec<_> = health.troubles.iter().map(ToString::to_string).collect();
        let inner = &self.gate.inner;
        json!({
            "ready": health.is_ready(),
            "troubles": troubles,
            "flush-lag-ms": u64::try_from(inner.flush_lag().as_millis()).unwrap_or(u64::MAX),
            "last-report": inner.last_reported().map(written::at),
            "catalog-revision": inner.catalogs.live.load().revision,
        })
    }

    fn plans(&self) -> serde_json::Value {
        let live = self.gate.inner.catalogs.live.load();
        let catalog = &live.catalog;
        let plans: Vec<&str> = catalog.plans.iter().map(|plan| &*plan.name).collect();
        let meters: Vec<&str> = catalog.meters.iter().map(|meter| &*meter.name).collect();
        let default = plans.get(usize::from(catalog.default_plan.0));
        json!({
            "revision": live.revision, "default-plan": default, "plans": plans, "meters": meters,
        })
    }

    async fn top(&self, query: &str) -> Result<Reply, Reply> {
        let asked = PageQuery::parse(query, &["limit"], MAX_TOP)?;
        let most = asked.limit.unwrap_or(TOP);
        let top = self.gate.top(most).await;
        let (in_use, compared) = (top.in_use, top.compared);
        Ok(written::json(
            200,
            &json!({ "tenants": top.tenants, "in-use": in_use, "compared": compared }),
        ))
    }

    async fn list(&self, query: &str) -> Result<Reply, Reply> {
        let names = ["prefix", "after", "limit", "plan", "status", "payment"];
        let asked = PageQuery::parse(query, &names, MAX_PAGE)?;
        let PageQuery { filter, after, limit, .. } = asked;
        if let Some(mistake) = self.gate.filter_mistake(&filter) {
            return Err(plain_problem(400, "Bad query", &mistake));
        }
        let page = self.gate.filtered(&filter, &after, limit.unwrap_or(PAGE)).await;
        let page = page.map_err(|error| self.refused(&error.into()))?;
        let tenants: Vec<_> = page.tenants.iter().map(|tenant| self.tenant(tenant)).collect();
        let (next, read) = (page.next, page.read);
        Ok(written::json(200, &json!({ "tenants": tenants, "next": next, "read": read })))
    }

    pub(super) fn tenant(&self, tenant: &Tenant) -> serde_json::Value {
        let (inner, record) = (&self.gate.inner, tenant.record());
        let (live, now_ms) = (inner.catalogs.live.load(), inner.clock.now().wall_ms);
        let holds = live.resolve(record, now_ms);
        let origins = live.origins(record, &holds.policy.plan, now_ms);
        written::tenant(record, &holds, &origins.limits)
    }

    /// The tenant with this id, or a 404.
    pub(super) async fn find(&self, id: &str) -> Result<Tenant, Reply> {
        self.of(self.gate.directory(), id).await
    }

    async fn handle(&self, id: &str) -> Result<TenantHandle, Reply> {
        self.find(id).await?;
        self.gate.tenant(id).await.map_err(|error| self.refused(&error))
    }

    /// The answer where the library has refused.
    pub(super) fn refused(&self, error: &Error) -> Reply {
        match written::problem_of(error) {
            Some((status, title)) => {
                let problem = plain_problem(status, title, &written::sentence(error));
                written::with_code(problem, error)
            }
            None => self.unavailable(error),
        }
    }
}

/// The meter and the units of a query.
fn peek_of(raw: &str) -> Result<(String, u64), Reply> {
    let bad = |detail: &str| plain_problem(400, "Bad query", detail);
    let (mut meter, mut units) = (None, None);
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("meter", name)) => {
                let name = percent_decoded(name, ' ');
                meter = Some(name.ok_or_else(|| bad("meter is not percent-encoded UTF-8."))?);
            }
            Some(("units", n)) => {
                units = Some(n.parse().map_err(|_| bad("units is a whole number."))?);
            }
            _ => return Err(bad("Here only these may be asked for: meter, units.")),
        }
    }
    let missing = || bad("Write both: peek?meter=requests&units=1.");
    Ok((meter.ok_or_else(missing)?, units.ok_or_else(missing)?))
}

/// The query of `GET /tenants`, `GET /top` and `GET /billing`.
#[derive(Default)]
pub(super) struct PageQuery {
    filter: TenantFilter,
    pub(super) after: String,
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "billing alone asks for it"))]
    pub(super) tenant: Option<String>,
    pub(super) limit: Option<usize>,
}

impl PageQuery {
    /// Reads a query of these names, with at most this limit.
    pub(super) fn parse(raw: &str, names: &[&str], most: usize) -> Result<Self, Reply> {
        let bad = |detail: &str| plain_problem(400, "Bad query", detail);
        let mut query = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value, ' ');
            let value = value.ok_or_else(|| bad("The query is not percent-encoded UTF-8."))?;
            match name {
                _ if !names.contains(&name) => {
                    let detail = format!("Here only these may be asked for: {}.", names.join(", "));
                    return Err(bad(&detail));
                }
                "prefix" => query.filter.prefix = value,
                "plan" => query.filter.plan = Some(value),
                "status" => query.filter.status = Some(value),
                "payment" => query.filter.payment = Some(value),
                "after" => query.after = value,
                "tenant" => query.tenant = Some(value),
                _ => {
                    let limit = value.parse().ok().filter(|n| (1..=most).contains(n));
                    let detail = format!("limit is a number from 1 to {most}.");
                    query.limit = Some(limit.ok_or_else(|| bad(&detail))?);
                }
            }
        }
        Ok(query)
    }
}

//! Decisions as their log has them: what was asked, the limits that hold for it as they stood
//! before it, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Number;
use smallvec::SmallVec;

use super::standing::{LimitReader, limit_name, route_name};
use super::{Gate, Inner};
use crate::admission::context::HoldContext;
use crate::admission::decide;
use crate::admission::permit::Hold;
use crate::amount::Amount;
use crate::catalog::{Catalog, MeterId, Over, RouteId};
use crate::clock::Now;
use crate::decision::{Reason, Refusal};
use crate::decision_log::{
    DecisionParts, DecisionRecord, LimitAsked, SampledDecision, Unwritten, kind, number,
};
use crate::payers::purse::LimitRefused;
use crate::policy::taken::Limit;
use crate::policy::{AmountSource, MeterAsk, Policy, RoutePolicy};
use crate::sheets::sheet::Sheet;

/// What was refused before its limits were known.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) kind: &'static str,
    pub(super) tenant: Option<Arc<str>>,
    pub(super) route: Option<Arc<str>>,
}

impl About {
    /// A request on this route, of a caller that is not known.
    pub(super) fn request(route: Option<Arc<str>>) -> Self {
        Self { kind: kind::REQUEST, tenant: None, route }
    }
}

/// Whether the limits have been drawn from for the decision at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    Yes,
    No,
}

/// The record of a decision that is not final: an idempotency key may overturn it. It is logged
/// when this is dropped, for whatever reason the request ends, unless that has happened.
#[derive(Debug)]
pub(crate) struct Unlogged {
    gate: Gate,
    record: Option<Unwritten>,
}

impl Unlogged {
    pub(crate) fn new(gate: &Gate, record: Option<Unwritten>) -> Self {
        Self { gate: gate.clone(), record }
    }

    /// The decision was overturned, and what came of it is logged elsewhere; or its record goes on
    /// by another way.
    pub(crate) fn take(&mut self) -> Option<Unwritten> {
        self.record.take()
    }
}

impl Drop for Unlogged {
    fn drop(&mut self) {
        self.gate.inner.log_decided(self.record.take());
    }
}

impl Gate {
    /// The last refusals of a tenant, newest first, at most `most`; `None`: of callers whose tenant
    /// is not known (401). They are kept in memory: the last 256 of each tenant, and 4,096 in all.
    /// With `[decisions]` in the service file they begin with those that processes before this one
    /// have logged there.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// # use tallygate::Ask;
    /// # let (gate, _clock) = tallygate::testing::gate(r#"
    /// #     default-plan = "free"
    /// #     [meter.pages]
    /// #     [plan.free]
    /// #     quota.pages = "3/day"
    /// # "#);
    /// let acme = gate.tenant("acme").await?;
    /// assert!(gate.admit(Ask::new(&acme, "convert").cost("pages", 4)).await.is_err());
    /// let refusals = gate.refusals_of(Some("acme"), 10);
    /// assert_eq!(refusals[0].limit.as_deref(), Some("pages/day"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn refusals_of(&self, tenant: Option<&str>, most: usize) -> Vec<Arc<DecisionRecord>> {
        self.inner.recording.decisions.refusals(Some(tenant), most)
    }
}

impl Inner {
    /// Logs the record of a decision that stands.
    #[inline]
    pub(super) fn log_decided(&self, record: Option<Unwritten>) {
        if let Some(record) = record {
            self.recording.decisions.take(record);
        }
    }

    /// The record of an admission. The hold has what was drawn.
    #[cold]
    pub(super) fn admission(&self, hold: &Hold, now: Now) -> Unwritten {
        let one_in = self.recording.decisions.one_in().unwrap_or(1);
        let asked = self.asked(hold, Drawn::Yes, now);
        Unwritten::Sampled(Box::new(Admission { asked, one_in }))
    }

    /// The record of a refusal by a limit, or by the tenant's standing or plan.
    pub(super) fn refused(&self, hold: &Hold, refusal: &Refusal, now: Now) -> Unwritten {
        let parts = match self.recording.decisions.is_on() {
            true => self.asked(hold, Drawn::No, now).parts(),
            false => self.decided(&hold.of, now).parts(),
        };
        DecisionRecord::refused(parts, refusal).into()
    }

    /// Records what enforcement would have refused, if there is a log.
    pub(super) fn log_shadowed(&self, hold: &Hold, refused: &LimitRefused, now: Now) {
        if self.recording.decisions.is_on() {
            let limit = match refused.reason {
                Reason::Concurrency => "concurrency".into(),
                _ => limit_name(&hold.of.sheet.policy, refused.by),
            };
            let parts = self.asked(hold, Drawn::No, now).parts();
            let record = DecisionRecord::shadowed(parts, &refused.reason, limit);
            self.recording.decisions.take(record);
        }
    }

    /// Records a refusal of units for what runs already.
    pub(super) fn log_cut(&self, of: &HoldContext, refusal: &Refusal, now: Now) {
        let parts = DecisionParts { kind: kind::MORE, ..self.decided(of, now).parts() };
        self.recording.decisions.take(DecisionRecord::refused(parts, refusal));
    }

    /// Records a refusal for which no limit was read.
    pub(super) fn log_turned_away(
        &self,
        refusal: &Refusal,
        of: Option<&HoldContext>,
        about: &About,
    ) {
        let now = self.clock.now();
        let parts = match of {
            Some(of) => self.decided(of, now).parts(),
            None => DecisionParts {
                at_ms: now.wall_ms,
                kind: about.kind,
                tenant: about.tenant.clone(),
                route: about.route.clone(),
                revision: self.catalogs.live.load().revision,
                ..DecisionParts::default()
            },
        };
        self.recording.decisions.take(DecisionRecord::refused(parts, refusal));
    }

    /// The refusal of work that asks for a meter which cannot be asked for.
    pub(super) fn not_metered(
        &self,
        meter: &Arc<str>,
        sheet: &Arc<Sheet>,
        about: &About,
    ) -> Box<Refusal> {
        let refusal = self.refusal(Reason::NotMetered(meter.clone()), Some(sheet));
        self.log_turned_away(&refusal, None, about);
        refusal
    }

    fn decided(&self, of: &HoldContext, now: Now) -> Decided {
        let named = of.sheet.caller().and_then(|caller| caller.named.as_ref());
        Decided {
            at_ms: now.wall_ms,
            tenant: of.sheet.tenant.id.clone(),
            user: named.and_then(|named| named.user.clone()),
            key: named.and_then(|named| named.key.clone()),
            route: of.route,
            work: of.work.clone(),
            policy: of.sheet.policy.clone(),
            catalog: of.sheet.catalog.clone(),
            revision: self.catalogs.live.load().revision,
        }
    }

    fn asked(&self, hold: &Hold, drawn: Drawn, now: Now) -> Asked {
        let (sheet, rules) = (&hold.of.sheet, hold.of.rules());
        let reader = LimitReader {
            inner: self,
            sheet,
            scopes: hold.of.scopes(),
            now,
            hold: None,
            stored: None,
        };
        let in_flight = reader.in_flight(rules, drawn).map(|stood| (Limit::None, stood));
        let limits = reader.stood_of_all((rules, hold.length), drawn);
        let limits = in_flight.into_iter().chain(limits).collect();
        Asked { decided: self.decided(&hold.of, now), length: hold.length, limits }
    }
}

/// Whom and what a decision was about. It has rules and no sheet: a tenant is not in use because a
/// decision about it waits for the disk.
#[derive(Debug)]
struct Decided {
    at_ms: i64,
    tenant: Arc<str>,
    user: Option<Arc<str>>,
    key: Option<Arc<str>>,
    route: Option<RouteId>,
    work: Option<Arc<RoutePolicy>>,
    policy: Arc<Policy>,
    catalog: Arc<Catalog>,
    revision: u64,
}

impl Decided {
    fn parts(&self) -> DecisionParts {
        DecisionParts {
            at_ms: self.at_ms,
            kind: if self.work.is_some() { kind::WORK } else { kind::REQUEST },
            tenant: Some(self.tenant.clone()),
            user: self.user.clone(),
            key: self.key.clone(),
            route: Some(route_name(&self.catalog, self.route)),
            plan: Some(self.policy.plan.name.clone()),
            revision: self.revision,
            ..DecisionParts::default()
        }
    }
}

/// The same with what was asked, and of which limits.
#[derive(Debug)]
struct Asked {
    decided: Decided,
    length: Option<u64>,
    limits: SmallVec<[(Limit, Stood); FEW]>,
}

/// So many limits of a call are kept without an allocation of their own.
const FEW: usize = 4;

impl Asked {
    fn parts(&self) -> DecisionParts {
        let Decided { route, work, policy, catalog, .. } = &self.decided;
        let rules = work.as_deref().unwrap_or_else(|| policy.route(*route));
        let mut cost = cost(catalog, (rules, self.length));
        if let (Some(_), Some(route)) = (work, route) {
            // What its route costs and this work has said it does not: no other cost is implied.
            let of_route = &catalog.routes.as_slice()[usize::from(route.0)].cost;
            let requests = catalog.meters.first().map(|meter| meter.name.clone());
            let named = |id: &MeterId| catalog.meters[usize::from(id.0)].name.clone();
            for meter in of_route.iter().map(|(id, _)| named(id)).chain(requests) {
                cost.entry(meter).or_insert_with(|| 0.into());
            }
        }
        let named = |(limit, stood): &(Limit, Stood)| stood.named(policy, catalog, *limit);
        let limits = self.limits.iter().map(named).collect();
        DecisionParts { cost, limits, ..self.decided.parts() }
    }
}

/// An admission, of which the record is made where it is written: that takes a dozen allocations.
#[derive(Debug)]
struct Admission {
    asked: Asked,
    one_in: u32,
}

impl SampledDecision for Admission {
    fn record(&self) -> DecisionRecord {
        DecisionRecord::admitted(self.asked.parts(), self.one_in)
    }
}

/// The rules of a call, and the length of its body where it is stated.
type Call<'a> = (&'a RoutePolicy, Option<u64>);

/// What a call asks of each meter, in units; not of sums, which follow from their parts.
pub(super) fn cost(catalog: &Catalog, (rules, length): Call<'_>) -> BTreeMap<Arc<str>, Number> {
    let is_own = |ask: &&MeterAsk| !matches!(ask.known, AmountSource::Sum(_));
    let asked = rules.meters.iter().filter(is_own).map(|ask| {
        let meter = &catalog.meters[usize::from(ask.meter.0)];
        let n = decide::amount_of(rules, length, ask);
        (meter.name.clone(), number(Amount::new(n, meter.scale)))
    });
    asked.collect()
}

/// A limit as it stood before a decision, and what was asked of it, in atoms. By [`Limit::None`] it
/// is the limit of calls in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stood {
    asked: u64,
    limit: u64,
    used: u64,
    remaining: u64,
    /// Whether it lets units through beyond it.
    over: bool,
}

impl Stood {
    /// The same limit before as much as was asked was drawn from it.
    fn before(self) -> Self {
        let used = self.used.saturating_sub(self.asked);
        let remaining = match self.remaining == 0 && self.over {
            // A part of it, or all, went through beyond the limit.
            true => self.asked.min(self.limit.saturating_sub(used)),
            false => self.remaining.saturating_add(self.asked),
        };
        Self { used, remaining, ..self }
    }

    /// The same in units, by its name.
    pub(super) fn named(&self, policy: &Policy, catalog: &Catalog, limit: Limit) -> LimitAsked {
        let (kind, meter) = match limit {
            Limit::None => ("concurrency", None),
            Limit::Rate(rate) => ("rate", policy.rates[rate].meter),
            Limit::Quota(quota) => ("quota", Some(policy.quotas[quota].quota.meter)),
            Limit::Granted(meter) => ("quota", Some(meter)),
        };
        let name = if limit == Limit::None { kind.into() } else { limit_name(policy, limit) };
        let scale = meter.map_or(1, |meter| catalog.meters[usize::from(meter.0)].scale);
        let units = |atoms| number(Amount::new(atoms, scale));
        LimitAsked {
            name,
            kind: kind.into(),
            asked: units(self.asked),
            limit: units(self.limit),
            used: units(self.used),
            remaining: units(self.remaining),
            over: self.over,
        }
    }
}

impl LimitReader<'_> {
    /// The limits that hold for a call, units before rates, as the decision asks them.
    pub(super) fn asked_of_all(
        &self,
        call: Call<'_>,
        drawn: Drawn,
    ) -> impl Iterator<Item = (Limit, LimitAsked)> {
        let (policy, catalog) = (&self.sheet.policy, &self.sheet.catalog);
        let all = self.stood_of_all(call, drawn);
        all.map(|(limit, stood)| (limit, stood.named(policy, catalog, limit)))
    }

    fn stood_of_all(&self, call: Call<'_>, drawn: Drawn) -> impl Iterator<Item = (Limit, Stood)> {
        let is_rate = |limit: &Limit| matches!(limit, Limit::Rate(_));
        let units = call.0.limits().filter(move |limit| !is_rate(limit));
        let all = units.chain(call.0.limits().filter(is_rate));
        all.filter_map(move |limit| Some((limit, self.stood(call, limit, drawn)?)))
    }

    /// A limit as it stood before the decision, and what is asked of it.
    fn stood(&self, (rules, length): Call<'_>, limit: Limit, drawn: Drawn) -> Option<Stood> {
        let policy = &self.sheet.policy;
        let of_meter = |meter: MeterId| {
            let ask = rules.meters.iter().find(|ask| ask.meter == meter)?;
            Some(decide::amount_of(rules, length, ask))
        };
        let (asked, over) = match limit {
            Limit::Rate(rate) => match policy.rates[rate].meter {
                None => (1, false),
                Some(meter) => (of_meter(meter)?, false),
            },
            Limit::Quota(quota) => {
                let quota = &policy.quotas[quota].quota;
                (of_meter(quota.meter)?, quota.over != Over::Deny)
            }
            Limit::Granted(meter) => (of_meter(meter)?, false),
            Limit::None => return None,
        };
        let read = self.read(limit)?;
        let (limit, used, remaining) = (read.limit, self.used(limit, &read), read.remaining);
        let stood = Stood { asked, limit, used, remaining, over };
        Some(if drawn == Drawn::Yes { stood.before() } else { stood })
    }

    /// The tenant's requests in flight, where they are limited.
    pub(super) fn in_flight(&self, rules: &RoutePolicy, drawn: Drawn) -> Option<Stood> {
        rules.in_flight?;
        let limit = u64::from(self.sheet.policy.plan.concurrency?);
        let in_flight = &self.sheet.tenant.in_flight;
        let now = u64::from(in_flight.load(std::sync::atomic::Ordering::Acquire));
        let used = now.saturating_sub(u64::from(drawn == Drawn::Yes));
        let remaining = limit.saturating_sub(used);
        Some(Stood { asked: 1, limit, used, remaining, over: false })
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod explained_tests;

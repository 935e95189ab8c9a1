//! Decisions as their log has them: what was asked, the limits that hold for it as they stood
//! before it, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Number;

use super::standing::{LimitReader, limit_name, route_name};
use super::{Gate, Inner};
use crate::admission::context::HoldContext;
use crate::admission::decide;
use crate::admission::permit::Hold;
use crate::amount::Amount;
use crate::catalog::{MeterId, Over};
use crate::clock::Now;
use crate::decision::{LimitState, Reason, Refusal};
use crate::decision_log::{DecisionParts, DecisionRecord, LimitAsked, kind, number};
use crate::payers::purse::LimitRefused;
use crate::policy::taken::Limit;
use crate::policy::{AmountSource, MeterAsk, RoutePolicy};
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
    record: Option<Arc<DecisionRecord>>,
}

impl Unlogged {
    pub(crate) fn new(gate: &Gate, record: Option<Arc<DecisionRecord>>) -> Self {
        Self { gate: gate.clone(), record }
    }

    /// The decision was overturned, and what came of it is logged elsewhere; or its record goes on
    /// by another way.
    pub(crate) fn take(&mut self) -> Option<Arc<DecisionRecord>> {
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
    pub(super) fn log_decided(&self, record: Option<Arc<DecisionRecord>>) {
        if let Some(record) = record {
            self.recording.decisions.take(record);
        }
    }

    /// The record of an admission. The hold has what was drawn.
    #[cold]
    pub(super) fn admission(&self, hold: &Hold, now: Now) -> Arc<DecisionRecord> {
        let parts = self.parts(hold, Drawn::Yes, now);
        let one_in = self.recording.decisions.one_in().unwrap_or(1);
        Arc::new(DecisionRecord::admitted(parts, one_in))
    }

    /// The record of a refusal by a limit, or by the tenant's standing or plan.
    pub(super) fn refused(&self, hold: &Hold, refusal: &Refusal, now: Now) -> Arc<DecisionRecord> {
        let parts = match self.recording.decisions.is_on() {
            true => self.parts(hold, Drawn::No, now),
            false => self.named(&hold.of, now),
        };
        Arc::new(DecisionRecord::refused(parts, refusal))
    }

    /// Records what enforcement would have refused, if there is a log.
    pub(super) fn log_shadowed(&self, hold: &Hold, refused: &LimitRefused, now: Now) {
        if self.recording.decisions.is_on() {
            let limit = match refused.reason {
                Reason::Concurrency => "concurrency".into(),
                _ => limit_name(&hold.of.sheet.policy, refused.by),
            };
            let parts = self.parts(hold, Drawn::No, now);
            self.recording.decisions.take(DecisionRecord::shadowed(parts, &refused.reason, limit));
        }
    }

    /// Records a refusal of units for what runs already.
    pub(super) fn log_cut(&self, of: &HoldContext, refusal: &Refusal, now: Now) {
        let parts = DecisionParts { kind: kind::MORE, ..self.named(of, now) };
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
            Some(of) => self.named(of, now),
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

    /// Whom and what a decision was about.
    fn named(&self, of: &HoldContext, now: Now) -> DecisionParts {
        let named = of.sheet.caller().and_then(|caller| caller.named.as_ref());
        DecisionParts {
            at_ms: now.wall_ms,
            kind: if of.work.is_some() { kind::WORK } else { kind::REQUEST },
            tenant: Some(of.sheet.tenant.id.clone()),
            user: named.and_then(|named| named.user.clone()),
            key: named.and_then(|named| named.key.clone()),
            route: Some(route_name(&of.sheet, of.route)),
            plan: Some(of.sheet.policy.plan.name.clone()),
            revision: self.catalogs.live.load().revision,
            ..DecisionParts::default()
        }
    }

    /// The same with what was asked, and of which limits.
    fn parts(&self, hold: &Hold, drawn: Drawn, now: Now) -> DecisionParts {
        let (sheet, rules) = (&hold.of.sheet, hold.of.rules());
        let reader = LimitReader {
            inner: self,
            sheet,
            scopes: hold.of.scopes(),
            now,
            hold: None,
            stored: None,
        };
        let call = (rules, hold.length);
        let limits = reader.asked_of_all(call, drawn).map(|(_, asked)| asked);
        let limits = reader.in_flight(rules, drawn).into_iter().chain(limits).collect();
        let mut cost = reader.cost(call);
        if let (Some(_), Some(route)) = (&hold.of.work, hold.of.route) {
            // What its route costs and this work has said it does not: no other cost is implied.
            let of_route = &sheet.catalog.routes.as_slice()[usize::from(route.0)].cost;
            let requests = sheet.catalog.meters.first().map(|meter| meter.name.clone());
            let named = |id: &MeterId| sheet.catalog.meters[usize::from(id.0)].name.clone();
            for meter in of_route.iter().map(|(id, _)| named(id)).chain(requests) {
                cost.entry(meter).or_insert_with(|| 0.into());
            }
        }
        DecisionParts { cost, limits, ..self.named(&hold.of, now) }
    }
}

/// The rules of a call, and the length of its body where it is stated.
type Call<'a> = (&'a RoutePolicy, Option<u64>);

impl LimitReader<'_> {
    /// What a call asks of each meter, in units; not of sums, which follow from their parts.
    pub(super) fn cost(&self, (rules, length): Call<'_>) -> BTreeMap<Arc<str>, Number> {
        let is_own = |ask: &&MeterAsk| !matches!(ask.known, AmountSource::Sum(_));
        let asked = rules.meters.iter().filter(is_own).map(|ask| {
            let meter = &self.sheet.catalog.meters[usize::from(ask.meter.0)];
            let n = decide::amount_of(rules, length, ask);
            (meter.name.clone(), number(Amount::new(n, meter.scale)))
        });
        asked.collect()
    }

    /// The limits that hold for a call, units before rates, as the decision asks them.
    pub(super) fn asked_of_all(
        &self,
        call: Call<'_>,
        drawn: Drawn,
    ) -> impl Iterator<Item = (Limit, LimitAsked)> {
        let (rates, units): (Vec<_>, Vec<_>) =
            call.0.limits().partition(|limit| matches!(limit, Limit::Rate(_)));
        let all = units.into_iter().chain(rates);
        all.filter_map(move |limit| Some((limit, self.asked(call, limit, drawn)?)))
    }

    /// A limit as it stood before the decision, and what is asked of it.
    fn asked(&self, (rules, length): Call<'_>, limit: Limit, drawn: Drawn) -> Option<LimitAsked> {
        let policy = &self.sheet.policy;
        let of_meter = |meter: MeterId| {
            let ask = rules.meters.iter().find(|ask| ask.meter == meter)?;
            let n = decide::amount_of(rules, length, ask);
            Some(Amount::new(n, self.scale(meter)))
        };
        let (asked, over) = match limit {
            Limit::Rate(rate) => match policy.rates[rate].meter {
                None => (Amount::units(1), false),
                Some(meter) => (of_meter(meter)?, false),
            },
            Limit::Quota(quota) => {
                let quota = &policy.quotas[quota].quota;
                (of_meter(quota.meter)?, quota.over != Over::Deny)
            }
            Limit::Granted(meter) => (of_meter(meter)?, false),
            Limit::None => return None,
        };
        let state = self.state(limit)?;
        let before = match drawn {
            Drawn::Yes => before(state, asked, over),
            Drawn::No => state,
        };
        Some(LimitAsked::new(&before, asked, over))
    }

    /// The tenant's requests in flight, where they are limited.
    pub(super) fn in_flight(&self, rules: &RoutePolicy, drawn: Drawn) -> Option<LimitAsked> {
        rules.in_flight?;
        let state = self.concurrency()?;
        let in_flight = &self.sheet.tenant.in_flight;
        let now = u64::from(in_flight.load(std::sync::atomic::Ordering::Acquire));
        let used = Amount::units(now.saturating_sub(u64::from(drawn == Drawn::Yes)));
        let state = LimitState { used, remaining: state.limit.less(used), ..state };
        Some(LimitAsked::new(&state, Amount::units(1), false))
    }
}

/// A limit before this much was drawn from it.
fn before(state: LimitState, asked: Amount, over: bool) -> LimitState {
    let used = state.used.less(asked);
    let more =
        |amount: Amount| Amount::new(amount.atoms().saturating_add(asked.atoms()), amount.scale());
    let remaining = match state.remaining.is_zero() && over {
        // A part of it, or all, went through beyond the limit.
        true => asked.min(state.limit.less(used)),
        false => more(state.remaining),
    };
    LimitState { used, remaining, ..state }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod explained_tests;

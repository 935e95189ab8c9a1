//! The state of limits, for headers, refusals and reports.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::balances::Balances;
use super::{Gate, Inner};
use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::catalog::{Every, MeterId, MeterSource, Over, RouteId, Term};
use crate::clock::Now;
use crate::decision::{LimitKind, LimitState, Payment, Reason, Refusal, RefusedCall, Source, Unit};
use crate::identity::RequestView;
use crate::ids::WriterId;
use crate::payers::purse::{LimitRefused, bucket_of};
#[cfg(feature = "metrics")]
use crate::policy::RoutePolicy;
use crate::policy::bucket::Level;
use crate::policy::scoped::{KeptScopes, ScopedKey, ScopesOf};
use crate::policy::taken::Limit;
use crate::policy::{CounterHome, Policy, QuotaRule, RateRule};
use crate::quota::lease::Lease;
use crate::sheets::sheet::Sheet;
use crate::telemetry;
use crate::wire::{self, LimitReading};

/// The state of this many limits needs no allocation.
pub(crate) type LimitStates = SmallVec<[LimitState; 6]>;

impl Gate {
    /// The description of this request for [`Refusal::call`](crate::Refusal::call), in case its
    /// handler returns a refusal ([`Serving::complete`](crate::adapter::Serving::complete)). `None`
    /// without an `on_refusal` hook. For adapters.
    #[inline]
    pub fn describe(&self, view: &dyn RequestView) -> Option<Box<RefusedCall>> {
        self.inner.settings.on_refusal.as_ref()?;
        Some(self.inner.described(view))
    }
}

impl Inner {
    /// A refusal in which no limit has a part.
    pub(super) fn refusal(&self, reason: Reason, sheet: Option<&Arc<Sheet>>) -> Box<Refusal> {
        let retry_after = matches!(reason, Reason::Unavailable | Reason::Concurrency)
            .then_some(Duration::from_secs(1));
        let pays = matches!(reason, Reason::PaymentRequired(_));
        Box::new(Refusal {
            reason,
            limit: None,
            retry_after,
            plan: sheet.map(|s| s.policy.plan.name.clone()),
            billing_url: self.settings.billing_url.as_deref().filter(|_| pays).map(Arc::from),
            tenant: sheet.map(|s| s.tenant.id.clone()),
            call: None,
        })
    }

    /// The refusal of a request, or other work, that is not admitted; it is counted.
    #[cold]
    pub(super) fn turn_away(&self, reason: Reason, of: Option<&HoldContext>) -> Box<Refusal> {
        let outcome = match reason {
            Reason::Unavailable => telemetry::AdmissionOutcome::Unavailable,
            Reason::Unidentified => telemetry::AdmissionOutcome::Unidentified,
            _ => telemetry::AdmissionOutcome::Refused,
        };
        let none = || "".into();
        let plan = of.map_or_else(none, |of| of.sheet.policy.plan.name.clone());
        let route = of.map_or_else(none, |of| route_name(&of.sheet, of.route));
        telemetry::decision(&plan, &route, outcome, &none());
        self.refusal(reason, of.map(|of| &*of.sheet))
    }

    /// A request as its refusal describes it to the host's own form of refusals.
    #[cold]
    fn described(&self, view: &dyn RequestView) -> Box<RefusedCall> {
        /// Longest path in a description, in bytes.
        const MAX_PATH: usize = 2_048;
        let live = self.catalogs.live.load();
        let route = self.route_of(&live.catalog, view);
        let routes = live.catalog.routes.as_slice();
        let path = view.path();
        let mut end = path.len().min(MAX_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        Box::new(RefusedCall {
            method: view.method().to_owned(),
            path: path[..end].to_owned(),
            route: route.map(|id| routes[usize::from(id.0)].name.clone()),
            peer: self.credentials.identifier.peer(view),
        })
    }

    /// A refusal with the limit that refused.
    pub(super) fn refusal_of(
        &self,
        of: &HoldContext,
        refused: &LimitRefused,
        now: Now,
    ) -> Box<Refusal> {
        let sheet = &of.sheet;
        let mut refusal = self.refusal(refused.reason.clone(), Some(sheet));
        let view = LimitReader { inner: self, sheet, scopes: of.scopes(), now, hold: None };
        refusal.limit = match refused.by {
            Limit::None => None,
            Limit::Rate(rate) => view.rate(rate),
            Limit::Quota(quota) => view.quota(quota),
            Limit::Grant(pool) => Some(view.grant(pool)),
        };
        if refused.reason == Reason::Concurrency {
            refusal.limit = view.concurrency();
        }
        if refused.reason == Reason::Exhausted {
            let waits = refused.wait_ns.map(Duration::from_nanos);
            let resets = refusal.limit.as_ref().and_then(|limit| limit.resets_in);
            refusal.retry_after = waits.or(resets);
            if refusal.retry_after.is_none() {
                // It never resets: waiting will not help.
                refusal.reason = Reason::PaymentRequired(Payment::GrantUsedUp);
                refusal.billing_url = self.settings.billing_url.as_deref().map(Arc::from);
            }
        }
        let limit = refusal.limit.as_ref().map_or_else(|| "".into(), |l| l.name.clone());
        tracing::debug!(
            target: telemetry::EVENT_REFUSED,
            tenant = %sheet.tenant.id,
            plan = %sheet.policy.plan.name,
            policy = %limit,
            reason = ?refusal.reason,
            "refused"
        );
        refusal
    }

    /// Counts a refusal by this limit.
    pub(super) fn count_refused(&self, of: &HoldContext, by: &Limit) {
        self.count_decision(of, telemetry::AdmissionOutcome::Refused, by);
    }

    /// Counts an admission, through a handle that the route's rules keep.
    #[cfg(feature = "metrics")]
    pub(super) fn count_admitted(
        &self,
        sheet: &Arc<Sheet>,
        route: Option<RouteId>,
        rules: &RoutePolicy,
    ) {
        let make = || {
            let (plan, route) = (&sheet.policy.plan.name, route_name(sheet, route));
            telemetry::Decisions::new(
                plan,
                &route,
                telemetry::AdmissionOutcome::Allowed,
                &"".into(),
            )
        };
        rules.admitted.get_or_init(make).count();
    }

    /// Counts what a request that runs did not get: a handler's units, or the rest of a stream.
    pub(crate) fn count_cut(&self, of: &HoldContext, refusal: &Refusal) {
        let limit = refusal.limit.as_ref().map_or_else(|| "".into(), |limit| limit.name.clone());
        let (plan, route) = (&of.sheet.policy.plan.name, route_name(&of.sheet, of.route));
        telemetry::decision(plan, &route, telemetry::AdmissionOutcome::Refused, &limit);
    }

    /// Counts what enforcement would have refused.
    pub(super) fn count_shadow(&self, of: &HoldContext, refused: &LimitRefused) {
        self.count_decision(of, telemetry::AdmissionOutcome::Shadowed, &refused.by);
    }

    fn count_decision(&self, of: &HoldContext, outcome: telemetry::AdmissionOutcome, by: &Limit) {
        let policy = &of.sheet.policy;
        let limit = match *by {
            Limit::None => "".into(),
            Limit::Rate(rate) => policy.rates[usize::from(rate)].name.clone(),
            Limit::Quota(quota) => policy.quotas[usize::from(quota)].quota.id.clone(),
            Limit::Grant(pool) => policy.pools[usize::from(pool)].id.clone(),
        };
        telemetry::decision(&policy.plan.name, &route_name(&of.sheet, of.route), outcome, &limit);
    }

    /// Every limit that holds for a request of this route, as it stands now.
    pub(crate) fn limit_states(&self, hold: &Hold, now: Now) -> LimitStates {
        let view = LimitReader::of(self, hold, now);
        let route = hold.of.rules();
        let rates = route.rates.iter().filter_map(|rate| view.rate(*rate));
        let quotas = route.meters.iter().flat_map(|ask| &ask.quotas).filter_map(|q| view.quota(*q));
        rates.chain(quotas).collect()
    }
}

/// The context for reading the state of a limit.
pub(super) struct LimitReader<'a> {
    pub(super) inner: &'a Inner,
    pub(super) sheet: &'a Arc<Sheet>,
    pub(super) scopes: ScopesOf<'a>,
    pub(super) now: Now,
    /// The request that the state is for: units that it holds and has not used are still available
    /// to it.
    pub(super) hold: Option<&'a Hold>,
}

impl<'a> LimitReader<'a> {
    /// A reader for the limits of this request.
    pub(super) fn of(inner: &'a Inner, hold: &'a Hold, now: Now) -> Self {
        let of = &hold.of;
        Self { inner, sheet: &of.sheet, scopes: of.scopes(), now, hold: Some(hold) }
    }

    /// A rate; `None` if it is for a scope that the caller has no value of.
    pub(super) fn rate(&self, index: u16) -> Option<LimitState> {
        Some(self.rate_at(index, self.level(index)?))
    }

    /// The state of a limit for a header; `None` if the limit does not hold for this caller.
    #[inline]
    pub(super) fn told(&self, limit: Limit) -> Option<LimitReading> {
        match limit {
            Limit::Rate(index) => {
                let level = self.level(index)?;
                let meter = self.sheet.policy.rates[usize::from(index)].meter;
                let scale = meter.map_or(1, |m| self.sheet.catalog.meters[usize::from(m.0)].scale);
                let resets_in_s = Some(level.full_in_ns.div_ceil(1_000_000_000));
                Some(LimitReading {
                    left: wire::whole(level.remaining, scale),
                    resets_in_s,
                    past_soft: false,
                })
            }
            Limit::Quota(index) => {
                let rule = &self.sheet.policy.quotas[usize::from(index)];
                let remaining = self.quota_remaining(index)?;
                let scale = self.sheet.catalog.meters[usize::from(rule.quota.meter.0)].scale;
                let window = self.sheet.window(rule.included.or(rule.over)?);
                let resets_in_s = (window.end_ms != i64::MAX).then(|| {
                    let left_ms = window.end_ms.saturating_sub(self.now.wall_ms);
                    u64::try_from(left_ms).unwrap_or(0).div_ceil(1_000)
                });
                let past_soft = rule.quota.over != Over::Deny && remaining == 0;
                Some(LimitReading { left: wire::whole(remaining, scale), resets_in_s, past_soft })
            }
            Limit::None | Limit::Grant(_) => None,
        }
    }

    /// What the next request could use before a quota refuses it or counts it as over: what is
    /// included and granted together, less what was used and waits to be paid. `None` where the
    /// quota sets no bound for this caller.
    fn quota_remaining(&self, index: u16) -> Option<u64> {
        let policy = &self.sheet.policy;
        let rule = &policy.quotas[usize::from(index)];
        let limit = rule.quota.limit?;
        rule.included.or(rule.over)?;
        // Before what is left is read, so that none of it is paid meanwhile.
        let unpaid = self.sheet.unpaid.still();
        let included = match rule.included {
            Some(included) => self.remaining(included)?.min(limit),
            None => 0,
        };
        let set_aside = self.hold.map_or(0, |hold| hold.set_aside(index));
        let read = self.hold.map_or(0, |hold| hold.read_beyond(index));
        let own = included.saturating_add(set_aside).saturating_sub(read);
        let meter = rule.quota.meter;
        if let CounterHome::Scoped(scope) = &policy.pools[usize::from(rule.debtor)].place {
            let value = self.scopes.of(scope);
            let without = &self.sheet.tenant.hub.without_value;
            let is_ours = |kept: &KeptScopes| kept.scopes(without).of(scope) == value;
            let unpaid = unpaid.map_or(0, |unpaid| unpaid.of_callers(meter, is_ours));
            return Some(own.saturating_sub(unpaid));
        }
        let grants = policy.payers(meter).map_or(&[][..], |payers| payers.grants).iter();
        let granted = grants
            .filter(|grant| self.now.wall_ms < self.sheet.window(**grant).end_ms)
            .filter_map(|grant| self.remaining(*grant))
            .fold(own, u64::saturating_add);
        Some(granted.saturating_sub(unpaid.map_or(0, |unpaid| unpaid.of_meter(meter))))
    }

    /// The level of a rate's bucket; `None` if the caller has no value of its scope.
    fn level(&self, index: u16) -> Option<Level> {
        let (rate, bucket) = bucket_of(self.sheet, index);
        match (bucket, &rate.place) {
            (Some(bucket), _) => Some(rate.rule.level(bucket, self.now.mono_ns)),
            (None, CounterHome::Scoped(scope)) => {
                let key =
                    self.scoped_key(rate.id.clone(), self.scopes.of(scope)?, (0, WriterId::NONE));
                Some(match self.sheet.tenant.hub.scoped.known_bucket(&key) {
                    Some(used) => used.level(&rate.rule, self.now.mono_ns),
                    None => rate.rule.full(),
                })
            }
            (None, CounterHome::Sheet(_)) => None,
        }
    }

    /// An unused bucket of a rate.
    pub(super) fn full_rate(&self, index: u16) -> Level {
        self.sheet.policy.rates[usize::from(index)].rule.full()
    }

    /// A rate whose bucket stands so.
    pub(super) fn rate_at(&self, index: u16, level: Level) -> LimitState {
        let rate = &self.sheet.policy.rates[usize::from(index)];
        let (meter, unit, scale) = self.meter_of(rate);
        let remaining = rate.rule.atoms(level.remaining).min(rate.burst);
        LimitState {
            name: rate.name.clone(),
            kind: LimitKind::Rate,
            meter,
            unit,
            scale,
            limit: rate.burst,
            remaining,
            used: rate.burst - remaining,
            window: Some(rate.rule.refill().max(Duration::from_secs(1))),
            resets_in: Some(Duration::from_nanos(level.full_in_ns)),
            resets_at_ms: None,
            source: Source::Process,
            past_soft: false,
        }
    }

    /// A quota; `None` if it is for a scope that the caller has no value of.
    pub(super) fn quota(&self, index: u16) -> Option<LimitState> {
        self.quota_with(index, self.quota_remaining(index)?)
    }

    /// A quota of which so much is left.
    pub(super) fn quota_with(&self, index: u16, remaining: u64) -> Option<LimitState> {
        let rule = &self.sheet.policy.quotas[usize::from(index)];
        let pool = rule.included.or(rule.over)?;
        let limit = rule.quota.limit?;
        let window = self.sheet.window(pool);
        let resets_in = millis_until(window.end_ms, self.now);
        let meter = &self.sheet.catalog.meters[usize::from(rule.quota.meter.0)];
        Some(LimitState {
            name: rule.quota.id.clone(),
            kind: LimitKind::Quota,
            meter: Some(meter.name.clone()),
            unit: self.unit(rule.quota.meter),
            scale: meter.scale,
            limit,
            remaining,
            used: self.used_of(rule).unwrap_or(0),
            window: nominal(rule, self.sheet.anchors.term),
            resets_in,
            resets_at_ms: resets_in.map(|_| window.end_ms),
            source: Source::Lease,
            past_soft: rule.quota.over != Over::Deny && remaining == 0,
        })
    }

    /// A grant.
    fn grant(&self, pool: u16) -> LimitState {
        let rule = &self.sheet.policy.pools[usize::from(pool)];
        let meter = &self.sheet.catalog.meters[usize::from(rule.meter.0)];
        let limit = u64::try_from(rule.limit).unwrap_or(0);
        let remaining = self.remaining(pool).unwrap_or(0);
        LimitState {
            name: rule.id.clone(),
            kind: LimitKind::Quota,
            meter: Some(meter.name.clone()),
            unit: self.unit(rule.meter),
            scale: meter.scale,
            limit,
            remaining,
            used: limit.saturating_sub(remaining),
            window: None,
            resets_in: None,
            resets_at_ms: None,
            source: Source::Lease,
            past_soft: false,
        }
    }

    fn concurrency(&self) -> Option<LimitState> {
        let most = u64::from(self.sheet.policy.plan.concurrency?);
        Some(LimitState {
            name: "concurrency".into(),
            kind: LimitKind::Concurrency,
            meter: None,
            unit: Unit::Calls,
            scale: 1,
            limit: most,
            remaining: 0,
            used: most,
            window: None,
            resets_in: None,
            resets_at_ms: None,
            source: Source::Process,
            past_soft: false,
        })
    }

    /// The remainder of a pool, as far as this process knows.
    pub(super) fn remaining(&self, pool: u16) -> Option<u64> {
        let rule = &self.sheet.policy.pools[usize::from(pool)];
        let whole = u64::try_from(rule.limit).unwrap_or(0);
        if let CounterHome::Sheet(slot) = rule.place {
            return Some(self.sheet.known_lease(slot).map_or(whole, |lease| lease.remaining()));
        }
        Some(self.lease(pool)?.map_or(whole, |lease| lease.remaining()))
    }

    /// The lease of a pool: `None` if the caller has no value of its scope, `Some(None)` if nothing
    /// has been leased.
    pub(super) fn lease(&self, pool: u16) -> Option<Option<Arc<Lease>>> {
        let rule = &self.sheet.policy.pools[usize::from(pool)];
        Some(match &rule.place {
            CounterHome::Sheet(slot) => self.sheet.known_lease(*slot).cloned(),
            CounterHome::Scoped(scope) => {
                let start_ms = self.sheet.window(pool).start_ms;
                let from = (start_ms, self.sheet.incarnation);
                let key = self.scoped_key(rule.id.clone(), self.scopes.of(scope)?, from);
                let lease = self.sheet.tenant.hub.scoped.known_lease(&key);
                lease.inspect(|lease| lease.retarget_if_changed(self.sheet.terms(pool)))
            }
        })
    }

    fn scoped_key(&self, limit: Arc<str>, value: u128, from: (i64, WriterId)) -> ScopedKey {
        let (start_ms, incarnation) = from;
        ScopedKey { tenant: self.sheet.tenant.surrogate, limit, value, start_ms, incarnation }
    }

    fn meter_of(&self, rate: &RateRule) -> (Option<Arc<str>>, Unit, u64) {
        match rate.meter {
            None => (None, Unit::Calls, 1),
            Some(id) => {
                let meter = &self.sheet.catalog.meters[usize::from(id.0)];
                (Some(meter.name.clone()), self.unit(id), meter.scale)
            }
        }
    }

    pub(super) fn unit(&self, meter: MeterId) -> Unit {
        match self.sheet.catalog.meters[usize::from(meter.0)].count {
            MeterSource::ResponseBytes | MeterSource::RequestBytes => Unit::Bytes,
            _ if meter.0 == 0 => Unit::Calls,
            _ => Unit::Other,
        }
    }
}

impl Balances for LimitReader<'_> {
    fn policy(&self) -> &Policy {
        &self.sheet.policy
    }

    fn left(&self, pool: u16) -> Option<u64> {
        self.remaining(pool)
    }

    fn short(&self, pool: u16) -> u64 {
        self.lease(pool).flatten().map_or(0, |lease| lease.short_of_all())
    }

    fn debt(&self, pool: u16) -> u64 {
        self.lease(pool).flatten().map_or(0, |lease| lease.debt())
    }

    fn overdrawn(&self, pool: u16) -> u64 {
        self.lease(pool).flatten().map_or(0, |lease| lease.overdrawn())
    }
}

pub(super) fn route_name(sheet: &Sheet, route: Option<RouteId>) -> Arc<str> {
    match route {
        Some(id) => sheet.catalog.routes.as_slice()[usize::from(id.0)].name.clone(),
        None => "default".into(),
    }
}

fn millis_until(end_ms: i64, now: Now) -> Option<Duration> {
    if end_ms == i64::MAX {
        return None;
    }
    Some(Duration::from_millis(u64::try_from(end_ms.saturating_sub(now.wall_ms)).unwrap_or(0)))
}

/// The window's length for headers, the same in every month, so that the policy header does not
/// change from one window to the next: a month is 30 days, twelve are 365, a day is 24 hours.
fn nominal(rule: &QuotaRule, term: Option<Term>) -> Option<Duration> {
    let hours = match rule.quota.every {
        Every::Hour => 1,
        Every::Day => 24,
        Every::Week => 7 * 24,
        Every::Month | Every::Cycle => 30 * 24,
        Every::Year => 365 * 24,
        Every::Term => {
            // Without a contract term it is the cycle.
            let months = u64::from(term.map_or(1, |term| term.months.max(1)));
            (months / 12 * 365 + months % 12 * 30) * 24
        }
        Every::Once => return None,
    };
    Some(Duration::from_secs(hours * 3_600))
}

#[cfg(test)]
mod tests {
    use crate::testing;

    #[tokio::test]
    async fn a_term_is_told_as_the_same_length_in_every_month() {
        let plans = r#"
            default-plan = "free"
            [plan.free]
            quota.requests = "100/term"
            [tenant.acme]
            term = { from = 2026-02-01, every = "1y" }
            note = "a contract"
        "#;
        let (gate, _clock) = testing::gate(plans);
        let mut told = Vec::new();
        for id in ["acme", "other"] {
            let tenant = gate.tenant(id).await.unwrap();
            let sheet = tenant.0.last_sheet();
            let policy = &sheet.policy;
            let window = super::nominal(&policy.quotas[0], sheet.anchors.term);
            told.push(window.unwrap().as_secs() / 86_400);
        }
        assert_eq!(told, [365, 30], "without a contract it is the cycle");
    }
}

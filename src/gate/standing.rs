//! The state of limits, for headers, refusals and reports.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::logged::About;
use super::waits_for_holds::ASK_AGAIN;
use super::{Gate, Inner};
use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::amount::Amount;
use crate::catalog::{Catalog, Every, MeterId, MeterSource, Over, RouteId, Term};
use crate::clock::Now;
use crate::decision::{
    KeptHeaders, LimitKind, LimitReading, LimitState, Payment, Reason, Refusal, RefusedCall,
    Source, Unit,
};
use crate::identity::RequestView;
use crate::ids::WriterId;
use crate::payers::purse::{LimitRefused, bucket_of};
#[cfg(feature = "metrics")]
use crate::policy::RoutePolicy;
use crate::policy::bucket::Level;
use crate::policy::scoped::{KeptScopes, ScopedKey, ScopesOf};
use crate::policy::taken::Limit;
use crate::policy::{CounterHome, Policy, PoolIndex, QuotaIndex, QuotaRule, RateIndex};
use crate::quota::lease::Lease;
use crate::sheets::sheet::Sheet;
use crate::sheets::unpaid::Still;
use crate::table::Table;
use crate::telemetry;
use crate::wire::reason_word;

/// The state of this many limits needs no allocation.
pub(crate) type LimitStates = SmallVec<[LimitState; 6]>;

impl Gate {
    /// The description of this request for [`Refusal::call`](crate::Refusal::call), in case its
    /// handler returns a refusal ([`Serving::complete`](crate::adapter::Serving::complete)). `None`
    /// without an `on_refusal` hook. For adapters.
    #[inline]
    pub fn describe(&self, view: &dyn RequestView) -> Option<Box<RefusedCall>> {
        self.describes().then(|| self.inner.described(view))
    }

    /// Whether refusals are described.
    #[inline]
    pub(crate) fn describes(&self) -> bool {
        self.inner.settings.on_refusal.is_some()
    }
}

/// The beginning of a path or a query, for a description.
fn begin_of(text: &str) -> String {
    /// The longest, in bytes.
    const MOST: usize = 2_048;
    let is_end = |at: &usize| text.is_char_boundary(*at);
    let end = (0..=MOST.min(text.len())).rev().find(is_end).unwrap_or(0);
    text[..end].to_owned()
}

impl Inner {
    /// A refusal in which no limit has a part.
    pub(super) fn refusal(&self, reason: Reason, sheet: Option<&Arc<Sheet>>) -> Box<Refusal> {
        let is_brief =
            matches!(reason, Reason::Unavailable | Reason::Concurrency | Reason::Overloaded);
        let retry_after = is_brief.then_some(Duration::from_secs(1));
        let pays = matches!(reason, Reason::PaymentRequired(_));
        let is_unknown = reason == Reason::Unidentified;
        let keys_go_in = self.credentials.keys_go_in.as_ref().filter(|_| is_unknown).cloned();
        Box::new(Refusal {
            reason,
            limit: None,
            retry_after,
            plan: sheet.map(|s| s.policy.plan.name.clone()),
            billing_url: self.settings.billing_url.as_deref().filter(|_| pays).map(Arc::from),
            tenant: sheet.map(|s| s.tenant.id.clone()),
            user: None,
            key: None,
            call: None,
            keys_go_in,
        })
    }

    /// The refusal of a request, or other work, that is not admitted; it is counted.
    #[cold]
    pub(super) fn turn_away(
        &self,
        reason: Reason,
        of: Option<&HoldContext>,
        about: &About,
    ) -> Box<Refusal> {
        let outcome = match reason {
            Reason::Unavailable => telemetry::AdmissionOutcome::Unavailable,
            Reason::Unidentified => telemetry::AdmissionOutcome::Unidentified,
            _ => telemetry::AdmissionOutcome::Refused,
        };
        let none = || "".into();
        let plan = of.map_or_else(none, |of| of.sheet.policy.plan.name.clone());
        let route = of.map_or_else(none, |of| route_name(&of.sheet.catalog, of.route));
        telemetry::decision(&plan, &route, outcome, (reason_word(&reason), &none()));
        let mut refusal = self.refusal(reason, of.map(|of| &*of.sheet));
        if let Some(of) = of {
            of.sheet.name_in(&mut refusal);
        }
        self.log_turned_away(&refusal, of, about);
        refusal
    }

    /// A request as its refusal describes it to the host's own form of refusals.
    #[cold]
    fn described(&self, view: &dyn RequestView) -> Box<RefusedCall> {
        let live = self.catalogs.live.load();
        let route = self.route_of(&live.catalog, view);
        let routes = live.catalog.routes.as_slice();
        let identifier = &self.credentials.identifier;
        let mut headers = KeptHeaders::default();
        view.each_header(&mut |name, value| {
            if !identifier.is_credential(name) {
                headers.push(name, value);
            }
        });
        Box::new(RefusedCall {
            method: view.method().to_owned(),
            path: begin_of(view.path()),
            query: view.query().map(begin_of),
            headers,
            route: route.map(|id| routes[usize::from(id.0)].name.clone()),
            peer: identifier.peer(view),
        })
    }

    /// A refusal with the limit that refused, of those that the request draws from now.
    pub(super) fn refusal_of(&self, hold: &Hold, refused: &LimitRefused, now: Now) -> Box<Refusal> {
        let latest = hold.latest_seen();
        let sheet = &latest.of.sheet;
        let mut refusal = self.refusal(refused.reason.clone(), Some(sheet));
        sheet.name_in(&mut refusal);
        let view = LimitReader::of(self, latest, now);
        refusal.limit = view.state(refused.by);
        if refused.reason == Reason::Concurrency {
            refusal.limit = view.concurrency();
        }
        if refused.asked.is_some_and(|asked| view.waits_for_holds(refused.by, asked, hold)) {
            refusal.reason = Reason::Exhausted;
            refusal.billing_url = None;
            refusal.retry_after = Some(ASK_AGAIN);
        } else if refused.reason == Reason::Exhausted {
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
    pub(super) fn count_refused(&self, of: &HoldContext, by: &Limit, reason: &Reason) {
        self.count_decision(of, telemetry::AdmissionOutcome::Refused, (reason, by));
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
            let (plan, route) = (&sheet.policy.plan.name, route_name(&sheet.catalog, route));
            telemetry::Decisions::new(
                plan,
                &route,
                telemetry::AdmissionOutcome::Allowed,
                ("", &"".into()),
            )
        };
        rules.admitted.get_or_init(make).count();
    }

    /// Counts what a request that runs did not get: a handler's units, or the rest of a stream.
    pub(crate) fn count_cut(&self, of: &HoldContext, refusal: &Refusal) {
        let limit = refusal.limit.as_ref().map_or_else(|| "".into(), |limit| limit.name.clone());
        let (plan, route) = (&of.sheet.policy.plan.name, route_name(&of.sheet.catalog, of.route));
        let why = (reason_word(&refusal.reason), &limit);
        telemetry::decision(plan, &route, telemetry::AdmissionOutcome::Refused, why);
        self.log_cut(of, refusal, self.clock.now());
    }

    /// Counts what enforcement would have refused.
    pub(super) fn count_shadow(&self, of: &HoldContext, refused: &LimitRefused) {
        let why = (&refused.reason, &refused.by);
        self.count_decision(of, telemetry::AdmissionOutcome::Shadowed, why);
    }

    fn count_decision(
        &self,
        of: &HoldContext,
        outcome: telemetry::AdmissionOutcome,
        (reason, by): (&Reason, &Limit),
    ) {
        let policy = &of.sheet.policy;
        let limit = limit_name(policy, *by);
        let (route, why) = (route_name(&of.sheet.catalog, of.route), (reason_word(reason), &limit));
        telemetry::decision(&policy.plan.name, &route, outcome, why);
    }

    /// Every limit that holds for a request of this route, as it stands now.
    pub(crate) fn limit_states(&self, hold: &Hold, now: Now) -> LimitStates {
        let view = LimitReader::of(self, hold, now);
        let route = hold.of.rules();
        route.limits().filter_map(|limit| view.state(limit)).collect()
    }
}

/// The context for reading the state of a limit: in this process, and where `stored` says so in the
/// store.
#[derive(Clone, Copy)]
pub(super) struct LimitReader<'a> {
    pub(super) inner: &'a Inner,
    pub(super) sheet: &'a Arc<Sheet>,
    pub(super) scopes: ScopesOf<'a>,
    pub(super) now: Now,
    /// The request that the state is for: units that it holds and has not used are still available
    /// to it.
    pub(super) hold: Option<&'a Hold>,
    /// For reports: the numbers that only the store knows.
    pub(super) stored: Option<&'a StoredPools>,
}

/// By pool, the numbers that only the store knows.
pub(super) type StoredPools = Table<PoolIndex, Vec<Option<Stored>>>;

/// The numbers of a pool in the store.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    /// Below nothing: so much more was used than the limit is.
    pub(super) left: i64,
    pub(super) owed: u64,
}

impl<'a> LimitReader<'a> {
    /// A reader for the limits of this request.
    pub(super) fn of(inner: &'a Inner, hold: &'a Hold, now: Now) -> Self {
        let of = &hold.of;
        Self { inner, sheet: &of.sheet, scopes: of.scopes(), now, hold: Some(hold), stored: None }
    }

    /// Where a limit stands; `None` if it does not hold for this caller: a rate for a scope that
    /// the caller has no value of, or a quota without a limit.
    #[inline]
    pub(super) fn read(&self, limit: Limit) -> Option<LimitReading> {
        match limit {
            Limit::Rate(index) => Some(self.rate_at(index, self.level(index)?)),
            Limit::Quota(index) => Some(self.quota_with(index, self.quota_remaining(index)?)),
            Limit::Granted(meter) => Some(self.granted(meter)),
            Limit::None => None,
        }
    }

    /// The same limit as if nothing had been used of it.
    pub(super) fn unused(&self, limit: Limit) -> Option<LimitState> {
        let policy = &self.sheet.policy;
        let reading = match limit {
            Limit::Rate(index) => self.rate_at(index, policy.rates[index].rule.full()),
            Limit::Quota(index) => self.quota_with(index, policy.quotas[index].quota.limit?),
            Limit::Granted(meter) => self.all_granted(meter),
            Limit::None => return None,
        };
        Some(self.named(limit, reading))
    }

    /// The same reading with the names of its limit, and what was used of it.
    pub(super) fn state(&self, limit: Limit) -> Option<LimitState> {
        Some(self.named(limit, self.read(limit)?))
    }

    /// What the next request could use before a quota refuses it or counts it as over: what is
    /// included and granted together, less what was used and waits to be paid. `None` where the
    /// quota sets no bound for this caller.
    fn quota_remaining(&self, index: QuotaIndex) -> Option<u64> {
        let policy = &self.sheet.policy;
        let rule = &policy.quotas[index];
        let limit = rule.quota.limit?;
        // Before what is left is read, so that none of it is paid meanwhile.
        let unpaid = self.sheet.unpaid.still();
        let included = match rule.included {
            Some(included) => self.remaining(included)?.min(limit),
            None => 0,
        };
        let set_aside = self.hold.map_or(0, |hold| hold.set_aside(index));
        let read = self.hold.map_or(0, |hold| hold.read_beyond(index));
        let own = included.saturating_add(set_aside).saturating_sub(read);
        let unpaid = unpaid.map_or(0, |unpaid| self.unpaid_of(index, &unpaid));
        if rule.tenant_wide {
            let granted = self.grants(rule.quota.meter).filter_map(|grant| self.remaining(grant));
            return Some(granted.fold(own, u64::saturating_add).saturating_sub(unpaid));
        }
        Some(own.saturating_sub(unpaid))
    }

    /// Late use that waits for a quota to pay it, as far as it holds for this caller.
    pub(super) fn unpaid_of<S>(&self, index: QuotaIndex, unpaid: &Still<'_, S>) -> u64 {
        let policy = &self.sheet.policy;
        let rule = &policy.quotas[index];
        let CounterHome::Scoped(scope) = &policy.pools[rule.debtor].place else {
            return unpaid.of_meter(rule.quota.meter);
        };
        let value = self.scopes.of(scope);
        let without = &self.sheet.tenant.hub.without_value;
        let is_ours = |kept: &KeptScopes| kept.scopes(without).of(scope) == value;
        unpaid.of_callers(rule.quota.meter, is_ours)
    }

    /// The level of a rate's bucket; `None` if the caller has no value of its scope.
    fn level(&self, index: RateIndex) -> Option<Level> {
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

    /// A rate whose bucket stands so.
    #[inline]
    fn rate_at(&self, index: RateIndex, level: Level) -> LimitReading {
        let rate = &self.sheet.policy.rates[index];
        LimitReading {
            limit: rate.burst,
            remaining: rate.rule.atoms(level.remaining).min(rate.burst),
            resets_in: Some(Duration::from_nanos(level.full_in_ns)),
            past_soft: false,
        }
    }

    /// A quota of which so much is left.
    #[inline]
    fn quota_with(&self, index: QuotaIndex, remaining: u64) -> LimitReading {
        let rule = &self.sheet.policy.quotas[index];
        LimitReading {
            limit: rule.quota.limit.unwrap_or(u64::MAX),
            remaining,
            resets_in: millis_until(self.sheet.window(rule.debtor).end_ms, self.now),
            past_soft: rule.quota.over != Over::Deny && remaining == 0,
        }
    }

    /// One grant, or the units that the plan gives once.
    pub(super) fn grant(&self, pool: PoolIndex) -> LimitReading {
        let limit = u64::try_from(self.sheet.policy.pools[pool].limit).unwrap_or(0);
        let remaining = self.remaining(pool).unwrap_or(0);
        LimitReading { limit, remaining, resets_in: None, past_soft: false }
    }

    /// All that was granted of a meter and has not expired: what of it the next request could use.
    fn granted(&self, meter: MeterId) -> LimitReading {
        // Before what is left is read, so that none of it is paid meanwhile.
        let unpaid = self.sheet.unpaid.still().map_or(0, |unpaid| unpaid.of_meter(meter));
        let all = self.all_granted(meter);
        let (aside, beyond) = self.hold.map_or((0, 0), |hold| {
            (hold.granted_aside(meter), hold.read_beyond_granted(meter).saturating_add(unpaid))
        });
        let remaining = all.remaining.saturating_add(aside).saturating_sub(beyond);
        LimitReading { remaining, ..all }
    }

    /// The same without what the request at hand holds, and what waits to be paid.
    fn all_granted(&self, meter: MeterId) -> LimitReading {
        let none = LimitReading { limit: 0, remaining: 0, resets_in: None, past_soft: false };
        self.grants(meter).map(|grant| self.grant(grant)).fold(none, |sum, grant| LimitReading {
            limit: sum.limit.saturating_add(grant.limit),
            remaining: sum.remaining.saturating_add(grant.remaining),
            ..sum
        })
    }

    /// The grants of a meter that have not expired.
    pub(super) fn grants(&self, meter: MeterId) -> impl Iterator<Item = PoolIndex> + '_ {
        let grants = self.sheet.policy.payers(meter).map_or(&[][..], |payers| payers.grants);
        let lasts = |grant: &PoolIndex| self.now.wall_ms < self.sheet.window(*grant).end_ms;
        grants.iter().copied().filter(lasts)
    }

    /// A reading of a limit with what a host knows it by.
    fn named(&self, limit: Limit, read: LimitReading) -> LimitState {
        let policy = &self.sheet.policy;
        let counted = match limit {
            Limit::Rate(index) => policy.rates[index].meter,
            Limit::Quota(index) => Some(policy.quotas[index].quota.meter),
            Limit::Granted(meter) => Some(meter),
            Limit::None => None,
        };
        let scale = counted.map_or(1, |meter| self.scale(meter));
        let amount = |atoms| Amount::new(atoms, scale);
        let state = LimitState {
            name: limit_name(policy, limit),
            kind: LimitKind::Quota,
            meter: counted.map(|id| self.sheet.catalog.meters[usize::from(id.0)].name.clone()),
            unit: counted.map_or(Unit::Calls, |id| self.unit(id)),
            limit: amount(read.limit),
            remaining: amount(read.remaining),
            used: amount(self.used(limit, &read)),
            window: None,
            resets_in: read.resets_in,
            resets_at_ms: None,
            source: Source::Lease,
            past_soft: read.past_soft,
            of_plan: true,
        };
        match limit {
            Limit::Rate(index) => {
                let rate = &policy.rates[index];
                let window = Some(rate.rule.refill().max(Duration::from_secs(1)));
                let (kind, source) = (LimitKind::Rate, Source::Process);
                LimitState { kind, window, source, ..state }
            }
            Limit::Quota(index) => {
                let rule = &policy.quotas[index];
                let end_ms = self.sheet.window(rule.debtor).end_ms;
                LimitState {
                    window: nominal(rule, self.sheet.anchors.term),
                    resets_at_ms: read.resets_in.map(|_| end_ms),
                    ..state
                }
            }
            Limit::Granted(meter) => {
                let mut grants = self.grants(meter);
                let (first, more) = (grants.next(), grants.next());
                let of_plan = first.is_some_and(|pool| policy.pools[pool].of_plan);
                LimitState { of_plan: of_plan && more.is_none(), ..state }
            }
            Limit::None => state,
        }
    }

    /// What was used of a limit that stands so, in atoms.
    pub(super) fn used(&self, limit: Limit, read: &LimitReading) -> u64 {
        match limit {
            Limit::Quota(index) => self.used_of_quota(index).unwrap_or(0),
            _ => read.limit.saturating_sub(read.remaining),
        }
    }

    /// What was used of a quota, less what the request at hand holds of it and has not used.
    fn used_of_quota(&self, index: QuotaIndex) -> Option<u64> {
        let used = self.used_of(&self.sheet.policy.quotas[index])?;
        let Some(hold) = self.hold else { return Some(used) };
        let unused = hold.set_aside(index).saturating_sub(hold.read_beyond(index));
        Some(used.saturating_sub(unused))
    }

    /// Atoms to a unit of a meter.
    pub(super) fn scale(&self, meter: MeterId) -> u64 {
        self.sheet.catalog.meters[usize::from(meter.0)].scale
    }

    pub(super) fn concurrency(&self) -> Option<LimitState> {
        let most = u64::from(self.sheet.policy.plan.concurrency?);
        Some(LimitState {
            name: "concurrency".into(),
            kind: LimitKind::Concurrency,
            meter: None,
            unit: Unit::Calls,
            limit: Amount::units(most),
            remaining: Amount::units(0),
            used: Amount::units(most),
            window: None,
            resets_in: None,
            resets_at_ms: None,
            source: Source::Process,
            past_soft: false,
            of_plan: true,
        })
    }

    /// The remainder of a pool, as far as is known; `None` if the caller has no value of its scope.
    pub(super) fn remaining(&self, pool: PoolIndex) -> Option<u64> {
        let rule = &self.sheet.policy.pools[pool];
        if let Some(stored) = self.stored(pool) {
            return Some(u64::try_from(stored.left).unwrap_or(0));
        }
        let whole = u64::try_from(rule.limit).unwrap_or(0);
        if let CounterHome::Sheet(slot) = rule.place {
            return Some(self.sheet.known_lease(slot).map_or(whole, |lease| lease.remaining()));
        }
        Some(self.lease(pool)?.map_or(whole, |lease| lease.remaining()))
    }

    /// What was used of a pool beyond all of it, by a caller whose use comes late.
    pub(super) fn short(&self, pool: PoolIndex) -> u64 {
        let of_lease = || self.lease(pool).flatten().map_or(0, |lease| lease.short_of_all());
        self.stored(pool).map_or_else(of_lease, |of| of.owed)
    }

    /// What late use owes of a pool.
    pub(super) fn debt(&self, pool: PoolIndex) -> u64 {
        let of_lease = || self.lease(pool).flatten().map_or(0, |lease| lease.debt());
        self.stored(pool).map_or_else(of_lease, |of| of.owed)
    }

    /// What was used of a pool before its limit was lowered, and is more than that and not owed.
    pub(super) fn overdrawn(&self, pool: PoolIndex) -> u64 {
        let of_lease = || self.lease(pool).flatten().map_or(0, |lease| lease.overdrawn());
        let of_store = |of: Stored| of.left.min(0).unsigned_abs().saturating_sub(of.owed);
        self.stored(pool).map_or_else(of_lease, of_store)
    }

    pub(super) fn stored(&self, pool: PoolIndex) -> Option<Stored> {
        self.stored?[pool]
    }

    /// The lease of a pool: `None` if the caller has no value of its scope, `Some(None)` if nothing
    /// has been leased.
    pub(super) fn lease(&self, pool: PoolIndex) -> Option<Option<Arc<Lease>>> {
        let rule = &self.sheet.policy.pools[pool];
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

    pub(super) fn unit(&self, meter: MeterId) -> Unit {
        match self.sheet.catalog.meters[usize::from(meter.0)].count {
            MeterSource::ResponseBytes | MeterSource::RequestBytes => Unit::Bytes,
            _ if meter.0 == 0 => Unit::Calls,
            _ => Unit::Other,
        }
    }
}

/// A limit's name in headers, reports and metrics; empty for none.
pub(super) fn limit_name(policy: &Policy, limit: Limit) -> Arc<str> {
    match limit {
        Limit::None => "".into(),
        Limit::Rate(rate) => policy.rates[rate].name.clone(),
        Limit::Quota(quota) => policy.quotas[quota].quota.id.clone(),
        Limit::Granted(meter) => {
            let quota = policy.plan.quotas.get(&meter).and_then(|quotas| quotas.first());
            quota.map_or_else(|| "".into(), |quota| quota.id.clone())
        }
    }
}

pub(super) fn route_name(catalog: &Catalog, route: Option<RouteId>) -> Arc<str> {
    match route {
        Some(id) => catalog.routes.as_slice()[usize::from(id.0)].name.clone(),
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
            let window = super::nominal(policy.quotas.iter().next().unwrap(), sheet.anchors.term);
            told.push(window.unwrap().as_secs() / 86_400);
        }
        assert_eq!(told, [365, 30], "without a contract it is the cycle");
    }
}

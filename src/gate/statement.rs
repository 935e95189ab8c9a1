//! A tenant's view of its own usage: the numbers of `GET /usage` and `GET /usage/history`. Free,
//! never limited, and answered even while the tenant is over its limit.

use std::collections::BTreeMap;
use std::num::NonZeroU128;
use std::sync::Arc;
use std::time::Duration;

use super::standing::LimitReader;
use super::{Gate, Identification, Pending, TenantHandle, Waited};
use crate::amount::Amount;
use crate::catalog::{Auth, Every, MeterId, Over, Quota, Scope, Window};
use crate::clock::time_at;
use crate::decision::{Payment, Reason, Refusal};
use crate::identity::{Permissions, RequestView};
use crate::payers::late;
use crate::policy::resolve::Standing as TenantStanding;
use crate::policy::scoped::{ScopesOf, WithoutValue};
use crate::policy::taken::Limit;
use crate::policy::{CounterHome, PoolIndex, PoolRule, QuotaRule, RateIndex};
use crate::repeated::repeated;
use crate::report::{
    GrantReport, Granularity, History, HistoryQuery, HistoryRow, LimitReport, MAX_ROWS,
    MeterReport, Period, RateReport, UsageReport,
};
use crate::sheets::sheet::Sheet;
use crate::sheets::use_row::RowAtoms;
use crate::store::{StoreError, StoreErrorKind};
use crate::tenants::caller::{KnownCaller, Named};
use crate::wire::{self, Reply};

/// Longest wait of a reply for the store: as long as an opening waits for it. A browser or a client
/// has given up by then, and a store that is silent for so long is probed.
const REPLY_WITHIN: Duration = Duration::from_secs(30);

/// An identified caller, for reports on its usage. An adapter gets it from
/// [`Gate::identify_request`]; a program makes it from a [`TenantHandle`], as the whole tenant
/// without a key, user or address.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # #[cfg(feature = "testing")] {
/// # let (gate, _clock) = tallygate::testing::gate(r#"
/// #     default-plan = "free"
/// #     [meter.jobs]
/// #     [plan.free]
/// #     quota.jobs = "10/day"
/// # "#);
/// use tallygate::{Ask, Identified};
///
/// let acme = gate.tenant("acme").await?;                       // a handle, which may be kept
/// gate.admit(Ask::new(&acme, "job").cost("jobs", 3)).await.expect("included").settle();
/// let report = gate.usage_report(&Identified::from(&acme)).await?;
/// assert!(report.meters.iter().any(|meter| &*meter.name == "jobs" && meter.used == 3));
/// # }
/// # Ok::<(), tallygate::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Identified {
    tenant: TenantHandle,
    /// `None`: the tenant itself.
    caller: Option<Arc<KnownCaller>>,
    ip: Option<NonZeroU128>,
}

/// The outcome of [`Gate::identify_request`], which never waits itself.
pub enum IdentifyStep {
    /// The caller.
    Done(Identified),
    /// The caller is unknown.
    Refused(Box<Refusal>),
    /// Await this, then call [`Gate::identify_request`] again with its result.
    Wait(Pending),
}

impl Gate {
    /// Identifies the caller of a request, and decides nothing: for routes that show a tenant its
    /// own usage. `waited` is as in [`admit_request`](Self::admit_request). For adapters.
    pub fn identify_request(&self, view: &dyn RequestView, waited: Waited) -> IdentifyStep {
        let inner = &self.inner;
        let now = inner.clock.now();
        if let Some(reason) = waited.refused {
            return IdentifyStep::Refused(inner.refusal(reason, None));
        }
        if waited.rounds > super::ROUNDS {
            return IdentifyStep::Refused(inner.refusal(Reason::Unavailable, None));
        }
        match self.identify(view, Auth::Required, now, waited.rounds) {
            Identification::Caller(caller) => {
                let live = inner.catalogs.live.load();
                let sheet = caller.clone().into_sheet(&live, now);
                let ip = inner.credentials.ip_scope(&sheet, view);
                let tenant = TenantHandle(caller.tenant.clone());
                IdentifyStep::Done(Identified { tenant, caller: Some(caller), ip })
            }
            Identification::Refused(reason) => IdentifyStep::Refused(inner.refusal(reason, None)),
            Identification::Ask(pending) => {
                IdentifyStep::Wait(super::counted(pending, waited.rounds))
            }
        }
    }

    /// The response to `GET /usage` for this caller; 304 if it already has it by its
    /// `If-None-Match`, 503 if the store has not answered within 30 s.
    pub async fn usage_reply(&self, who: &Identified, if_none_match: Option<&str>) -> Reply {
        if let Some(reply) = self.reply_if_away() {
            return reply;
        }
        match in_time(self.usage_report(who)).await {
            Ok(report) => report.reply(if_none_match),
            Err(error) => self.cannot_read(&error),
        }
    }

    /// The response to `GET /usage/history?QUERY` for this caller; 400 if the query is not valid.
    pub async fn history_reply(&self, who: &Identified, query: &str) -> Reply {
        let now = self.inner.clock.now();
        let query = match HistoryQuery::parse(query, now.wall()) {
            Ok(query) => query,
            Err(reply) => return reply,
        };
        let sheet = who.tenant.0.sheet(&self.inner.catalogs.live.load(), now);
        if spans(&sheet, &query).nth(MAX_ROWS).is_some() {
            return HistoryQuery::too_many_rows();
        }
        if let Some(reply) = self.reply_if_away() {
            return reply;
        }
        match in_time(self.history(who, &query)).await {
            Ok(Some(history)) => history.reply(),
            Ok(None) => {
                let catalog = self.catalog();
                HistoryQuery::unknown_meter(catalog.meters.iter().map(|m| &*m.name))
            }
            Err(error) => self.cannot_read(&error),
        }
    }

    /// A caller's limits and usage, as in `GET /usage`.
    ///
    /// # Errors
    ///
    /// The store's error, if the numbers of other processes cannot be read.
    pub async fn usage_report(&self, who: &Identified) -> Result<UsageReport, StoreError> {
        let inner = &*self.inner;
        // A handle that was kept may be old.
        if let Some(read) = self.refresh_for_look(&who.tenant.0, inner.clock.now()) {
            read.await;
        }
        let now = inner.clock.now();
        let (sheet, revision) = {
            let live = inner.catalogs.live.load();
            (who.tenant.0.sheet(&live, now), live.revision)
        };
        late::settle_debts(&sheet, now);
        inner.wait_for_late(&sheet).await;
        let (record, start_ms) = (who.tenant.0.record(), sheet.row.period_ms);
        let period = record.era(start_ms).period(start_ms, &sheet.catalog.timezone);
        let period = Window { start_ms, ..period };
        let uses =
            inner.recording.ledger.uses(sheet.tenant.surrogate, sheet.live(), now.wall_ms).await?;
        let age_ms = now.wall_ms.saturating_sub(inner.recording.ledger.read_at_ms());
        let staleness = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        let scopes = who.scopes(&inner.hub.without_value);
        let here = LimitReader { inner, sheet: &sheet, scopes, now, hold: None, stored: None };
        let mut stored = here.read_unleased().await?;
        if inner.pay_unseen_debts(LimitReader { stored: Some(&stored), ..here }).await {
            stored = here.read_unleased().await?;
        }
        let view = LimitReader { stored: Some(&stored), ..here };
        let meters = sheet.catalog.meters.iter().enumerate().map(|(i, meter)| {
            let id = MeterId(u16::try_from(i).unwrap_or(u16::MAX));
            let of_period = uses.iter().filter(|u| u.period_ms == period.start_ms);
            let recorded = of_period.filter(|u| u.meter == meter.name && u.scale == meter.scale);
            let live = sheet.live_rows().filter(|row| row.period_ms == period.start_ms);
            let mut atoms = RowAtoms::default();
            recorded
                .map(|u| u.atoms)
                .chain(live.map(|row| row.total(id)))
                .for_each(|n| atoms.add(n));
            meter_report(&view, id, CountedMeter { atoms, period, staleness })
        });
        let meters = meters.collect();
        let rates =
            sheet.policy.rates.indices().filter_map(|rate| rate_report(&view, rate)).collect();
        Ok(UsageReport {
            plan: sheet.policy.plan.name.clone(),
            status: status(&sheet.standing),
            catalog: revision,
            period: Period {
                start: period.start(),
                end: period.end(),
                timezone: sheet.catalog.timezone.name().into(),
            },
            meters,
            rates,
            features: sheet.policy.plan.features.clone(),
            as_of: time_at(now.wall_ms),
        })
    }

    /// A caller's usage of one meter by day or month, at most the first 1,100 rows; `None` if the
    /// plan file has no such meter.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn history(
        &self,
        who: &Identified,
        query: &HistoryQuery,
    ) -> Result<Option<History>, StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let sheet = who.tenant.0.sheet(&inner.catalogs.live.load(), now);
        let Some(id) = sheet.catalog.meter(&query.meter) else {
            return Ok(None);
        };
        let meter = &sheet.catalog.meters[usize::from(id.0)];
        let mut by_day = BTreeMap::<u32, u64>::new();
        let uses =
            inner.recording.ledger.uses(sheet.tenant.surrogate, sheet.live(), now.wall_ms).await?;
        for day in uses.iter().filter(|u| u.meter == meter.name && u.scale == meter.scale) {
            let sum = by_day.entry(day.day).or_default();
            *sum = sum.saturating_add(day.atoms.used.0);
        }
        for row in sheet.live_rows() {
            let sum = by_day.entry(row.day).or_default();
            *sum = sum.saturating_add(row.total(id).used.0);
        }
        Ok(Some(History {
            meter: meter.name.clone(),
            unit: unit_word(&sheet, id),
            granularity: query.granularity,
            rows: rows(&sheet, query, &by_day, meter.scale),
        }))
    }

    /// A refusal as a response: the host's own
    /// ([`GateBuilder::on_refusal`](crate::GateBuilder::on_refusal)), or the default one. For
    /// adapters.
    pub fn refusal_reply(&self, refusal: &Refusal) -> Reply {
        let inner = &self.inner;
        let own = inner.settings.on_refusal.as_ref().and_then(|hook| hook(refusal));
        own.unwrap_or_else(|| {
            let now = inner.clock.now();
            wire::refusal(refusal, &inner.settings.wire, wire::Call::at(now.wall_ms))
        })
    }

    /// A refusal's problem (RFC 9457) for where there is no response: an event of a stream, a
    /// message, a worker's report. It has the members of the body that
    /// [`refusal_reply`](Self::refusal_reply) would send without the hook `on_refusal`, and
    /// `retry-after`, in whole seconds, where that has the header `Retry-After`. Nothing in it is
    /// for the host alone: no tenant, no user, no key.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// use tallygate::Ask;
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [meter.deliveries]
    ///     [plan.free]
    ///     quota.deliveries = "1/day"
    /// "#);
    /// let acme = gate.tenant("acme").await?;
    /// let refused = gate.admit(Ask::new(&acme, "deliver").cost("deliveries", 2)).await;
    /// let problem = gate.refusal_problem(&refused.unwrap_err());
    /// assert_eq!(problem["status"], 429);
    /// assert_eq!(problem["violated-policies"][0], "deliveries/day");
    /// assert!(problem["retry-after"].as_u64() > Some(0));
    /// # }
    /// # Ok::<(), tallygate::Error>(()) }).unwrap();
    /// ```
    pub fn refusal_problem(&self, refusal: &Refusal) -> serde_json::Value {
        let inner = &self.inner;
        let now = inner.clock.now();
        wire::problem(refusal, &inner.settings.wire, wire::Call::at(now.wall_ms))
    }

    /// A refusal as the response to a gRPC call. The hook `on_refusal` is for HTTP and is not
    /// called. For adapters.
    pub fn grpc_refusal_reply(&self, refusal: &Refusal) -> Reply {
        let inner = &self.inner;
        let now = inner.clock.now();
        wire::grpc_refusal(refusal, &inner.settings.wire, wire::Call::at(now.wall_ms))
    }

    /// The answer while the store is known to be away: a look at usage does not wait for it then.
    fn reply_if_away(&self) -> Option<Reply> {
        let is_away = self.inner.hub.reach.is_away();
        is_away.then(|| self.refusal_reply(&self.inner.refusal(Reason::Unavailable, None)))
    }

    fn cannot_read(&self, error: &StoreError) -> Reply {
        if error.is_temporary() {
            self.inner.hub.reach.suspect();
        }
        let now_ms = self.inner.clock.now().wall_ms;
        repeated!(warn, now_ms, "usage cannot be read"; %error);
        self.refusal_reply(&self.inner.refusal(Reason::Unavailable, None))
    }
}

/// The same, or an error if the store does not answer [in time](REPLY_WITHIN).
async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let silent = || StoreError::new(StoreErrorKind::Unavailable, "no answer in time");
    tokio::time::timeout(REPLY_WITHIN, read).await.unwrap_or_else(|_| Err(silent()))
}

impl From<&TenantHandle> for Identified {
    fn from(tenant: &TenantHandle) -> Self {
        Self { tenant: tenant.clone(), caller: None, ip: None }
    }
}

impl Identified {
    pub(super) fn scopes<'a>(&'a self, without: &'a WithoutValue) -> ScopesOf<'a> {
        let known = self.caller.as_ref().map(|caller| &caller.values);
        ScopesOf { known, ip: self.ip, without: Some(without) }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantHandle {
        &self.tenant
    }

    fn named(&self) -> Option<&Named> {
        self.caller.as_ref()?.named.as_deref()
    }

    /// The id of its key, if it presented one.
    pub(crate) fn key(&self) -> Option<&str> {
        self.named()?.key.as_deref()
    }

    /// What it may do.
    /// Whether it is known only as it was before the store was away.
    pub(crate) fn is_kept(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.is_kept)
    }

    pub(crate) fn permissions(&self) -> Permissions {
        self.named().map(|named| named.permissions.clone()).unwrap_or_default()
    }
}

/// Use of a meter in the billing period.
struct CountedMeter {
    atoms: RowAtoms,
    period: Window,
    staleness: Duration,
}

fn meter_report(view: &LimitReader<'_>, id: MeterId, counted: CountedMeter) -> MeterReport {
    let sheet = view.sheet;
    let policy = &sheet.policy;
    let meter = &sheet.catalog.meters[usize::from(id.0)];
    let amount = |atoms| Amount::new(atoms, meter.scale);
    let quotas = policy.quotas.iter().filter(|q| q.quota.meter == id);
    let limits = quotas.clone().filter_map(|q| limit_report(view, q));
    let unlimited = policy.plan.quotas.get(&id).into_iter().flatten();
    let unlimited = unlimited
        .filter_map(|quota| unlimited_report(quota, &counted, amount(counted.atoms.used.0)));
    let limits = limits.chain(unlimited).collect();
    // What is billed is what was recorded in the billing period, whatever the quotas' windows.
    let billed = counted.atoms.over.0;
    let over = quotas.filter(|q| q.tenant_wide).map(|q| match q.quota.over {
        Over::Bill => billed.saturating_add(view.debt_of(q)),
        Over::Allow | Over::Deny => view.beyond(q).unwrap_or(0),
    });
    // Of units that were granted once and no other way.
    let once_only = policy.payers(id).filter(|payers| payers.once_only);
    let owed = once_only.and_then(|payers| payers.debtor).map(|pool| view.debt(pool));
    let over = over.chain(owed).chain([billed]);
    let pools = policy.pools.pairs().filter(|(_, pool)| pool.meter == id);
    let grants = pools.filter(|(_, pool)| pool.is_grant());
    let mut grants: Vec<_> = grants.map(|(i, pool)| grant_report(view, i, pool)).collect();
    if grants.is_empty() && policy.payers(id).is_some_and(|payers| payers.once_only) {
        grants.extend(nothing_granted(view, id));
    }
    MeterReport {
        name: meter.name.clone(),
        unit: unit_word(sheet, id),
        used: amount(counted.atoms.used.0),
        over: amount(over.max().unwrap_or(0)),
        held: amount(held(view, id)),
        limits,
        grants,
        staleness: counted.staleness,
    }
}

/// Atoms set aside for requests that have not ended, in this process.
fn held(view: &LimitReader<'_>, id: MeterId) -> u64 {
    let pools = view.sheet.policy.pools.pairs();
    let of_meter =
        pools.filter(|(_, pool)| pool.meter == id && matches!(pool.place, CounterHome::Sheet(_)));
    let held = of_meter.filter_map(|(i, _)| {
        let lease = view.lease(i)??;
        Some(lease.open_holds())
    });
    held.max().unwrap_or(0)
}

pub(super) fn limit_report(view: &LimitReader<'_>, rule: &QuotaRule) -> Option<LimitReport> {
    let limit = rule.quota.limit?;
    let amount = |atoms| Amount::new(atoms, view.scale(rule.quota.meter));
    let window = view.sheet.window(rule.debtor);
    Some(LimitReport {
        id: rule.quota.id.clone(),
        scope: scope_word(&rule.quota.scope),
        limit: Some(amount(limit)),
        used: amount(view.used_of(rule)?),
        debt: amount(view.debt_of(rule)),
        starts_at: window.start(),
        resets_at: window.end(),
    })
}

/// A quota without a limit has no pool: what it counts is the meter's use in the billing period.
fn unlimited_report(quota: &Quota, counted: &CountedMeter, used: Amount) -> Option<LimitReport> {
    quota.limit.is_none().then(|| LimitReport {
        id: quota.id.clone(),
        scope: scope_word(&quota.scope),
        limit: None,
        used,
        debt: Amount::units(0),
        starts_at: counted.period.start(),
        resets_at: counted.period.end(),
    })
}

fn grant_report(view: &LimitReader<'_>, index: PoolIndex, pool: &PoolRule) -> GrantReport {
    let amount = |atoms| Amount::new(atoms, view.scale(pool.meter));
    let reading = view.grant(index);
    GrantReport {
        id: pool.id.strip_prefix("grant/").unwrap_or(&pool.id).into(),
        source: if pool.of_plan { "plan".into() } else { "grant".into() },
        limit: amount(reading.limit),
        used: amount(reading.limit.saturating_sub(reading.remaining)),
        expires_at: pool.expires_ms.map(time_at),
    }
}

/// A prepaid quota of a tenant that has no grant.
fn nothing_granted(view: &LimitReader<'_>, id: MeterId) -> Option<GrantReport> {
    let state = view.state(Limit::Granted(id))?;
    Some(GrantReport {
        id: state.name,
        source: "plan".into(),
        limit: state.limit,
        used: state.used,
        expires_at: None,
    })
}

fn rate_report(view: &LimitReader<'_>, index: RateIndex) -> Option<RateReport> {
    let state = view.state(Limit::Rate(index))?;
    let rate = &view.sheet.policy.rates[index];
    Some(RateReport {
        id: rate.id.clone(),
        scope: match &rate.place {
            CounterHome::Sheet(_) => "tenant".into(),
            CounterHome::Scoped(scope) => scope_word(scope),
        },
        meter: state.meter,
        limit: Amount::new(rate.amount, state.limit.scale()),
        per: rate.per.max(Duration::from_secs(1)),
        burst: state.limit,
        remaining: state.remaining,
    })
}

/// The days or months that a query asks for.
fn spans(sheet: &Sheet, query: &HistoryQuery) -> impl Iterator<Item = Window> {
    let every = match query.granularity {
        Granularity::Day => Every::Day,
        Granularity::Month => Every::Month,
    };
    let window = move |at_ms| every.window(at_ms, &sheet.catalog.timezone, &sheet.anchors);
    let (from_ms, to_ms) = (query.from_ms, query.to_ms);
    let first = (from_ms < to_ms).then(|| window(from_ms));
    std::iter::successors(first, move |last| (last.end_ms < to_ms).then(|| window(last.end_ms)))
}

fn rows(
    sheet: &Sheet,
    query: &HistoryQuery,
    by_day: &BTreeMap<u32, u64>,
    scale: u64,
) -> Vec<HistoryRow> {
    let zone = &sheet.catalog.timezone;
    let rows = spans(sheet, query).take(MAX_ROWS).map(|span| {
        let first = crate::catalog::local_day(span.start_ms, zone);
        let last = crate::catalog::local_day(span.end_ms - 1, zone).max(first);
        let used = by_day.range(first..=last).fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
        let (start, end) = (span.start(), time_at(span.end_ms));
        HistoryRow { start, end, used: Amount::new(used, scale) }
    });
    rows.collect()
}

/// The status of a tenant, as one of the words of `GET /usage`.
pub(crate) fn status(standing: &TenantStanding) -> Arc<str> {
    match standing {
        TenantStanding::Good => "active".into(),
        TenantStanding::Refused(Reason::Suspended) => "suspended".into(),
        TenantStanding::Refused(Reason::PaymentRequired(Payment::TrialOver)) => "trial-over".into(),
        TenantStanding::Refused(_) => "payment-required".into(),
    }
}

fn unit_word(sheet: &Sheet, id: MeterId) -> Arc<str> {
    let meter = &sheet.catalog.meters[usize::from(id.0)];
    match meter.count {
        crate::catalog::MeterSource::ResponseBytes | crate::catalog::MeterSource::RequestBytes => {
            "bytes".into()
        }
        _ => meter.name.clone(),
    }
}

fn scope_word(scope: &Scope) -> Arc<str> {
    match scope {
        Scope::Tenant => "tenant".into(),
        Scope::Key => "key".into(),
        Scope::User => "user".into(),
        Scope::Ip => "ip".into(),
        Scope::Named(name) => name.clone(),
    }
}

impl std::fmt::Debug for IdentifyStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(who) => f.debug_tuple("Done").field(who).finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(&refusal.reason).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

//! Decides traffic again under a plan file: a gate in memory, on a clock that shows the instants of
//! the log. The library decides; nothing here knows what a limit is.
//!
//! Counters begin at nothing with the first line. A request ends well at once; where the log says
//! how many were in flight, the oldest end as late as that number allows.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tallygate::adapter::{Answer, Serving, Step, Waited};
use tallygate::identity::{Caller, RequestView};
use tallygate::{
    Amount, Ask, Gate, GateBuilder, Identified, ManualClock, Outcome, Permit, Refusal,
};

use super::PlanFile;
use super::traffic::{Call, Verdict, What, unix_ms};
use crate::failure::{Failure, code};
use crate::progress::Progress;
use crate::service::NoCallers;

/// After this long a gate reads its record again.
const STALE: Duration = Duration::from_secs(60);

/// Decisions between two looks of the line that says how far it is.
const SAID_EVERY: usize = 1_000;

/// What came of a tenant's calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Came {
    pub(super) calls: u64,
    pub(super) admitted: u64,
    /// Refusals, by the limit or the reason.
    pub(super) refused_by: BTreeMap<String, u64>,
    /// By meter, what was used beyond what its limits include, as a report has it at the end.
    pub(super) over: BTreeMap<String, Amount>,
    /// By meter, what was used beyond quotas that bill, in all billing periods.
    pub(super) billed: BTreeMap<String, Amount>,
    /// Billing periods in which there were calls, by the plan at the first of them.
    pub(super) periods: BTreeMap<String, u64>,
    /// Decisions that are not those of the log.
    pub(super) otherwise: u64,
}

impl Came {
    pub(super) fn refused(&self) -> u64 {
        self.calls - self.admitted
    }
}

/// What came of all calls under a plan file.
#[derive(Clone, Debug, Default)]
pub(super) struct Replayed {
    pub(super) came: BTreeMap<String, Came>,
    /// The instants of refusals, Unix milliseconds.
    pub(super) refused_at: Vec<i64>,
}

/// A call that has not ended.
enum Open {
    Request(Serving),
    Work(Permit),
}

impl Open {
    fn end(self) {
        match self {
            Self::Request(serving) => serving.end(Outcome::Complete { status: 200 }),
            Self::Work(permit) => permit.settle(),
        }
    }
}

/// A gate that decides traffic again.
struct Replay {
    gate: Gate,
    clock: ManualClock,
    now_ms: i64,
    /// The plan of each tenant so far.
    plans: HashMap<String, Option<String>>,
    open: HashMap<String, VecDeque<Open>>,
    /// The names of routes that the plan file has.
    routes: HashMap<String, bool>,
    /// The permissions that its routes ask for.
    permissions: Vec<String>,
    /// When each tenant's billing period ends, if it does, Unix milliseconds.
    period_ends: HashMap<String, Option<i64>>,
}

/// Decides all calls under this plan file, and says what came of each tenant's.
pub(super) async fn run(
    PlanFile { text: plans, catalog }: &PlanFile,
    no_scope: &str,
    calls: &[Call],
    name: &str,
) -> Result<Replayed, Failure> {
    let Some(first) = calls.first() else { return Ok(Replayed::default()) };
    let service = format!("[store]\nkind = \"memory\"\n[identity]\nno-scope = {no_scope:?}\n");
    let clock = ManualClock::at_unix_ms(first.at_ms);
    let builder = GateBuilder::from_text(&service).plans(plans.as_str()).identify(NoCallers);
    let gate = builder.clock(clock.clone()).open().await?;
    let mut replay = Replay {
        gate,
        clock,
        now_ms: first.at_ms,
        plans: HashMap::new(),
        open: HashMap::new(),
        routes: HashMap::new(),
        permissions: catalog.permissions().map(str::to_owned).collect(),
        period_ends: HashMap::new(),
    };
    let Replayed { mut came, mut refused_at } = Replayed::default();
    let line = Progress::begin(false);
    for (n, call) in calls.iter().enumerate() {
        if n.is_multiple_of(SAID_EVERY) {
            line.say(format!("{n} of {} decisions, under {name}", calls.len()));
        }
        let verdict = replay.decide(call).await?;
        let of = came.entry(call.tenant.clone()).or_default();
        if let Some(plan) = replay.begun_period(&call.tenant).await? {
            *of.periods.entry(plan).or_default() += 1;
        }
        of.calls += 1;
        of.otherwise += u64::from(call.came_otherwise(&verdict));
        match verdict {
            Verdict::Admitted => of.admitted += 1,
            Verdict::Refused(by) => {
                *of.refused_by.entry(by).or_default() += 1;
                refused_at.push(call.at_ms);
            }
        }
    }
    replay.end(&mut came).await?;
    Ok(Replayed { came, refused_at })
}

impl Replay {
    async fn decide(&mut self, call: &Call) -> Result<Verdict, Failure> {
        let ahead = u64::try_from(call.at_ms - self.now_ms).unwrap_or(0);
        self.clock.advance(Duration::from_millis(ahead));
        self.now_ms = self.now_ms.max(call.at_ms);
        self.sell(call).await?;
        let open = self.open.entry(call.tenant.clone()).or_default();
        while open.len() > call.in_flight.unwrap_or(0) {
            open.pop_front().into_iter().for_each(Open::end);
        }
        let decided = match &call.what {
            What::Work(op, cost) => self.work(call, op, cost).await?,
            What::On(route) => {
                let route = route.as_deref().filter(|it| self.has_route(it)).map(str::to_owned);
                // A method and a path that a pattern fits only where it fits all.
                self.request(call, route, ("-", "/-")).await?
            }
            What::Request(method, path) => self.request(call, None, (method, path)).await?,
        };
        Ok(match decided {
            Ok(Some(open)) => {
                self.open.entry(call.tenant.clone()).or_default().push_back(open);
                Verdict::Admitted
            }
            Ok(None) => Verdict::Admitted,
            Err(refusal) => Verdict::Refused(by(&refusal)),
        })
    }

    /// Has the tenant on the plan of the log.
    async fn sell(&mut self, call: &Call) -> Result<(), Failure> {
        if self.plans.get(&call.tenant) == Some(&call.plan) {
            return Ok(());
        }
        let directory = self.gate.directory();
        let edit = match directory.find(&call.tenant).await? {
            Some(tenant) => tenant.edit(),
            None => directory.tenant(&call.tenant),
        };
        let edit = match &call.plan {
            Some(plan) => edit.plan(plan),
            None => edit,
        };
        edit.save().await?;
        self.plans.insert(call.tenant.clone(), call.plan.clone());
        Ok(())
    }

    /// The tenant's plan, where the call just decided is the first of a billing period.
    async fn begun_period(&mut self, tenant: &str) -> Result<Option<String>, Failure> {
        match self.period_ends.get(tenant) {
            Some(None) => return Ok(None),
            Some(Some(end_ms)) if self.now_ms < *end_ms => return Ok(None),
            Some(Some(_)) | None => {}
        }
        let who = Identified::from(&self.gate.tenant(tenant).await?);
        let report = self.gate.usage_report(&who).await?;
        self.period_ends.insert(tenant.to_owned(), report.period.end.map(unix_ms));
        Ok(Some(report.plan.to_string()))
    }

    fn has_route(&mut self, name: &str) -> bool {
        let gate = &self.gate;
        let has = || gate.check_operations([name]).is_ok();
        *self.routes.entry(name.to_owned()).or_insert_with(has)
    }

    async fn work(
        &self,
        call: &Call,
        op: &str,
        cost: &[(String, u64)],
    ) -> Result<Result<Option<Open>, Box<Refusal>>, Failure> {
        let tenant = self.gate.tenant(&call.tenant).await?;
        let mut ask = Ask::new(&tenant, op);
        for (meter, units) in cost {
            // A meter that the plan file lacks limits nothing.
            if self.gate.meter(meter).is_ok() {
                ask = ask.cost(meter.as_str(), *units);
            }
        }
        ask = call.user.iter().fold(ask, Ask::user);
        ask = call.key.iter().fold(ask, Ask::key);
        Ok(match self.gate.admit(ask).await {
            Ok(permit) => Ok(Some(Open::Work(permit))),
            Err(refusal) => Err(Box::new(refusal)),
        })
    }

    async fn request(
        &self,
        call: &Call,
        route: Option<String>,
        (method, path): (&str, &str),
    ) -> Result<Result<Option<Open>, Box<Refusal>>, Failure> {
        let view = View { call, permissions: &self.permissions, route, method, path };
        let mut waited = Waited::default();
        loop {
            match self.gate.admit_request(&view, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Pass) => return Ok(Ok(None)),
                Step::Done(Answer::Refuse(refusal)) => return Ok(Err(refusal)),
                Step::Done(Answer::Admit(running)) => {
                    return Ok(Ok(Some(Open::Request(Serving::own(running)))));
                }
            }
        }
    }

    /// Ends what is open, and adds what each tenant has used beyond its limits.
    async fn end(self, came: &mut BTreeMap<String, Came>) -> Result<(), Failure> {
        self.open.into_values().flatten().for_each(Open::end);
        for (tenant, came) in &mut *came {
            let who = Identified::from(&self.gate.tenant(tenant).await?);
            let report = self.gate.usage_report(&who).await?;
            let over = report.meters.iter().filter(|meter| !meter.over.is_zero());
            came.over = over.map(|meter| (meter.name.to_string(), meter.over)).collect();
        }
        self.gate.flush_now().await?;
        // What was read of the record at this instant counts as fresh.
        self.clock.advance(STALE);
        for (tenant, came) in came {
            if let Some(tenant) = self.gate.directory().find(tenant).await? {
                let over = self.gate.recorded_overage(tenant.record()).await?;
                came.billed = over.into_iter().map(|(it, over)| (it.to_string(), over)).collect();
            }
        }
        self.gate.close().await?;
        Ok(())
    }
}

/// The limit that refused, else the last part of the problem's type.
fn by(refusal: &Refusal) -> String {
    if let Some(limit) = &refusal.limit {
        return limit.name.to_string();
    }
    let problem = tallygate::wire::Mapping::of(&refusal.reason).problem;
    problem.rsplit(['/', '#']).next().unwrap_or_default().to_owned()
}

/// The call at hand as a request.
struct View<'a> {
    call: &'a Call,
    permissions: &'a [String],
    route: Option<String>,
    method: &'a str,
    path: &'a str,
}

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, _: &str) -> Vec<&'a [u8]> {
        Vec::new()
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn body_length(&self) -> Option<u64> {
        Some(0)
    }

    fn caller(&self) -> Option<Caller> {
        let caller = Caller::new(&self.call.tenant);
        let held = self.permissions.iter().filter(|it| self.call.lacks.as_ref() != Some(*it));
        let caller = held.fold(caller, Caller::permission);
        let caller = self.call.user.iter().fold(caller, Caller::user);
        Some(self.call.key.iter().fold(caller, Caller::key))
    }
}

/// The plans that a log names and a plan file lacks.
pub(super) fn missing_plans(known: &[String], calls: &[Call], file: &str) -> Result<(), Failure> {
    let named: HashSet<&String> = calls.iter().filter_map(|call| call.plan.as_ref()).collect();
    let mut missing: Vec<_> = named.into_iter().filter(|plan| !known.contains(plan)).collect();
    missing.sort();
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Failure::new(
            code::FILE,
            format!("{file}: the log names plans that are not here: {missing:?}"),
        )),
    }
}

//! Histories: the plans on sale, and events of tenants in order of time. Generated at random, and
//! shrunk where the model and the gate differ.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::book::{Meter, MeterPlan, Over, Payment, Plan, Quota};
use crate::calendar::{DAY, Every, HOUR};

/// Meters of every history: `jobs` are asked for, `tokens` are reported.
pub(crate) const METERS: [&str; 2] = ["jobs", "tokens"];
pub(crate) const JOBS: Meter = 0;
pub(crate) const TOKENS: Meter = 1;

pub(crate) const TENANTS: usize = 2;
/// Users of each tenant.
pub(crate) const USERS: std::ops::Range<u32> = 1..3;
/// Concurrent requests.
pub(crate) const SLOTS: usize = 3;

/// One history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) setting: Setting,
    pub(crate) events: Vec<Event>,
}

/// The plans on sale, and their terms.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Jobs that a request of `/work` costs.
    pub(crate) cost: u64,
    /// Tokens that a request of `/chat` sets aside.
    pub(crate) hold: Option<u64>,
    /// Whether all tokens are sent to Stripe, or only the overage, as for jobs; `None`: nothing is.
    pub(crate) sends_all: Option<bool>,
    pub(crate) plans: Vec<Plan>,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Time passes, in milliseconds.
    Pass(i64),
    /// Work that is no request, of jobs in two parts and tokens: it succeeds or fails.
    Work {
        tenant: usize,
        jobs: u64,
        tokens: u64,
        done: bool,
    },
    /// A request begins: of `/work` or `/chat`.
    Begin {
        slot: usize,
        tenant: usize,
        user: u32,
        chats: bool,
    },
    /// Its handler takes tokens before it spends them.
    Take {
        slot: usize,
        tokens: u64,
    },
    /// It reports tokens.
    Report {
        slot: usize,
        tokens: u64,
    },
    /// It ends with this status; its handler keeps its usage handle.
    End {
        slot: usize,
        status: u16,
    },
    /// Its connection is upgraded to another protocol, which runs until its end.
    Upgrade {
        slot: usize,
    },
    /// A handler reports after the end.
    ReportLate {
        slot: usize,
        tokens: u64,
    },
    /// Another service reports use.
    Ingest {
        tenant: usize,
        meter: Meter,
        units: u64,
    },
    /// Units are granted, for this many milliseconds.
    Grant {
        tenant: usize,
        meter: Meter,
        units: u64,
        lasts: i64,
    },
    /// The tenant moves to a plan.
    Move {
        tenant: usize,
        plan: usize,
    },
    Suspend {
        tenant: usize,
        suspended: bool,
    },
    /// The operator sets the tenant's payment state; a failed payment failed just now.
    Pay {
        tenant: usize,
        state: Payment,
    },
    /// The tenant buys a plan at Stripe, or changes to it.
    Subscribe {
        tenant: usize,
        plan: usize,
    },
    /// It cancels its subscription.
    Cancel {
        tenant: usize,
    },
    /// The plan file is edited: a limit of one plan and meter rises, in all plans that have it.
    Edit {
        plan: usize,
        meter: Meter,
        quota: usize,
        by: u64,
    },
    /// The same limit of one plan falls.
    Lower {
        plan: usize,
        meter: Meter,
        quota: usize,
        by: u64,
    },
    /// The process shuts down cleanly, and another begins.
    Restart,
    /// What is owed is sent to Stripe.
    Bill,
    /// The tenant looks at its usage.
    Look {
        tenant: usize,
    },
    /// With several nodes: the following events happen at this one.
    Turn {
        node: usize,
    },
    /// This node dies, and starts again.
    Crash {
        node: usize,
    },
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    (settings(), vec(events(), 1..36)).prop_map(|(setting, events)| History { setting, events })
}

fn settings() -> impl Strategy<Value = Setting> {
    let sends = option::weighted(0.05, any::<bool>());
    (1..4u64, option::of(1..8u64), sends).prop_flat_map(|(cost, hold, sends_all)| {
        let plan = (meter_plan(cost), meter_plan(hold.unwrap_or(1)));
        let plan =
            plan.prop_map(|(jobs, tokens)| Plan { meters: vec![jobs, tokens], concurrency: None });
        vec(plan, 2).prop_map(move |mut plans| {
            share_terms(&mut plans);
            Setting { cost, hold, sends_all, plans }
        })
    })
}

/// A quota with the same words is the same quota in both plans, unless limits fall.
fn share_terms(plans: &mut [Plan]) {
    let (first, rest) = plans.split_first_mut().expect("two plans");
    for plan in rest {
        for (meter, of_first) in plan.meters.iter_mut().zip(&first.meters) {
            for quota in &mut meter.quotas {
                let same = |it: &&Quota| (it.every, it.per_user) == (quota.every, quota.per_user);
                if let Some(known) = of_first.quotas.iter().find(same) {
                    *quota = known.clone();
                }
            }
        }
    }
}

/// `least`: what one request needs; a plan file with less is refused.
fn meter_plan(least: u64) -> impl Strategy<Value = MeterPlan> {
    let quotas = prop_oneof![
        1 => Just(0usize),
        4 => Just(1),
        2 => Just(2),
    ];
    let quotas = quotas.prop_flat_map(move |n| {
        (subsequence(Every::ALL.to_vec(), n), vec((quota_terms(least), any::<bool>()), n))
    });
    let once = option::weighted(0.25, least..20);
    (quotas, once, prop::bool::weighted(0.2)).prop_map(|((windows, terms), once, narrow)| {
        let quotas = windows.into_iter().zip(terms).enumerate();
        let quotas = quotas.map(|(at, (every, ((limit, over), _)))| {
            let per_user = narrow && at > 0;
            Quota { limit, every, over, per_user }
        });
        MeterPlan { quotas: quotas.collect(), once, prepaid: false }
    })
}

fn quota_terms(least: u64) -> impl Strategy<Value = (u64, Over)> {
    let stop = option::of(least..12);
    prop_oneof![
        3 => (least..25).prop_map(|limit| (limit, Over::Deny)),
        1 => (0..25u64, stop.clone()).prop_map(|(limit, stop)| (limit, Over::Allow(stop))),
        2 => (0..25u64, stop).prop_map(|(limit, stop)| (limit, Over::Bill(stop))),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let (tenant, slot, meter) = (0..TENANTS, 0..SLOTS, 0..METERS.len());
    let units = prop_oneof![4 => 1..8u64, 1 => 8..40u64];
    let pass = select(vec![1_000, 20 * 60_000, HOUR, 7 * HOUR, DAY, 6 * DAY, 20 * DAY, 200 * DAY]);
    prop_oneof![
        4 => pass.prop_map(Event::Pass),
        6 => (tenant.clone(), units.clone(), prop::bool::weighted(0.8))
            .prop_map(|(tenant, jobs, done)| Event::Work { tenant, jobs, tokens: 0, done }),
        8 => (slot.clone(), tenant.clone(), USERS, any::<bool>())
            .prop_map(|(slot, tenant, user, chats)| Event::Begin { slot, tenant, user, chats }),
        8 => (slot.clone(), units.clone()).prop_map(|(slot, tokens)| Event::Take { slot, tokens }),
        7 => (slot.clone(), units.clone())
            .prop_map(|(slot, tokens)| Event::Report { slot, tokens }),
        6 => (slot.clone(), select(vec![200, 404, 500]))
            .prop_map(|(slot, status)| Event::End { slot, status }),
        6 => (slot, units.clone()).prop_map(|(slot, tokens)| Event::ReportLate { slot, tokens }),
        3 => (tenant.clone(), meter.clone(), units.clone())
            .prop_map(|(tenant, meter, units)| Event::Ingest { tenant, meter, units }),
        3 => (tenant.clone(), meter.clone(), units, select(vec![2 * HOUR, 5 * DAY, 900 * DAY]))
            .prop_map(|(tenant, meter, units, lasts)| Event::Grant { tenant, meter, units, lasts }),
        2 => (tenant.clone(), 0..2usize).prop_map(|(tenant, plan)| Event::Move { tenant, plan }),
        1 => (tenant.clone(), any::<bool>())
            .prop_map(|(tenant, suspended)| Event::Suspend { tenant, suspended }),
        2 => (0..2usize, meter, 0..2usize, 1..20u64)
            .prop_map(|(plan, meter, quota, by)| Event::Edit { plan, meter, quota, by }),
        1 => Just(Event::Restart),
        1 => Just(Event::Bill),
        2 => tenant.prop_map(|tenant| Event::Look { tenant }),
    ]
}

/// Numbers derived from one number: Steele, Lea and Flood's SplitMix64.
pub(crate) struct Drawn(pub(crate) u64);

impl Drawn {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Terms added to the generator later, drawn from the history's number so that the rest stays as it
/// was.
pub(crate) fn with_more(mut history: History, number: u32) -> History {
    let mut drawn = Drawn(u64::from(number) << 32);
    if drawn.one_in(4) {
        for meter in history.setting.plans.iter_mut().flat_map(|plan| &mut plan.meters) {
            if drawn.one_in(2) {
                meter.quotas.retain(|quota| quota.per_user);
                (meter.once, meter.prepaid) = (None, true);
            }
        }
    }
    if drawn.one_in(4) {
        for plan in &mut history.setting.plans {
            plan.concurrency = Some(1 + drawn.below(3)).filter(|_| !drawn.one_in(4));
        }
    }
    if drawn.one_in(3) {
        for event in &mut history.events {
            if let Event::Work { tokens, .. } = event {
                *tokens = drawn.below(8);
            }
        }
    }
    if drawn.one_in(3) {
        for at in (0..history.events.len()).rev().filter(|_| drawn.one_in(8)).collect::<Vec<_>>() {
            let slot = drawn.below(SLOTS as u64) as usize;
            history.events.insert(at, Event::Upgrade { slot });
        }
    }
    history
}

/// Limits that fall, in some histories: by an edit, or by a move to the other plan. Several nodes
/// learn of it at different times, so these are for one node.
pub(crate) fn with_falls(mut history: History, number: u32) -> History {
    let mut drawn = Drawn((u64::from(number) << 32) + 1);
    if !drawn.one_in(3) {
        return history;
    }
    for meter in [JOBS, TOKENS] {
        let least = history.setting.least(meter);
        // What requests hold of a limit that becomes 0 is not reported as used of it.
        let [first, other] = &mut history.setting.plans[..] else { unreachable!("two plans") };
        let is_0 = first.meters[meter].quotas.iter().any(|quota| quota.limit == 0);
        for quota in other.meters[meter].quotas.iter_mut().filter(|_| !is_0) {
            quota.limit = least.max(drawn.below(25));
        }
    }
    for event in &mut history.events {
        if let Event::Edit { plan, meter, quota, by } = *event
            && drawn.one_in(2)
        {
            *event = Event::Lower { plan, meter, quota, by };
        }
    }
    history
}

/// Payments of tenants, in some histories: set by the operator, or by a subscription at Stripe
/// where there is one. These are for one node, too.
pub(crate) fn with_payments(mut history: History, number: u32) -> History {
    let mut drawn = Drawn((u64::from(number) << 32) + 2);
    let at_stripe = history.setting.sends_all.is_some() && !drawn.one_in(4);
    if !at_stripe && !drawn.one_in(3) {
        return history;
    }
    for at in (0..=history.events.len()).rev() {
        if !drawn.one_in(if at_stripe { 4 } else { 6 }) {
            continue;
        }
        let (tenant, plan) = (drawn.below(TENANTS as u64) as usize, drawn.below(2) as usize);
        let event = match (at_stripe, drawn.below(6)) {
            (true, 0..3) => Event::Subscribe { tenant, plan },
            (true, 3..5) => Event::Cancel { tenant },
            (_, 0 | 1) => Event::Pay { tenant, state: Payment::Good },
            (_, 2 | 3) => Event::Pay { tenant, state: Payment::PastDue(0) },
            (_, 4) => Event::Pay { tenant, state: Payment::Canceled },
            (_, _) => Event::Pay { tenant, state: Payment::Unpaid },
        };
        history.events.insert(at, event);
    }
    history
}

/// Histories with a Stripe are one in twenty: what is rare anyway is more frequent in these, so
/// that it meets Stripe's events.
pub(crate) fn with_more_at_stripe(mut history: History, number: u32) -> History {
    let mut drawn = Drawn((u64::from(number) << 32) + 3);
    if history.setting.sends_all.is_none() {
        return history;
    }
    for _ in 0..drawn.below(3) {
        let at = drawn.below(history.events.len() as u64 + 1) as usize;
        let (slot, tenant) = (drawn.below(SLOTS as u64) as usize, drawn.below(2) as usize);
        let tokens = 1 + drawn.below(9);
        let of_request = [
            Event::End { slot, status: 200 },
            Event::Begin { slot, tenant, user: 1, chats: true },
            match drawn.below(3) {
                0 => Event::Report { slot, tokens },
                1 => Event::Take { slot, tokens },
                _ => Event::Upgrade { slot },
            },
            Event::End { slot, status: 200 },
            Event::ReportLate { slot, tokens },
        ];
        history.events.splice(at..at, of_request);
    }
    if drawn.one_in(3) {
        let at = drawn.below(history.events.len() as u64 + 1) as usize;
        let (plan, meter) = (drawn.below(2) as usize, drawn.below(2) as usize);
        let edit = Event::Lower { plan, meter, quota: 0, by: 1 + drawn.below(9) };
        history.events.insert(at, edit);
    }
    if drawn.one_in(4) {
        let tenant = drawn.below(TENANTS as u64) as usize;
        let at = drawn.below(history.events.len() as u64 + 1) as usize;
        let until = history.events.len().min(at + 4);
        history.events.insert(until, Event::Suspend { tenant, suspended: false });
        history.events.insert(at, Event::Suspend { tenant, suspended: true });
    }
    history
}

impl Event {
    /// Whether it changes which payer, rules or window a debt is paid by.
    pub(crate) fn changes_what_pays(&self) -> bool {
        let is_over = matches!(self, Self::End { .. } | Self::Upgrade { .. } | Self::Pass(_));
        let is_given = matches!(self, Self::Grant { .. } | Self::Suspend { .. });
        let is_edited = matches!(self, Self::Edit { .. } | Self::Lower { .. });
        let is_bought = matches!(self, Self::Subscribe { .. } | Self::Cancel { .. });
        let is_moved = is_bought || matches!(self, Self::Move { .. } | Self::Pay { .. });
        is_over || is_given || is_edited || is_moved
    }
}

impl History {
    /// The plan file at its start.
    pub(crate) fn file(&self) -> String {
        self.setting.file_of(&self.setting.plans)
    }
}

impl Setting {
    /// What one request needs of a meter: a plan file with less is refused.
    pub(crate) fn least(&self, meter: Meter) -> u64 {
        if meter == JOBS { self.cost } else { self.hold.unwrap_or(1) }
    }

    /// The plan file with these plans.
    pub(crate) fn file_of(&self, plans: &[Plan]) -> String {
        let mut file = String::from(
            "default-plan = \"p0\"\n\
             [billing]\n\
             past-due = { grace = \"5d\", then = \"p1\" }\n\
             unpaid = \"payment-required\"\n\
             canceled = \"p0\"\n",
        );
        for meter in METERS {
            let _ = writeln!(file, "[meter.{meter}]");
            let all = meter == "tokens" && self.sends_all == Some(true);
            let send = if all { "all" } else { "overage" };
            let _ = writeln!(file, "stripe = {{ event = \"{meter}\", send = \"{send}\" }}");
            if meter == "tokens" {
                let _ = writeln!(file, "count = \"reported\"");
                if let Some(hold) = self.hold {
                    let _ = writeln!(file, "hold = \"{hold}\"");
                }
            }
        }
        let cost = self.cost;
        let _ = writeln!(file, "[route.work]\nmatch = \"POST /work\"");
        let _ = writeln!(file, "cost = {{ jobs = {cost}, tokens = 0 }}");
        let _ = writeln!(file, "[route.chat]\nmatch = \"POST /chat\"");
        for (at, plan) in plans.iter().enumerate() {
            let _ = writeln!(file, "[plan.p{at}]\nstripe = {{ price = \"p{at}_monthly\" }}");
            if let Some(most) = plan.concurrency {
                let _ = writeln!(file, "concurrency = {most}");
            }
            for (name, meter) in METERS.iter().zip(&plan.meters) {
                let once = meter.once.map(|units| format!("\"{units}\""));
                let prepaid = meter.prepaid.then(|| "\"prepaid\"".to_owned());
                let given = once.into_iter().chain(prepaid);
                let limits: Vec<_> = meter.quotas.iter().map(quota).chain(given).collect();
                if !limits.is_empty() {
                    let _ = writeln!(file, "quota.{name} = [{}]", limits.join(", "));
                }
            }
        }
        file
    }
}

fn quota(quota: &Quota) -> String {
    let scope = if quota.per_user { " per user" } else { "" };
    let limit = format!("limit = \"{}/{}{scope}\"", quota.limit, quota.every.word());
    let stop = |stop: &Option<u64>| {
        stop.map_or(String::new(), |beyond| format!(", stop = \"{}\"", quota.limit + beyond))
    };
    match &quota.over {
        Over::Deny => format!("{{ {limit} }}"),
        Over::Allow(it) => format!("{{ {limit}, over = \"allow\"{} }}", stop(it)),
        Over::Bill(it) => format!("{{ {limit}, over = \"bill\"{} }}", stop(it)),
    }
}

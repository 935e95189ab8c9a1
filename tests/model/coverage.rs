//! Pairs of features that met, counted over all histories: "no difference" proves nothing about
//! combinations that never occurred.
//!
//! Two features meet in a history that has both: its plans have the terms, and its events had an
//! effect (an edit of a quota that no plan has is none). A window and a kind of `over` meet in one
//! quota, which has one of each; two windows, or two kinds of `over`, in two quotas of one meter
//! and plan, which a unit passes together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::book::{Over, Quota};
use crate::history::History;

/// Features of one history.
pub(crate) type Seen = BTreeSet<&'static str>;

/// Two features, in alphabetical order.
pub(crate) type Pair = (&'static str, &'static str);

/// Windows of quotas.
const WINDOWS: [&str; 6] = ["hour", "day", "week", "month", "year", "cycle"];

/// What lies beyond a quota.
const OVERS: [&str; 5] = ["deny", "allow", "allow, stop", "bill", "bill, stop"];

/// Other terms of plans.
const TERMS: [&str; 4] = ["units once", "prepaid", "per user", "concurrency"];

/// Features of histories on one node besides, of which each pair is to meet.
pub(crate) const OF_ONE_NODE: [&str; 17] = [
    "all sent",
    "grant",
    "ingest",
    "limit lowered",
    "overage sent",
    "payment state",
    "plan change",
    "plan file edited",
    "reported after the end",
    "reported beyond the hold",
    "restart",
    "subscription",
    "subscription canceled",
    "suspended",
    "taken",
    "upgraded",
    "work of two meters",
];

/// The same of histories on several nodes.
pub(crate) const OF_SEVERAL_NODES: [&str; 11] = [
    "crash",
    "crash within a request",
    "grant",
    "ingest",
    "plan change",
    "plan file edited",
    "reported",
    "reported after the end",
    "restart",
    "suspended",
    "taken",
];

/// Pairs that cannot meet: what is sent to Stripe is one setting of a whole history.
const NEVER: [Pair; 1] = [("all sent", "overage sent")];

/// How often each pair meets in so many histories, at least.
const LEAST: (u32, u32) = (200, 100_000);

/// Fewer histories are not judged: a pair as rare as that may be missing from them by chance.
const FEWEST: u32 = 2_000;

/// How often each pair is to meet in so many histories: up to those of [`LEAST`] less three
/// standard deviations, and at least once.
fn due(cases: u32) -> u32 {
    let share = u32::try_from(u64::from(cases) * u64::from(LEAST.0) / u64::from(LEAST.1)).unwrap();
    match cases {
        0..FEWEST => 0,
        _ if cases < LEAST.1 => share.saturating_sub(3 * share.isqrt()).max(1),
        _ => share,
    }
}

/// How often pairs met.
#[derive(Default)]
pub(crate) struct Coverage(Mutex<BTreeMap<Pair, u32>>);

/// Features of its plans. Features of its events are recorded by the run.
pub(crate) fn of(history: &History) -> Seen {
    let mut seen = Seen::new();
    for meter in history.setting.plans.iter().flat_map(|plan| &plan.meters) {
        seen.extend(meter.once.map(|_| "units once"));
        seen.extend(meter.prepaid.then_some("prepaid"));
        for quota in &meter.quotas {
            seen.extend(terms(quota));
            seen.extend(quota.per_user.then_some("per user"));
        }
    }
    let mut plans = history.setting.plans.iter();
    seen.extend(plans.find_map(|plan| plan.concurrency).map(|_| "concurrency"));
    seen.extend(history.setting.sends_all.map(|all| if all { "all sent" } else { "overage sent" }));
    seen
}

/// A quota's window, and what lies beyond it.
fn terms(quota: &Quota) -> [&'static str; 2] {
    let over = match quota.over {
        Over::Deny => "deny",
        Over::Allow(None) => "allow",
        Over::Allow(Some(_)) => "allow, stop",
        Over::Bill(None) => "bill",
        Over::Bill(Some(_)) => "bill, stop",
    };
    [quota.every.word(), over]
}

/// Whether two features of a history meet in it.
fn meet(history: &History, one: &str, other: &str) -> bool {
    let is_window = |it| WINDOWS.contains(&it);
    let is_of_quota = |it| is_window(it) || OVERS.contains(&it);
    if !is_of_quota(one) || !is_of_quota(other) {
        return true;
    }
    let mut meters = history.setting.plans.iter().flat_map(|plan| &plan.meters);
    meters.any(|meter| {
        let has = |it: &str| meter.quotas.iter().any(|quota| terms(quota).contains(&it));
        let has_both = |quota: &Quota| terms(quota).contains(&one) && terms(quota).contains(&other);
        match is_window(one) == is_window(other) {
            true => has(one) && has(other),
            false => meter.quotas.iter().any(has_both),
        }
    })
}

/// The pairs of a history's features that meet in it.
pub(crate) fn pairs(history: &History, seen: &Seen) -> Vec<Pair> {
    pairs_of(seen).filter(|(one, other)| meet(history, one, other)).collect()
}

fn pairs_of(features: &Seen) -> impl Iterator<Item = Pair> {
    features.iter().enumerate().flat_map(move |(at, one)| {
        let after = features.iter().skip(at + 1);
        after.map(|other| (*one, *other))
    })
}

/// The named features: terms of plans, and these besides.
fn named(features: &[&'static str]) -> Seen {
    let terms = WINDOWS.iter().chain(&OVERS).chain(&TERMS);
    terms.chain(features).copied().collect()
}

impl Coverage {
    pub(crate) fn add(&self, met: Vec<Pair>) {
        let mut pairs = self.0.lock().unwrap();
        for pair in met {
            *pairs.entry(pair).or_default() += 1;
        }
    }

    /// Pairs of these features and the terms of plans that met too seldom in so many histories. One
    /// that never met counts as 0.
    pub(crate) fn seldom(&self, features: &[&'static str], cases: u32) -> Vec<String> {
        let pairs = self.0.lock().unwrap();
        let named = named(features);
        let counted = pairs_of(&named).filter(|pair| !NEVER.contains(pair));
        let counted = counted.map(|pair| (pair, pairs.get(&pair).copied().unwrap_or(0)));
        let seldom = counted.filter(|(_, met)| *met < due(cases));
        seldom.map(|((one, other), met)| format!("{one} with {other}: {met}")).collect()
    }

    /// How often each pair met, as a table of one against the other.
    pub(crate) fn print(&self) {
        let pairs = self.0.lock().unwrap();
        let names: BTreeSet<_> = pairs.keys().flat_map(|(one, other)| [*one, *other]).collect();
        println!("{} pairs of features met so often:", pairs.len());
        for (row, name) in names.iter().enumerate() {
            let before = names.iter().take(row);
            let counts = before.map(|other| pairs.get(&(*other, *name)).copied().unwrap_or(0));
            let counts: Vec<_> = counts.map(|n| format!("{n:>6}")).collect();
            println!("{row:>3} {name:<26}{}", counts.join(""));
        }
    }
}

#[test]
fn a_pair_that_never_met_is_named() {
    let coverage = Coverage::default();
    let all: Vec<Pair> = pairs_of(&named(&OF_ONE_NODE)).collect();
    let never = ("overage sent", "prepaid");
    for _ in 0..200 {
        let pairs = all.iter().filter(|pair| **pair != never && !NEVER.contains(pair));
        coverage.add(pairs.copied().collect());
    }
    for cases in [100_000, FEWEST] {
        assert_eq!(coverage.seldom(&OF_ONE_NODE, cases), ["overage sent with prepaid: 0"]);
    }
    assert!(coverage.seldom(&OF_ONE_NODE, FEWEST - 1).is_empty());
    let too_few = coverage.seldom(&OF_ONE_NODE, 101_000);
    assert_eq!(too_few.len(), all.len() - NEVER.len(), "200 are too few of so many");
}

#[test]
fn a_window_meets_what_lies_beyond_its_own_quota() {
    use crate::book::{MeterPlan, Plan};
    use crate::calendar::Every;
    use crate::history::Setting;

    let quota = |every, over| Quota { limit: 5, every, over, per_user: false };
    let meter = |quotas: &[Quota]| MeterPlan { quotas: quotas.to_vec(), ..MeterPlan::default() };
    let jobs = meter(&[quota(Every::Hour, Over::Deny), quota(Every::Day, Over::Bill(None))]);
    let tokens = meter(&[quota(Every::Year, Over::Allow(Some(1)))]);
    let plan = Plan { meters: vec![jobs, tokens], concurrency: None };
    let setting = Setting { cost: 1, hold: None, sends_all: None, plans: vec![plan] };
    let history = History { setting, events: Vec::new() };
    let met = pairs(&history, &of(&history));
    let expected = [
        ("allow, stop", "year"),
        ("bill", "day"),
        ("bill", "deny"),
        ("day", "hour"),
        ("deny", "hour"),
    ];
    assert_eq!(met, expected);
}

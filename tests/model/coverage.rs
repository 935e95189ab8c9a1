//! Pairs of features that met in a history, counted over all histories: "no difference" proves
//! nothing about combinations that never occurred.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::book::Over;
use crate::history::History;

/// Features of one history.
pub(crate) type Seen = BTreeSet<&'static str>;

/// How often pairs met.
#[derive(Default)]
pub(crate) struct Coverage(Mutex<BTreeMap<(&'static str, &'static str), u32>>);

/// Features of its plans. Features of its events are recorded by the run.
pub(crate) fn of(history: &History) -> Seen {
    let mut seen = Seen::new();
    for meter in history.setting.plans.iter().flat_map(|plan| &plan.meters) {
        seen.extend(meter.once.map(|_| "units once"));
        seen.extend(meter.prepaid.then_some("prepaid"));
        for quota in &meter.quotas {
            seen.insert(quota.every.word());
            seen.insert(match quota.over {
                Over::Deny => "deny",
                Over::Allow(None) => "allow",
                Over::Allow(Some(_)) => "allow, stop",
                Over::Bill(None) => "bill",
                Over::Bill(Some(_)) => "bill, stop",
            });
            seen.extend(quota.per_user.then_some("per user"));
        }
    }
    let mut plans = history.setting.plans.iter();
    seen.extend(plans.find_map(|plan| plan.concurrency).map(|_| "concurrency"));
    seen.extend(history.setting.sends_all.map(|all| if all { "all sent" } else { "overage sent" }));
    seen
}

impl Coverage {
    pub(crate) fn add(&self, seen: &Seen) {
        let mut pairs = self.0.lock().unwrap();
        for (at, one) in seen.iter().enumerate() {
            for other in seen.iter().skip(at + 1) {
                *pairs.entry((one, other)).or_default() += 1;
            }
        }
    }

    /// How often each pair met, as a table of one against the other; the pair that met least.
    pub(crate) fn print(&self) -> ((&'static str, &'static str), u32) {
        let pairs = self.0.lock().unwrap();
        let names: BTreeSet<_> = pairs.keys().flat_map(|(one, other)| [*one, *other]).collect();
        println!("{} pairs of features met so often:", pairs.len());
        for (row, name) in names.iter().enumerate() {
            let before = names.iter().take(row);
            let counts = before.map(|other| pairs.get(&(*other, *name)).copied().unwrap_or(0));
            let counts: Vec<_> = counts.map(|n| format!("{n:>6}")).collect();
            println!("{row:>3} {name:<26}{}", counts.join(""));
        }
        let least = pairs.iter().min_by_key(|(_, n)| **n);
        least.map_or((("", ""), 0), |(pair, n)| (*pair, *n))
    }
}

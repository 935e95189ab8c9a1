//! Which features met in a history, and how often each pair of them did over all: a model that says
//! "no difference" of what never happened says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::book::Over;
use crate::history::{Event, History};

/// Features of one history.
pub(crate) type Seen = BTreeSet<&'static str>;

/// How often pairs met.
#[derive(Default)]
pub(crate) struct Coverage(Mutex<BTreeMap<(&'static str, &'static str), u32>>);

/// What its plans and events have, as far as the history itself tells.
pub(crate) fn of(history: &History) -> Seen {
    let mut seen = Seen::new();
    for meter in history.setting.plans.iter().flat_map(|plan| &plan.meters) {
        seen.extend(meter.once.map(|_| "units once"));
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
    seen.extend(history.setting.sends_all.map(|all| if all { "all sent" } else { "overage sent" }));
    seen.extend(history.events.iter().filter_map(|event| match event {
        Event::Ingest { .. } => Some("ingest"),
        Event::Move { .. } => Some("plan change"),
        Event::Edit { .. } => Some("plan file edited"),
        Event::Suspend { suspended: true, .. } => Some("suspended"),
        Event::Restart => Some("restart"),
        // The others may come to nothing: whoever runs the history says so.
        _ => None,
    }));
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

    /// The pairs that met least, and how often; prints them all.
    pub(crate) fn least(&self) -> ((&'static str, &'static str), u32) {
        let pairs = self.0.lock().unwrap();
        let mut by_count: Vec<_> = pairs.iter().map(|(pair, n)| (*n, *pair)).collect();
        by_count.sort_unstable();
        println!("{} pairs of features met; least often:", by_count.len());
        for (n, (one, other)) in by_count.iter().take(12) {
            println!("{n:>8} x {one} with {other}");
        }
        by_count.first().map_or((("", ""), 0), |(n, pair)| (*pair, *n))
    }
}

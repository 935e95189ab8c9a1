//! `plans diff`: what another plan file changes. What a plan gives is compared as the library
//! resolves it, and said to be tighter or looser for its tenants; everything else as it is written.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tallygate::Feature;
use toml::{Table as TomlTable, Value};

use super::affected::{self, By};
use super::given::{self, Given, Limit};
use super::{PlanFile, feature_word, legal};
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};

/// What a change means for tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tighter,
    Looser,
    /// Neither, or both, or not known.
    Changed,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Tighter => "tighter",
            Self::Looser => "looser",
            Self::Changed => "changed",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Tighter => Colour::Red,
            Self::Looser => Colour::Green,
            Self::Changed => Colour::Yellow,
        }
    }

    /// From whether the new one gives less or more.
    fn of(new_to_old: Ordering) -> Self {
        match new_to_old {
            Ordering::Less => Self::Tighter,
            Ordering::Greater => Self::Looser,
            Ordering::Equal => Self::Changed,
        }
    }
}

/// A difference.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    /// The plan; empty where it is of no plan.
    plan: String,
    what: String,
    old: Option<String>,
    new: Option<String>,
    way: Way,
}

/// Compares two files, and tenants under them.
pub(super) async fn run(out: Output, (old, new): (&Path, &Path), by: By) -> Ran {
    let files = [(old, legal(old)?), (new, legal(new)?)];
    let whose = affected::find(&files, by).await?;
    let [(_, old), (_, new)] = &files;
    let differ = of_files(out, old, new).await?;
    if let Some(whose) = whose {
        affected::print(out, &whose)?;
        return Ok(if differ || !whose.is_empty() { code::DIFFERENCES } else { code::OK });
    }
    Ok(if differ { code::DIFFERENCES } else { code::OK })
}

/// Prints what the files say. Returns whether they differ.
async fn of_files(out: Output, old: &PlanFile, new: &PlanFile) -> Result<bool, Failure> {
    let mut found = of_plans(&given::of_file(old).await?, &given::of_file(new).await?);
    found.extend(of_text(&written(&old.text)?, &written(&new.text)?));
    let mut table = Table::new(["PLAN", "WHAT", "OLD", "NEW", "CHANGE"]);
    let dash = || "-".to_owned();
    for it in &found {
        if out.json {
            out.document(&json!({
                "plan": (!it.plan.is_empty()).then_some(&it.plan),
                "what": it.what,
                "old": it.old,
                "new": it.new,
                "change": it.way.word(),
            }))?;
            continue;
        }
        let (old, new) = (it.old.clone(), it.new.clone());
        let plan = if it.plan.is_empty() { dash() } else { it.plan.clone() };
        let (old, new) = (old.unwrap_or_else(dash), new.unwrap_or_else(dash));
        let cells = [plan, it.what.clone(), old, new, it.way.word().to_owned()];
        table.coloured(cells, (4, it.way.colour()));
    }
    if found.is_empty() {
        say("no differences");
        return Ok(false);
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(true)
}

/// What the plans give.
fn of_plans(old: &[Given], new: &[Given]) -> Vec<Difference> {
    let names: BTreeSet<&String> = old.iter().chain(new).map(|it| &it.plan).collect();
    let of = |plans: &[Given], name: &String| plans.iter().position(|it| it.plan == *name);
    let mut found = Vec::new();
    for name in names {
        match (of(old, name).map(|at| &old[at]), of(new, name).map(|at| &new[at])) {
            (Some(old), Some(new)) => found.extend(of_plan(old, new)),
            (old, new) => found.push(Difference {
                plan: name.clone(),
                what: "the plan".to_owned(),
                old: old.map(|_| "is there".to_owned()),
                new: new.map(|_| "is there".to_owned()),
                way: Way::Changed,
            }),
        }
    }
    found
}

fn of_plan(old: &Given, new: &Given) -> Vec<Difference> {
    let (name, mut found) = (&new.plan, Vec::new());
    for (id, old, new) in pairs(&old.limits, &new.limits) {
        let shown = |it: Option<&Limit>| it.map(ToString::to_string);
        found.push((id.clone(), shown(old), shown(new), of_limits(old, new)));
    }
    for (name, old, new) in pairs(&old.features, &new.features) {
        let shown = |it: Option<&Feature>| it.map(feature_word);
        found.push((format!("feature {name}"), shown(old), shown(new), of_features(old, new)));
    }
    let number = |it: Option<u32>| it.map(|n| n.to_string());
    let most = |it: Option<u32>| it.unwrap_or(u32::MAX);
    let way = Way::of(most(new.concurrency).cmp(&most(old.concurrency)));
    let (before, after) = (number(old.concurrency), number(new.concurrency));
    found.push(("concurrency".to_owned(), before, after, way));
    let time = |it: Option<Duration>| it.map(|it| format!("{it:?}"));
    let long = |it: Option<Duration>| it.unwrap_or(Duration::MAX);
    let way = Way::of(long(new.expires).cmp(&long(old.expires)));
    found.push(("expires after".to_owned(), time(old.expires), time(new.expires), way));
    found.retain(|(_, old, new, _)| old != new);
    let of = |(what, old, new, way)| Difference { plan: name.clone(), what, old, new, way };
    found.into_iter().map(of).collect()
}

/// The values of each key of either map.
fn pairs<'a, V>(
    old: &'a BTreeMap<String, V>,
    new: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = (&'a String, Option<&'a V>, Option<&'a V>)> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter().map(|key| (key, old.get(key), new.get(key)))
}

/// A limit that is new is tighter, one that is gone looser. Units that are given once are a limit
/// and a gift.
fn of_limits(old: Option<&Limit>, new: Option<&Limit>) -> Way {
    use Limit::{Once, Quota, Rate};
    match (old, new) {
        (Some(Once(old)), Some(Once(new))) => Way::of(new.cmp(old)),
        (Some(Quota(Some(old))), Some(Quota(Some(new)))) => Way::of(new.cmp(old)),
        (Some(Quota(None)), Some(Quota(Some(_)))) => Way::Tighter,
        (Some(Quota(Some(_))), Some(Quota(None))) => Way::Looser,
        (Some(Rate { amount, per, burst }), Some(Rate { amount: more, per: in_, burst: most }))
            if per == in_ =>
        {
            match (more.cmp(amount), most.cmp(burst)) {
                (Ordering::Equal, way) | (way, Ordering::Equal) => Way::of(way),
                (way, same) if way == same => Way::of(way),
                _ => Way::Changed,
            }
        }
        (None, Some(Quota(Some(_)) | Rate { .. })) => Way::Tighter,
        (Some(Quota(Some(_)) | Rate { .. }), None) => Way::Looser,
        _ => Way::Changed,
    }
}

fn of_features(old: Option<&Feature>, new: Option<&Feature>) -> Way {
    use Feature::{Flag, Number, Text, Unlimited};
    let worth = |feature: Option<&Feature>| match feature {
        None => Some(0),
        Some(Flag(on)) => Some(i128::from(*on)),
        Some(Number(number)) => Some(i128::from(*number)),
        Some(Unlimited) => Some(i128::MAX),
        Some(Text(_)) => None,
    };
    match (worth(old), worth(new)) {
        (Some(old), Some(new)) => Way::of(new.cmp(&old)),
        (Some(0), None) => Way::Looser,
        (None, Some(0)) => Way::Tighter,
        _ => Way::Changed,
    }
}

/// A plan file as it is written: each value by its keys.
fn written(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let table: TomlTable =
        text.parse().map_err(|error| Failure::new(code::FILE, format!("{error}")))?;
    let mut found = BTreeMap::new();
    flatten("", &Value::Table(table), &mut found);
    Ok(found)
}

fn flatten(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(name, inner)| {
            let own = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            flatten(&own, inner, found);
        }),
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (at, inner) in list.iter().enumerate() {
                flatten(&format!("{key}[{at}]"), inner, found);
            }
        }
        other => drop(found.insert(key.to_owned(), other.to_string())),
    }
}

/// Differences of what is written, but for what [`of_plans`] compares.
fn of_text(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> impl Iterator<Item = Difference> {
    let mut found = Vec::new();
    for (key, old, new) in pairs(old, new).filter(|(_, old, new)| old != new) {
        let of_plan = key.strip_prefix("plan.").and_then(|rest| rest.split_once('.'));
        let (plan, what) = of_plan.unwrap_or(("", key));
        if !plan.is_empty() && is_given(what) {
            continue;
        }
        let (plan, what) = (plan.to_owned(), what.to_owned());
        let way = Way::Changed;
        found.push(Difference { plan, what, old: old.cloned(), new: new.cloned(), way });
    }
    found.into_iter()
}

/// Whether a key of a plan is a number that the library resolves: `quota.requests`, but not
/// `quota.requests.over`.
fn is_given(key: &str) -> bool {
    let key = key.split('[').next().unwrap_or(key).to_owned() + rest_of(key);
    let mut words = key.split('.');
    let first = words.next().unwrap_or_default();
    match first {
        "rate" | "quota" => words.nth(1).is_none_or(|it| it == "limit"),
        "feature" | "concurrency" | "expires" => true,
        _ => false,
    }
}

/// What follows the places of a list: `.over` of `quota.requests[0].over`.
fn rest_of(key: &str) -> &str {
    key.rsplit_once(']').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_looser_and_less_is_tighter() {
        let amount = tallygate::Amount::units;
        let quota = |n| Limit::Quota(Some(amount(n)));
        let rate = |n, burst| {
            let (amount, burst) = (amount(n), amount(burst));
            Limit::Rate { amount, per: Duration::from_secs(1), burst }
        };
        for (old, new, way) in [
            (Some(quota(5)), Some(quota(4)), Way::Tighter),
            (Some(quota(5)), Some(Limit::Quota(None)), Way::Looser),
            (None, Some(quota(5)), Way::Tighter),
            (Some(quota(5)), None, Way::Looser),
            (Some(rate(5, 5)), Some(rate(6, 5)), Way::Looser),
            (Some(rate(5, 5)), Some(rate(6, 4)), Way::Changed),
            (Some(rate(5, 5)), Some(rate(4, 4)), Way::Tighter),
            (None, Some(Limit::Once(amount(5))), Way::Changed),
        ] {
            assert_eq!(of_limits(old.as_ref(), new.as_ref()), way, "{old:?} {new:?}");
        }
        let features = [Feature::Flag(false), Feature::Number(3), Feature::Unlimited];
        assert_eq!(of_features(Some(&features[1]), Some(&features[2])), Way::Looser);
        assert_eq!(of_features(Some(&features[1]), Some(&features[0])), Way::Tighter);
        assert_eq!(of_features(None, Some(&Feature::Text("x".into()))), Way::Looser);
    }

    #[test]
    fn what_the_library_resolves_is_not_compared_as_text() {
        for given in ["quota.requests", "quota.requests.limit", "quota.r[1].limit", "rate.all[0]"] {
            assert!(is_given(given), "{given}");
        }
        for text in ["quota.requests.over", "quota.requests[0].stop", "stripe.price", "extends"] {
            assert!(!is_given(text), "{text}");
        }
        let file = |text: &str| written(text).unwrap();
        let old = file("[plan.a]\nextends = 'b'\nquota.requests = '1/day'");
        let new = file("[plan.a]\nextends = 'c'\nquota.requests = '2/day'");
        let found: Vec<_> = of_text(&old, &new).map(|it| (it.plan, it.what)).collect();
        assert_eq!(found, [("a".to_owned(), "extends".to_owned())]);
    }
}

//! Addons and top-ups, bought on top of plans, and their prices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::Scene;
use super::meters::amount_of;
use super::meters::limit_number;
use super::model::*;
use super::plans::{MAX_SOLD, duration, prices};
use super::words;
use crate::toml_file::{Findings, TableLine, Text, TomlTable, integer, known_names};

/// The addons, in the order of the file.
pub(super) fn addons(
    report: &mut Findings<'_>,
    top: TomlTable<'_>,
    scene: &Scene<'_>,
    plans: &[Plan],
) -> Vec<Addon> {
    let entries = top.table("addon").map(TomlTable::entries).unwrap_or_default();
    limit_number(report, &entries, MAX_SOLD, "addons");
    let mut addons = Vec::new();
    for entry in entries {
        let Some(table) = TomlTable::of(entry.node) else {
            continue;
        };
        let adds = table.table("adds");
        let quotas = scene.quotas(report, adds.and_then(|adds| adds.table("quota")));
        let quotas: Vec<Quota> = quotas.into_values().flatten().collect();
        for quota in &quotas {
            check_added(report, scene, quota, plans);
        }
        let features = adds.and_then(|adds| adds.table("feature")).map(TomlTable::entries);
        let feature = |e: TableLine<'_>| Some((Arc::from(e.name), integer(e.node)?));
        addons.push(Addon {
            name: Arc::from(entry.name),
            prices: prices(table),
            features: features.unwrap_or_default().into_iter().filter_map(feature).collect(),
            quotas,
        });
    }
    addons
}

/// Requires a quota with the same words in some plan, since an addon adds to it.
fn check_added(report: &mut Findings<'_>, scene: &Scene<'_>, quota: &Quota, plans: &[Plan]) {
    let Some(_) = quota.limit else {
        let help = "write what one of it adds: \"100k/cycle\"";
        return report.error_at(quota.place, "an addon cannot add \"unlimited\"", help);
    };
    if quota.is_prepaid() {
        let help = "write what one of it adds, or make it a top-up: `[topup.x]`";
        return report.error_at(quota.place, "an addon of nothing", help);
    }
    let all = || plans.iter().filter_map(|plan| plan.quotas.get(&quota.meter)).flatten();
    if all().any(|other| other.id == quota.id) {
        return;
    }
    let mut known: Vec<&str> = all().map(|other| &*other.id).collect();
    known.sort_unstable();
    known.dedup();
    let help = match known.is_empty() {
        true => format!("write `quota.{}` in a plan first", scene.of(quota.meter).name),
        false => format!("add to one that there is: {}", known_names(known)),
    };
    report.error_at(quota.place, format!("no plan has the quota `{}`", quota.id), help);
}

/// The top-ups, in the order of the file.
pub(super) fn topups(
    report: &mut Findings<'_>,
    top: TomlTable<'_>,
    scene: &Scene<'_>,
) -> Vec<Topup> {
    let entries = top.table("topup").map(TomlTable::entries).unwrap_or_default();
    limit_number(report, &entries, MAX_SOLD, "top-ups");
    let mut topups = Vec::new();
    for entry in entries {
        let Some(table) = TomlTable::of(entry.node) else {
            continue;
        };
        let mut adds = Vec::new();
        let lines = table.table("adds").map(TomlTable::entries).unwrap_or_default();
        if let Some(node) = table.node("adds").filter(|_| lines.is_empty()) {
            report.error(
                node.span(),
                "a top-up of nothing",
                "write `adds = { credits = \"50k\" }`",
            );
        }
        for line in lines {
            let Some(meter) = scene.meter(report, line.name, line.span) else {
                continue;
            };
            let read = amount_of(report, line.node, Some(scene.of(meter)), words::amount);
            if read == Some(0) {
                let help = "write how many units are bought, or leave it out";
                report.error(line.node.span(), "a top-up of nothing", help);
            }
            let parts = scene.of(meter).scale;
            if read.is_some_and(|atoms| !atoms.is_multiple_of(parts)) {
                let help = "write whole units";
                report.error(line.node.span(), "a top-up of a part of a unit", help);
            }
            adds.extend(read.map(|atoms| (meter, atoms)));
        }
        topups.push(Topup {
            name: Arc::from(entry.name),
            prices: prices(table),
            adds,
            expires: duration(report, table.text("expires")),
        });
    }
    topups
}

/// Refuses a price with two meanings, and an empty one.
pub(super) fn check_prices(report: &mut Findings<'_>, top: TomlTable<'_>) {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    let kinds = ["plan", "addon", "topup"];
    let entries = kinds.iter().flat_map(|kind| {
        let entries = top.table(kind).map(TomlTable::entries).unwrap_or_default();
        entries.into_iter().map(move |entry| (*kind, entry))
    });
    let mut found: Vec<(Text<'_>, String)> = Vec::new();
    for (kind, entry) in entries {
        let stripe = TomlTable::of(entry.node).and_then(|table| table.table("stripe"));
        let Some(stripe) = stripe else { continue };
        let texts = stripe.texts("price");
        if let Some(node) = stripe.node("price").filter(|_| texts.is_empty()) {
            let help = "write the lookup keys of its prices, or leave `stripe` out";
            report.error(node.span(), "a list of prices that is empty", help);
        }
        found.extend(texts.into_iter().map(|text| (text, format!("{kind}.{}", entry.name))));
    }
    found.sort_by_key(|(text, _)| text.span.start);
    for (text, owner) in found {
        if text.text.is_empty() {
            let help = "write the lookup key of a price";
            report.error(text.span, "a price without a name", help);
        } else if let Some(other) = seen.get(text.text) {
            let message = format!("the price `{}` is that of {other} already", text.text);
            let help = "give each its own lookup key: a price says what was bought";
            report.error(text.span, message, help);
        } else {
            seen.insert(text.text, owner);
        }
    }
}

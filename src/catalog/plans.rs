//! Plans, the product that is sold. A plan inherits what it extends, key by key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::form::PAYMENT_WORDS;
use super::limits::Scene;
use super::meters::limit_number;
use super::model::*;
use super::routes::{charge_on, enforce};
use super::words;
use crate::toml_file::{Findings, TableLine, Text, TomlTable, fault};

/// Most plans, addons and top-ups, each.
pub(crate) const MAX_SOLD: usize = 1024;

/// The plans in the order of the file, with everything they extend merged in.
pub(super) fn plans(
    report: &mut Findings<'_>,
    entries: &[TableLine<'_>],
    scene: &Scene<'_>,
) -> Vec<Plan> {
    limit_number(report, entries, MAX_SOLD, "plans");
    for entry in entries {
        if PAYMENT_WORDS.contains(&entry.name) {
            let message = format!("`{}` is a word of the plan language", entry.name);
            let help = "choose another name: [billing] would not read plainly with this one";
            report.error(entry.span.clone(), message, help);
        }
    }
    let mut drafts: Vec<Draft> = entries.iter().map(|entry| draft(report, scene, entry)).collect();
    cut_cycles(report, &mut drafts);
    let mut plans: Vec<Option<Plan>> = vec![None; drafts.len()];
    for n in 0..drafts.len() {
        merge(n, &drafts, &mut plans);
    }
    plans.into_iter().flatten().collect()
}

/// A plan as written, before inheritance.
struct Draft {
    name: Arc<str>,
    extends: Option<(usize, Range<usize>)>,
    prices: Vec<String>,
    pays: Option<bool>,
    expires: Option<Duration>,
    rates: BTreeMap<Arc<str>, Vec<Rate>>,
    quotas: BTreeMap<MeterId, Vec<Quota>>,
    features: BTreeMap<Arc<str>, Feature>,
    concurrency: Option<u32>,
    charge_on: Option<ChargeOn>,
    enforce: Option<Enforce>,
    on_lease_error: Option<OnLeaseError>,
}

fn draft(report: &mut Findings<'_>, scene: &Scene<'_>, entry: &TableLine<'_>) -> Draft {
    let empty = Default::default();
    let table = TomlTable::of(entry.node).unwrap_or(TomlTable(&empty));
    let extends = table.text("extends");
    Draft {
        name: Arc::from(entry.name),
        extends: extends.and_then(|name| Some((scene.plan(report, &name)?, name.span))),
        prices: prices(table),
        pays: table.flag("pays"),
        expires: duration(report, table.text("expires")),
        rates: scene.rates(report, table.table("rate")),
        quotas: scene.quotas(report, table.table("quota")),
        features: scene.features(table.table("feature")),
        concurrency: table.count("concurrency"),
        charge_on: charge_on(report, table),
        enforce: enforce(table),
        on_lease_error: on_lease_error(report, table),
    }
}

/// Reports each cycle of `extends` at its first plan in the file, and breaks it there.
fn cut_cycles(report: &mut Findings<'_>, drafts: &mut [Draft]) {
    for first in 0..drafts.len() {
        let mut path = vec![first];
        let mut at = first;
        while let Some((next, _)) = drafts[at].extends {
            if next == first {
                let names: Vec<&str> = path.iter().map(|n| &*drafts[*n].name).collect();
                let message = format!("{} extends itself", names.join(" extends "));
                if let Some((_, span)) = drafts[first].extends.take() {
                    report.error(span, message, "let one of them stand alone");
                }
                break;
            }
            if path.contains(&next) {
                break;
            }
            path.push(next);
            at = next;
        }
    }
}

/// Fills `plans[n]`, and before it those it extends; cycles have been broken.
fn merge(n: usize, drafts: &[Draft], plans: &mut [Option<Plan>]) {
    if plans[n].is_some() {
        return;
    }
    // From the far end of the chain of extensions to `n`, without recursion: a chain may be long.
    let mut line = vec![n];
    while let Some((base, _)) = drafts[line[line.len() - 1]].extends {
        line.push(base);
    }
    for n in line.into_iter().rev() {
        if plans[n].is_none() {
            let base = drafts[n].extends.as_ref().and_then(|(base, _)| plans[*base].clone());
            plans[n] = Some(merged(&drafts[n], base));
        }
    }
}

fn merged(draft: &Draft, base: Option<Plan>) -> Plan {
    let mut plan = base.unwrap_or_else(|| Plan {
        name: draft.name.clone(),
        prices: Vec::new(),
        pays: false,
        rates: BTreeMap::new(),
        quotas: BTreeMap::new(),
        features: BTreeMap::new(),
        concurrency: None,
        expires: None,
        charge_on: ChargeOn::default(),
        enforce: Enforce::On,
        on_lease_error: OnLeaseError::Deny,
    });
    plan.name = draft.name.clone();
    plan.prices = draft.prices.clone();
    plan.pays = draft.pays.unwrap_or(!plan.prices.is_empty());
    plan.expires = draft.expires;
    plan.rates.extend(draft.rates.clone());
    plan.quotas.extend(draft.quotas.clone());
    plan.features.extend(draft.features.clone());
    plan.concurrency = draft.concurrency.or(plan.concurrency);
    plan.charge_on = draft.charge_on.unwrap_or(plan.charge_on);
    plan.enforce = draft.enforce.unwrap_or(plan.enforce);
    plan.on_lease_error = draft.on_lease_error.unwrap_or(plan.on_lease_error);
    super::effective::name_rates(&mut plan);
    plan
}

fn on_lease_error(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<OnLeaseError> {
    let node = table.node("on-lease-error")?;
    let Some(inner) = TomlTable::of(node) else {
        return Some(OnLeaseError::Deny);
    };
    let allow = inner.text("allow")?;
    let basis_points = words::percent(allow.text);
    if basis_points.is_none() {
        let help = "write a percentage with at most two decimals, up to \"100%\": \"2%\"";
        report.error(allow.span, format!("`{}` is not a share of a limit", allow.text), help);
    }
    Some(OnLeaseError::Allow { basis_points: basis_points? })
}

/// The lookup keys of a table's `stripe`.
pub(super) fn prices(table: TomlTable<'_>) -> Vec<String> {
    let stripe = table.table("stripe");
    stripe.map(|stripe| stripe.texts("price")).unwrap_or_default().iter().map(own).collect()
}

/// An owned copy of a string of the file.
pub(super) fn own(text: &Text<'_>) -> String {
    text.text.to_owned()
}

/// The duration, if written; errors are reported.
pub(super) fn duration(report: &mut Findings<'_>, text: Option<Text<'_>>) -> Option<Duration> {
    let text = text?;
    words::duration(text.text).map_err(|f| fault(report, &text, f)).ok()
}

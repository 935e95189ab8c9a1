//! Quotas and features, and the common part of all limits: looking up names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::DeValue;

use super::meters::{amount_of, atoms};
use super::model::{Every, Feature, Meter, MeterId, Over, Quota, Route, Scope};
use super::window::Zone;
use super::words;
use crate::toml_file::{Findings, Text, TomlNode, TomlTable, fault, integer, items, unknown_help};

/// The definitions that names in limits refer to.
pub(super) struct Scene<'c> {
    pub(super) meters: &'c [Meter],
    pub(super) routes: &'c [Route],
    pub(super) plans: &'c [Arc<str>],
    pub(super) zone: &'c Zone,
}

impl Scene<'_> {
    /// The meter of this name; an unknown one is reported at `span`.
    pub(super) fn meter(
        &self,
        report: &mut Findings<'_>,
        name: &str,
        span: Range<usize>,
    ) -> Option<MeterId> {
        let found = self.meters.iter().position(|meter| *meter.name == *name);
        if found.is_none() {
            let known: Vec<&str> = self.meters.iter().map(|meter| &*meter.name).collect();
            let help = unknown_help(name, known.iter().copied());
            report.error(span, format!("unknown meter `{name}`"), help);
        }
        found.and_then(|n| u16::try_from(n).ok()).map(MeterId)
    }

    pub(super) fn of(&self, id: MeterId) -> &Meter {
        &self.meters[usize::from(id.0)]
    }

    /// The index of the plan of this name; an unknown one is reported.
    pub(super) fn plan(&self, report: &mut Findings<'_>, name: &Text<'_>) -> Option<usize> {
        let found = self.plans.iter().position(|plan| **plan == *name.text);
        if found.is_none() {
            let known: Vec<&str> = self.plans.iter().map(|plan| &**plan).collect();
            let help = unknown_help(name.text, known.iter().copied());
            report.error(name.span.clone(), format!("unknown plan `{}`", name.text), help);
        }
        found
    }

    /// `quota.x`, by meter.
    pub(super) fn quotas(
        &self,
        report: &mut Findings<'_>,
        table: Option<TomlTable<'_>>,
    ) -> BTreeMap<MeterId, Vec<Quota>> {
        let mut quotas = BTreeMap::new();
        for entry in table.map(TomlTable::entries).unwrap_or_default() {
            let Some(meter) = self.meter(report, entry.name, entry.span) else {
                continue;
            };
            let mut list: Vec<Quota> = Vec::new();
            for (text, table) in limits(entry.node) {
                let Some(quota) = self.quota(report, meter, &text, table) else {
                    continue;
                };
                let twin = list.iter().any(|other| other.id == quota.id);
                refuse_twin(report, twin, &quota.id, &text.span);
                list.push(quota);
            }
            refuse_prepaid_beside(report, &list);
            quotas.insert(meter, list);
        }
        quotas
    }

    fn quota(
        &self,
        report: &mut Findings<'_>,
        meter: MeterId,
        text: &Text<'_>,
        table: Option<TomlTable<'_>>,
    ) -> Option<Quota> {
        let of = self.of(meter);
        let words = words::quota(text.text).map_err(|f| fault(report, text, f)).ok()?;
        let limit = match &words.limit {
            Some(amount) => Some(atoms(amount, Some(of)).map_err(|f| fault(report, text, f)).ok()?),
            None => None,
        };
        let over = match table.and_then(|t| t.text("over")).map(|over| over.text) {
            Some("allow") => Over::Allow,
            Some("bill") => Over::Bill,
            _ => Over::Deny,
        };
        let mut quota = Quota {
            id: identity(&[&of.name, every_word(words.every)], &words.scope).into(),
            meter,
            limit,
            every: words.every,
            scope: words.scope,
            over,
            stop: None,
            alert: Vec::new(),
            place: report.mark(text.span.clone()),
        };
        self.check_over(report, &quota, text, table);
        quota.stop = table.and_then(|table| self.stop(report, &quota, table));
        quota.alert = alerts(report, &quota, table);
        Some(quota)
    }

    /// Checks that the behaviour beyond the limit is consistent with it.
    fn check_over(
        &self,
        report: &mut Findings<'_>,
        quota: &Quota,
        text: &Text<'_>,
        table: Option<TomlTable<'_>>,
    ) {
        let name = &self.of(quota.meter).name;
        let over = table.and_then(|table| table.text("over"));
        let is_prepaid = quota.is_prepaid() && text.text.trim() == "prepaid";
        if quota.limit == Some(0) && quota.over == Over::Deny && !is_prepaid {
            let message = "a limit of 0 that denies is not a quota";
            let help = "write `needs = \"..\"` on the route, and the feature in the plans \
                        that may call it; or \"prepaid\" to spend grants alone; or `over = \
                        \"bill\"` to bill all of it";
            report.error(text.span.clone(), message, help);
        }
        let Some(over) = over else { return };
        if quota.limit.is_none() {
            let help = "leave `over` out, or write a limit";
            report.error(over.span, "nothing is beyond \"unlimited\"", help);
        } else if is_prepaid && quota.over != Over::Deny {
            let help = format!(
                "write quota.{name} = {{ limit = \"0/cycle\", over = \"{}\" }}: grants come first",
                over.text
            );
            report.error(over.span, "nothing is beyond \"prepaid\"", help);
        } else if quota.every == Every::Once && quota.over != Over::Deny {
            let message = "units granted once have no window to count what is beyond them";
            let help = format!(
                "write both: quota.{name} = [\"{}\", {{ limit = \"0/cycle\", over = \"{}\" }}]",
                text.text, over.text
            );
            report.error(over.span, message, help);
        } else if quota.over == Over::Bill && self.of(quota.meter).stripe.is_none() {
            let message = format!("the meter `{name}` does not reach Stripe: nothing is billed");
            let help = format!(
                "write `stripe = {{ event = \"..\", send = \"overage\" }}` in [meter.{name}], \
                 or `over = \"allow\"`"
            );
            report.error(over.span, message, help);
        }
    }

    fn stop(&self, report: &mut Findings<'_>, quota: &Quota, table: TomlTable<'_>) -> Option<u64> {
        let node = table.node("stop")?;
        let stop = amount_of(report, node, Some(self.of(quota.meter)), words::amount)?;
        if quota.over == Over::Deny || quota.limit.is_none() {
            let help = "leave `stop` out, or write `over = \"allow\"` or `\"bill\"` beside it";
            report.error(node.span(), "`stop` without anything beyond the limit", help);
        } else if quota.limit.is_some_and(|limit| stop < limit) {
            let help = "write a ceiling above the limit";
            report.error(node.span(), "`stop` is below `limit`", help);
        }
        Some(stop)
    }

    /// `feature.x`, by name.
    pub(super) fn features(&self, table: Option<TomlTable<'_>>) -> BTreeMap<Arc<str>, Feature> {
        let mut features = BTreeMap::new();
        for entry in table.map(TomlTable::entries).unwrap_or_default() {
            let feature = match entry.node.get_ref() {
                DeValue::Boolean(on) => Feature::Flag(*on),
                DeValue::String(text) if text == "unlimited" => Feature::Unlimited,
                DeValue::String(text) => Feature::Text(Arc::from(&**text)),
                _ => match integer(entry.node) {
                    Some(n) => Feature::Number(n),
                    None => continue,
                },
            };
            features.insert(Arc::from(entry.name), feature);
        }
        features
    }
}

/// Whether requests of a route are limited and counted.
pub(super) fn is_limited(route: &Route) -> bool {
    !route.free && route.auth != super::model::Auth::None
}

/// The words of each limit in a value, with the table they are in.
pub(super) fn limits<'a>(node: &'a TomlNode<'a>) -> Vec<(Text<'a>, Option<TomlTable<'a>>)> {
    let words = |item| match TomlTable::of(item) {
        Some(table) => Some((table.text("limit")?, Some(table))),
        None => Some((Text::of(item)?, None)),
    };
    items(node).iter().filter_map(words).collect()
}

/// Refuses a prepaid quota beside an including one: each unit passes both, so the other would never
/// be drawn on.
fn refuse_prepaid_beside(report: &mut Findings<'_>, list: &[Quota]) {
    let mut whole = list.iter().filter(|quota| quota.scope == Scope::Tenant);
    let Some(prepaid) = list.iter().find(|quota| quota.is_prepaid()) else { return };
    if whole.any(|quota| !std::ptr::eq(quota, prepaid)) {
        let message = "\"prepaid\" includes nothing, and is listed with a quota that does";
        let help = "leave one of them out: grants are spent after what a quota includes";
        report.error_at(prepaid.place, message, help);
    }
}

/// Refuses the same words twice under one key.
pub(super) fn refuse_twin(report: &mut Findings<'_>, twin: bool, id: &str, span: &Range<usize>) {
    if twin {
        let message = format!("the limit `{id}` is written twice");
        let help = "leave one out, or give it another period or scope";
        report.error(span.clone(), message, help);
    }
}

/// `requests/day/user`: parts and scope, without default ones.
pub(super) fn identity(parts: &[&str], scope: &Scope) -> String {
    let mut id = parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    match scope {
        Scope::Tenant => {}
        Scope::Key => id.push("key"),
        Scope::User => id.push("user"),
        Scope::Ip => id.push("ip"),
        Scope::Named(name) => id.push(name),
    }
    id.join("/")
}

fn every_word(every: Every) -> &'static str {
    let found = words::QUOTA_PERIODS.iter().find(|(_, known)| *known == every);
    found.map_or("once", |(word, _)| word)
}

fn alerts(report: &mut Findings<'_>, quota: &Quota, table: Option<TomlTable<'_>>) -> Vec<u16> {
    const DEFAULT: [u16; 2] = [80, 100];
    const HIGHEST: i64 = 1_000;
    let has_share = quota.limit.is_some_and(|limit| limit > 0);
    let Some(node) = table.and_then(|table| table.node("alert")) else {
        return if has_share { DEFAULT.to_vec() } else { Vec::new() };
    };
    if !has_share && !items(node).is_empty() {
        let help = "leave `alert` out, or write a limit";
        report.error(node.span(), "`alert` without a limit to take a percentage of", help);
    }
    let mut alerts: Vec<u16> = Vec::new();
    for item in items(node) {
        let Some(percent) = integer(item) else {
            continue;
        };
        let good = (1..=HIGHEST).contains(&percent);
        match u16::try_from(percent).ok().filter(|_| good) {
            None => {
                let help = "write a percentage from 1 to 1000";
                report.error(item.span(), format!("`{percent}` is not a percentage"), help);
            }
            Some(percent) if alerts.last().is_some_and(|last| *last >= percent) => {
                let help = "write each percentage once, the lowest first";
                report.error(item.span(), "`alert` is out of order", help);
            }
            Some(percent) => alerts.push(percent),
        }
    }
    alerts
}

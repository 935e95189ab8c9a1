//! Rates, quotas and features: from words to atoms.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::DeValue;

use super::error::{Report, unknown_help};
use super::model::{
    Count, Every, Feature, Meter, MeterId, Over, Quota, Rate, RateOn, Route, RouteId, Scope,
};
use super::shape::{Node, Table, Text, fault, integer, items};
use super::window::Zone;
use super::words::{self, Amount, BYTE_UNITS, Exact, Fault};

/// Most atoms an amount may have: an eighth of what the store's signed numbers hold, so that sums
/// of what is used stay within them.
pub(super) const MAX_ATOMS: u64 = 1 << 60;

/// What names in limits are looked up in.
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
        report: &mut Report<'_>,
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
    pub(super) fn plan(&self, report: &mut Report<'_>, name: &Text<'_>) -> Option<usize> {
        let found = self.plans.iter().position(|plan| **plan == *name.text);
        if found.is_none() {
            let known: Vec<&str> = self.plans.iter().map(|plan| &**plan).collect();
            let help = unknown_help(name.text, known.iter().copied());
            report.error(
                name.span.clone(),
                format!("unknown plan `{}`", name.text),
                help,
            );
        }
        found
    }

    /// `rate.x`, by key.
    pub(super) fn rates(
        &self,
        report: &mut Report<'_>,
        table: Option<Table<'_>>,
    ) -> BTreeMap<Arc<str>, Vec<Rate>> {
        let mut rates = BTreeMap::new();
        for entry in table.map(Table::entries).unwrap_or_default() {
            let on = self.rate_on(report, entry.name, entry.span);
            let mut list: Vec<Rate> = Vec::new();
            for (text, _) in limits(entry.node) {
                let Some(on) = on else { continue };
                let Some(rate) = self.rate(report, entry.name, on, &text) else {
                    continue;
                };
                let twin = list.iter().any(|other| other.id == rate.id);
                refuse_twin(report, twin, &rate.id, &text.span);
                list.push(rate);
            }
            rates.insert(Arc::from(entry.name), list);
        }
        rates
    }

    fn rate_on(&self, report: &mut Report<'_>, name: &str, span: Range<usize>) -> Option<RateOn> {
        match name {
            "all" => return Some(RateOn::All),
            "default" => return Some(RateOn::Default),
            _ => {}
        }
        let Some(n) = self.routes.iter().position(|route| *route.name == *name) else {
            let known = ["all", "default"].into_iter();
            let known: Vec<&str> = known.chain(self.routes.iter().map(|r| &*r.name)).collect();
            let help = unknown_help(name, known.iter().copied());
            report.error(span, format!("unknown route `{name}`"), help);
            return None;
        };
        if !is_limited(&self.routes[n]) {
            let message = format!("the route `{name}` is never limited");
            let help = "leave the rate out, or take `free` and `auth = \"none\"` off the route";
            report.error(span, message, help);
            return None;
        }
        u16::try_from(n).ok().map(|n| RateOn::Route(RouteId(n)))
    }

    fn rate(
        &self,
        report: &mut Report<'_>,
        key: &str,
        on: RateOn,
        text: &Text<'_>,
    ) -> Option<Rate> {
        let words = words::rate(text.text)
            .map_err(|f| fault(report, text, f))
            .ok()?;
        let meter = match &words.meter {
            Some((name, at)) => {
                let span = report.within(text.span.clone(), text.text, at.clone());
                Some(self.meter(report, name, span)?)
            }
            None => None,
        };
        let of = meter.map(|id| self.of(id));
        let mut atoms =
            |amount: &Amount| atoms(amount, of).map_err(|f| fault(report, text, f)).ok();
        let amount = atoms(&words.amount)?;
        let burst = words.burst.as_ref().map_or(Some(amount), &mut atoms)?;
        let burst_at = words
            .burst
            .as_ref()
            .map_or(words.amount.at.clone(), |b| b.at.clone());
        if let Err(f) = fits_bucket(
            amount,
            burst,
            words.per.as_nanos(),
            &words.amount.at,
            burst_at,
        ) {
            fault(report, text, f);
            return None;
        }
        let short = identity(
            &[key, meter.map_or("", |id| &self.of(id).name)],
            &words.scope,
        );
        let parts = [key, meter.map_or("", |id| &self.of(id).name), words.period];
        Some(Rate {
            id: identity(&parts, &words.scope).into(),
            name: short.into(),
            on,
            meter,
            amount,
            per: words.per,
            burst,
            scope: words.scope,
            place: report.mark(text.span.clone()),
        })
    }

    /// `quota.x`, by meter.
    pub(super) fn quotas(
        &self,
        report: &mut Report<'_>,
        table: Option<Table<'_>>,
    ) -> BTreeMap<MeterId, Vec<Quota>> {
        let mut quotas = BTreeMap::new();
        for entry in table.map(Table::entries).unwrap_or_default() {
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
            quotas.insert(meter, list);
        }
        quotas
    }

    fn quota(
        &self,
        report: &mut Report<'_>,
        meter: MeterId,
        text: &Text<'_>,
        table: Option<Table<'_>>,
    ) -> Option<Quota> {
        let of = self.of(meter);
        let words = words::quota(text.text)
            .map_err(|f| fault(report, text, f))
            .ok()?;
        let limit = match &words.limit {
            Some(amount) => Some(
                atoms(amount, Some(of))
                    .map_err(|f| fault(report, text, f))
                    .ok()?,
            ),
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

    /// Whether what happens beyond the limit makes sense with it.
    fn check_over(
        &self,
        report: &mut Report<'_>,
        quota: &Quota,
        text: &Text<'_>,
        table: Option<Table<'_>>,
    ) {
        let name = &self.of(quota.meter).name;
        let over = table.and_then(|table| table.text("over"));
        if quota.limit == Some(0) && quota.over == Over::Deny {
            let message = "a limit of 0 that denies is no quota";
            let help = "write `needs = \"..\"` on the route, and the feature in the plans \
                        that may call it; or `over = \"bill\"` to bill all of it";
            report.error(text.span.clone(), message, help);
        }
        let Some(over) = over else { return };
        if quota.limit.is_none() {
            let help = "leave `over` out, or write a limit";
            report.error(over.span, "nothing is beyond \"unlimited\"", help);
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

    fn stop(&self, report: &mut Report<'_>, quota: &Quota, table: Table<'_>) -> Option<u64> {
        let node = table.node("stop")?;
        let stop = amount_of(report, node, Some(self.of(quota.meter)), words::amount)?;
        if quota.over == Over::Deny || quota.limit.is_none() {
            let help = "leave `stop` out, or write `over = \"allow\"` or `\"bill\"` beside it";
            report.error(
                node.span(),
                "`stop` without anything beyond the limit",
                help,
            );
        } else if quota.limit.is_some_and(|limit| stop < limit) {
            let help = "write a ceiling above the limit";
            report.error(node.span(), "`stop` is below `limit`", help);
        }
        Some(stop)
    }

    /// `feature.x`, by name.
    pub(super) fn features(&self, table: Option<Table<'_>>) -> BTreeMap<Arc<str>, Feature> {
        let mut features = BTreeMap::new();
        for entry in table.map(Table::entries).unwrap_or_default() {
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

/// The words of each limit of a value, with the table they stand in.
pub(super) fn limits<'a>(node: &'a Node<'a>) -> Vec<(Text<'a>, Option<Table<'a>>)> {
    let words = |item| match Table::of(item) {
        Some(table) => Some((table.text("limit")?, Some(table))),
        None => Some((Text::of(item)?, None)),
    };
    items(node).into_iter().filter_map(words).collect()
}

/// An integer or a string as atoms of a meter, or reported.
pub(super) fn amount_of(
    report: &mut Report<'_>,
    node: &Node<'_>,
    meter: Option<&Meter>,
    read: fn(&str) -> Result<Amount, Fault>,
) -> Option<u64> {
    if let Some(text) = Text::of(node) {
        let amount = read(text.text).and_then(|amount| atoms(&amount, meter));
        return amount.map_err(|f| fault(report, &text, f)).ok();
    }
    let number = integer(node)?.unsigned_abs();
    let amount = Amount {
        value: Exact::whole(number),
        bytes: false,
        at: 0..0,
    };
    match atoms(&amount, meter) {
        Ok(atoms) => Some(atoms),
        Err(f) => {
            report.error(node.span(), f.message, f.help);
            None
        }
    }
}

/// An amount in atoms of its meter; without one, calls.
pub(super) fn atoms(amount: &Amount, meter: Option<&Meter>) -> Result<u64, Fault> {
    let is_bytes =
        meter.is_some_and(|m| matches!(m.count, Count::RequestBytes | Count::ResponseBytes));
    let fault = |message: &str, help: String| Fault::new(amount.at.clone(), message, help);
    if is_bytes && !amount.bytes && amount.value.num > 0 {
        let help = format!(
            "write {}",
            super::error::known_names(BYTE_UNITS.map(|(unit, _)| unit))
        );
        return Err(fault("an amount of bytes needs its unit", help));
    }
    if amount.bytes && !is_bytes {
        let help = "write a number with `k`, `M` or nothing".to_owned();
        return Err(fault("this meter does not count bytes", help));
    }
    let scaled = amount.value.times(u128::from(meter.map_or(1, |m| m.scale)));
    match scaled {
        Some(exact) if exact.den > 1 => {
            let help = "write whole units; a rate below 1 as one over a longer period, \"30/min\""
                .to_owned();
            Err(fault("a part of a unit that is never counted", help))
        }
        Some(exact) if exact.num <= u128::from(MAX_ATOMS) => {
            Ok(exact.to_u64().unwrap_or(MAX_ATOMS))
        }
        _ => {
            let help = "write a smaller number, or \"unlimited\"".to_owned();
            Err(fault("the number overflows what can be counted", help))
        }
    }
}

/// Whether a token bucket can hold the rate: its interval is at least a nanosecond, rounding it to
/// whole ones changes the rate by at most 1 %, and a full bucket fits 64 bits of nanoseconds.
fn fits_bucket(
    amount: u64,
    burst: u64,
    per_ns: u128,
    amount_at: &Range<usize>,
    burst_at: Range<usize>,
) -> Result<(), Fault> {
    const ROUNDING: u128 = 100;
    let at = amount_at.clone();
    if amount == 0 || burst == 0 {
        let at = if amount == 0 { at } else { burst_at };
        let help = "write `needs = \"..\"` on the route to close it";
        return Err(Fault::new(at, "a rate of 0 lets nothing through", help));
    }
    let interval = per_ns / u128::from(amount);
    if interval == 0 || per_ns % u128::from(amount) * ROUNDING > per_ns {
        let help = "write a lower rate: a bucket counts whole nanoseconds between units";
        return Err(Fault::new(at, "the rate overflows the bucket", help));
    }
    let full = u128::from(burst) * interval;
    if burst > u64::from(u32::MAX) || full > u128::from(u64::MAX) {
        let help = "write a smaller burst, or a shorter period";
        return Err(Fault::new(burst_at, "the burst overflows the bucket", help));
    }
    Ok(())
}

fn refuse_twin(report: &mut Report<'_>, twin: bool, id: &str, span: &Range<usize>) {
    if twin {
        let message = format!("the limit `{id}` is written twice");
        let help = "leave one out, or give it another period or scope";
        report.error(span.clone(), message, help);
    }
}

/// `requests/day/user`: parts and scope, without those that are the default.
fn identity(parts: &[&str], scope: &Scope) -> String {
    let mut id = parts
        .iter()
        .copied()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>();
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
    let found = words::QUOTA_PERIODS
        .iter()
        .find(|(_, known)| *known == every);
    found.map_or("once", |(word, _)| word)
}

fn alerts(report: &mut Report<'_>, quota: &Quota, table: Option<Table<'_>>) -> Vec<u16> {
    const DEFAULT: [u16; 2] = [80, 100];
    const HIGHEST: i64 = 1_000;
    let has_share = quota.limit.is_some_and(|limit| limit > 0);
    let Some(node) = table.and_then(|table| table.node("alert")) else {
        return if has_share {
            DEFAULT.to_vec()
        } else {
            Vec::new()
        };
    };
    if !has_share && !items(node).is_empty() {
        let help = "leave `alert` out, or write a limit";
        report.error(
            node.span(),
            "`alert` without a limit to take a percentage of",
            help,
        );
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
                report.error(item.span(), format!("`{percent}` is no percentage"), help);
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

//! Rates: limits on speed, enforceable by a token bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::WrittenAmount;
use super::limits::{Scene, identity, is_limited, limits, refuse_twin};
use super::meters::atoms;
use super::model::{Rate, RateOn, RouteId};
use super::words;
use crate::toml_file::{Findings, Text, TextFault, TomlTable, fault, unknown_help};

impl Scene<'_> {
    /// `rate.x`, by key.
    pub(super) fn rates(
        &self,
        report: &mut Findings<'_>,
        table: Option<TomlTable<'_>>,
    ) -> BTreeMap<Arc<str>, Vec<Rate>> {
        let mut rates = BTreeMap::new();
        for entry in table.map(TomlTable::entries).unwrap_or_default() {
            let on = self.rate_on(report, entry.name, entry.span);
            let mut list: Vec<Rate> = Vec::new();
            for (text, table) in limits(entry.node) {
                let Some(on) = on else { continue };
                let Some(mut rate) = self.rate(report, entry.name, on, &text) else {
                    continue;
                };
                rate.strict = table.and_then(|t| t.flag("strict"));
                let twin = list.iter().any(|other| other.id == rate.id);
                refuse_twin(report, twin, &rate.id, &text.span);
                list.push(rate);
            }
            rates.insert(Arc::from(entry.name), list);
        }
        rates
    }

    fn rate_on(&self, report: &mut Findings<'_>, name: &str, span: Range<usize>) -> Option<RateOn> {
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
        report: &mut Findings<'_>,
        key: &str,
        on: RateOn,
        text: &Text<'_>,
    ) -> Option<Rate> {
        let words = words::rate(text.text).map_err(|f| fault(report, text, f)).ok()?;
        let meter = match &words.meter {
            Some((name, at)) => {
                let span = report.within(text.span.clone(), text.text, at.clone());
                Some(self.meter(report, name, span)?)
            }
            None => None,
        };
        let of = meter.map(|id| self.of(id));
        let mut atoms =
            |amount: &WrittenAmount| atoms(amount, of).map_err(|f| fault(report, text, f)).ok();
        let amount = atoms(&words.amount)?;
        let burst = words.burst.as_ref().map_or(Some(amount), &mut atoms)?;
        let burst_at = words.burst.as_ref().map_or(words.amount.at.clone(), |b| b.at.clone());
        let grain = of.map_or(1, |meter| meter.grain);
        let fits =
            fits_bucket([amount, burst], grain, words.per.as_nanos(), &words.amount.at, burst_at);
        if let Err(f) = fits {
            fault(report, text, f);
            return None;
        }
        let short = identity(&[key, meter.map_or("", |id| &self.of(id).name)], &words.scope);
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
            strict: None,
            place: report.mark(text.span.clone()),
        })
    }
}

/// Whether a token bucket can hold the rate: its interval is at least a nanosecond, rounding it to
/// whole ones changes the rate by at most 1 %, and a full bucket fits 64 bits of nanoseconds.
fn fits_bucket(
    [amount, burst]: [u64; 2],
    grain: u64,
    per_ns: u128,
    amount_at: &Range<usize>,
    burst_at: Range<usize>,
) -> Result<(), TextFault> {
    const ROUNDING: u128 = 100;
    let at = amount_at.clone();
    if amount == 0 || burst == 0 {
        let at = if amount == 0 { at } else { burst_at };
        let help = "write `needs = \"..\"` on the route to close it";
        return Err(TextFault::new(at, "a rate of 0 lets nothing through", help));
    }
    let per_ns = per_ns * u128::from(grain);
    let interval = per_ns / u128::from(amount);
    let burst = burst / grain;
    if interval == 0 || per_ns % u128::from(amount) * ROUNDING > per_ns {
        let help = "write a lower rate: a bucket counts whole nanoseconds between units";
        return Err(TextFault::new(at, "the rate overflows the bucket", help));
    }
    let full = u128::from(burst) * interval;
    if burst > u64::from(u32::MAX) || full > u128::from(u64::MAX) {
        let help = "write a smaller burst, or a shorter period";
        return Err(TextFault::new(burst_at, "the burst overflows the bucket", help));
    }
    Ok(())
}

//! Meters: the quantities that are counted.
//!
//! A meter's scale, the parts of its unit, is written or follows from the kind of meter, and never
//! from weights or costs: stored amounts are counted in such parts, and must mean the same under
//! every later file. Each weight and cost must be a whole number of them.

use std::ops::Range;
use std::sync::Arc;

use super::cursor::WrittenAmount;
use super::model::{Meter, MeterId, MeterSource, MeterStripe, Send};
use super::numbers::{BYTE_UNITS, Exact, MULTIPLIERS, gcd, lcm};
use super::words;
use crate::toml_file::{
    Findings, TableLine, Text, TextFault, TomlNode, TomlTable, fault, integer, known_names,
    unknown_help,
};

/// Most meters: each is a pool to query and a line to show.
pub(crate) const MAX_METERS: usize = 64;

/// Most meters with `count = "reported"`: a request carries their numbers inline.
pub(crate) const MAX_REPORTED: usize = 8;

/// Most atoms an amount may have: an eighth of the range of the store's signed numbers, so that
/// sums of use stay within it.
pub(super) const MAX_ATOMS: u64 = 1 << 60;

/// Parts of a sum's unit, by default: decimal fractions of up to six digits, and a limit of a
/// million million units still fits.
const SUM_PARTS: u64 = 1_000_000;

/// Most parts of a unit: a limit of a thousand million units still fits.
const MAX_PARTS: u64 = 1_000_000_000;

/// Most parts of a sum's unit per byte: with more, a busy tenant overflows it within a day.
const PARTS_A_BYTE: u128 = 1_000;

/// Bytes taken at a time while a body streams, by default.
const BYTES_HOLD: u64 = 64_000;

/// The meter that always exists.
const REQUESTS: &str = "requests";

/// The meters, `requests` first, and whether each has `send` written.
pub(super) fn meters(report: &mut Findings<'_>, top: TomlTable<'_>) -> (Vec<Meter>, Vec<bool>) {
    let mut entries = top.table("meter").map(TomlTable::entries).unwrap_or_default();
    let is_named = entries.iter().any(|entry| entry.name == REQUESTS);
    let most = if is_named { MAX_METERS } else { MAX_METERS - 1 };
    limit_number(report, &entries, most, "meters");
    entries.truncate(most);
    entries.sort_by_key(|entry| entry.name != REQUESTS);
    let mut meters = Vec::new();
    if entries.first().is_none_or(|entry| entry.name != REQUESTS) {
        meters.push(meter(REQUESTS, MeterSource::Cost));
    }
    let offset = meters.len();
    for entry in &entries {
        let count = count(report, entry);
        let scale = parts(report, entry, count);
        meters.push(Meter { scale, ..meter(entry.name, count) });
    }
    let of = |n: usize| {
        n.checked_sub(offset).and_then(|n| entries.get(n)).and_then(|e| TomlTable::of(e.node))
    };
    let tables: Vec<Option<TomlTable<'_>>> = (0..meters.len()).map(of).collect();
    mark_named(top, &mut meters);
    sums(report, &tables, &mut meters);
    grains(top, &mut meters);
    for (n, table) in tables.iter().enumerate() {
        if let Some(table) = table {
            rest_of_meter(report, *table, &mut meters[n]);
        }
    }
    refuse_many_reported(report, &entries, &meters);
    let send = |table: &Option<TomlTable<'_>>| {
        table.and_then(|t| t.table("stripe")).is_some_and(|stripe| stripe.node("send").is_some())
    };
    let written = tables.iter().map(send).collect();
    (meters, written)
}

fn meter(name: &str, count: MeterSource) -> Meter {
    let hold = match count {
        MeterSource::RequestBytes | MeterSource::ResponseBytes => BYTES_HOLD,
        _ => 0,
    };
    let name = Arc::from(name);
    Meter {
        name,
        count,
        hold,
        cut: false,
        scale: 1,
        grain: 1,
        named: false,
        stripe: None,
        feeds: Vec::new(),
    }
}

fn count(report: &mut Findings<'_>, entry: &TableLine<'_>) -> MeterSource {
    let Some(table) = TomlTable::of(entry.node) else {
        return MeterSource::Cost;
    };
    let written = table.text("count");
    if let (Some(count), Some(_)) = (&written, table.node("sum")) {
        let help = "leave `count` out: a sum is counted by its meters";
        report.error(count.span.clone(), "`count` beside `sum`", help);
    }
    let count = match written.as_ref().map(|count| count.text) {
        _ if table.node("sum").is_some() => MeterSource::Sum,
        Some("reported") => MeterSource::Reported,
        Some("response-bytes") => MeterSource::ResponseBytes,
        Some("request-bytes") => MeterSource::RequestBytes,
        _ => MeterSource::Cost,
    };
    if entry.name == REQUESTS && count != MeterSource::Cost {
        let span = written.map(|count| count.span).or_else(|| table.key_span("sum"));
        let help = "leave it out, or choose another name for this meter";
        let message = "`requests` is built in: one per admitted request";
        report.error(span.unwrap_or_default(), message, help);
        return MeterSource::Cost;
    }
    count
}

/// Parts of the meter's unit: as written, or the default of its kind.
fn parts(report: &mut Findings<'_>, entry: &TableLine<'_>, count: MeterSource) -> u64 {
    let usual = if count == MeterSource::Sum { SUM_PARTS } else { 1 };
    let Some(node) = TomlTable::of(entry.node).and_then(|table| table.node("parts")) else {
        return usual;
    };
    let is_whole = entry.name == REQUESTS || count.is_of_body();
    let parts = integer(node).and_then(|parts| u64::try_from(parts).ok());
    match parts.filter(|parts| (1..=MAX_PARTS).contains(parts)) {
        Some(parts) if parts == 1 || !is_whole => parts,
        Some(_) => {
            let help = "leave `parts` out";
            report.error(node.span(), format!("`{}` is counted whole", entry.name), help);
            usual
        }
        None => {
            let help = format!("write a whole number from 1 to {MAX_PARTS}");
            report.error(node.span(), "too many parts of a unit", help);
            usual
        }
    }
}

/// Marks the meters that some route names as concerning it.
fn mark_named(top: TomlTable<'_>, meters: &mut [Meter]) {
    let routes = top.table("route").map(TomlTable::entries).unwrap_or_default();
    let named = routes.iter().filter_map(|route| TomlTable::of(route.node));
    for text in named.flat_map(|route| route.texts("meters")) {
        if let Some(meter) = meters.iter_mut().find(|meter| *meter.name == *text.text) {
            meter.named = meter.count == MeterSource::Reported;
        }
    }
}

/// Help for making an amount with this denominator, in atoms, a whole number; `None`: it cannot be
/// made one.
fn more_parts(meter: &Meter, den: u128) -> Option<String> {
    if *meter.name == *REQUESTS || meter.count.is_of_body() {
        return None;
    }
    let parts = u128::from(meter.scale).checked_mul(den)?;
    let parts = u64::try_from(parts).ok().filter(|parts| *parts <= MAX_PARTS)?;
    Some(format!("`parts = {parts}` in `[meter.{}]`, which cannot be changed later", meter.name))
}

/// An integer or a string as atoms of a meter; errors are reported.
pub(super) fn amount_of(
    report: &mut Findings<'_>,
    node: &TomlNode<'_>,
    meter: Option<&Meter>,
    read: fn(&str) -> Result<WrittenAmount, TextFault>,
) -> Option<u64> {
    if let Some(text) = Text::of(node) {
        let amount = read(text.text).and_then(|amount| atoms(&amount, meter));
        return amount.map_err(|f| fault(report, &text, f)).ok();
    }
    let number = integer(node)?.unsigned_abs();
    let amount = WrittenAmount { value: Exact::whole(number), bytes: false, at: 0..0 };
    match atoms(&amount, meter) {
        Ok(atoms) => Some(atoms),
        Err(f) => {
            report.error(node.span(), f.message, f.help);
            None
        }
    }
}

/// An amount in atoms of its meter; without a meter, in calls.
pub(super) fn atoms(amount: &WrittenAmount, meter: Option<&Meter>) -> Result<u64, TextFault> {
    let is_bytes = meter.is_some_and(|m| m.count.is_of_body());
    let fault = |message: &str, help: String| TextFault::new(amount.at.clone(), message, help);
    if is_bytes && !amount.bytes && amount.value.num > 0 {
        let help = format!("write {}", known_names(BYTE_UNITS.map(|(unit, _)| unit)));
        return Err(fault("an amount of bytes needs its unit", help));
    }
    if amount.bytes && !is_bytes {
        let help = "write a number with `k`, `M` or nothing".to_owned();
        return Err(fault("this meter does not count bytes", help));
    }
    let scaled = amount.value.times(u128::from(meter.map_or(1, |m| m.scale)));
    match scaled {
        Some(exact) if exact.den > 1 => {
            let whole = "write whole units; a rate below 1 as one over a longer period, \"30/min\"";
            let help = match meter.and_then(|meter| more_parts(meter, exact.den)) {
                Some(parts) => format!("{whole}; or {parts}"),
                None => whole.to_owned(),
            };
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

/// Computes the granularity of each meter in this file: see [`Meter::grain`].
fn grains(top: TomlTable<'_>, meters: &mut [Meter]) {
    let routes = top.table("route").map(TomlTable::entries).unwrap_or_default();
    let costs = routes.iter().filter_map(|route| TomlTable::of(route.node)?.table("cost"));
    let costs: Vec<TableLine<'_>> = costs.flat_map(TomlTable::entries).collect();
    let mut grains: Vec<u64> = meters.iter().map(|meter| meter.scale).collect();
    let finer = |grain: &mut u64, atoms: u64| *grain = gcd((*grain).into(), atoms.into()) as u64;
    for entry in costs {
        let Some(n) = meters.iter().position(|meter| *meter.name == *entry.name) else {
            continue;
        };
        let cost = Text::of(entry.node).and_then(|text| words::fraction(text.text).ok());
        // A fractional cost is refused where routes are read.
        let atoms = cost.and_then(|cost| cost.value.times(meters[n].scale.into())?.to_u64());
        finer(&mut grains[n], atoms.unwrap_or(0));
    }
    // Sums are not parts of sums: the grains of their parts are final by now.
    for (n, meter) in meters.iter().enumerate() {
        for (sum, weight) in &meter.feeds {
            let fed = grains[n].saturating_mul(*weight);
            finer(&mut grains[usize::from(sum.0)], fed);
        }
    }
    meters.iter_mut().zip(grains).for_each(|(meter, grain)| meter.grain = grain.max(1));
}

/// Resolves `sum` into whole weights.
fn sums(report: &mut Findings<'_>, tables: &[Option<TomlTable<'_>>], meters: &mut [Meter]) {
    for (n, table) in tables.iter().enumerate() {
        let Some(sum) = table.and_then(|table| table.table("sum")) else {
            continue;
        };
        let id = MeterId(n as u16);
        let weights = weights(report, sum, meters);
        if sum.entries().is_empty() {
            let span = table.and_then(|t| t.key_span("sum")).unwrap_or_default();
            let help = "write the meters it adds up: `sum = { tokens = \"1/1000\" }`";
            report.error(span, "a sum of nothing", help);
        }
        let scale = u128::from(meters[n].scale);
        let scales: Vec<u128> = meters.iter().map(|meter| meter.scale.into()).collect();
        let in_atoms = |part: usize, weight: Exact| weight.times(scale)?.over(scales[part]);
        // The denominator for all weights: one fix at once, not another after each correction.
        let needed = weights
            .iter()
            .try_fold(1, |needed, (part, weight, _)| lcm(needed, in_atoms(*part, *weight)?.den));
        let is_written = table.is_some_and(|table| table.node("parts").is_some());
        for (part, weight, span) in weights {
            let Some(atoms) = in_atoms(part, weight) else {
                let help = "write a smaller weight";
                report.error(span, "the weight overflows what can be counted", help);
                continue;
            };
            if atoms.den > 1 {
                let help = match needed.and_then(|needed| more_parts(&meters[n], needed)) {
                    Some(parts) => format!("write {parts}; or a decimal fraction, \"0.0035\""),
                    None => "write a decimal fraction of few digits, \"0.0035\"".to_owned(),
                };
                let message = format!(
                    "the weight does not come out whole: `{}` is counted in parts of 1/{scale}",
                    meters[n].name
                );
                report.error(span, message, help);
                continue;
            }
            let per_byte = meters[part].count.is_of_body() && !is_written;
            if per_byte && atoms.num > PARTS_A_BYTE {
                let help = format!(
                    "write `parts = 1` in `[meter.{}]`, or as many parts of its unit as the \
                     weights need: it cannot be changed later",
                    meters[n].name
                );
                report.error(span, format!("so many bytes overflow 1/{scale} of a unit"), help);
                continue;
            }
            match atoms.to_u64() {
                Some(0) => {
                    let help = "leave it out of the sum";
                    report.error(span, "a weight of 0 counts nothing", help);
                }
                Some(weight) => meters[part].feeds.push((id, weight)),
                None => {
                    let help = "write a smaller weight";
                    report.error(span, "the weight overflows what can be counted", help);
                }
            }
        }
    }
}

/// The parts of a sum: index of the meter, weight, and position.
fn weights(
    report: &mut Findings<'_>,
    sum: TomlTable<'_>,
    meters: &[Meter],
) -> Vec<(usize, Exact, Range<usize>)> {
    let mut weights = Vec::new();
    for entry in sum.entries() {
        let Some(part) = meters.iter().position(|meter| *meter.name == *entry.name) else {
            let known: Vec<&str> = meters.iter().map(|meter| &*meter.name).collect();
            let help = unknown_help(entry.name, known.iter().copied());
            report.error(entry.span, format!("unknown meter `{}`", entry.name), help);
            continue;
        };
        if meters[part].count == MeterSource::Sum {
            let help = "name the meters that it is the sum of";
            report.error(entry.span, format!("`{}` is a sum itself", entry.name), help);
            continue;
        }
        let weight = match Text::of(entry.node) {
            Some(text) => words::fraction(text.text).map_err(|f| fault(report, &text, f)).ok(),
            None => None,
        };
        // A weight in megabytes would read as its inverse.
        if weight.as_ref().is_some_and(|weight| weight.bytes) {
            let help = "write units per byte, as in \"1/1000000\"";
            report.error(entry.node.span(), "a weight has no unit", help);
            continue;
        }
        let number = || integer(entry.node).map(|n| Exact::whole(n.unsigned_abs()));
        if let Some(weight) = weight.map(|weight| weight.value).or_else(number) {
            weights.push((part, weight, entry.node.span()));
        }
    }
    weights
}

fn rest_of_meter(report: &mut Findings<'_>, table: TomlTable<'_>, meter: &mut Meter) {
    let streams = matches!(
        meter.count,
        MeterSource::Reported | MeterSource::RequestBytes | MeterSource::ResponseBytes
    );
    for key in ["hold", "cut"] {
        if let Some(span) = table.key_span(key).filter(|_| !streams) {
            let message = format!("`{key}` on a meter whose cost is known on entry");
            let help = format!("leave `{key}` out, or write `count = \"reported\"`");
            report.error(span, message, help);
        }
    }
    if let Some(node) = table.node("hold").filter(|_| streams) {
        if let Some(hold) = amount_of(report, node, Some(meter), words::amount) {
            meter.hold = hold;
        }
        let bytes = meter.count != MeterSource::Reported;
        if meter.hold == 0 && bytes && report.is_clean() {
            let help = "write the bytes to take at a time: \"64KB\"";
            report.error(node.span(), "bytes are taken in chunks of at least one", help);
        }
    }
    meter.cut = table.flag("cut").unwrap_or(false);
    if let Some(span) =
        table.key_span("cut").filter(|_| meter.cut && meter.count == MeterSource::Reported)
    {
        let help = "leave `cut` out: a handler asks with `usage.take`, which is refused";
        report.error(span, "only what passes in bytes can be cut off", help);
    }
    meter.stripe = table.table("stripe").and_then(|stripe| meter_stripe(report, stripe, meter));
}

fn meter_stripe(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    meter: &Meter,
) -> Option<MeterStripe> {
    let event = table.text("event")?;
    if event.text.is_empty() {
        let help = "write the `event_name` of the Stripe meter";
        report.error(event.span, "`event` is empty", help);
    }
    let send = match table.text("send").map(|send| send.text) {
        Some("overage") => Send::Overage,
        _ => Send::All,
    };
    let unit = match table.text("unit") {
        Some(unit) => stripe_unit(report, &unit, meter)?,
        None => 1,
    };
    let atoms_per_unit = unit.saturating_mul(meter.scale);
    Some(MeterStripe { event: event.text.to_owned(), atoms_per_unit, send })
}

fn stripe_unit(report: &mut Findings<'_>, unit: &Text<'_>, meter: &Meter) -> Option<u64> {
    let bytes = meter.count.is_of_body();
    let known: &[(&str, u64)] = if bytes { &BYTE_UNITS } else { &MULTIPLIERS };
    let found = known.iter().find(|(word, _)| *word == unit.text).map(|(_, by)| *by);
    if found.is_none() {
        let help = unknown_help(unit.text, known.iter().map(|(word, _)| *word));
        let message = format!("`{}` is not a unit of this meter", unit.text);
        report.error(unit.span.clone(), message, help);
    }
    found
}

fn refuse_many_reported(report: &mut Findings<'_>, entries: &[TableLine<'_>], meters: &[Meter]) {
    let reported = meters.iter().filter(|meter| meter.count == MeterSource::Reported);
    if let Some(beyond) = reported.skip(MAX_REPORTED).map(|meter| &*meter.name).next() {
        let span = entries.iter().find(|e| e.name == beyond).map(|e| e.span.clone());
        let message = format!("more than {MAX_REPORTED} meters are reported");
        let help = "a request carries their numbers: merge some, or count by `cost`";
        report.error(span.unwrap_or_default(), message, help);
    }
}

/// Reports the first entry beyond a bound.
pub(super) fn limit_number(
    report: &mut Findings<'_>,
    entries: &[TableLine<'_>],
    most: usize,
    of: &str,
) {
    if let Some(beyond) = entries.get(most) {
        let help = format!("{most} is the most");
        report.error(beyond.span.clone(), format!("too many {of}"), help);
    }
}

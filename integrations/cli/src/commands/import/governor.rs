//! The numbers of tower_governor as a plan file.

use super::plan_file::PlanText;
use super::{gateway_plans, rate};
use crate::args::Governor;
use crate::failure::Failure;

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;
/// Spans of a quota, in seconds: a month and a year at their shortest.
const SPANS: [(&str, u128); 3] = [("day", 86_400), ("month", 28 * 86_400), ("year", 365 * 86_400)];

/// The plan file of these numbers.
pub(super) fn read(what: &Governor) -> Result<PlanText, Failure> {
    let nanoseconds = |n: u64, each: u128| u128::from(n) * each;
    let interval = match (what.per_second, what.per_millisecond, what.per_nanosecond) {
        (Some(n), ..) => nanoseconds(n, SECOND),
        (_, Some(n), _) => nanoseconds(n, 1_000_000),
        (.., n) => nanoseconds(n.unwrap_or(1), 1),
    };
    let plan = &what.plan;
    if !gateway_plans::is_name(plan) {
        let text = format!("{plan:?} cannot be a plan's name");
        return Err(Failure::usage(text + "\nhelp: write letters, digits, `-` and `_`"));
    }
    let rate = rate::text(SECOND, interval, what.burst_size.into());
    let rate = rate.ok_or_else(|| too_slow(interval, what.per.words()))?;
    let words = format!("{}{}", rate.text, what.per.words());
    let toml = format!("default-plan = \"{plan}\"\n\n[plan.{plan}]\nrate.default = \"{words}\"\n");
    Ok(PlanText { toml, notes: rate.notes })
}

/// A rate cannot be so slow, and a quota can.
fn too_slow(interval: u128, scope: &str) -> Failure {
    let quotas = SPANS.map(|(span, seconds)| (span, seconds * SECOND / interval));
    let quota = match quotas.into_iter().find(|(_, amount)| *amount > 0) {
        Some((span, amount)) => format!("{amount}/{span}{scope}"),
        None => "prepaid".to_owned(),
    };
    Failure::usage(format!(
        "one request in {} s {}\nhelp: write a quota into the plan: quota.requests = \"{quota}\"",
        interval / SECOND,
        rate::TOO_SLOW,
    ))
}

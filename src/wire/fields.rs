//! The limit headers: `RateLimit` and `RateLimit-Policy` of
//! draft-ietf-httpapi-ratelimit-headers-11, and the older `X-RateLimit-*` on request.
//!
//! Laws: every value is a legal structured field (RFC 9651), whatever a plan file calls its limits;
//! an empty list is no header; only owned results allocate. A new version of the draft changes this
//! file and a variant of [`HeaderStyle`].

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use super::text::rfc3339;
use super::{Call, EXPOSE, PolicyText};
use crate::amount;
use crate::decision::{LimitKind, LimitReading, LimitState, Unit};

/// Largest integer of a structured field: 15 digits (RFC 9651, section 3.3.1).
pub(crate) const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Which limit headers are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderStyle {
    /// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-11; the default.
    #[default]
    Draft11,
    /// The same two of one limit alone: that with the smallest share left, among those that can
    /// refuse. A refusal names the limit that refused, as in every style.
    Nearest,
    /// None; refusals still have `Retry-After`.
    Off,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` of the limit closest to exhaustion, instead
    /// of the draft's.
    Legacy {
        /// Meaning of "reset" for the clients: there is no common form.
        reset: LegacyReset,
    },
}

/// Forms of `X-RateLimit-Reset` in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyReset {
    /// Unix seconds, as GitHub sends them.
    Epoch,
    /// Seconds from now.
    Delta,
    /// An RFC 3339 instant.
    Rfc3339,
}

/// The value of `RateLimit-Policy`, or `None` if there are no limits to report. It depends only on
/// limits and windows, so it can be cached per plan and route.
pub(crate) fn policy_header<'a>(
    limits: impl IntoIterator<Item = &'a LimitState>,
) -> Option<String> {
    let mut out = String::new();
    write_policy(&mut out, limits).expect("writing to a String does not fail");
    (!out.is_empty()).then_some(out)
}

fn write_policy<'a>(
    out: &mut impl Write,
    limits: impl IntoIterator<Item = &'a LimitState>,
) -> fmt::Result {
    let mut between = "";
    for limit in limits {
        out.write_str(between)?;
        write_string(out, &limit.name)?;
        write!(out, ";q={}", integer(limit.limit.whole()))?;
        write_unit(out, limit)?;
        if let Some(window) = limit.window {
            write!(out, ";w={}", integer(seconds_up(window).max(1)))?;
        }
        between = ", ";
    }
    Ok(())
}

/// Writes the value of `RateLimit` and returns whether it has items; if not, send no header.
///
/// Limits past their soft threshold are left out, because `r=0` makes clients stop.
pub(crate) fn write_ratelimit<'a>(
    out: &mut impl Write,
    limits: impl IntoIterator<Item = &'a LimitState>,
) -> Result<bool, fmt::Error> {
    let mut between = "";
    for limit in limits.into_iter().filter(|limit| !limit.past_soft) {
        out.write_str(between)?;
        write_string(out, &limit.name)?;
        write!(out, ";r={}", integer(limit.remaining.whole()))?;
        if let Some(resets_in) = limit.resets_in {
            write!(out, ";t={}", integer(seconds_up(resets_in)))?;
        }
        between = ", ";
    }
    Ok(!between.is_empty())
}

/// The names of limits past their soft threshold, as a structured field (RFC 9651, a list of
/// strings), with the seconds until they reset; `None` if there are none.
pub(crate) fn soft_warnings<'a>(
    limits: impl IntoIterator<Item = &'a LimitState>,
) -> Option<String> {
    let mut out = String::new();
    for limit in limits.into_iter().filter(|limit| limit.past_soft) {
        let between = if out.is_empty() { "" } else { ", " };
        out.push_str(between);
        write_string(&mut out, &limit.name).expect("writing to a String does not fail");
        if let Some(resets_in) = limit.resets_in {
            write!(out, ";t={}", integer(seconds_up(resets_in))).expect("nor does this");
        }
    }
    (!out.is_empty()).then_some(out)
}

/// A header's value under construction.
pub(crate) type HeaderText = Vec<u8>;

thread_local! {
    static LINE: Cell<HeaderText> = const { Cell::new(Vec::new()) };
}

/// Writes a header's value into this thread's reused buffer, so that only the value itself is
/// allocated.
pub(crate) fn in_line<T>(write: impl FnOnce(&mut HeaderText) -> T) -> T {
    let mut line = LINE.take();
    line.clear();
    let written = write(&mut line);
    LINE.set(line);
    written
}

/// A limit header of a response, before conversion to a framework's types.
#[derive(Debug)]
pub enum LimitHeader<'a> {
    /// The value of `RateLimit`.
    RateLimit(&'a [u8]),
    /// The value of `RateLimit-Policy`.
    Policy(&'a PolicyText),
    /// Another header, by its lower-case name.
    Other(&'static str, String),
}

/// The constant parts of a limit's items: its quoted name, and its policy item.
#[derive(Debug)]
pub(crate) struct HeaderItem {
    named: String,
    policy: String,
    /// The policy of this limit alone, made by the first response that names it alone.
    alone: OnceLock<Box<PolicyText>>,
    /// Atoms to a unit.
    scale: u64,
}

impl HeaderItem {
    pub(crate) fn new(limit: &LimitState) -> Self {
        let (mut named, mut policy) = (String::new(), String::new());
        write_string(&mut named, &limit.name).expect("writing to a String does not fail");
        named.push_str(";r=");
        write_policy(&mut policy, [limit]).expect("writing to a String does not fail");
        Self { named, policy, alone: OnceLock::new(), scale: limit.limit.scale() }
    }

    pub(crate) fn policy(&self) -> &str {
        &self.policy
    }

    /// The value of `RateLimit-Policy` where this limit alone is named.
    pub(crate) fn policy_alone(&self) -> &PolicyText {
        self.alone.get_or_init(|| Box::new(PolicyText::new(self.policy.clone())))
    }
}

/// The limit with the smallest share left, among those that can refuse. The first, if several tie.
pub(crate) fn nearest<T>(
    limits: impl Iterator<Item = (T, LimitReading)>,
) -> Option<(T, LimitReading)> {
    // a.remaining / a.limit < b.remaining / b.limit, without division; both of one scale.
    let share_below = |a: &LimitReading, b: &LimitReading| {
        u128::from(a.remaining) * u128::from(b.limit)
            < u128::from(b.remaining) * u128::from(a.limit)
    };
    let hard = limits.filter(|(_, limit)| !limit.past_soft);
    hard.reduce(|best, limit| if share_below(&limit.1, &best.1) { limit } else { best })
}

/// Appends an item to the value of `RateLimit`: the same output as [`write_ratelimit`], without
/// formatting.
pub(crate) fn write_item(line: &mut HeaderText, item: &HeaderItem, reading: LimitReading) {
    if reading.past_soft {
        return;
    }
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
    // Digits first, then the text: copying bytes together right after they were written one by one
    // stalls the processor.
    let (mut left, mut resets_in_s) = (itoa::Buffer::new(), itoa::Buffer::new());
    let left = left.format(integer(amount::whole(reading.remaining, item.scale)));
    let resets_in_s = reading.resets_in.map(|wait| resets_in_s.format(integer(seconds_up(wait))));
    line.extend_from_slice(item.named.as_bytes());
    line.extend_from_slice(left.as_bytes());
    if let Some(resets_in_s) = resets_in_s {
        line.extend_from_slice(b";t=");
        line.extend_from_slice(resets_in_s.as_bytes());
    }
}

/// Adds the limit headers in this style to a response's headers.
pub(crate) fn limit_headers(
    limits: &[LimitState],
    style: HeaderStyle,
    call: Call,
    headers: &mut Vec<(&'static str, String)>,
) {
    match style {
        HeaderStyle::Off => {}
        HeaderStyle::Draft11 => draft(limits, headers),
        HeaderStyle::Nearest => draft(nearest_state(limits), headers),
        HeaderStyle::Legacy { reset } => legacy(limits, reset, call.wall_ms, headers),
    }
}

fn draft<'a>(
    limits: impl IntoIterator<Item = &'a LimitState> + Clone,
    headers: &mut Vec<(&'static str, String)>,
) {
    let mut value = String::new();
    if write_ratelimit(&mut value, limits.clone()).expect("writing to a String does not fail") {
        headers.push(("ratelimit", value));
    }
    headers.extend(policy_header(limits).map(|value| ("ratelimit-policy", value)));
}

/// The header names that a response to a cross-origin page still has to list in
/// `Access-Control-Expose-Headers`, as one more line of it (RFC 9110, section 5.3); `None` if its
/// present lines (`told`) name them all.
pub(crate) fn expose(told: &[&[u8]], style: HeaderStyle) -> Option<Cow<'static, str>> {
    let wanted = match style {
        HeaderStyle::Draft11 | HeaderStyle::Nearest => EXPOSE,
        HeaderStyle::Off => "Retry-After",
        HeaderStyle::Legacy { .. } => {
            "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After"
        }
    };
    if told.is_empty() {
        return Some(wanted.into());
    }
    let has = |name: &str| {
        let mut names = told.iter().flat_map(|line| line.split(|b| *b == b','));
        names.any(|had| had.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    let missing: Vec<&str> = wanted.split(", ").filter(|name| !has(name)).collect();
    (!missing.is_empty()).then(|| missing.join(", ").into())
}

fn legacy(
    limits: &[LimitState],
    reset: LegacyReset,
    wall_ms: i64,
    headers: &mut Vec<(&'static str, String)>,
) {
    let Some(limit) = nearest_state(limits) else { return };
    headers.push(("x-ratelimit-limit", limit.limit.whole().to_string()));
    headers.push(("x-ratelimit-remaining", limit.remaining.whole().to_string()));
    let Some(at_ms) = resets_at(limit, wall_ms) else {
        return;
    };
    let delta = limit.resets_in.map_or(0, seconds_up);
    let value = match reset {
        LegacyReset::Delta => delta.to_string(),
        LegacyReset::Epoch => ceil_seconds(at_ms).to_string(),
        LegacyReset::Rfc3339 => rfc3339(ceil_seconds(at_ms).saturating_mul(1000)),
    };
    headers.push(("x-ratelimit-reset", value));
}

fn nearest_state(limits: &[LimitState]) -> Option<&LimitState> {
    nearest(limits.iter().map(|limit| (limit, limit.reading()))).map(|(limit, _)| limit)
}

/// When the limit resets, Unix milliseconds: the stored instant, or now plus the wait.
pub(crate) fn resets_at(limit: &LimitState, wall_ms: i64) -> Option<i64> {
    limit.resets_at_ms.or_else(|| {
        let wait = i64::try_from(limit.resets_in?.as_millis()).unwrap_or(i64::MAX);
        Some(wall_ms.saturating_add(wait))
    })
}

/// Whole seconds, rounded up, so that a client that waits them is never early.
pub(crate) fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn ceil_seconds(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(1000).saturating_add(i64::from(unix_ms.rem_euclid(1000) > 0))
}

fn integer(n: u64) -> u64 {
    n.min(MAX_INTEGER)
}

/// Writes `qu` where the draft has a word for the unit. Omitted for requests: the draft calls their
/// unit `requests` in one section and `request` in another. Our own meters are a vendor parameter.
fn write_unit(out: &mut impl Write, limit: &LimitState) -> fmt::Result {
    match (limit.kind, limit.unit, &limit.meter) {
        (LimitKind::Concurrency, _, _) => out.write_str(";qu=\"concurrent-requests\""),
        (_, Unit::Bytes, _) => out.write_str(";qu=\"content-bytes\""),
        (_, Unit::Other, Some(meter)) => {
            out.write_str(";tallygate-unit=")?;
            write_string(out, meter)
        }
        (_, Unit::Calls | Unit::Other, _) => Ok(()),
    }
}

/// A structured-field string (RFC 9651, section 3.3.3), which holds printable ASCII only. Other
/// characters are percent-encoded byte by byte, so that distinct names stay distinct.
fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            ' '..='~' => out.write_char(c)?,
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(out, "%{byte:02X}")?;
                }
            }
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests;

//! A tenant's view of its own usage: the JSON of `GET /usage` and `GET /usage/history`, and the
//! HTML page that shows the same.
//!
//! The numbers are passed in computed; nothing here counts, or reads a store or a clock. Laws:
//! every instant is RFC 3339 in UTC; every amount is a JSON number of whole units, rounded down,
//! with the exact value in a second member `.._text` where the number is inexact (a fraction, or
//! more than 2^53); no tenant id or credential appears.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::{Serialize, SerializeMap, Serializer};
use sha2::{Digest, Sha256};

use crate::amount::Amount;
use crate::catalog::Feature;
use crate::clock::unix_ms;
use crate::wire::{Reply, rfc3339};

mod history;
mod page;
#[cfg(test)]
mod page_tests;
mod query;

pub(crate) use history::MAX_ROWS;
pub use history::{Granularity, History, HistoryQuery, HistoryRow};
pub use page::page;
pub(crate) use page::{html_reply, policy_of};
#[doc(hidden)]
pub use page::{page_reply, page_with_keys_reply, still_policy};
pub(crate) use query::{instant_of, percent_decoded};

/// A caller's limits and usage, the body of `GET /usage`.
/// [`Gate::usage_report`](crate::Gate::usage_report) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsageReport {
    /// The plan's name.
    pub plan: Arc<str>,
    /// Whether the tenant may call: `active`, `suspended`, `trial-over`, `payment-required`.
    pub status: Arc<str>,
    /// Revision of the catalog that the limits come from.
    pub catalog: u64,
    /// The billing period.
    pub period: Period,
    /// Usage per meter.
    pub meters: Vec<MeterReport>,
    /// Rate limits.
    pub rates: Vec<RateReport>,
    /// The plan's features.
    pub features: BTreeMap<Arc<str>, Feature>,
    /// Time of these numbers.
    pub as_of: SystemTime,
}

/// A span, and the time zone in which it turns over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Period {
    /// First instant.
    pub start: SystemTime,
    /// First instant after it; `None` without an end.
    pub end: Option<SystemTime>,
    /// IANA name of the catalog's time zone.
    pub timezone: Arc<str>,
}

/// Usage of one meter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MeterReport {
    /// Its name in the plan file.
    pub name: Arc<str>,
    /// The unit's name: `requests`, `bytes`, `credits`.
    pub unit: Arc<str>,
    /// Settled usage in the billing period.
    pub used: Amount,
    /// The part of `used` beyond what is included.
    pub over: Amount,
    /// Reserved for requests in flight.
    pub held: Amount,
    /// Its quotas.
    pub limits: Vec<LimitReport>,
    /// Units given once.
    pub grants: Vec<GrantReport>,
    /// Maximum age of numbers from other processes.
    pub staleness: Duration,
}

/// One quota of a meter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimitReport {
    /// Its id: `requests/month`.
    pub id: Arc<str>,
    /// The scope it applies to: `tenant`, `key`, `user`, `ip` or a named scope.
    pub scope: Arc<str>,
    /// Limit per window; `None` is unlimited.
    pub limit: Option<Amount>,
    /// Used in this window; for an unlimited quota, in the billing period. Exceeds `limit` if
    /// overage was admitted, or is owed.
    pub used: Amount,
    /// The part of `used` that is unpaid: the meter admits nothing until it is paid.
    pub debt: Amount,
    /// First instant of the window.
    pub starts_at: SystemTime,
    /// First instant after it; `None` for a window without end.
    pub resets_at: Option<SystemTime>,
}

/// Units given once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GrantReport {
    /// Its id.
    pub id: Arc<str>,
    /// Its origin: `plan`, or `grant` for one given to this tenant.
    pub source: Arc<str>,
    /// Units given.
    pub limit: Amount,
    /// Units used of it.
    pub used: Amount,
    /// First instant at which it has expired; `None`: never.
    pub expires_at: Option<SystemTime>,
}

/// A rate limit. Amounts are calls or, with a [`meter`](Self::meter), its units.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RateReport {
    /// Its id: `search/min`.
    pub id: Arc<str>,
    /// The scope it applies to.
    pub scope: Arc<str>,
    /// The meter it counts; `None` for calls.
    pub meter: Option<Arc<str>>,
    /// Amount allowed per [`per`](Self::per).
    pub limit: Amount,
    /// The time in which `limit` is allowed, whole seconds.
    pub per: Duration,
    /// Burst size.
    pub burst: Amount,
    /// Amount available now.
    pub remaining: Amount,
}

impl UsageReport {
    /// The report as a response, or 304 if the caller already has it (RFC 9110, section 13.1.2).
    pub fn reply(&self, if_none_match: Option<&str>) -> Reply {
        let etag = self.etag();
        let known = if_none_match.is_some_and(|had| matches(had, &etag));
        let mut headers = vec![
            ("etag", etag),
            ("cache-control", "private, no-cache".to_owned()),
            ("vary", "authorization, x-api-key".to_owned()),
        ];
        if known {
            return Reply { status: 304, headers, body: Vec::new() };
        }
        headers.push(("content-type", "application/json".to_owned()));
        Reply { status: 200, headers, body: json(self) }
    }

    /// A hash of everything but `as_of` and the staleness. Weak (RFC 9110, section 8.8.1), because
    /// two bodies with the same tag may differ in those.
    pub fn etag(&self) -> String {
        let mut still = self.clone();
        still.as_of = UNIX_EPOCH;
        still.meters.iter_mut().for_each(|meter| meter.staleness = Duration::ZERO);
        let hash = Sha256::digest(json(&still));
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("W/\"{hex}\"")
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a map of strings and numbers is JSON")
}

/// Weak comparison with a list of tags, as `If-None-Match` requires.
fn matches(had: &str, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    had.trim() == "*" || had.split(',').any(|tag| opaque(tag) == opaque(etag))
}

impl Serialize for UsageReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("plan", &self.plan)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("catalog", &self.catalog)?;
        map.serialize_entry("period", &self.period)?;
        map.serialize_entry("meters", &self.meters)?;
        map.serialize_entry("rates", &self.rates)?;
        let features: BTreeMap<_, _> =
            self.features.iter().map(|(name, feature)| (name, FeatureValue(feature))).collect();
        map.serialize_entry("features", &features)?;
        map.serialize_entry("as_of", &written(self.as_of))?;
        map.end()
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("start", &written(self.start))?;
        map.serialize_entry("end", &self.end.map(written))?;
        map.serialize_entry("timezone", &self.timezone)?;
        map.end()
    }
}

impl Serialize for MeterReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("unit", &self.unit)?;
        self.used.entry(&mut map, "used", "used_text")?;
        self.over.entry(&mut map, "over", "over_text")?;
        self.held.entry(&mut map, "held", "held_text")?;
        map.serialize_entry("limits", &self.limits)?;
        map.serialize_entry("grants", &self.grants)?;
        map.serialize_entry("staleness_ms", &self.staleness.as_millis())?;
        map.end()
    }
}

impl Serialize for LimitReport {
    /// `limit` and `remaining` are null where the quota is unlimited.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("scope", &self.scope)?;
        let left = self.limit.map(|most| most.less(self.used));
        optional(&mut map, self.limit, "limit", "limit_text")?;
        self.used.entry(&mut map, "used", "used_text")?;
        optional(&mut map, left, "remaining", "remaining_text")?;
        if !self.debt.is_zero() {
            self.debt.entry(&mut map, "debt", "debt_text")?;
        }
        map.serialize_entry("starts_at", &written(self.starts_at))?;
        map.serialize_entry("resets_at", &self.resets_at.map(written))?;
        map.end()
    }
}

impl Serialize for GrantReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let left = self.limit.less(self.used);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        self.limit.entry(&mut map, "limit", "limit_text")?;
        self.used.entry(&mut map, "used", "used_text")?;
        left.entry(&mut map, "remaining", "remaining_text")?;
        map.serialize_entry("expires_at", &self.expires_at.map(written))?;
        map.end()
    }
}

impl Serialize for RateReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("scope", &self.scope)?;
        map.serialize_entry("meter", &self.meter)?;
        self.limit.entry(&mut map, "limit", "limit_text")?;
        map.serialize_entry("per_seconds", &self.per.as_secs())?;
        self.burst.entry(&mut map, "burst", "burst_text")?;
        self.remaining.entry(&mut map, "remaining", "remaining_text")?;
        map.end()
    }
}

/// An instant in RFC 3339.
fn written(at: SystemTime) -> String {
    rfc3339(unix_ms(at))
}

/// A feature as the JSON that a plan file's author would expect: `true`, `10`, `"unlimited"`.
struct FeatureValue<'a>(&'a Feature);

impl Serialize for FeatureValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Feature::Flag(on) => serializer.serialize_bool(*on),
            Feature::Number(n) => serializer.serialize_i64(*n),
            Feature::Unlimited => serializer.serialize_str("unlimited"),
            Feature::Text(text) => serializer.serialize_str(text),
        }
    }
}

fn optional<M: SerializeMap>(
    map: &mut M,
    amount: Option<Amount>,
    name: &'static str,
    text_name: &'static str,
) -> Result<(), M::Error> {
    match amount {
        Some(amount) => amount.entry(map, name, text_name),
        None => map.serialize_entry(name, &()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::time_at;

    fn report() -> UsageReport {
        UsageReport {
            plan: "team".into(),
            status: "active".into(),
            catalog: 7,
            period: Period {
                start: UNIX_EPOCH,
                end: Some(time_at(86_400_000)),
                timezone: "UTC".into(),
            },
            meters: vec![MeterReport {
                name: "credits".into(),
                unit: "credits".into(),
                used: Amount::new(12_345, 1000),
                over: Amount::new(2_345, 1000),
                held: Amount::new(0, 1000),
                limits: vec![
                    LimitReport {
                        id: "credits/cycle".into(),
                        scope: "tenant".into(),
                        limit: Some(Amount::new(10_000, 1000)),
                        used: Amount::new(12_345, 1000),
                        debt: Amount::new(0, 1000),
                        starts_at: UNIX_EPOCH,
                        resets_at: Some(time_at(86_400_000)),
                    },
                    LimitReport {
                        id: "credits/once".into(),
                        scope: "tenant".into(),
                        limit: None,
                        used: Amount::new(1_000, 1000),
                        debt: Amount::new(0, 1000),
                        starts_at: UNIX_EPOCH,
                        resets_at: None,
                    },
                ],
                grants: vec![GrantReport {
                    id: "g1".into(),
                    source: "grant".into(),
                    limit: Amount::new(5_000, 1000),
                    used: Amount::new(1_000, 1000),
                    expires_at: None,
                }],
                staleness: Duration::from_millis(40),
            }],
            rates: vec![RateReport {
                id: "default/s".into(),
                scope: "tenant".into(),
                meter: None,
                limit: Amount::units(50),
                per: Duration::from_secs(1),
                burst: Amount::units(200),
                remaining: Amount::units(180),
            }],
            features: BTreeMap::from([
                ("exports".into(), Feature::Flag(true)),
                ("seats".into(), Feature::Number(10)),
                ("sites".into(), Feature::Unlimited),
            ]),
            as_of: time_at(1_500),
        }
    }

    #[test]
    fn writes_the_documented_shape() {
        assert_eq!(
            String::from_utf8(report().reply(None).body).unwrap(),
            concat!(
                r#"{"plan":"team","status":"active","catalog":7,"period":{"start":"#,
                r#""1970-01-01T00:00:00Z","end":"1970-01-02T00:00:00Z","timezone":"UTC"},"#,
                r#""meters":[{"name":"credits","unit":"credits","used":12,"used_text":"12.345","#,
                r#""over":2,"over_text":"2.345","held":0,"limits":[{"id":"credits/cycle","#,
                r#""scope":"tenant","limit":10,"used":12,"used_text":"12.345","remaining":0,"#,
                r#""starts_at":"1970-01-01T00:00:00Z","resets_at":"1970-01-02T00:00:00Z"},"#,
                r#"{"id":"credits/once","scope":"tenant","limit":null,"used":1,"remaining":null,"#,
                r#""starts_at":"1970-01-01T00:00:00Z","resets_at":null}],"#,
                r#""grants":[{"id":"g1","source":"grant","limit":5,"used":1,"remaining":4,"#,
                r#""expires_at":null}],"staleness_ms":40}],"#,
                r#""rates":[{"id":"default/s","scope":"tenant","meter":null,"limit":50,"#,
                r#""per_seconds":1,"burst":200,"remaining":180}],"#,
                r#""features":{"exports":true,"seats":10,"sites":"unlimited"},"#,
                r#""as_of":"1970-01-01T00:00:01.5Z"}"#
            )
        );
    }

    #[test]
    fn writes_large_amounts_twice() {
        let mut large = report();
        large.meters[0].used = Amount::units(u64::MAX);
        let body: serde_json::Value = serde_json::from_slice(&large.reply(None).body).unwrap();
        assert_eq!(body["meters"][0]["used"], u64::MAX);
        assert_eq!(body["meters"][0]["used_text"], u64::MAX.to_string());
    }

    #[test]
    fn the_tag_changes_with_use_alone() {
        let (first, mut later) = (report(), report());
        later.as_of += Duration::from_secs(9);
        later.meters[0].staleness += Duration::from_millis(1);
        assert_eq!(first.etag(), later.etag());
        later.meters[0].used = Amount::new(12_346, 1000);
        assert_ne!(first.etag(), later.etag());
    }

    #[test]
    fn answers_304_to_who_has_it() {
        let report = report();
        let strong = report.etag().trim_start_matches("W/").to_owned();
        for known in [format!("\"x\", {}", report.etag()), strong, "*".to_owned()] {
            let reply = report.reply(Some(&known));
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
        }
        assert_eq!(report.reply(Some("\"x\"")).status, 200);
    }
}

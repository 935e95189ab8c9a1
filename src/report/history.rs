//! `GET /usage/history?meter&from&to&granularity`: query validation and the rows of the answer.
//!
//! Instants in the query are RFC 3339, or a date, meaning its midnight in UTC. Errors are a 400
//! that names the parameter and what to write; nothing is guessed or ignored.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::{instant_of, percent_decoded};
use super::written;
use crate::amount::Amount;
use crate::clock::unix_ms;
use crate::wire::{Reply, plain_problem, rfc3339};

/// Limit on the rows of one answer: three years of days, with room to spare. It bounds how much one
/// free request can make a store read.
pub(crate) const MAX_ROWS: usize = 1_100;

/// Limit on how far a query may reach past now: to the end of a year that has just begun. There is
/// no usage later than that.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(366 * 86_400);

/// Earliest start: 1970-01-01; no usage is dated before it.
const FIRST_MS: i64 = 0;

/// Span of the answer if the query has no `from`.
const DEFAULT_SPAN_MS: i64 = 30 * DAY_MS;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The length of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// A day in the plan file's `timezone`.
    Day,
    /// A month in the plan file's `timezone`.
    Month,
}

impl Granularity {
    /// Its word in the query and in the answer.
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// A valid query of a usage history, for [`Gate::history`](crate::Gate::history): a meter, a time
/// span, and the length of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The meter's name, not yet looked up.
    pub(crate) meter: String,
    /// First instant, Unix milliseconds.
    pub(crate) from_ms: i64,
    /// First instant after it; later than `from_ms`.
    pub(crate) to_ms: i64,
    /// The length of a row.
    pub(crate) granularity: Granularity,
}

impl HistoryQuery {
    /// A query of a meter's usage from the instant `from` to before the instant `to`. There are no
    /// rows if `to` is not later.
    pub fn new(
        meter: impl Into<String>,
        from: SystemTime,
        to: SystemTime,
        granularity: Granularity,
    ) -> Self {
        Self { meter: meter.into(), from_ms: unix_ms(from), to_ms: unix_ms(to), granularity }
    }

    /// Parses a raw query string, without its `?`. `meter` is required; the defaults of the others
    /// give the last 30 days, by day.
    ///
    /// # Errors
    ///
    /// The response to send, a 400 that names the parameter and what to write.
    pub fn parse(raw: &str, now: SystemTime) -> Result<Self, Reply> {
        let now_ms = unix_ms(now);
        let [mut meter, mut from, mut to, mut granularity] = [const { None::<String> }; 4];
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match decode(name)?.as_str() {
                "meter" => &mut meter,
                "from" => &mut from,
                "to" => &mut to,
                "granularity" => &mut granularity,
                _ => {
                    return Err(bad("Only meter, from, to and granularity may be asked for."));
                }
            };
            if slot.replace(decode(value)?).is_some() {
                return Err(bad("A parameter is there twice. Write each once."));
            }
        }
        let meter = meter
            .filter(|meter| !meter.is_empty())
            .ok_or_else(|| bad("meter is missing. Write the name of one: meter=requests."))?;
        let to_ms = to.map_or(Ok(now_ms), |text| instant("to", &text))?;
        let from_ms = from
            .map_or(Ok(to_ms.saturating_sub(DEFAULT_SPAN_MS).max(FIRST_MS)), |text| {
                instant("from", &text)
            })?;
        let granularity = match granularity.as_deref() {
            None | Some("day") => Granularity::Day,
            Some("month") => Granularity::Month,
            Some(_) => {
                return Err(bad("granularity is one of day, month: use is recorded by the day."));
            }
        };
        let query = Self { meter, from_ms, to_ms, granularity };
        query.check(now_ms)?;
        Ok(query)
    }

    fn check(&self, now_ms: i64) -> Result<(), Reply> {
        let ahead_ms = i64::try_from(MAX_AHEAD.as_millis()).unwrap_or(i64::MAX);
        let last_ms = now_ms.saturating_add(ahead_ms);
        if self.to_ms > last_ms {
            let last = rfc3339(last_ms);
            return Err(bad(&format!("to lies in the far future. Write {last} or earlier.")));
        }
        if self.from_ms < FIRST_MS {
            let first = rfc3339(FIRST_MS);
            return Err(bad(&format!("from lies too far back. Write {first} or later.")));
        }
        if self.from_ms >= self.to_ms {
            return Err(bad("from must be earlier than to."));
        }
        Ok(())
    }

    /// The 400 for a span with more rows than an answer holds. Rows are counted in the plan file's
    /// time zone.
    pub(crate) fn too_many_rows() -> Reply {
        bad(&format!(
            "The span has more than {MAX_ROWS} rows. Ask for less of it, or for longer rows."
        ))
    }

    /// The 404 for a meter that is not in the catalog.
    pub(crate) fn unknown_meter<'a>(known: impl IntoIterator<Item = &'a str>) -> Reply {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let detail = format!("There is no such meter. There are: {known}.");
        plain_problem(404, "Unknown meter", &detail)
    }
}

/// A caller's usage of one meter over time, in rows of a day or a month.
/// [`Gate::history`](crate::Gate::history) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct History {
    /// The meter's name.
    pub meter: Arc<str>,
    /// The unit's name.
    pub unit: Arc<str>,
    /// The length of a row.
    pub granularity: Granularity,
    /// Rows in order, without gaps.
    pub rows: Vec<HistoryRow>,
}

/// Usage in one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryRow {
    /// First instant.
    pub start: SystemTime,
    /// First instant after it.
    pub end: SystemTime,
    /// What was used.
    pub used: Amount,
}

impl History {
    /// The answer as a response.
    pub fn reply(&self) -> Reply {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("cache-control", "private, no-cache".to_owned()),
            ("vary", "authorization, x-api-key".to_owned()),
        ];
        Reply { status: 200, headers, body: super::json(self) }
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<_> = self.rows.iter().map(|row| Row(self, row)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("meter", &self.meter)?;
        map.serialize_entry("unit", &self.unit)?;
        map.serialize_entry("granularity", self.granularity.word())?;
        map.serialize_entry("rows", &rows)?;
        map.end()
    }
}

struct Row<'a>(&'a History, &'a HistoryRow);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(history, row) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("start", &written(row.start))?;
        map.serialize_entry("end", &written(row.end))?;
        map.serialize_entry("meter", &history.meter)?;
        row.used.entry(&mut map, "used", "used_text")?;
        map.end()
    }
}

fn bad(detail: &str) -> Reply {
    plain_problem(400, "Bad query", detail)
}

fn instant(name: &str, text: &str) -> Result<i64, Reply> {
    instant_of(text).map(unix_ms).map_err(|why| bad(&format!("{name} is not an instant. {why}")))
}

/// Decodes a part of a query.
fn decode(text: &str) -> Result<String, Reply> {
    percent_decoded(text, ' ').ok_or_else(|| bad("The query is not percent-encoded UTF-8."))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::clock::time_at;

    const NOW: i64 = 1_795_256_636_000;

    fn refused(raw: &str) -> String {
        let reply = HistoryQuery::parse(raw, time_at(NOW)).unwrap_err();
        assert_eq!(reply.status, 400);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        body["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn asks_for_thirty_days_when_only_the_meter_is_named() {
        let expected = HistoryQuery {
            meter: "requests".into(),
            from_ms: NOW - 30 * DAY_MS,
            to_ms: NOW,
            granularity: Granularity::Day,
        };
        assert_eq!(HistoryQuery::parse("meter=requests", time_at(NOW)), Ok(expected));
    }

    #[test]
    fn reads_instants_and_dates() {
        let raw = "meter=input%2dtokens&from=2026-11-01&to=2026-11-01T02%3A00%3A00%2B01:00\
                   &granularity=month";
        let query = HistoryQuery::parse(raw, time_at(NOW)).unwrap();
        assert_eq!(query.meter, "input-tokens");
        assert_eq!(query.to_ms - query.from_ms, HOUR_MS);
        assert_eq!(query.granularity, Granularity::Month);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(refused("").contains("meter is missing"));
        assert!(refused("meter=").contains("meter is missing"));
        assert!(refused("meter=a&meter=b").contains("twice"));
        assert!(refused("meter=a&tenant=b").contains("Only meter, from, to"));
        assert!(refused("meter=a&from=yesterday").contains("from is not an instant"));
        assert!(refused("meter=a&from=2026-11-02&to=2026-11-02").contains("earlier"));
        assert!(refused("meter=a&granularity=second").contains("day, month"));
        for raw in ["meter=%", "meter=%4", "meter=%zz", "meter=%ff", "meter=%+1"] {
            assert!(refused(raw).contains("percent-encoded"), "{raw}");
        }
    }

    #[test]
    fn bounds_how_far_a_query_reaches() {
        for raw in ["to=9999-01-02", "to=9999-12-30T00:00:00Z", "to=2027-11-23"] {
            let said = refused(&format!("meter=a&{raw}&granularity=month"));
            assert!(said.contains("Write 2027-11-22T") && said.contains("or earlier"), "{said}");
        }
        for from in ["0001-01-01", "-009998-01-02", "-000001-12-31", "1969-12-31"] {
            let said = refused(&format!("meter=a&from={from}&to=1970-01-02"));
            assert!(said.contains("Write 1970-01-01T00:00:00Z or later"), "{from}: {said}");
        }
        let year = HistoryQuery::parse("meter=a&from=2026-11-01&to=2027-11-01", time_at(NOW));
        assert!(year.is_ok(), "a year that runs may be asked for whole");
        assert!(HistoryQuery::parse("meter=a&to=1970-01-02", time_at(NOW)).is_ok());
    }

    #[test]
    fn never_repeats_what_the_caller_wrote() {
        assert!(!refused("meter=a&from=%3Cscript%3E").contains('<'));
    }

    #[test]
    fn writes_rows() {
        let history = History {
            meter: "credits".into(),
            unit: "credits".into(),
            granularity: Granularity::Day,
            rows: vec![HistoryRow {
                start: UNIX_EPOCH,
                end: time_at(DAY_MS),
                used: Amount::new(15, 10),
            }],
        };
        assert_eq!(
            String::from_utf8(history.reply().body).unwrap(),
            concat!(
                r#"{"meter":"credits","unit":"credits","granularity":"day","rows":["#,
                r#"{"start":"1970-01-01T00:00:00Z","end":"1970-01-02T00:00:00Z","#,
                r#""meter":"credits","used":1,"used_text":"1.5"}]}"#
            )
        );
    }

    #[test]
    fn names_the_meters_there_are() {
        let reply = HistoryQuery::unknown_meter(["requests", "egress"]);
        assert_eq!(reply.status, 404);
        assert!(String::from_utf8(reply.body).unwrap().contains("requests, egress."));
    }
}

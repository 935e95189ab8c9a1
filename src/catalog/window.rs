//! Windows: the time spans in which quotas are counted.
//!
//! Laws: the windows of one [`Every`] and one anchor tile time without gap or overlap, from the
//! first instant an `i64` holds to the last, and contain the instant they were asked for: code that
//! walks from the end of one to the next terminates. Boundaries are `anchor + n months`, never
//! chained, so that a cycle anchored on 31 Jan turns over on 28 Feb and again on 31 Mar. Local days
//! are 23 to 25 hours long where the clocks change; a boundary that the clocks skip is the first
//! instant after the gap, one that happens twice is the first of the two.
//!
//! Zones come from the database in this binary, not from the machine's, so that every node of one
//! release turns over at the same instant.
//!
//! Where the zone has changed, the running window continues to a boundary of the new one (`turn`).
//!
//! Instants that a date cannot hold (years before 1 and after 9998) lie in the first or the last
//! window, which begin at `i64::MIN` and end at `i64::MAX`.

use std::fmt;
use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};

use super::model::{Anchors, Every, Window};

mod turn;

/// 0001-01-03 and 9998-12-29 UTC, so that no offset exceeds the range of a date.
const FIRST_MS: i64 = -62_135_424_000_000;
const LAST_MS: i64 = 253_370_592_000_000;

const HOUR_MS: i64 = 3_600_000;

/// A time zone, in which days and months turn over; and its predecessors.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Zone(TimeZone, Option<Arc<(Zone, i64)>>);

impl Zone {
    /// The zone with this IANA name (`America/New_York`, `UTC`), in any case.
    pub(crate) fn new(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(|zone| Self(zone, None))
    }

    /// UTC.
    pub(crate) fn utc() -> Self {
        Self(TimeZone::UTC, None)
    }

    /// The same zone, in force since this instant (Unix milliseconds), when it replaced another:
    /// see [`Every::window`].
    #[must_use]
    pub(crate) fn after(self, before: Zone, at_ms: i64) -> Self {
        Self(self.0, Some(Arc::new((before, at_ms))))
    }

    /// The previous zone, and when it was left.
    fn before(&self) -> Option<(&Zone, i64)> {
        self.1.as_deref().map(|(zone, left_ms)| (zone, *left_ms))
    }

    /// Its IANA name, in the database's spelling.
    pub(crate) fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// An instant in Unix milliseconds as RFC 3339 with this zone's offset, to the second or, if
    /// there are any, to the millisecond.
    #[cfg(test)]
    pub(crate) fn rfc3339(&self, at_ms: i64) -> String {
        let at = timestamp(at_ms);
        match self.name() {
            "UTC" => at.to_string(),
            _ => at.display_with_offset(self.0.to_offset(at)).to_string(),
        }
    }

    /// First instant of the local day `later` days after a date, Unix milliseconds; `None` if there
    /// is no such date.
    pub(super) fn midnight_ms(&self, year: i16, month: i8, day: i8, later: u8) -> Option<i64> {
        let date = Date::new(year, month, day).ok()?;
        let date = date.checked_add(Span::new().days(i64::from(later))).ok()?;
        Some(self.instant(date.to_datetime(MIDNIGHT)))
    }

    /// The names in the database.
    pub(super) fn names() -> Vec<String> {
        TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect()
    }

    fn local(&self, at_ms: i64) -> DateTime {
        self.0.to_datetime(timestamp(at_ms))
    }

    fn instant(&self, local: DateTime) -> i64 {
        match self.0.to_timestamp(local) {
            Ok(at) => at.as_millisecond().clamp(FIRST_MS, LAST_MS),
            Err(_) if local.year() > 2000 => LAST_MS,
            Err(_) => FIRST_MS,
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

impl Every {
    /// The window containing `at_ms` in a zone that has always been in force.
    fn within(self, at_ms: i64, zone: &Zone, anchors: &Anchors) -> Window {
        // The last boundary is where a window after the last would begin: there is none.
        let at_ms = at_ms.clamp(FIRST_MS, LAST_MS - 1);
        let local = zone.local(at_ms);
        let Window { start_ms, end_ms } = match self {
            Every::Hour => hour(at_ms, zone),
            Every::Day => tile(at_ms, days(local.date()), |n| zone.instant(midnight(n))),
            Every::Week => {
                // Day 0 of the epoch was a Thursday; week 0 begins on the Monday before it.
                let week = (days(local.date()) + 3).div_euclid(7);
                tile(at_ms, week, |n| zone.instant(midnight(n * 7 - 3)))
            }
            Every::Month => {
                let month = months(local);
                tile(at_ms, month, |n| zone.instant(after_months(EPOCH, n)))
            }
            Every::Year => {
                let year = months(local).div_euclid(12);
                tile(at_ms, year, |n| zone.instant(after_months(EPOCH, n * 12)))
            }
            Every::Cycle => anchored(at_ms, zone, anchors.cycle_ms, 1),
            Every::Term => match anchors.term {
                Some(term) => anchored(at_ms, zone, term.from_ms, term.months.max(1)),
                None => anchored(at_ms, zone, anchors.cycle_ms, 1),
            },
            Every::Once => Window { start_ms: i64::MIN, end_ms: i64::MAX },
        };
        // Boundaries beyond the range of a date are all clamped to one instant. They are treated as
        // the ends of time, or windows between them would be empty and never advance.
        Window {
            start_ms: if start_ms <= FIRST_MS { i64::MIN } else { start_ms },
            end_ms: if end_ms >= LAST_MS { i64::MAX } else { end_ms },
        }
    }
}

/// The local date of an instant as a number: 20261121.
pub(crate) fn local_day(at_ms: i64, zone: &Zone) -> u32 {
    let date = zone.local(at_ms).date();
    let (year, month, day) = (date.year().max(0), date.month(), date.day());
    year.unsigned_abs() as u32 * 10_000
        + u32::from(month.unsigned_abs()) * 100
        + u32::from(day.unsigned_abs())
}

const MIDNIGHT: jiff::civil::Time = jiff::civil::Time::midnight();
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Windows of `every` months from an anchor.
fn anchored(at_ms: i64, zone: &Zone, anchor_ms: i64, every: u32) -> Window {
    let anchor = zone.local(anchor_ms);
    let every = i64::from(every);
    let guess = (months(zone.local(at_ms)) - months(anchor)).div_euclid(every);
    tile(at_ms, guess, |n| zone.instant(after_months(anchor, n.saturating_mul(every))))
}

/// The one window `n` near `guess` with `start(n) <= at < start(n + 1)`. The local time's guess is
/// off by one where the clocks were set back over the boundary.
fn tile(at_ms: i64, guess: i64, start: impl Fn(i64) -> i64) -> Window {
    /// More steps than any clock change needs; the bound is for clamped instants.
    const STEPS: usize = 4;
    let mut n = guess;
    for _ in 0..STEPS {
        if at_ms < start(n) {
            n -= 1;
        } else if at_ms >= start(n + 1) {
            n += 1;
        } else {
            break;
        }
    }
    Window { start_ms: start(n), end_ms: start(n + 1) }
}

/// The hour of the local clock. An hour that happens twice is two windows, and one that the clocks
/// cut short (by half an hour, on Lord Howe Island) is a shorter window: never a longer one.
fn hour(at_ms: i64, zone: &Zone) -> Window {
    let at = timestamp(at_ms);
    let offset_ms = i64::from(zone.0.to_offset(at).seconds()) * 1000;
    let start_ms = (at_ms + offset_ms).div_euclid(HOUR_MS) * HOUR_MS - offset_ms;
    // `preceding` is strictly before its argument, and `at` itself may be the transition.
    let before = zone.0.preceding(timestamp(at_ms + 1)).next();
    let after = zone.0.following(at).next();
    let ms = |t: jiff::tz::TimeZoneTransition<'_>| t.timestamp().as_millisecond();
    Window {
        start_ms: before.map_or(start_ms, |t| start_ms.max(ms(t))),
        end_ms: after.map_or(start_ms + HOUR_MS, |t| (start_ms + HOUR_MS).min(ms(t))),
    }
}

/// Clamped, so that it always exists.
fn timestamp(at_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at_ms.clamp(FIRST_MS, LAST_MS)).unwrap_or_default()
}

/// Days since 1970-01-01.
fn days(date: Date) -> i64 {
    i64::from((date - EPOCH.date()).get_days())
}

/// Months since 1970-01.
fn months(local: DateTime) -> i64 {
    (i64::from(local.year()) - 1970) * 12 + i64::from(local.month()) - 1
}

fn midnight(days: i64) -> DateTime {
    shift(EPOCH, days, |n| Span::new().try_days(n))
}

/// The same day and time `n` months later, or the last day of that month.
fn after_months(from: DateTime, n: i64) -> DateTime {
    shift(from, n, |n| Span::new().try_months(n))
}

/// Saturates at the ends of a date's range.
fn shift(from: DateTime, n: i64, by: impl Fn(i64) -> Result<Span, jiff::Error>) -> DateTime {
    let end = if n < 0 { DateTime::MIN } else { DateTime::MAX };
    by(n).and_then(|span| from.checked_add(span)).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Term;

    const ZONES: [&str; 9] = [
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/St_Johns", // set its clocks back over midnight, at 00:01
        "America/Havana",   // sets its clocks forward at midnight
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ];
    const EVERY: [Every; 7] = [
        Every::Hour,
        Every::Day,
        Every::Week,
        Every::Month,
        Every::Year,
        Every::Cycle,
        Every::Term,
    ];

    fn at(zone: &Zone, text: &str) -> i64 {
        zone.instant(text.parse().unwrap())
    }

    fn window(every: Every, zone: &str, local: &str) -> (String, String) {
        let zone = Zone::new(zone).unwrap();
        let anchors =
            Anchors { cycle_ms: at(&zone, "2026-01-31T09:30"), in_utc: false, term: None };
        let window = every.window(at(&zone, local), &zone, &anchors);
        (zone.rfc3339(window.start_ms), zone.rfc3339(window.end_ms))
    }

    fn hours(every: Every, zone: &str, local: &str) -> f64 {
        let zone = Zone::new(zone).unwrap();
        let anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };
        let window = every.window(at(&zone, local), &zone, &anchors);
        (window.end_ms - window.start_ms) as f64 / HOUR_MS as f64
    }

    #[test]
    fn calendar_windows_turn_over_in_the_zone() {
        let zone = "America/New_York";
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            window(Every::Month, zone, "2026-03-31T23:59:59"),
            pair("2026-03-01T00:00:00-05:00", "2026-04-01T00:00:00-04:00")
        );
        assert_eq!(
            window(Every::Week, zone, "2026-11-22T12:00"), // a Sunday
            pair("2026-11-16T00:00:00-05:00", "2026-11-23T00:00:00-05:00")
        );
        assert_eq!(
            window(Every::Year, zone, "2028-02-29T12:00"),
            pair("2028-01-01T00:00:00-05:00", "2029-01-01T00:00:00-05:00")
        );
    }

    #[test]
    fn a_cycle_is_counted_from_its_anchor_and_never_chained() {
        let cycles = ["2026-02-01T00:00", "2026-03-01T00:00", "2026-04-01T00:00"];
        let starts: Vec<_> =
            cycles.iter().map(|t| window(Every::Cycle, "UTC", t).0[..10].to_owned()).collect();
        assert_eq!(starts, ["2026-01-31", "2026-02-28", "2026-03-31"]);
        let leap = window(Every::Cycle, "UTC", "2028-02-29T09:30");
        assert_eq!(leap.0, "2028-02-29T09:30:00Z");
        assert_eq!(leap.1, "2028-03-31T09:30:00Z");
    }

    #[test]
    fn a_term_is_its_months_from_its_first_day_else_the_cycle() {
        let zone = Zone::new("Europe/Berlin").unwrap();
        let term = Term { from_ms: at(&zone, "2024-02-29T00:00"), months: 12 };
        let anchors =
            Anchors { cycle_ms: at(&zone, "2026-01-31T00:00"), in_utc: false, term: Some(term) };
        let window = Every::Term.window(at(&zone, "2026-06-01T00:00"), &zone, &anchors);
        assert_eq!(zone.rfc3339(window.start_ms), "2026-02-28T00:00:00+01:00");
        assert_eq!(zone.rfc3339(window.end_ms), "2027-02-28T00:00:00+01:00");
        let anchors = Anchors { term: None, ..anchors };
        let now = at(&zone, "2026-06-01T00:00");
        assert_eq!(
            Every::Term.window(now, &zone, &anchors),
            Every::Cycle.window(now, &zone, &anchors)
        );
    }

    #[test]
    fn days_are_23_to_25_hours_where_the_clocks_change() {
        assert_eq!(hours(Every::Day, "America/New_York", "2026-03-08T12:00"), 23.0);
        assert_eq!(hours(Every::Day, "America/New_York", "2026-11-01T12:00"), 25.0);
        assert_eq!(hours(Every::Day, "Europe/Berlin", "2026-03-29T12:00"), 23.0);
        assert_eq!(hours(Every::Day, "Australia/Lord_Howe", "2026-04-05T12:00"), 24.5);
        assert_eq!(hours(Every::Day, "America/Havana", "2026-03-08T12:00"), 23.0);
    }

    #[test]
    fn a_day_the_calendar_skipped_is_no_window() {
        let (_, end) = window(Every::Day, "Pacific/Apia", "2011-12-29T12:00");
        let (start, _) = window(Every::Day, "Pacific/Apia", "2011-12-31T12:00");
        assert_eq!(end, start);
        assert_eq!(start, "2011-12-31T00:00:00+14:00");
    }

    #[test]
    fn no_hour_is_longer_than_an_hour() {
        let zone = Zone::new("America/New_York").unwrap();
        let anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };
        let first = at(&zone, "2026-11-01T01:15");
        let a = Every::Hour.window(first, &zone, &anchors);
        let b = Every::Hour.window(first + HOUR_MS, &zone, &anchors);
        assert_eq!(a.end_ms - a.start_ms, HOUR_MS);
        assert_eq!(b, Window { start_ms: a.end_ms, end_ms: a.end_ms + HOUR_MS });
        assert_eq!(hours(Every::Hour, "Australia/Lord_Howe", "2026-04-05T01:15"), 1.0);
    }

    #[test]
    fn once_never_ends() {
        let anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };
        let window = Every::Once.window(5, &Zone::utc(), &anchors);
        assert_eq!(window, Window { start_ms: i64::MIN, end_ms: i64::MAX });
    }

    #[test]
    fn a_local_day_is_a_readable_number() {
        let zone = Zone::new("Pacific/Apia").unwrap();
        assert_eq!(local_day(at(&zone, "2026-01-09T00:00"), &zone), 20_260_109);
        assert_eq!(local_day(at(&zone, "2026-01-09T00:00") - 1, &zone), 20_260_108);
    }

    #[test]
    fn windows_tile_the_ends_of_time() {
        let near = [FIRST_MS, LAST_MS, -1, 0].map(|at| [at - 400 * HOUR_MS, at - 1, at, at + 1]);
        let ends = [i64::MIN, i64::MIN + 1, i64::MAX - 1];
        let extremes = ends.into_iter().chain(near.into_iter().flatten());
        let anchors = [i64::MIN, FIRST_MS, 0, LAST_MS - 1, LAST_MS, i64::MAX];
        for (every, months) in EVERY.into_iter().flat_map(|e| [(e, 1), (e, u32::MAX)]) {
            for (anchor, zone) in anchors.into_iter().flat_map(|a| ZONES.map(|z| (a, z))) {
                let term = Some(Term { from_ms: anchor, months });
                let (anchors, zone) =
                    (Anchors { cycle_ms: anchor, in_utc: false, term }, Zone::new(zone).unwrap());
                let window = |at_ms| every.window(at_ms, &zone, &anchors);
                for at_ms in extremes.clone() {
                    let this = window(at_ms);
                    assert!(this.start_ms <= at_ms && at_ms < this.end_ms, "{at_ms} in {this:?}");
                    assert_eq!(window(this.start_ms), this, "{every:?} {zone:?} {anchor}");
                    assert_eq!(window(this.end_ms - 1), this, "{every:?} {zone:?} {anchor}");
                    if this.end_ms < i64::MAX {
                        assert_eq!(window(this.end_ms).start_ms, this.end_ms);
                    }
                    assert!(local_day(this.start_ms, &zone) <= local_day(this.end_ms - 1, &zone));
                }
                assert_eq!(window(i64::MAX).end_ms, i64::MAX);
            }
        }
    }

    /// 1900 to 2100, in milliseconds.
    fn instants() -> impl Strategy<Value = i64> {
        -2_208_988_800_000_i64..4_102_444_800_000
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn windows_contain_their_instant_and_tile_time(
            at_ms in instants(), cycle_ms in instants(), from_ms in instants(),
            months in 1_u32..40, zone in 0..ZONES.len(), every in 0..EVERY.len(),
        ) {
            let zone = Zone::new(ZONES[zone]).unwrap();
            let anchors = Anchors { cycle_ms, in_utc: false, term: Some(Term { from_ms, months }) };
            let window = |t| EVERY[every].window(t, &zone, &anchors);
            let this = window(at_ms);
            prop_assert!(this.start_ms <= at_ms && at_ms < this.end_ms);
            prop_assert_eq!(window(this.start_ms), this);
            prop_assert_eq!(window(this.end_ms - 1), this);
            prop_assert_eq!(window(this.end_ms).start_ms, this.end_ms);
            prop_assert_eq!(window(this.start_ms - 1).end_ms, this.start_ms);
        }

        #[test]
        fn windows_tile_the_days_around_every_change_of_the_clocks(
            at_ms in instants(), zone in 0..ZONES.len(),
            every in 0..3_usize, by in -7_200..7_200_i64,
        ) {
            let zone = Zone::new(ZONES[zone]).unwrap();
            let Some(change) = zone.0.following(timestamp(at_ms)).next() else { return Ok(()) };
            let at_ms = change.timestamp().as_millisecond() + by * 1000;
            let anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };
            let window = |t| EVERY[every].window(t, &zone, &anchors);
            let this = window(at_ms);
            prop_assert!(this.start_ms <= at_ms && at_ms < this.end_ms);
            prop_assert_eq!(window(this.end_ms).start_ms, this.end_ms);
            prop_assert_eq!(window(this.start_ms - 1).end_ms, this.start_ms);
        }
    }
}

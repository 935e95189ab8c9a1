//! The test clock: all of the simulator's time, in Unix seconds. It runs with the machine's clock
//! at an offset, or stands still until it is moved. Like Stripe's test clocks, it never goes back.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Seconds ahead of the machine's clock.
    offset: i64,
    /// The second at which it stands still, if it does.
    stands: Option<i64>,
}

impl Clock {
    pub(crate) fn now(&self) -> i64 {
        self.stands.unwrap_or_else(|| machine_s().saturating_add(self.offset))
    }

    /// Stands still at this second from now on. If that is earlier, returns false and changes
    /// nothing.
    pub(crate) fn stand_at(&mut self, at: i64) -> bool {
        let forward = self.stands.is_none() || at >= self.now();
        if forward {
            self.stands = Some(at);
        }
        forward
    }

    /// Moves ahead; keeps running, or standing, as before.
    pub(crate) fn advance(&mut self, seconds: u32) {
        let seconds = i64::from(seconds);
        match &mut self.stands {
            Some(at) => *at = at.saturating_add(seconds),
            None => self.offset = self.offset.saturating_add(seconds),
        }
    }

    /// Runs with the machine's clock again, from its current time.
    pub(crate) fn run(&mut self) {
        self.offset = self.now().saturating_sub(machine_s());
        self.stands = None;
    }
}

#[expect(clippy::disallowed_methods, reason = "a server of its own; its only reading of a clock")]
fn machine_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Formats a `Date` header (RFC 9110, section 5.6.7).
pub(crate) fn http_date(at: i64) -> String {
    let time = timestamp(at).to_zoned(TimeZone::UTC);
    let day = match time.weekday() {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    };
    format!("{day}, {}", time.strftime("%d %b %Y %H:%M:%S GMT"))
}

/// RFC 3339 with milliseconds, as in thin events.
pub(crate) fn rfc3339(at: i64) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// The billing period that contains `at`: `anchor + n` intervals, never chained. `None` for an
/// interval that Stripe does not have.
pub(crate) fn period(anchor: i64, interval: &str, count: i64, at: i64) -> Option<(i64, i64)> {
    let count = count.max(1);
    let days = match interval {
        "day" => 1,
        "week" => 7,
        "month" => 28,
        "year" => 365,
        _ => return None,
    };
    // Too early by construction, then forward: a few steps for each year since the anchor.
    let mut n = at.saturating_sub(anchor).div_euclid(days * count * 86_400);
    while step(anchor, interval, count, n)? > at {
        n -= 1;
    }
    while step(anchor, interval, count, n + 1)? <= at {
        n += 1;
    }
    Some((step(anchor, interval, count, n)?, step(anchor, interval, count, n + 1)?))
}

/// The calendar month in UTC that contains `at`.
pub(crate) fn month(at: i64) -> (i64, i64) {
    period(0, "month", 1, at).unwrap_or((at, at))
}

fn step(anchor: i64, interval: &str, count: i64, n: i64) -> Option<i64> {
    let n = n.checked_mul(count)?;
    let span: Span = match interval {
        "day" => 1.days().checked_mul(n).ok()?,
        "week" => 1.weeks().checked_mul(n).ok()?,
        "month" => 1.months().checked_mul(n).ok()?,
        "year" => 1.years().checked_mul(n).ok()?,
        _ => return None,
    };
    let from = timestamp(anchor).to_zoned(TimeZone::UTC);
    Some(from.checked_add(span).ok()?.timestamp().as_second())
}

fn timestamp(at: i64) -> Timestamp {
    let range = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let at = at.clamp(*range.start(), *range.end());
    Timestamp::from_second(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_count_from_the_anchor_and_never_drift() {
        // 31 January 2026, 00:00 UTC.
        let anchor = 1_769_817_600;
        let (_, march) = period(anchor, "month", 1, anchor + 40 * 86_400).unwrap();
        assert_eq!(rfc3339(march), "2026-03-31T00:00:00.000Z");
        let (february, _) = period(anchor, "month", 1, march - 1).unwrap();
        assert_eq!(rfc3339(february), "2026-02-28T00:00:00.000Z");
    }

    #[test]
    fn a_period_holds_its_first_second_and_not_its_last() {
        for interval in ["day", "week", "month", "year"] {
            let (from, until) = period(1_769_817_600, interval, 1, 1_800_000_000).unwrap();
            assert!((from..until).contains(&1_800_000_000), "{interval}");
            assert_eq!(period(1_769_817_600, interval, 1, from), Some((from, until)));
            assert_eq!(period(1_769_817_600, interval, 1, until).unwrap().0, until);
        }
        assert_eq!(period(0, "fortnight", 1, 0), None);
    }

    #[test]
    fn dates_have_the_form_of_http() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn it_stands_runs_and_never_goes_back() {
        let mut clock = Clock::default();
        assert!(clock.stand_at(1_000));
        assert!(!clock.stand_at(999));
        clock.advance(5);
        assert_eq!(clock.now(), 1_005);
        clock.run();
        assert!((1_005..1_015).contains(&clock.now()));
    }
}

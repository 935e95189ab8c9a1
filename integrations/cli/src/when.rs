//! Instants and durations as an operator writes them.
//!
//! An instant is RFC 3339 (`2026-12-31T23:59:59Z`), a date (its midnight in UTC), or a duration
//! from now (`30d`). A duration is a whole number and `s`, `min`, `h` or `d`, as in the two files.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tallygate::{Clock as _, SystemClock};

/// An instant of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long from now.
    In(Duration),
    /// This instant.
    At(Timestamp),
}

impl When {
    /// The instant, for a command that runs at `now`; `None` where the calendar has none so late.
    pub(crate) fn from(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::In(time) => now.checked_add(time),
            Self::At(at) => Some(SystemTime::from(at)),
        }
    }
}

/// The system's clock.
pub(crate) fn now() -> SystemTime {
    SystemClock::new().now().wall()
}

/// Reads an instant.
pub(crate) fn instant(text: &str) -> Result<When, String> {
    if let Ok(time) = duration(text) {
        return Ok(When::In(time));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(When::At(at));
    }
    let midnight = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    midnight.map(|zoned| When::At(zoned.timestamp())).ok_or_else(|| {
        let help =
            "write an instant (2026-12-31T23:59:59Z), a date (2026-12-31) or a time from now";
        format!("{help} (30d); the latest date is 9999-12-30")
    })
}

/// Reads a date.
pub(crate) fn day(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| "write a date: 2026-12-31".to_owned())
}

/// Reads a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let help = || "write a number and one of `s`, `min`, `h`, `d`: 30d".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| help())?;
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(help()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(help)
}

/// An instant as a person reads it: RFC 3339 in UTC, to the second.
pub(crate) fn written(at: SystemTime) -> String {
    let Ok(at) = Timestamp::try_from(at) else { return "beyond the calendar".to_owned() };
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// An instant for a program, as exact as it is.
pub(crate) fn exact(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| written(at), |at| at.to_string())
}

/// An instant that a service has written, for comparisons.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An instant that a service has written, to the second; another text as it is.
pub(crate) fn to_second(text: &str) -> String {
    moment(text).map_or_else(|| text.to_owned(), |at| written(at.into()))
}

/// An instant that may not be there.
pub(crate) fn written_or(at: Option<SystemTime>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), written)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn instants_are_read_in_three_forms() {
        let at = |text: &str| instant(text).map(|it| it.from(UNIX_EPOCH)).map(|it| it.unwrap());
        let day = Duration::from_secs(86_400);
        assert_eq!(at("1970-01-02"), Ok(UNIX_EPOCH + day));
        assert_eq!(at("1970-01-02T00:00:00Z"), Ok(UNIX_EPOCH + day));
        assert_eq!(at("1970-01-02T01:00:00+01:00"), Ok(UNIX_EPOCH + day));
        assert_eq!(at("24h"), Ok(UNIX_EPOCH + day));
        for wrong in ["", "soon", "30", "d", "1.5h", "-1d", "99999999999999999999d", "1970-13-01"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn instants_are_written_to_the_second() {
        assert_eq!(written(UNIX_EPOCH + Duration::from_millis(1_500)), "1970-01-01T00:00:01Z");
        assert_eq!(written_or(None, "-"), "-");
        assert_eq!(to_second("1970-01-01T00:00:01.5Z"), "1970-01-01T00:00:01Z");
        assert_eq!(exact(UNIX_EPOCH + Duration::from_millis(1_500)), "1970-01-01T00:00:01.5Z");
    }
}

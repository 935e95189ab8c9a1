//! What clients write into paths and queries: percent-encoding, instants.

use std::time::SystemTime;

use crate::clock::time_at;

/// Decodes percent-encoding (WHATWG URL, sections 1.3 and 5.1), strictly: malformed input is
/// `None`. `plus` is what `+` stands for: itself in a path, a space in a query.
pub(crate) fn percent_decoded(text: &str, plus: char) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => u8::try_from(plus).ok()?,
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(out).ok()
}

/// Why a text is no instant here, and what to write instead: a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnInstant {
    /// It cannot be read.
    #[error("An instant is written as 2026-11-01T00:00:00Z, or as a date (2026-11-01).")]
    Unreadable,
    /// The calendar keeps a day of room for offsets, before the end of the year 9999.
    #[error("The latest instant is that of the date 9999-12-30. Leave it out where there is none.")]
    TooLate,
}

/// The instant of an RFC 3339 text, or of a date: its midnight in UTC.
pub(crate) fn instant_of(text: &str) -> Result<SystemTime, NotAnInstant> {
    let moment = text.parse::<jiff::Timestamp>().or_else(|error| {
        let date: jiff::civil::Date = text.parse().map_err(|_| error)?;
        date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    let moment = moment.map_err(|_| match is_beyond(text) {
        true => NotAnInstant::TooLate,
        false => NotAnInstant::Unreadable,
    })?;
    Ok(time_at(moment.as_millisecond()))
}

/// Whether a text begins as a date that is too late for an instant.
fn is_beyond(text: &str) -> bool {
    let year = text.split('-').next().unwrap_or_default();
    let is_long = year.len() > 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let date = text.get(..10).and_then(|date| date.parse::<jiff::civil::Date>().ok());
    is_long || date.is_some_and(|date| date >= jiff::civil::date(9999, 12, 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_later_than_the_calendar_is_said_to_be() {
        let [day, hour] = [86_400_000, 3_600_000].map(|ms| time_at(253_402_128_000_000 - ms));
        assert_eq!(
            (instant_of("9999-12-29"), instant_of("9999-12-29T23:00:00Z")),
            (Ok(day), Ok(hour))
        );
        assert!(instant_of("9999-12-30").is_ok());
        for late in ["9999-12-31", "9999-12-31T23:59:59Z", "9999-12-30T23:59:59Z", "12026-01-01"] {
            assert_eq!(instant_of(late), Err(NotAnInstant::TooLate), "{late}");
        }
        for other in ["", "soon", "2026-13-01", "2026", "9999", "é9999-12-31"] {
            assert_eq!(instant_of(other), Err(NotAnInstant::Unreadable), "{other}");
        }
    }
}

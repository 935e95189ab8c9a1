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

/// The instant of an RFC 3339 text, or of a date: its midnight in UTC.
pub(crate) fn instant_of(text: &str) -> Option<SystemTime> {
    let moment = text.parse::<jiff::Timestamp>().or_else(|error| {
        let date: jiff::civil::Date = text.parse().map_err(|_| error)?;
        date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    moment.ok().map(|moment| time_at(moment.as_millisecond()))
}

//! A throttle of API Gateway: a rate, or nothing that a rate can say.

use serde_json::Number;

use super::json::Object;
use super::rate::{self, RateText};

/// What a throttle is here.
pub(super) enum Throttle {
    Rate {
        text: String,
        /// What of it is less than its source.
        notes: Vec<String>,
    },
    /// Nothing passes by it here, and why.
    Nothing(String),
}

/// Reads a throttle.
pub(super) fn read(throttle: Object<'_>) -> Result<Throttle, String> {
    let (shown, burst) = (throttle.number("rateLimit")?, throttle.whole("burstLimit")?);
    let (number, of) = fraction(shown);
    if number == 0 || burst == 0 {
        return Ok(Throttle::Nothing("its throttle admits nothing".to_owned()));
    }
    let source = format!("its throttle of {shown}/s");
    Ok(match rate::text(number, of, burst) {
        Some(RateText { text, notes }) => {
            let notes = notes.iter().map(|note| format!("{source}: {note}")).collect();
            Throttle::Rate { text, notes }
        }
        None => Throttle::Nothing(format!("{source} {}", rate::TOO_SLOW)),
    })
}

/// A number of at least 0 as a fraction: the decimal that stands in the file, which may be less
/// than the nearest in binary. Beyond what any rate can be it is the nearest of those.
fn fraction(number: &Number) -> (u128, u128) {
    const MOST: f64 = 1e12;
    const LEAST: f64 = 1e-9;
    if let Some(whole) = number.as_u64() {
        return (whole.into(), 1);
    }
    let binary = number.as_f64().unwrap_or(MOST).min(MOST);
    if binary < LEAST {
        return (u128::from(binary > 0.0), 1_000_000_000);
    }
    let shown = format!("{binary:e}");
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number = format!("{whole}{part}").parse().unwrap_or(0);
    let exponent = exponent.parse::<i32>().unwrap_or(0);
    // Seventeen digits and an exponent from -9 to 12: no power is beyond 10^26.
    match exponent - i32::try_from(part.len()).unwrap_or(0) {
        more @ 0.. => (number * 10_u128.pow(more.unsigned_abs()), 1),
        less => (number, 10_u128.pow(less.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_as_it_is_written() {
        for (text, wanted) in [
            ("50", (50, 1)),
            ("50.0", (50, 1)),
            ("0.1", (1, 10)),
            ("0.142857", (142_857, 1_000_000)),
            ("12.5", (125, 10)),
            ("0", (0, 1)),
            ("-0.0", (0, 1_000_000_000)),
            ("1e-300", (1, 1_000_000_000)),
            ("1e-9", (1, 1_000_000_000)),
            ("1e300", (1_000_000_000_000, 1)),
            ("250e9", (250_000_000_000, 1)),
        ] {
            let number: Number = serde_json::from_str(text).unwrap();
            assert_eq!(fraction(&number), wanted, "{text}");
        }
    }
}

//! Amounts and instants as JSON and header text.
//!
//! Law: a JSON number is never silently rounded. An amount is written in whole units, rounded down;
//! if a reader with IEEE doubles could not recover the exact amount from that (a fraction, or more
//! than 2^53), a second member `..text` beside it has the exact value.

use std::fmt;

use serde::ser::SerializeMap;

/// Largest whole number that every JSON reader represents exactly (RFC 8259, section 6).
pub(crate) const EXACT: u64 = 1 << 53;

/// An amount in atoms, with the number of atoms per unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Amount {
    atoms: u64,
    scale: u64,
}

impl Amount {
    /// An amount of atoms of a meter with this scale (0 is taken as 1).
    pub fn new(atoms: u64, scale: u64) -> Self {
        Self { atoms, scale: scale.max(1) }
    }

    /// Whole units of a meter without fractions.
    pub fn units(units: u64) -> Self {
        Self::new(units, 1)
    }

    /// Whole units, rounded down.
    pub fn whole(self) -> u64 {
        self.atoms / self.scale
    }

    /// Whether [`Amount::whole`], read as an IEEE double, is the exact amount.
    pub fn is_plain(self) -> bool {
        self.atoms.is_multiple_of(self.scale) && self.whole() <= EXACT
    }

    /// Writes `name` with the whole units and, if those are not exact, `text_name` with the exact
    /// amount.
    pub(crate) fn entry<M: SerializeMap>(
        self,
        map: &mut M,
        name: &'static str,
        text_name: &'static str,
    ) -> Result<(), M::Error> {
        map.serialize_entry(name, &self.whole())?;
        if !self.is_plain() {
            map.serialize_entry(text_name, &self.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for Amount {
    /// Exact: `12`, `12.345`, or a reduced fraction `37/3` where no decimal ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.atoms % self.scale;
        if rest == 0 {
            return write!(f, "{}", self.whole());
        }
        match places(self.scale) {
            Some((digits, factor)) => {
                let text = format!("{:0digits$}", u128::from(rest) * factor);
                write!(f, "{}.{}", self.whole(), text.trim_end_matches('0'))
            }
            None => {
                let common = gcd(self.atoms, self.scale);
                write!(f, "{}/{}", self.atoms / common, self.scale / common)
            }
        }
    }
}

/// For a scale that divides a power of ten: the number of decimal places of one atom, and the value
/// of an atom in the last of them. A 64-bit power of two needs at most 63 places; `u128` holds
/// those of scales up to 2^38. Beyond that the fraction is written.
fn places(scale: u64) -> Option<(usize, u128)> {
    let mut power: u128 = 1;
    for digits in 0..=38 {
        if power.is_multiple_of(u128::from(scale)) {
            let factor = power / u128::from(scale);
            // rest < scale, so rest * factor < power: it fits.
            return Some((digits, factor));
        }
        power = power.checked_mul(10)?;
    }
    None
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// An instant in UTC as RFC 3339 text: `2026-11-21T10:23:56Z`, with a fraction only if there is
/// one. Years outside RFC 3339's range are clamped.
pub(crate) fn rfc3339(unix_ms: i64) -> String {
    let clamped = unix_ms.clamp(YEAR_0_MS, YEAR_9999_MS);
    jiff::Timestamp::from_millisecond(clamped)
        .expect("the clamp lies within the range of the calendar")
        .to_string()
}

/// 0000-01-01T00:00:00Z.
const YEAR_0_MS: i64 = -62_167_219_200_000;
/// 9999-12-30T00:00:00Z: the calendar library keeps a day of room for offsets.
const YEAR_9999_MS: i64 = 253_402_128_000_000;

/// Standard base64 with padding (RFC 4648, section 4), for short values.
pub(crate) fn base64(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = (word >> (18 - 6 * i)) & 63;
            let symbol = if i <= chunk.len() { ALPHABET[digit as usize] } else { b'=' };
            out.write_char(char::from(symbol))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_the_exact_amount() {
        assert_eq!(Amount::new(12, 1).to_string(), "12");
        assert_eq!(Amount::new(12_345, 1000).to_string(), "12.345");
        assert_eq!(Amount::new(12_300, 1000).to_string(), "12.3");
        assert_eq!(Amount::new(12_000, 1000).to_string(), "12");
        assert_eq!(Amount::new(5, 1000).to_string(), "0.005");
        assert_eq!(Amount::new(37, 3).to_string(), "37/3");
        assert_eq!(Amount::new(38, 6).to_string(), "19/3");
        assert_eq!(Amount::new(1, 8).to_string(), "0.125");
        assert_eq!(Amount::new(7, 0).to_string(), "7");
    }

    #[test]
    fn says_when_a_double_is_not_enough() {
        assert!(Amount::units(EXACT).is_plain());
        assert!(!Amount::units(EXACT + 1).is_plain());
        assert!(!Amount::new(1, 2).is_plain());
    }

    #[test]
    fn writes_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_256_636_000), "2026-11-21T10:23:56Z");
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-30T00:00:00Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn writes_base64() {
        let of = |bytes: &[u8]| {
            let mut out = String::new();
            base64(bytes, &mut out).unwrap();
            out
        };
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(of(plain.as_bytes()), coded);
        }
    }

    proptest! {
        #[test]
        fn a_decimal_reads_back(atoms: u64, exponent in 0u32..19) {
            let scale = 10_u64.pow(exponent);
            let text = Amount::new(atoms, scale).to_string();
            let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
            let digits = format!("{whole}{part:0<width$}", width = exponent as usize);
            prop_assert_eq!(digits.parse::<u128>().unwrap(), u128::from(atoms));
        }
    }
}

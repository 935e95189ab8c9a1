//! Amounts of a meter, and their form in JSON and text.
//!
//! Law: a JSON number is never silently rounded. An amount is written in whole units, rounded down;
//! if a reader with IEEE doubles could not recover the exact amount from that (a fraction, or more
//! than 2^53), a second member `..text` beside it has the exact value.

use std::cmp::Ordering;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

/// Largest whole number that every JSON reader represents exactly (RFC 8259, section 6).
pub(crate) const EXACT: u64 = 1 << 53;

/// A number of atoms, as opposed to whole units, a billing service's units, or any other number. At
/// which scale is known where it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Atoms(pub(crate) u64);

impl Atoms {
    pub(crate) const NONE: Self = Self(0);

    /// So many parts of `each` atoms; `None` if they are too many.
    pub(crate) fn of(parts: u64, each: u64) -> Option<Self> {
        parts.checked_mul(each).map(Self)
    }

    /// How many whole parts of `each` atoms it has: at least one atom each.
    pub(crate) fn parts(self, each: u64) -> u64 {
        self.0 / each.max(1)
    }

    #[must_use]
    pub(crate) fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    #[must_use]
    pub(crate) fn saturating_sub(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }
}

/// An amount of what a meter counts: whole units, and the part of one where the meter divides its
/// unit. Prints exactly (`12`, `12.345`); compares with whole units and other amounts of any meter.
///
/// ```
/// use tallygate::Amount;
///
/// let five = Amount::units(5);
/// assert_eq!(five, 5);
/// assert!(five < Amount::units(6) && five > 4);
/// assert_eq!((five.whole(), five.to_string()), (5, "5".to_owned()));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    atoms: u64,
    scale: u64,
}

impl Amount {
    /// Atoms of a meter with this scale (0 is taken as 1).
    pub(crate) fn new(atoms: u64, scale: u64) -> Self {
        Self { atoms, scale: scale.max(1) }
    }

    /// Whole units.
    pub fn units(units: u64) -> Self {
        Self::new(units, 1)
    }

    /// Whole units, rounded down: what is left is never overstated.
    pub fn whole(self) -> u64 {
        whole(self.atoms, self.scale)
    }

    /// Whether it is nothing at all.
    pub fn is_zero(self) -> bool {
        self.atoms == 0
    }

    pub(crate) fn atoms(self) -> u64 {
        self.atoms
    }

    pub(crate) fn scale(self) -> u64 {
        self.scale
    }

    /// The same amount less another one of the same meter; nothing, if that is more.
    #[must_use]
    pub(crate) fn less(self, other: Self) -> Self {
        Self { atoms: self.atoms.saturating_sub(other.atoms), ..self }
    }

    /// Whether [`Amount::whole`], read as an IEEE double, is the exact amount.
    pub(crate) fn is_plain(self) -> bool {
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

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        let scaled = |it: &Self, by: &Self| u128::from(it.atoms) * u128::from(by.scale);
        scaled(self, other).cmp(&scaled(other, self))
    }
}

/// With whole units.
impl PartialEq<u64> for Amount {
    fn eq(&self, units: &u64) -> bool {
        *self == Self::units(*units)
    }
}

/// With whole units.
impl PartialOrd<u64> for Amount {
    fn partial_cmp(&self, units: &u64) -> Option<Ordering> {
        self.partial_cmp(&Self::units(*units))
    }
}

/// Whole units, rounded down, so that the remainder is never overstated.
#[inline]
pub(crate) fn whole(atoms: u64, scale: u64) -> u64 {
    // Nearly every meter has no scale, and a division would cost more than the rest of this code.
    if scale <= 1 { atoms } else { atoms / scale }
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

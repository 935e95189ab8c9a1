//! Exact numbers and their units: rationals, until a meter's scale makes them whole. No floats.

/// Units of bytes: decimal, and binary with an `i`.
pub(super) const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Multipliers of everything except bytes.
pub(super) const MULTIPLIERS: [(&str, u64); 2] = [("k", 1_000), ("M", 1_000_000)];

/// Unit names in full, without the plural `s`.
const IN_FULL: [(&str, &str); 11] = [
    ("thousand", "k"),
    ("million", "M"),
    ("byte", "B"),
    ("kilobyte", "KB"),
    ("megabyte", "MB"),
    ("gigabyte", "GB"),
    ("terabyte", "TB"),
    ("kibibyte", "KiB"),
    ("mebibyte", "MiB"),
    ("gibibyte", "GiB"),
    ("tebibyte", "TiB"),
];

/// The unit meant by a word that is not a unit, or that is separated from its number.
pub(super) fn unit_meant(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let one = lower.strip_suffix('s').unwrap_or(&lower);
    let in_full = IN_FULL.iter().find(|(name, _)| *name == one).map(|(_, unit)| *unit);
    let known = || MULTIPLIERS.iter().chain(&BYTE_UNITS).find(|(unit, _)| *unit == word);
    in_full.or_else(|| known().map(|(unit, _)| *unit))
}

/// An exact, non-negative rational number in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    pub(super) num: u128,
    pub(super) den: u128,
}

impl Exact {
    /// `None` for a denominator of 0.
    pub(super) fn new(num: u128, den: u128) -> Option<Self> {
        let by = gcd(num, den);
        (den > 0).then(|| Self { num: num / by, den: den / by })
    }

    pub(super) fn whole(n: u64) -> Self {
        Self { num: u128::from(n), den: 1 }
    }

    /// `None` on overflow.
    pub(super) fn times(self, n: u128) -> Option<Self> {
        Self::new(self.num.checked_mul(n)?, self.den)
    }

    /// `None` on overflow or a divisor of 0.
    pub(super) fn over(self, n: u128) -> Option<Self> {
        Self::new(self.num, self.den.checked_mul(n)?)
    }

    /// The value as a whole number, if it is one and fits.
    pub(super) fn to_u64(self) -> Option<u64> {
        (self.den == 1).then(|| u64::try_from(self.num).ok()).flatten()
    }
}

/// Least common multiple; `None` on overflow. Both above 0.
pub(super) fn lcm(a: u128, b: u128) -> Option<u128> {
    (a / gcd(a, b)).checked_mul(b)
}

/// Greatest common divisor; `gcd(0, b) = b`, at least 1.
pub(crate) fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// The factor of a unit, and whether it is a unit of bytes.
pub(super) fn unit_of(unit: &str) -> Option<(u64, bool)> {
    let find = |units: &[(&str, u64)]| units.iter().find(|(u, _)| *u == unit).map(|(_, by)| *by);
    match unit {
        "" => Some((1, false)),
        _ => find(&MULTIPLIERS)
            .map(|by| (by, false))
            .or_else(|| find(&BYTE_UNITS).map(|by| (by, true))),
    }
}

/// Parses digits with at most one point among them.
pub(super) fn exact(number: &str) -> Option<Exact> {
    const MOST_DIGITS: usize = 18;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || whole.len() + part.len() > MOST_DIGITS + 1 {
        return None;
    }
    let den = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let num = whole.parse::<u128>().ok()?.checked_mul(den)?.checked_add(part.parse().ok()?)?;
    Exact::new(num, den)
}

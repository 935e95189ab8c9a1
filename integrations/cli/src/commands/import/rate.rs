//! A rate of another limiter in the words of a plan file.
//!
//! # Laws
//!
//! 1. What is written admits no more than its source: neither its rate nor its burst is greater.
//! 2. Each difference is a note.
//! 3. The library reads what is written.

use super::plan_file::legal;

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;
/// Why a rate cannot be written.
pub(super) const TOO_SLOW: &str =
    "is slower than one request an hour, the slowest rate of a plan file";

/// A rate with its burst.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RateText {
    pub(super) text: String,
    /// What of it is less than its source.
    pub(super) notes: Vec<String>,
}

/// A rate without its burst: so many requests in so many seconds.
struct Words {
    amount: u128,
    seconds: u128,
}

impl Words {
    fn text(&self) -> String {
        let unit = match self.seconds {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        format!("{}/{unit}", self.amount)
    }

    fn is_legal(&self) -> bool {
        legal(&format!("default-plan = \"x\"\n[plan.x]\nrate.all = \"{} burst 1\"\n", self.text()))
            .is_ok()
    }

    /// The same in the shortest unit in which it is whole.
    fn shortest(per_hour: u128) -> Self {
        let of = |parts: u128| (per_hour.is_multiple_of(parts)).then(|| (per_hour / parts, parts));
        let (amount, parts) = of(3_600).or_else(|| of(60)).unwrap_or((per_hour, 1));
        Self { amount, seconds: 3_600 / parts }
    }

    /// The most that a bucket of this rate holds, as the library counts: so many units, and their
    /// nanoseconds in 64 bits.
    fn most_burst(&self) -> u64 {
        let interval = (self.seconds * SECOND / self.amount.max(1)).max(1);
        let most = u128::from(u64::MAX) / interval;
        u64::try_from(most).unwrap_or(u64::MAX).min(u32::MAX.into())
    }
}

/// The rate of `number / of` requests a second, of which each is below 10^29, with a burst above
/// 0. `None`: it is [`TOO_SLOW`].
pub(super) fn text(number: u128, of: u128, burst: u64) -> Option<RateText> {
    let (number, of) = (number.max(1), of.max(1));
    let per_hour = number * 3_600 / of;
    if per_hour == 0 {
        return None;
    }
    let (floor, is_exact) = (Words::shortest(per_hour), (number * 3_600).is_multiple_of(of));
    let nanoseconds = (of * SECOND).div_ceil(number);
    let mut notes = Vec::new();
    let words = match floor.is_legal() {
        true => floor,
        // It is so fast that the library would round it to whole nanoseconds by too much.
        false => Words::shortest(3_600 * SECOND / nanoseconds),
    };
    let shown = words.text();
    if words.amount * 3_600 / words.seconds < per_hour {
        notes.push(format!("{shown} is slower: whole nanoseconds are between two requests here"));
    } else if !is_exact {
        notes.push(format!("{shown} is slower by less than one request an hour"));
    }
    let most = words.most_burst().min(burst);
    if most < burst {
        let why = "a bucket of this rate holds no more";
        notes.push(format!("burst {most} is less than the burst of {burst}: {why}"));
    }
    Some(RateText { text: format!("{shown} burst {most}"), notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_in_some_unit_or_the_next_slower() {
        for (number, of, wanted, is_exact) in [
            (50, 1, "50/s burst 9", true),
            (1, 2, "30/min burst 9", true),
            (1, 60, "1/min burst 9", true),
            (1, 3_600, "1/h burst 9", true),
            (5, 2, "150/min burst 9", true),
            (1, 7, "514/h burst 9", false),
            (1, 2_000, "1/h burst 9", false),
            (SECOND, 500_000_000, "2/s burst 9", true),
            (SECOND, 3, "20000000000/min burst 9", true),
            (u128::from(u64::MAX), 1, "1000000000/s burst 9", false),
        ] {
            let text = text(number, of, 9).unwrap();
            let shown = (text.text.as_str(), text.notes.is_empty());
            assert_eq!(shown, (wanted, is_exact), "{number}/{of}: {:?}", text.notes);
        }
    }

    #[test]
    fn slower_than_one_an_hour_is_no_rate() {
        for (number, of) in [(1, 3_601), (1, 100_000), (0, 10_u128.pow(28))] {
            assert_eq!(text(number, of, 1), None, "{number}/{of}");
        }
    }
}

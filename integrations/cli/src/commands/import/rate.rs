//! A rate of another limiter in the words of a plan file.

/// A rate, and whether it is what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RateText {
    pub(super) text: String,
    /// If not it is the next slower one.
    pub(super) is_exact: bool,
}

/// The rate of `number / of` requests a second, in the shortest unit in which it is whole.
pub(super) fn text(number: u128, of: u128) -> RateText {
    let of = of.max(1);
    let units = [("s", 1), ("min", 60), ("h", 3_600)];
    let whole = units.iter().find(|(_, seconds)| {
        number.saturating_mul(*seconds) >= of && number.saturating_mul(*seconds) % of == 0
    });
    match whole {
        Some((unit, seconds)) => {
            let amount = number.saturating_mul(*seconds) / of;
            RateText { text: format!("{amount}/{unit}"), is_exact: true }
        }
        None => {
            let amount = (number.saturating_mul(3_600) / of).max(1);
            RateText { text: format!("{amount}/h"), is_exact: false }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_in_some_unit_or_the_next_slower() {
        for (number, of, wanted, is_exact) in [
            (50, 1, "50/s", true),
            (1, 2, "30/min", true),
            (1, 60, "1/min", true),
            (1, 3_600, "1/h", true),
            (5, 2, "150/min", true),
            (1, 7, "514/h", false),
            (1, 100_000, "1/h", false),
            (1_000_000_000, 500_000_000, "2/s", true),
        ] {
            let text = text(number, of);
            assert_eq!((text.text.as_str(), text.is_exact), (wanted, is_exact), "{number}/{of}");
        }
    }
}

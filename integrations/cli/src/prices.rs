//! Prices of the command line, and exact money. The plan file has no prices: they are Stripe's.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;

use tallygate::Amount;

use crate::args::Sold;
use crate::failure::Failure;

/// Parts of a currency's unit: prices of single tokens are a few millionths.
const PARTS: u128 = 1_000_000_000;

/// The decimal places of these.
const PLACES: usize = 9;

/// Digits of a price before its point: with any amount of a meter it stays within 128 bits.
const MOST_DIGITS: usize = 7;

/// What a price may be for: so many units.
const LOTS: [(&str, u64); 10] = [
    ("k", 1_000),
    ("M", 1_000_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// An amount of money, in 10^-9 of a currency's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(u128);

impl Money {
    /// Reads an amount: `49`, `0.002`.
    fn read(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
        let fits = whole.len() <= MOST_DIGITS && part.len() <= PLACES;
        if !is_number(whole) || !is_number(part) || !fits {
            return None;
        }
        Some(Self(format!("{whole}{part:0<PLACES$}").parse().ok()?))
    }

    fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(n)))
    }

    /// So much for each `lot` of these units, rounded down.
    fn of_units(self, units: Amount, lot: u64) -> Self {
        let text = units.to_string();
        let (parts, of) = match (text.split_once('/'), text.split_once('.')) {
            (Some((parts, of)), _) => (parts.parse::<u128>(), of.parse::<u128>()),
            (_, Some((whole, part))) => {
                let power = u32::try_from(part.len()).ok().and_then(|it| 10_u128.checked_pow(it));
                (format!("{whole}{part}").parse(), Ok(power.unwrap_or(u128::MAX)))
            }
            _ => (text.parse(), Ok(1)),
        };
        let (parts, of) = (parts.unwrap_or(0), of.unwrap_or(u128::MAX));
        let divisor = of.saturating_mul(u128::from(lot)).max(1);
        Self(self.0.saturating_mul(parts) / divisor)
    }

    /// How far it is from another amount.
    pub(crate) fn apart(self, other: Self) -> u128 {
        self.0.abs_diff(other.0)
    }

    /// Its size beside others, for a plot.
    pub(crate) fn size(self) -> f64 {
        self.0 as f64 / PARTS as f64
    }

    /// Whole, or to the last place that is not 0: for programs.
    pub(crate) fn exact(self) -> String {
        let text = format!("{}.{:0PLACES$}", self.0 / PARTS, self.0 % PARTS);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    /// How it differs from a former amount: `+1.20`, `−0.50`, `0.00`.
    pub(crate) fn beside(self, former: Self) -> String {
        let apart = Self(self.0.abs_diff(former.0)).to_string();
        match self.cmp(&former) {
            std::cmp::Ordering::Less => format!("−{apart}"),
            std::cmp::Ordering::Equal => apart,
            std::cmp::Ordering::Greater => format!("+{apart}"),
        }
    }
}

/// To the hundredth; less than half of one is `<0.01`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0.saturating_add(PARTS / 200) / (PARTS / 100);
        match (hundredths, self.0) {
            (0, 1..) => f.write_str("<0.01"),
            _ => write!(f, "{}.{:02}", grouped(&(hundredths / 100).to_string()), hundredths % 100),
        }
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self(0), |sum, it| Self(sum.0.saturating_add(it.0)))
    }
}

/// A number as a person reads it: `1,234,567.5`.
pub(crate) fn grouped(number: &str) -> String {
    let whole = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let mut out = String::with_capacity(number.len() * 4 / 3);
    for (n, c) in number.chars().enumerate() {
        if n > 0 && n < whole && (whole - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// The price of a meter's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfMeter {
    name: String,
    amount: Money,
    /// For so many units.
    lot: u64,
}

/// The price of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfPlan {
    name: String,
    amount: Money,
}

/// Reads `METER=AMOUNT` or `METER=AMOUNT/LOT`.
pub(crate) fn of_meter(text: &str) -> Result<OfMeter, String> {
    let read = || {
        let (name, price) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        let (amount, lot) = match price.split_once('/') {
            Some((amount, lot)) => (amount, LOTS.iter().find(|(word, _)| *word == lot)?.1),
            None => (price, 1),
        };
        Some(OfMeter { name: name.to_owned(), amount: Money::read(amount)?, lot })
    };
    read().ok_or_else(|| {
        "write a meter and the price of a unit (pages=0.002), or of so many (egress=0.09/GB, \
         tokens=3/M); up to 7 digits before the point and 9 after it"
            .to_owned()
    })
}

/// Reads `PLAN=AMOUNT`.
pub(crate) fn of_plan(text: &str) -> Result<OfPlan, String> {
    let read = || {
        let (name, amount) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some(OfPlan { name: name.to_owned(), amount: Money::read(amount)? })
    };
    read().ok_or_else(|| {
        "write a plan and the price of its billing period: pro=49; up to 7 digits before the \
         point and 9 after it"
            .to_owned()
    })
}

/// Reads the code of a currency (ISO 4217).
pub(crate) fn currency(text: &str) -> Result<String, String> {
    match text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err("write the three letters of a currency: EUR".to_owned()),
    }
}

/// The prices under a plan file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prices {
    meters: BTreeMap<String, (Money, u64)>,
    plans: BTreeMap<String, Money>,
}

impl Prices {
    /// The prices under the file in force, and under the other one; none, if none is named.
    pub(crate) fn of(sold: &Sold) -> Result<Option<[Self; 2]>, Failure> {
        let mut now = Self::default();
        now.take(&sold.price, &sold.plan_price)?;
        let mut changed = Self::default();
        changed.take(&sold.new_price, &sold.new_plan_price)?;
        let mut new = now.clone();
        new.meters.extend(changed.meters);
        new.plans.extend(changed.plans);
        let is_any = !new.meters.is_empty() || !new.plans.is_empty();
        Ok(is_any.then_some([now, new]))
    }

    fn take(&mut self, meters: &[OfMeter], plans: &[OfPlan]) -> Result<(), Failure> {
        let twice = |name: &str| Failure::usage(format!("{name:?} has two prices: write one"));
        for it in meters {
            if self.meters.insert(it.name.clone(), (it.amount, it.lot)).is_some() {
                return Err(twice(&it.name));
            }
        }
        for it in plans {
            if self.plans.insert(it.name.clone(), it.amount).is_some() {
                return Err(twice(&it.name));
            }
        }
        Ok(())
    }

    /// That each price is of a meter or a plan that is there.
    pub(crate) fn check(&self, meters: &[String], plans: &[String]) -> Result<(), Failure> {
        let kinds: [(&str, Vec<&String>, &[String]); 2] = [
            ("meter", self.meters.keys().collect(), meters),
            ("plan", self.plans.keys().collect(), plans),
        ];
        for (kind, priced, known) in kinds {
            if let Some(name) = priced.into_iter().find(|name| !known.contains(name)) {
                return Err(Failure::usage(format!(
                    "a price is of the {kind} {name:?}, which is not in the plan file\nhelp: it \
                     has {}",
                    known.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// What a tenant pays: for billed units by meter, and for billing periods by plan.
    pub(crate) fn revenue(
        &self,
        billed: &BTreeMap<String, Amount>,
        periods: &BTreeMap<String, u64>,
    ) -> Money {
        let units = billed.iter().filter_map(|(meter, units)| {
            let (amount, lot) = self.meters.get(meter)?;
            Some(amount.of_units(*units, *lot))
        });
        let plans = periods.iter().filter_map(|(plan, n)| Some(self.plans.get(plan)?.times(*n)));
        units.chain(plans).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_read_exactly_or_not_at_all() {
        let price = |text: &str| of_meter(text).map(|it| (it.name, it.amount.exact(), it.lot));
        assert_eq!(price("pages=0.002"), Ok(("pages".into(), "0.002".into(), 1)));
        assert_eq!(price("a=0.000000001/GiB"), Ok(("a".into(), "0.000000001".into(), 1 << 30)));
        assert_eq!(price("a=9999999"), Ok(("a".into(), "9999999".into(), 1)));
        for wrong in [
            "",
            "=1",
            "a",
            "a=",
            "a=-1",
            "a=1.",
            "a=.5",
            "a=1e3",
            "a=1/G",
            "a=1/",
            "a=10000000",
            "a=0.0000000001",
            "a=1,5",
            "a=0x1",
        ] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
        assert!(of_plan("pro=49/GB").is_err() && of_plan("=1").is_err());
        assert_eq!(of_plan("pro=49.90").unwrap().amount.to_string(), "49.90");
        assert_eq!(currency("eur"), Ok("EUR".to_owned()));
        assert!(currency("€").is_err() && currency("EURO").is_err());
    }

    #[test]
    fn revenue_is_units_by_lot_and_periods_by_plan() {
        let mut prices = Prices::default();
        let meters = ["egress=0.09/GB", "pages=0.002"].map(|it| of_meter(it).unwrap());
        prices.take(&meters, &[of_plan("pro=49").unwrap()]).unwrap();
        let billed = BTreeMap::from([
            ("egress".to_owned(), Amount::units(1_500_000_000)),
            ("pages".to_owned(), Amount::units(7)),
            ("free-of-charge".to_owned(), Amount::units(1_000)),
        ]);
        let periods = BTreeMap::from([("pro".to_owned(), 2), ("free".to_owned(), 5)]);
        assert_eq!(prices.revenue(&billed, &periods).exact(), "98.149");
        assert!(prices.take(&meters, &[]).is_err(), "a second price");
    }

    #[test]
    fn money_is_written_to_the_hundredth() {
        let money = |text: &str| Money::read(text).unwrap();
        assert_eq!(money("1234567.895").to_string(), "1,234,567.90");
        assert_eq!(money("0.004").to_string(), "<0.01");
        assert_eq!(money("0").to_string(), "0.00");
        assert_eq!(money("1.5").beside(money("2")), "−0.50");
        assert_eq!(money("2").beside(money("1.5")), "+0.50");
        let most = money("9999999").of_units(Amount::units(u64::MAX), 1);
        assert_eq!(most.exact(), "184467422290351442440448385", "no overflow");
    }
}

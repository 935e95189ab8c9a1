//! Windows in UTC, computed by counting days: no date library, and none of the crate's code.

/// The period of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Every {
    Hour,
    Day,
    Week,
    Month,
    Year,
    Cycle,
    /// One window without an end.
    Ever,
}

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

impl Every {
    pub(crate) const ALL: [Self; 6] =
        [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::Cycle];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::Cycle => "cycle",
            Self::Ever => "once",
        }
    }

    /// Start of the window that `at` lies in. Cycles are counted from `anchor`; a month without
    /// that day begins its cycle on its last.
    pub(crate) fn start(self, at: i64, anchor: i64) -> i64 {
        let day = at.div_euclid(DAY);
        let (year, month, _) = civil(day);
        match self {
            Self::Hour => at.div_euclid(HOUR) * HOUR,
            Self::Day => day * DAY,
            // 1 January 1970 was a Thursday.
            Self::Week => (day - (day + 3).rem_euclid(7)) * DAY,
            Self::Month => days(year, month, 1) * DAY,
            Self::Year => days(year, 1, 1) * DAY,
            Self::Ever => 0,
            Self::Cycle => {
                let (_, _, of_month) = civil(anchor.div_euclid(DAY));
                let begin = |year, month| {
                    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                    let last = days(next.0, next.1, 1) - 1;
                    last.min(days(year, month, of_month)) * DAY + anchor.rem_euclid(DAY)
                };
                let this = begin(year, month);
                let before = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
                if this <= at { this } else { begin(before.0, before.1) }
            }
        }
    }
}

/// Days since 1970 of a date (proleptic Gregorian), by whole eras of 400 years from 1 March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse: year, month, day of the month.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, of_month)
}

#[test]
fn dates_go_there_and_back() {
    assert_eq!((days(1970, 1, 1), civil(0)), (0, (1970, 1, 1)));
    assert_eq!(days(2026, 3, 17) * DAY + 12 * HOUR, 1_773_748_800_000);
    for day in -200_000..200_000 {
        let (year, month, of_month) = civil(day);
        assert_eq!(days(year, month, of_month), day);
    }
}

//! The small languages inside the strings of a plan file: amounts, rates, quotas, scopes,
//! durations. Names stay names here; [`super::limits`] looks them up.
//!
//! Faults give the part of the string they are about.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::cursor::{Cursor, WrittenAmount};
use super::model::{Every, Scope};
use super::numbers::Exact;
use crate::toml_file::{TextFault, Units, counted, help_for};

/// Periods of a rate, in seconds.
pub(super) const RATE_PERIODS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3_600)];

/// The same in full.
pub(super) const RATE_PERIODS_IN_FULL: [(&str, &str); 4] =
    [("sec", "s"), ("second", "s"), ("minute", "min"), ("hour", "h")];

/// Periods of a quota.
pub(super) const QUOTA_PERIODS: [(&str, Every); 7] = [
    ("hour", Every::Hour),
    ("day", Every::Day),
    ("week", Every::Week),
    ("month", Every::Month),
    ("year", Every::Year),
    ("cycle", Every::Cycle),
    ("term", Every::Term),
];

/// Durations, in seconds.
pub(super) static DURATION: Units = Units {
    what: "a duration",
    units: &[("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)],
    most: (MAX_SECONDS, "100 years"),
    examples: &["7d", "90min"],
};

/// Spans of a contract, in months.
pub(super) static TERM: Units = Units {
    what: "a term",
    units: &[("mo", 1), ("y", 12)],
    most: (MAX_SECONDS, "100 years"),
    examples: &["1y", "6mo"],
};

/// Words that cannot name a meter, scope or route, since a limit's words would be ambiguous.
pub(super) fn is_reserved(name: &str) -> bool {
    RATE_PERIODS.iter().any(|(word, _)| *word == name)
        || RATE_PERIODS_IN_FULL.iter().any(|(word, _)| *word == name)
        || QUOTA_PERIODS.iter().any(|(word, _)| *word == name)
        || matches!(name, "once" | "unlimited" | "prepaid" | "burst" | "per" | "all" | "default")
}

/// The words of a rate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RateWords<'a> {
    pub(super) amount: WrittenAmount,
    pub(super) meter: Option<(&'a str, Range<usize>)>,
    pub(super) per: Duration,
    pub(super) period: &'static str,
    pub(super) burst: Option<WrittenAmount>,
    pub(super) scope: Scope,
}

/// The words of a quota.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuotaWords {
    /// `None`: unlimited.
    pub(super) limit: Option<WrittenAmount>,
    pub(super) every: Every,
    pub(super) scope: Scope,
}

/// `N[k|M] [meter]/(s|min|h) [burst N] [per SCOPE]`
pub(super) fn rate(text: &str) -> Result<RateWords<'_>, TextFault> {
    let mut cursor = Cursor::new(text);
    let amount = cursor.amount()?;
    let meter = (!cursor.next_is('/')).then(|| cursor.word()).filter(|(word, _)| !word.is_empty());
    if !cursor.eat('/') {
        let end = cursor.at..cursor.text.len();
        let help = format!("write \"{}/s\", \"../min\" or \"../h\"", text.trim());
        return Err(match end.is_empty() {
            true => TextFault::new(0..text.len(), "a rate needs a period", help),
            false => cursor.unexpected("a `/` and a period", "write it like \"50/s burst 100\""),
        });
    }
    let (period, per) = cursor.rate_period()?;
    let (mut burst, mut scope) = (None, None);
    loop {
        let (word, at) = cursor.word();
        match word {
            "burst" if burst.is_none() => burst = Some(cursor.amount()?),
            "per" if scope.is_none() => scope = Some(cursor.scope()?),
            "" if cursor.is_done() => break,
            "burst" | "per" => {
                return Err(TextFault::new(
                    at,
                    format!("`{word}` is written twice"),
                    "leave one out",
                ));
            }
            _ => return Err(cursor.stray(at, "burst N` or `per SCOPE", "50/s burst 100 per key")),
        }
    }
    Ok(RateWords {
        amount,
        meter,
        per: Duration::from_secs(per),
        period,
        burst,
        scope: scope.unwrap_or(Scope::Tenant),
    })
}

/// `N[unit]/(hour|day|week|month|year|cycle|term) [per SCOPE]`, `N[unit]`, `unlimited` or
/// `prepaid`: nothing, granted once.
pub(super) fn quota(text: &str) -> Result<QuotaWords, TextFault> {
    let mut cursor = Cursor::new(text);
    if cursor.eat_word("unlimited") {
        if !cursor.is_done() {
            let help = "write \"unlimited\" alone";
            return Err(cursor.unexpected("the end: what has no limit has no period", help));
        }
        return Ok(QuotaWords { limit: None, every: Every::Cycle, scope: Scope::Tenant });
    }
    if cursor.eat_word("prepaid") {
        if !cursor.is_done() {
            let help = "write \"prepaid\" alone";
            return Err(cursor.unexpected("the end: nothing is included, of no period", help));
        }
        let nothing = WrittenAmount { value: Exact::whole(0), bytes: false, at: 0..text.len() };
        return Ok(QuotaWords { limit: Some(nothing), every: Every::Once, scope: Scope::Tenant });
    }
    let limit = cursor.amount()?;
    let (mut every, mut scope) = (Every::Once, Scope::Tenant);
    if cursor.eat('/') {
        every = cursor.quota_period()?;
    }
    let (word, at) = cursor.word();
    match word {
        "per" if every == Every::Once => {
            let help = "write a period, as in \"500/day per user\"";
            let message = "units granted once are the whole tenant's";
            return Err(TextFault::new(at.start..text.len(), message, help));
        }
        "per" => scope = cursor.scope()?,
        "" => {}
        _ => {
            let stray = || cursor.stray(at.clone(), "per SCOPE", "5k/day per user");
            return Err(cursor.unit_apart(&limit, &at).unwrap_or_else(stray));
        }
    }
    if !cursor.is_done() {
        return Err(cursor.unexpected("the end", "write it like \"5k/day per user\""));
    }
    Ok(QuotaWords { limit: Some(limit), every, scope })
}

/// `N[unit]` and nothing else.
pub(super) fn amount(text: &str) -> Result<WrittenAmount, TextFault> {
    let mut cursor = Cursor::new(text);
    let amount = cursor.amount()?;
    if cursor.is_done() {
        return Ok(amount);
    }
    let (_, at) = cursor.word();
    Err(cursor.unit_apart(&amount, &at).unwrap_or_else(|| {
        cursor.at = at.start;
        cursor.unexpected("an amount alone", "write it like \"1M\" or \"64KB\"")
    }))
}

/// `N[unit]`, or a fraction `N/M`.
pub(super) fn fraction(text: &str) -> Result<WrittenAmount, TextFault> {
    let mut cursor = Cursor::new(text);
    let mut amount = cursor.amount()?;
    if cursor.eat('/') {
        let below = cursor.amount()?;
        let value = below.value.to_u64().and_then(|below| amount.value.over(u128::from(below)));
        amount.value = value.ok_or_else(|| {
            TextFault::new(below.at, "not a number to divide by", "write it like \"1/1000\"")
        })?;
        amount.at = 0..text.len();
    }
    match cursor.is_done() {
        true => Ok(amount),
        false => Err(cursor.unexpected("a number or a fraction", "write it like \"1/1000\"")),
    }
}

/// `N(s|min|h|d)`, above zero.
pub(super) fn duration(text: &str) -> Result<Duration, TextFault> {
    counted(text, &DURATION).map(Duration::from_secs)
}

/// `N(mo|y)`, in months, at most [`MAX_TERM_MONTHS`].
pub(super) fn term(text: &str) -> Result<u32, TextFault> {
    let months = counted(text, &TERM)?;
    u32::try_from(months).ok().filter(|months| *months <= MAX_TERM_MONTHS).ok_or_else(|| {
        TextFault::new(
            0..text.len(),
            "a term is at most 50 years",
            "write it like \"1y\" or \"18mo\"",
        )
    })
}

/// `N%` with up to two decimals, in basis points, above 0 and at most 100 %.
pub(super) fn percent(text: &str) -> Option<u32> {
    let number = text.trim().strip_suffix('%')?;
    let exact = fraction(number).ok().filter(|n| !n.bytes)?.value.times(100)?;
    u32::try_from(exact.to_u64()?).ok().filter(|points| (1..=10_000).contains(points))
}

/// Longest contract period: it keeps dates of this century within range.
const MAX_TERM_MONTHS: u32 = 600;

/// Longest duration: 100 years.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

impl<'a> Cursor<'a> {
    fn rate_period(&mut self) -> Result<(&'static str, u64), TextFault> {
        let (word, at) = self.word();
        let in_full = RATE_PERIODS_IN_FULL.iter().find(|(full, _)| *full == word);
        let word = in_full.map_or(word, |(_, short)| *short);
        if let Some(found) = RATE_PERIODS.iter().find(|(known, _)| *known == word) {
            return Ok(*found);
        }
        let quota = QUOTA_PERIODS.iter().find(|(known, _)| *known == word && *known != "hour");
        Err(self.no_period(
            at,
            word,
            "rate",
            match quota {
                Some(_) => format!("units per {word} are a quota: write it as `quota.<meter>`"),
                None => help_for(word, &RATE_PERIODS, "50/s burst 100"),
            },
        ))
    }

    fn quota_period(&mut self) -> Result<Every, TextFault> {
        let (word, at) = self.word();
        if let Some((_, every)) = QUOTA_PERIODS.iter().find(|(known, _)| *known == word) {
            return Ok(*every);
        }
        let rate = matches!(word, "s" | "min" | "sec" | "second" | "minute");
        Err(self.no_period(
            at,
            word,
            "quota",
            match rate {
                true => format!("units per {word} are a rate: write it as `rate.default`"),
                false => help_for(word, &QUOTA_PERIODS, "10k/month"),
            },
        ))
    }

    fn no_period(&self, at: Range<usize>, word: &str, what: &str, help: String) -> TextFault {
        match word.is_empty() {
            true => TextFault::new(0..self.text.len(), format!("a {what} needs a period"), help),
            false => TextFault::new(at, format!("`{word}` is not a valid {what} period"), help),
        }
    }

    fn scope(&mut self) -> Result<Scope, TextFault> {
        let (word, at) = self.word();
        if let Some(meant) = scope_for(word) {
            let help = format!("did you mean `{meant}`?");
            return Err(TextFault::new(at, format!("`{word}` is not a scope"), help));
        }
        Ok(match word {
            "tenant" => Scope::Tenant,
            "key" => Scope::Key,
            "user" => Scope::User,
            "ip" => Scope::Ip,
            _ if is_name(word) && !is_reserved(word) => Scope::Named(Arc::from(word)),
            "" => return Err(self.unexpected("a scope", "write `per key`, `per user` or `per ip`")),
            _ => {
                let help =
                    "write `tenant`, `key`, `user`, `ip`, or a name the identification gives";
                return Err(TextFault::new(at, format!("`{word}` cannot name a scope"), help));
            }
        })
    }
}

/// Our scope that a similar word means: `IP`, `users`, `address`.
fn scope_for(word: &str) -> Option<&'static str> {
    const SCOPES: [&str; 4] = ["tenant", "key", "user", "ip"];
    const ALIASES: [(&str, &str); 4] =
        [("address", "ip"), ("addr", "ip"), ("api-key", "key"), ("apikey", "key")];
    let lower = word.to_ascii_lowercase();
    let one = lower.strip_suffix('s').unwrap_or(&lower);
    let like = |known: &&str| one == *known && word != *known;
    let alias = || ALIASES.iter().find(|(from, _)| *from == one).map(|(_, to)| *to);
    SCOPES.into_iter().find(like).or_else(alias)
}

/// Whether a name is letters, digits, `-` and `_`, begins with a letter or digit, and is short.
pub(super) fn is_name(name: &str) -> bool {
    const LONGEST: usize = 64;
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::numbers::Exact;
    use super::*;

    fn units(amount: &WrittenAmount) -> u64 {
        amount.value.to_u64().unwrap()
    }

    #[test]
    fn reads_every_form_of_a_rate() {
        let words = rate("50/s burst 100").unwrap();
        assert_eq!((units(&words.amount), words.period), (50, "s"));
        assert_eq!(words.burst.as_ref().map(units), Some(100));
        let words = rate("100k input-tokens/min").unwrap();
        assert_eq!(units(&words.amount), 100_000);
        assert_eq!(words.meter.unwrap().0, "input-tokens");
        assert_eq!(words.per, Duration::from_secs(60));
        let words = rate("20/h per key burst 2k").unwrap();
        assert_eq!(words.scope, Scope::Key);
        assert_eq!(words.burst.as_ref().map(units), Some(2_000));
        let words = rate("1.5MB egress/s per device").unwrap();
        assert_eq!(words.scope, Scope::Named("device".into()));
        assert!(words.amount.bytes);
    }

    #[test]
    fn reads_every_form_of_a_quota() {
        for (word, every) in QUOTA_PERIODS {
            assert_eq!(quota(&format!("10k/{word}")).unwrap().every, every);
        }
        let words = quota("5k/day per user").unwrap();
        assert_eq!((units(&words.limit.unwrap()), words.scope), (5_000, Scope::User));
        assert_eq!(quota("500").unwrap().every, Every::Once);
        assert_eq!(quota("unlimited").unwrap().limit, None);
        let prepaid = quota("prepaid").unwrap();
        assert_eq!((units(&prepaid.limit.unwrap()), prepaid.every), (0, Every::Once));
        assert_eq!(units(&quota("1GiB/month").unwrap().limit.unwrap()), 1 << 30);
    }

    #[test]
    fn reads_fractions_exactly() {
        assert_eq!(fraction("4/1000").unwrap().value, Exact::new(1, 250).unwrap());
        assert_eq!(fraction("0.25").unwrap().value, Exact::new(1, 4).unwrap());
        assert_eq!(fraction("3").unwrap().value, Exact::whole(3));
        assert!(fraction("1/0").is_err());
    }

    #[test]
    fn reads_durations_terms_and_percentages() {
        assert_eq!(duration("7d").unwrap(), Duration::from_secs(7 * 86_400));
        assert_eq!(duration("90min").unwrap(), Duration::from_secs(5_400));
        assert!(duration("0s").is_err());
        assert!(duration("99999999d").is_err());
        assert_eq!((term("1y").unwrap(), term("18mo").unwrap()), (12, 18));
        assert_eq!(
            (percent("2%"), percent("0.25%"), percent("100%")),
            (Some(200), Some(25), Some(10_000))
        );
        assert_eq!(
            (percent("0%"), percent("101%"), percent("0.001%"), percent("2")),
            (None, None, None, None)
        );
    }

    #[test]
    fn says_where_in_the_words_the_fault_is() {
        let fault = |text: &str| {
            let fault = rate(text).unwrap_err();
            (text[fault.at.clone()].to_owned(), fault.help)
        };
        assert_eq!(fault("50/mins"), ("mins".into(), "did you mean `min`?".into()));
        for (full, short) in RATE_PERIODS_IN_FULL {
            let read = |period: &str| rate(&format!("50/{period}")).unwrap().per;
            assert_eq!(read(full), read(short), "{full}");
        }
        assert_eq!(fault("50K/s"), ("K".into(), "did you mean `k` (thousand)?".into()));
        assert_eq!(fault("50/s bust 9").0, "bust");
        assert_eq!(fault("50/s burst"), ("50/s burst".into(), fault("x/s").1));
        assert_eq!(fault("10/month").0, "month");
        assert_eq!(fault("50/s per min").0, "min");
        assert_eq!(fault("10,000/s").0, "10,000");
    }

    #[test]
    fn a_limit_without_a_number_or_a_period_is_none() {
        for text in ["", " ", "/s", "50", "50/", "-5/s", "5/s/s", "5 /s x", "1..2/s", "é/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["", "10k/", "10k/fortnight", "10k per user", "prepaid/day"] {
            assert!(quota(text).is_err(), "{text}");
        }
    }
}

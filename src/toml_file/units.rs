//! Numbers with a unit, in strings: durations and terms.

use std::ops::Range;

use super::names::{did_you_mean, known_names};

/// The units of one kind of number.
pub(crate) struct Units {
    /// A number of these, in a sentence: `a duration`.
    pub(crate) what: &'static str,
    /// Each unit as a number of the base unit.
    pub(crate) units: &'static [(&'static str, u64)],
    /// The largest number, in the base unit, and in words.
    pub(crate) most: (u64, &'static str),
    pub(crate) examples: &'static [&'static str],
}

/// A fault in a string: its position, the message, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextFault {
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl TextFault {
    pub(crate) fn new(
        at: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { at, message: message.into(), help: help.into() }
    }
}

/// Common spellings of each unit and period.
const SPELLINGS: [(&str, &str); 11] = [
    ("s", "sec secs second seconds"),
    ("min", "m mins minute minutes"),
    ("h", "hr hour hours"),
    ("hour", "hours h hr"),
    ("day", "d days"),
    ("d", "days day"),
    ("week", "w weeks"),
    ("month", "mo months"),
    ("mo", "months month"),
    ("year", "y yr years"),
    ("y", "year years"),
];

/// A whole number above zero and one of the units, in the base unit.
pub(crate) fn counted(text: &str, kind: &Units) -> Result<u64, TextFault> {
    let Units { what, units, most: (most, in_words), examples } = kind;
    let names = known_names(units.iter().map(|(word, _)| *word));
    let help = || format!("write a number and one of {names}: \"{}\"", examples[0]);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = |message: String| TextFault::new(0..text.len(), message, help());
    let number: u64 = number.parse().map_err(|_| wrong(format!("`{text}` is not {what}")))?;
    let Some((_, each)) = units.iter().find(|(word, _)| *word == unit) else {
        if unit.is_empty() {
            return Err(wrong(format!("{what} needs a unit")));
        }
        let message = format!("`{unit}` is not a unit of {what}");
        let help = help_for(unit, units, examples[0]);
        return Err(TextFault::new(digits..text.len(), message, help));
    };
    match number.checked_mul(*each) {
        Some(0) => Err(wrong(format!("{what} must be longer than 0"))),
        Some(n) if n <= *most => Ok(n),
        _ => Err(wrong(format!("{what} is at most {in_words}"))),
    }
}

/// Help for a word that is none of the units.
pub(crate) fn help_for<T>(word: &str, units: &[(&'static str, T)], example: &str) -> String {
    let names = || units.iter().map(|(word, _)| *word);
    let means = |(_, spellings): &&(_, &str)| spellings.split(' ').any(|one| one == word);
    let mut meant = SPELLINGS.iter().filter(means).map(|(unit, _)| *unit);
    match meant
        .find(|unit| names().any(|name| name == *unit))
        .or_else(|| did_you_mean(word, names()))
    {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write one of {}, as in \"{example}\"", known_names(names())),
    }
}

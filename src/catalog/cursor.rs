//! Cursor over a string of words: amounts, and faults with their position.

use std::ops::Range;

use super::numbers::{BYTE_UNITS, Exact, MULTIPLIERS, exact, unit_meant, unit_of};
use crate::toml_file::{TextFault, known_names};

/// A number with its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenAmount {
    /// With the unit multiplied in.
    pub(super) value: Exact,
    /// Whether the unit is one of bytes.
    pub(super) bytes: bool,
    /// Its position in the string.
    pub(super) at: Range<usize>,
}

/// A position in a string of words.
pub(super) struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> (&'a str, Range<usize>) {
        let rest = self.rest();
        let len = rest.find(|c| !of(c)).unwrap_or(rest.len());
        let at = self.at..self.at + len;
        self.at += len;
        (&rest[..len], at)
    }

    /// Up to the next space or `/`; empty at the end.
    pub(super) fn word(&mut self) -> (&'a str, Range<usize>) {
        self.skip_space();
        self.take(|c| !c.is_whitespace() && c != '/')
    }

    pub(super) fn next_is(&mut self, c: char) -> bool {
        self.skip_space();
        self.rest().starts_with(c)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.next_is(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    pub(super) fn eat_word(&mut self, wanted: &str) -> bool {
        let start = self.at;
        let found = self.word().0 == wanted;
        self.at = if found { self.at } else { start };
        found
    }

    pub(super) fn is_done(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    pub(super) fn unexpected(&mut self, wanted: &str, help: &str) -> TextFault {
        self.skip_space();
        let at = self.at..self.text.len();
        match at.is_empty() {
            true => TextFault::new(0..self.text.len(), format!("expected {wanted}"), help),
            false => {
                let found = self.rest();
                TextFault::new(at, format!("expected {wanted}, found `{found}`"), help)
            }
        }
    }

    pub(super) fn stray(&self, at: Range<usize>, wanted: &str, example: &str) -> TextFault {
        let at = if at.is_empty() { at.start..self.text.len() } else { at };
        let found = &self.text[at.clone()];
        let help = format!("write it like \"{example}\"");
        TextFault::new(at, format!("expected `{wanted}`, found `{found}`"), help)
    }

    /// A number with up to 18 digits, and its unit.
    pub(super) fn amount(&mut self) -> Result<WrittenAmount, TextFault> {
        self.skip_space();
        let (number, at) = self.take(|c| c.is_ascii_digit() || c == '.');
        let (unit, unit_at) = self.take(|c| c.is_ascii_alphabetic());
        let at_all = at.start..unit_at.end;
        let Some(value) = exact(number) else {
            let help = "write digits and a unit, as in \"10k\" or \"1.5M\"";
            return Err(match number.is_empty() {
                true => {
                    self.at = at.start;
                    self.unexpected("a number", help)
                }
                false => TextFault::new(at, format!("`{number}` is not a number"), help),
            });
        };
        if matches!(self.rest().chars().next(), Some(c) if c != '/' && !c.is_whitespace()) {
            let (_, more) = self.take(|c| c != '/' && !c.is_whitespace());
            let found = &self.text[at_all.start..more.end];
            let help = "write digits and a unit, as in \"10k\" or \"1.5M\"";
            let message = format!("`{found}` is not an amount");
            return Err(TextFault::new(at_all.start..more.end, message, help));
        }
        let (by, bytes) = unit_of(unit).ok_or_else(|| {
            let known = MULTIPLIERS.iter().chain(&BYTE_UNITS).map(|(word, _)| *word);
            let help = match unit {
                "K" => "did you mean `k` (thousand)?".to_owned(),
                "m" => "did you mean `M` (million)?".to_owned(),
                _ => match known.clone().find(|known| known.eq_ignore_ascii_case(unit)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => self.with_unit(at.end, &unit_at).unwrap_or_else(|| {
                        format!("write one of {}, or no unit", known_names(known))
                    }),
                },
            };
            TextFault::new(unit_at.clone(), format!("`{unit}` is not a unit"), help)
        })?;
        // 18 digits times 2^40 stay below 2^128.
        let value = value.times(u128::from(by)).unwrap_or(value);
        Ok(WrittenAmount { value, bytes, at: at_all })
    }

    /// Help for a word that means a unit: the whole text with that unit after its number.
    fn with_unit(&self, number_end: usize, word: &Range<usize>) -> Option<String> {
        let unit = unit_meant(&self.text[word.clone()])?;
        let (number, rest) = self.text.split_at(number_end);
        let (between, after) = rest.split_at(word.start - number_end);
        let after = &after[word.len()..];
        Some(format!("did you mean \"{number}{unit}{}{after}\"?", between.trim_end()))
    }

    /// The fault of a unit word that stands apart from an amount without one.
    pub(super) fn unit_apart(&self, of: &WrittenAmount, word: &Range<usize>) -> Option<TextFault> {
        let has_none = self.text[of.at.clone()].ends_with(|c: char| c.is_ascii_digit());
        let help = self.with_unit(of.at.end, word).filter(|_| has_none)?;
        let message = format!("`{}` is separated from its number", &self.text[word.clone()]);
        Some(TextFault::new(word.clone(), message, help))
    }
}

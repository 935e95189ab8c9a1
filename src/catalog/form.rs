//! Types of the plan file's keys: the types that [`super::keys`] is written in.

use super::words;

/// The value of a key.
#[derive(Debug)]
pub(super) enum Form {
    /// Any string.
    Text,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A list of these strings.
    Words(&'static [&'static str]),
    /// A string, or a list of strings.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A whole number from 1 on.
    Count,
    /// A list of percentages.
    Percents,
    /// A local date.
    Date,
    /// A duration: `"7d"`.
    Duration,
    /// A contract period: `"1y"`.
    Term,
    /// An amount: `25`, `"64KB"`, `"1M"`.
    Amount,
    /// An amount or a fraction: `25`, `"1/1000"`.
    Fraction,
    /// A rate in words.
    RateWords,
    /// A quota in words.
    QuotaWords,
    /// A limit: its words, a table, or a list of both.
    Limits(&'static Form, &'static Shape),
    /// `true`, a number, `"unlimited"`, or a word.
    Feature,
    /// A table with these keys.
    Table(&'static Shape),
    /// A table whose keys are names.
    Each(Names, &'static Form),
    /// One of these words, a plan's name, or a table: the effect of a payment state.
    Payment(&'static [&'static str], &'static Shape),
    /// A word or a table.
    WordOr(&'static [&'static str], &'static Shape),
}

/// The names that a table of names accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Letters, digits, `-` and `_`.
    Plain,
    /// The same, but no word of the small languages.
    Unreserved,
    /// `all`, `default`, or a route.
    Rates,
    /// Outer ids of tenants: any printable text.
    Outer,
}

/// The keys of a kind of table.
#[derive(Debug)]
pub(super) struct Shape {
    /// The table's name in errors: `plan`.
    pub(super) name: &'static str,
    /// Keys that must be there.
    pub(super) required: &'static [&'static str],
    pub(super) keys: &'static [FormKey],
}

/// One key.
#[derive(Debug)]
pub(super) struct FormKey {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// Its description in the schema.
    pub(super) about: &'static str,
}

impl Shape {
    pub(super) fn key(&self, name: &str) -> Option<&'static FormKey> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Names {
    /// The fault of a name.
    pub(super) fn fault(self, name: &str) -> Option<(String, &'static str)> {
        const LONGEST_OUTER: usize = 256;
        match self {
            Names::Outer => {
                let good = (1..=LONGEST_OUTER).contains(&name.len())
                    && !name.chars().any(char::is_control);
                let message = "not an id of a tenant".to_owned();
                (!good).then_some((message, "write its id, of 1 to 256 characters, in quotes"))
            }
            _ if !words::is_name(name) => Some((
                format!("`{name}` cannot be a name"),
                "write letters, digits, `-` and `_`, at most 64, beginning with a letter or digit",
            )),
            Names::Unreserved if words::is_reserved(name) => Some((
                format!("`{name}` is a word of the plan language"),
                "choose another name: limits would not read plainly with this one",
            )),
            _ => None,
        }
    }
}

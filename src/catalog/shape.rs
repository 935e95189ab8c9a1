//! Checks a file for the keys and types of [`super::keys`], so that lowering reads them without
//! further checks: a value of the wrong type has been reported and reads as absent.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cursor::TextFault;
use super::error::{Findings, unknown_help};
use super::form::{Form, FormKey, Names, Shape};

pub(super) type TomlNode<'a> = Spanned<DeValue<'a>>;

/// A table of the file.
#[derive(Clone, Copy)]
pub(super) struct PlanTable<'a>(pub(super) &'a DeTable<'a>);

/// One line of a table.
pub(super) struct TableLine<'a> {
    pub(super) name: &'a str,
    pub(super) span: Range<usize>,
    pub(super) node: &'a TomlNode<'a>,
}

/// A string of the file, and the span of its literal.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

impl<'a> PlanTable<'a> {
    pub(super) fn of(node: &'a TomlNode<'a>) -> Option<Self> {
        node.get_ref().as_table().map(Self)
    }

    pub(super) fn node(self, key: &str) -> Option<&'a TomlNode<'a>> {
        self.0.get(key)
    }

    pub(super) fn table(self, key: &str) -> Option<PlanTable<'a>> {
        self.node(key).and_then(Self::of)
    }

    pub(super) fn text(self, key: &str) -> Option<Text<'a>> {
        self.node(key).and_then(Text::of)
    }

    pub(super) fn flag(self, key: &str) -> Option<bool> {
        self.node(key)?.get_ref().as_bool()
    }

    pub(super) fn count(self, key: &str) -> Option<u32> {
        self.node(key).and_then(integer).and_then(|n| u32::try_from(n).ok())
    }

    /// The strings of a list, or a single string.
    pub(super) fn texts(self, key: &str) -> Vec<Text<'a>> {
        match self.node(key) {
            Some(node) => items(node).into_iter().filter_map(Text::of).collect(),
            None => Vec::new(),
        }
    }

    /// Its lines, in the order of the file.
    pub(super) fn entries(self) -> Vec<TableLine<'a>> {
        let entry = |(key, node): (&'a Spanned<_>, &'a TomlNode<'a>)| {
            let name: &std::borrow::Cow<'a, str> = key.get_ref();
            TableLine { name, span: key.span(), node }
        };
        let mut entries: Vec<_> = self.0.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }

    /// The span of a key.
    pub(super) fn key_span(self, key: &str) -> Option<Range<usize>> {
        self.0.get_key_value(key).map(|(key, _)| key.span())
    }
}

impl<'a> Text<'a> {
    pub(super) fn of(node: &'a TomlNode<'a>) -> Option<Self> {
        node.get_ref().as_str().map(|text| Self { text, span: node.span() })
    }
}

/// The items of a list, or a single value.
pub(super) fn items<'a>(node: &'a TomlNode<'a>) -> Vec<&'a TomlNode<'a>> {
    match node.get_ref() {
        DeValue::Array(array) => array.iter().collect(),
        _ => vec![node],
    }
}

pub(super) fn integer(node: &TomlNode<'_>) -> Option<i64> {
    let number = node.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Checks a table against its shape. `at` is the span for errors about the table as a whole.
pub(super) fn check_table(
    report: &mut Findings<'_>,
    shape: &'static Shape,
    table: PlanTable<'_>,
    at: Range<usize>,
) {
    for name in shape.required {
        if table.node(name).is_none() {
            let help = match shape.key(name) {
                Some(key) => format!("write {}", sample(name, &key.form)),
                None => String::new(),
            };
            report.error(at.clone(), format!("`{name}` is missing"), help);
        }
    }
    for entry in table.entries() {
        match shape.key(entry.name) {
            Some(key) => check(report, key, &key.form, entry.node),
            None => {
                let known: Vec<&str> = shape.keys.iter().map(|key| key.name).collect();
                let help = unknown_help(entry.name, known.iter().copied());
                let message = format!("unknown key `{}` in a {}", entry.name, shape.name);
                report.error(entry.span, message, help);
            }
        }
    }
}

fn check(report: &mut Findings<'_>, key: &FormKey, form: &'static Form, node: &TomlNode<'_>) {
    use Form::*;
    let value = node.get_ref();
    let fits = match form {
        Text | Duration | Term | Word(_) => value.is_str(),
        RateWords | QuotaWords => value.is_str(),
        Texts | Words(_) => items(node).iter().all(|item| item.get_ref().is_str()),
        Flag => value.is_bool(),
        Count => integer(node).is_some_and(|n| n >= 1 && n <= i64::from(u32::MAX)),
        Percents => value.is_array() && items(node).iter().all(|item| integer(item).is_some()),
        Date => value.as_datetime().is_some_and(|d| d.date.is_some() && d.time.is_none()),
        Amount | Fraction => value.is_str() || integer(node).is_some_and(|n| n >= 0),
        Feature => value.is_bool() || value.is_str() || integer(node).is_some(),
        Table(_) | Each(..) => value.is_table(),
        Payment(..) | WordOr(..) => value.is_str() || value.is_table(),
        Limits(words, shape) => return check_limits(report, key, words, shape, node),
    };
    if !fits {
        return mismatch(report, key.name, form, node);
    }
    match form {
        Word(words) | Words(words) => check_words(report, words, node),
        WordOr(words, _) if value.is_str() => check_words(report, words, node),
        Each(names, form) => check_each(report, key, *names, form, node),
        Table(shape) | Payment(_, shape) | WordOr(_, shape) => {
            if let Some(table) = PlanTable::of(node) {
                let at = node.span();
                check_table(report, shape, table, at);
            }
        }
        _ => {}
    }
}

fn check_limits(
    report: &mut Findings<'_>,
    key: &FormKey,
    form: &'static Form,
    shape: &'static Shape,
    node: &TomlNode<'_>,
) {
    for item in items(node) {
        match PlanTable::of(item) {
            Some(table) => check_table(report, shape, table, item.span()),
            None => check(report, key, form, item),
        }
    }
    if items(node).is_empty() {
        let help = "leave the line out, or write a limit";
        report.error(node.span(), "a list of limits that is empty", help);
    }
}

fn check_words(report: &mut Findings<'_>, words: &[&str], node: &TomlNode<'_>) {
    for item in items(node).into_iter().filter_map(Text::of) {
        if !words.contains(&item.text) {
            let help = unknown_help(item.text, words.iter().copied());
            report.error(item.span, format!("unknown word `{}`", item.text), help);
        }
    }
}

fn check_each(
    report: &mut Findings<'_>,
    key: &FormKey,
    names: Names,
    form: &'static Form,
    node: &TomlNode<'_>,
) {
    let Some(table) = PlanTable::of(node) else { return };
    for entry in table.entries() {
        if let Some((message, help)) = names.fault(entry.name) {
            report.error(entry.span.clone(), message, help);
        }
        match (form, PlanTable::of(entry.node)) {
            (Form::Table(shape), Some(table)) => check_table(report, shape, table, entry.span),
            (Form::Table(shape), None) => {
                let message = format!("`{}` is {}", entry.name, type_of(entry.node));
                let help = format!("write a table: [{}.{}]", shape.name, entry.name);
                report.error(entry.node.span(), message, help);
            }
            _ => check(report, key, form, entry.node),
        }
    }
}

fn mismatch(report: &mut Findings<'_>, name: &str, form: &Form, node: &TomlNode<'_>) {
    let written = report.words(&node.span()).to_owned();
    let (message, help) = match (form, node.get_ref()) {
        (Form::RateWords, DeValue::Integer(_)) => (
            format!("`{written}` is a bare number: a rate needs a period"),
            format!("write \"{written}/s\" or \"{written}/min\""),
        ),
        (Form::QuotaWords, DeValue::Integer(_)) => (
            format!("`{written}` is a bare number: a quota needs a period"),
            format!("write \"{written}/month\", or \"{written}\" for units granted once"),
        ),
        (Form::Count, DeValue::Integer(_)) => (
            format!("`{name}` is a number from 1 on"),
            "write 1 or more, or leave the line out".to_owned(),
        ),
        (Form::Amount | Form::Fraction, DeValue::Float(_)) => (
            format!("`{name}` takes no floating-point number"),
            format!("write it as a string: \"{written}\""),
        ),
        (Form::Date, DeValue::Datetime(_)) => {
            (format!("`{name}` is a date without a time"), "write a date: 2027-03-31".to_owned())
        }
        _ => (
            format!("`{name}` cannot be {}", type_of(node)),
            format!("write {}", sample(name, form)),
        ),
    };
    report.error(node.span(), message, help);
}

fn type_of(node: &TomlNode<'_>) -> &'static str {
    match node.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A correct line, once `..` is filled in.
pub(super) fn sample(name: &str, form: &Form) -> String {
    let value = match form {
        Form::Text | Form::Texts => match name {
            "default-plan" | "extends" | "plan" | "then" => "\"free\"",
            "timezone" => "\"UTC\"",
            "price" => "\"pro_monthly\"",
            "allow" => "\"2%\"",
            "match" => "[\"GET /v1/search\"]",
            _ => "\"..\"",
        },
        Form::Word(words) | Form::Payment(words, _) | Form::WordOr(words, _) => {
            return format!("`{name} = \"{}\"`", words.first().copied().unwrap_or_default());
        }
        Form::Words(words) => return format!("`{name} = {words:?}`"),
        Form::Flag => "true",
        Form::Count => "20",
        Form::Percents => "[80, 100]",
        Form::Date => "2027-03-31",
        Form::Duration => "\"7d\"",
        Form::Term => "\"1y\"",
        Form::Amount => "\"64KB\"",
        Form::Fraction => "25",
        Form::RateWords => "\"50/s burst 100\"",
        Form::QuotaWords => "\"10k/month\"",
        Form::Limits(form, _) => return sample(name, form),
        Form::Feature => "true",
        Form::Table(_) => "{ .. }",
        Form::Each(_, form) => match form {
            Form::Table(_) => return format!("[{name}.<name>]"),
            form => return sample(&format!("{name}.<name>"), form),
        },
    };
    format!("`{name} = {value}`")
}

/// Records a fault within a string.
pub(super) fn fault(report: &mut Findings<'_>, text: &Text<'_>, fault: TextFault) {
    let at = report.within(text.span.clone(), text.text, fault.at);
    report.error(at, fault.message, fault.help);
}

//! Checks a file for its keys and their types, so that lowering reads them without further checks.

use std::ops::Range;

use toml::de::DeValue;

use super::findings::Findings;
use super::form::{Form, FormKey, Names, Shape};
use super::names::{known_names, unknown_help};
use super::table::{Text, TomlNode, TomlTable, integer, items};
use super::units::TextFault;

/// Checks a table against its shape. `at` is the span for errors about the table as a whole.
pub(crate) fn check_table(
    report: &mut Findings<'_>,
    shape: &'static Shape,
    table: TomlTable<'_>,
    at: Range<usize>,
) {
    for group in shape.required {
        let mut found = group.iter().filter_map(|name| Some((name, table.key_span(name)?)));
        match (found.next(), found.next(), *group) {
            (None, _, [name]) => {
                let help = match shape.key(name) {
                    Some(key) => format!("write {}", key.sample(&key.form)),
                    None => String::new(),
                };
                report.error(at.clone(), format!("`{name}` is missing"), help);
            }
            (None, ..) => {
                let names = known_names(group.iter().copied());
                let message = format!("a {} needs one of {names}", shape.name);
                report.error(at.clone(), message, "write one of them");
            }
            (Some((first, _)), Some((second, span)), _) => {
                let help = format!("write one of them in a {}", shape.name);
                report.error(span, format!("`{second}` beside `{first}`"), help);
            }
            _ => {}
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
        Text | Filled | Word(_) | Counted(_) => value.is_str(),
        Texts(_) | Words(_) => items(node).iter().all(|item| item.get_ref().is_str()),
        Flag => value.is_bool(),
        Count => integer(node).is_some_and(|n| n >= 1 && n <= i64::from(u32::MAX)),
        Own(own) => (own.fits)(node),
        Table(_) | Each(..) => value.is_table(),
        Tables(_) | TablesOrNone(_) => value.as_array().is_some_and(|items| {
            (!items.is_empty() || matches!(form, TablesOrNone(_)))
                && items.iter().all(|item| item.get_ref().is_table())
        }),
        Or(form, shape) => return check_or(report, key, form, shape, node),
        Several(form, shape, of) => {
            for item in items(node) {
                check_or(report, key, form, shape, item);
            }
            if items(node).is_empty() {
                let help = format!("leave the line out, or write a {of}");
                report.error(node.span(), format!("a list of {of}s that is empty"), help);
            }
            return;
        }
    };
    if let Some(mask) = report.mask.as_mut().filter(|_| !key.secret) {
        let shown = items(node).iter().filter(|item| fits || !item.get_ref().is_str());
        shown.for_each(|item| mask.show(item));
    }
    if !fits {
        return mismatch(report, key, form, node);
    }
    match form {
        Filled if value.as_str() == Some("") => {
            let message = format!("`{}` is empty", key.name);
            report.error(node.span(), message, "write a value, or leave the line out");
        }
        Word(words) | Words(words) => check_words(report, words, node),
        Each(names, form) => check_each(report, key, names, form, node),
        Table(shape) => check_or(report, key, form, shape, node),
        Tables(shape) | TablesOrNone(shape) => {
            for item in items(node) {
                check_or(report, key, form, shape, item);
            }
        }
        _ => {}
    }
}

/// A table, or else a value of the form.
fn check_or(
    report: &mut Findings<'_>,
    key: &FormKey,
    form: &'static Form,
    shape: &'static Shape,
    node: &TomlNode<'_>,
) {
    match TomlTable::of(node) {
        Some(table) => check_table(report, shape, table, node.span()),
        None => check(report, key, form, node),
    }
}

fn check_words(report: &mut Findings<'_>, words: &[&str], node: &TomlNode<'_>) {
    for item in items(node).iter().filter_map(Text::of) {
        if !words.contains(&item.text) {
            let help = unknown_help(item.text, words.iter().copied());
            let message = format!("unknown word `{}`", report.named(item.text));
            report.error(item.span, message, help);
        }
    }
}

fn check_each(
    report: &mut Findings<'_>,
    key: &FormKey,
    names: &Names,
    form: &'static Form,
    node: &TomlNode<'_>,
) {
    let Some(table) = TomlTable::of(node) else { return };
    for entry in table.entries() {
        if let Some((message, help)) = (names.fault)(entry.name) {
            report.error(entry.span.clone(), message, help);
        }
        match (form, TomlTable::of(entry.node)) {
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

fn mismatch(report: &mut Findings<'_>, key: &FormKey, form: &Form, node: &TomlNode<'_>) {
    let (name, value) = (key.name, node.get_ref());
    let own = match form {
        Form::Own(own) => (own.mistake)(name, value, report.words(&node.span())),
        _ => None,
    };
    let write = |also: &str| format!("write {}{also}", key.sample(form));
    let (message, help) = match (own, form, value) {
        (Some(own), ..) => own,
        (_, Form::Count, DeValue::Integer(_)) => (
            format!("`{name}` is a number from 1 on"),
            "write 1 or more, or leave the line out".to_owned(),
        ),
        (_, Form::Tables(_), DeValue::Array(items)) if items.is_empty() => {
            (format!("`{name}` is empty"), write(""))
        }
        (_, Form::Table(_) | Form::Tables(_), _) if key.secret => (
            format!("`{name}` is a reference: secrets do not belong in this file"),
            write(", and put the secret there"),
        ),
        (_, Form::Tables(_) | Form::TablesOrNone(_), _) => {
            (format!("`{name}` is a list of tables"), write(""))
        }
        _ => (format!("`{name}` cannot be {}", type_of(node)), write("")),
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

/// Records a fault within a string.
pub(crate) fn fault(report: &mut Findings<'_>, text: &Text<'_>, fault: TextFault) {
    let at = report.within(text.span.clone(), text.text, fault.at);
    report.error(at, fault.message, fault.help);
}

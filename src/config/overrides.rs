//! Overrides of the service file from the environment: `TALLYGATE__TABLE__KEY`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::TOP;
use crate::toml_file::{Findings, Form, TomlNode};

/// Prefix of overriding environment variables.
const PREFIX: &str = "TALLYGATE__";

/// The variables whose names begin with `TALLYGATE__`, by name.
pub(super) fn ours(env: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    env.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// Puts these variables into the file's tables. `__` separates tables, `_` stands for `-`; a value
/// is a TOML value, or else text.
pub(super) fn lay_over<'t>(
    report: &mut Findings<'t>,
    file: &mut DeTable<'t>,
    ours: &'t BTreeMap<String, String>,
) {
    for (name, raw) in ours {
        let at = report.variable(name);
        let path = name[PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
        // `__` has become `--`, which no key contains.
        let path: Vec<&str> = path.split("--").collect();
        let form = Some(&Form::Table(&TOP));
        if path.iter().any(|key| key.is_empty()) || !put(file, form, &path, &at, raw) {
            let help = format!("write {PREFIX}TABLE__KEY, `_` for `-`");
            report.error(at, "it is not a key of the service file", help);
        }
    }
}

/// Puts a value at a path, creating tables along it. False if a value blocks the path.
fn put<'t>(
    table: &mut DeTable<'t>,
    form: Option<&Form>,
    path: &[&str],
    at: &Range<usize>,
    raw: &'t str,
) -> bool {
    let [key, rest @ ..] = path else { return false };
    let form = match form {
        Some(Form::Table(shape)) => shape.key(key).map(|key| &key.form),
        _ => None,
    };
    let own_key = Spanned::new(at.clone(), Cow::Owned((*key).to_owned()));
    if rest.is_empty() {
        table.remove(*key);
        table.insert(own_key, value(form, at, raw));
        return true;
    }
    let empty = || Spanned::new(at.clone(), DeValue::Table(DeTable::default()));
    match table.entry(own_key).or_insert_with(empty).get_mut() {
        DeValue::Table(inner) => put(inner, form, rest, at, raw),
        _ => false,
    }
}

/// The value of a variable. What parses as a number may be meant as text: the key decides.
fn value<'t>(form: Option<&Form>, at: &Range<usize>, raw: &'t str) -> TomlNode<'t> {
    match DeValue::parse(raw).map(Spanned::into_inner) {
        Ok(value @ (DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_))) => {
            moved(value, at)
        }
        Ok(value) if matches!(form, Some(Form::Count | Form::Own(_))) => moved(value, at),
        _ => Spanned::new(at.clone(), DeValue::String(raw.into())),
    }
}

/// A value with everything in it at this place.
fn moved<'t>(value: DeValue<'t>, at: &Range<usize>) -> TomlNode<'t> {
    let own = |value: TomlNode<'t>| moved(value.into_inner(), at);
    let line =
        |(key, value): (Spanned<_>, _)| (Spanned::new(at.clone(), key.into_inner()), own(value));
    let value = match value {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(own).collect()),
        DeValue::Table(table) => DeValue::Table(table.into_iter().map(line).collect()),
        scalar => scalar,
    };
    Spanned::new(at.clone(), value)
}

//! `env`: the configuration in force, and where each value comes from. A secret is never shown,
//! only where it is read and whether it is there.

use std::path::Path;

use serde_json::json;
use toml::{Table as TomlTable, Value};

use super::Ran;
use crate::failure::code;
use crate::output::{Output, Table};
use crate::settings::{Settings, StoreAt};

/// Variables that are read beside those that override the file.
const VARIABLES: [&str; 1] = ["TALLYGATE_PEPPER"];

/// A row: the key, its value, where that comes from.
type Row = (String, String, String);

pub(super) fn run(out: Output, settings: &Settings) -> Ran {
    let mut table = Table::new(["KEY", "VALUE", "FROM"]);
    for (key, value, from) in rows(settings) {
        match out.json {
            true => out.document(&json!({ "key": key, "value": value, "from": from }))?,
            false => table.row([key, value, from]),
        }
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}

fn rows(settings: &Settings) -> Vec<Row> {
    let shown = settings.path.display().to_string();
    let is_there = if settings.is_there { "is there" } else { "missing: as if it were empty" };
    let mut rows = vec![(shown.clone(), is_there.to_owned(), "--service".to_owned())];
    flatten("", &Value::Table(settings.table.clone()), &mut |key, value| {
        let origin = settings.variables.iter().find(|(set, _)| is_within(key, set));
        let from = origin.map_or_else(|| shown.clone(), |(_, variable)| variable.clone());
        rows.push((key.to_owned(), value, from));
    });
    for (key, value) in defaults(settings) {
        if !rows.iter().any(|(known, ..)| known == key) {
            rows.push((key.to_owned(), value, "default".to_owned()));
        }
    }
    rows[1..].sort();
    for name in VARIABLES {
        rows.push((name.to_owned(), is_set(name).to_owned(), "environment".to_owned()));
    }
    rows
}

/// Whether a key is the one that a variable sets, or lies in it.
fn is_within(key: &str, set: &str) -> bool {
    key.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The keys that every service has, with their defaults.
fn defaults(settings: &Settings) -> Vec<(&'static str, String)> {
    let store = match settings.store() {
        StoreAt::Memory => vec![],
        StoreAt::Redb(path) => vec![("store.path", quoted(&path.to_string_lossy()))],
        StoreAt::Dynamodb(table) => vec![("store.table", quoted(&table))],
    };
    let own = [
        ("store.kind", quoted("redb")),
        ("store.space", quoted("default")),
        ("plans.file", quoted(&settings.plans_file().to_string_lossy())),
    ];
    own.into_iter().chain(store).collect()
}

/// A text as the file has it.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// Calls `each` with every value, its keys joined by points. A secret is one value.
fn flatten(key: &str, value: &Value, each: &mut impl FnMut(&str, String)) {
    match value {
        // `plans.file` is the place of no secret.
        Value::Table(table) => match secret(table).filter(|_| key != "plans") {
            Some(text) => each(key, text),
            None => {
                for (name, inner) in table {
                    let own = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    flatten(&own, inner, each);
                }
            }
        },
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (at, inner) in list.iter().enumerate() {
                flatten(&format!("{key}[{at}]"), inner, each);
            }
        }
        other => each(key, other.to_string()),
    }
}

/// Where a secret is read, and whether it is there; `None`: it is none.
fn secret(table: &TomlTable) -> Option<String> {
    let text = |name: &str| table.get(name).and_then(Value::as_str);
    let id = text("id").map(|id| format!("{id:?}: ")).unwrap_or_default();
    if let Some(name) = text("env") {
        return Some(format!("{id}*** in the variable {name} ({})", is_set(name)));
    }
    let is_secret = table.keys().all(|key| matches!(&**key, "file" | "id")) && !table.is_empty();
    let file = text("file").filter(|_| is_secret && table.len() <= 2)?;
    let is_there = if Path::new(file).is_file() { "is there" } else { "is missing" };
    Some(format!("{id}*** in the file {file} ({is_there})"))
}

fn is_set(name: &str) -> &'static str {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => "set",
        _ => "not set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_place() {
        let file = "[plans]\nfile = \"p.toml\"\n[stripe]\nmode = \"live\"\n\
                    key = { env = \"NO_SUCH_VARIABLE\" }\n\
                    [[identify]]\npepper = [{ id = \"1\", file = \"no/such/file\" }]\n";
        let mut found = Vec::new();
        let table: TomlTable = file.parse().unwrap();
        flatten("", &Value::Table(table), &mut |key, value| found.push(format!("{key} {value}")));
        found.sort();
        assert_eq!(
            found,
            [
                "identify[0].pepper[0] \"1\": *** in the file no/such/file (is missing)",
                "plans.file \"p.toml\"",
                "stripe.key *** in the variable NO_SUCH_VARIABLE (not set)",
                "stripe.mode \"live\"",
            ]
        );
    }

    #[test]
    fn a_variable_sets_its_key_and_what_lies_in_it() {
        assert!(is_within("stripe.key", "stripe.key") && is_within("a.b[0].c", "a.b"));
        assert!(!is_within("store.pathway", "store.path"));
    }
}

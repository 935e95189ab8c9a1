//! The service file with the environment over it, key by key with its origin, as
//! `docs/service-file.md` says. The library has checked it before: what is read here is legal.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tallygate::Gate;
use toml::{Table, Value};

use crate::failure::Failure;

/// The beginning of the variables that override the file.
const PREFIX: &str = "TALLYGATE__";

/// The keys that are numbers.
const COUNTS: [&str; 4] = ["admissions", "kept", "max-write-units", "requests"];

/// A service file as it is in force.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it was looked for.
    pub(crate) path: PathBuf,
    /// Whether there is a file.
    pub(crate) is_there: bool,
    /// Its keys, with the environment laid over.
    pub(crate) table: Table,
    /// The variables that are in force, by the keys they set.
    pub(crate) variables: BTreeMap<String, String>,
}

/// Where the service keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreAt {
    /// In the memory of its process.
    Memory,
    /// In this file.
    Redb(PathBuf),
    /// In this table.
    Dynamodb(String),
}

impl Settings {
    /// Reads the file at this path; a missing one is empty, where the library says so.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        // It reads the whole file and reports every mistake.
        Gate::builder(path).dynamodb_table()?;
        let (text, is_there) = match std::fs::read_to_string(path) {
            Ok(text) => (text, true),
            Err(error) if error.kind() == ErrorKind::NotFound => (String::new(), false),
            Err(error) => return Err(Failure::of_file(path, &error)),
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::of(path, &text, is_there, variables)
    }

    fn of(
        path: &Path,
        text: &str,
        is_there: bool,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let mut table: Table = text
            .parse()
            .map_err(|error| Failure::new(crate::failure::code::FILE, format!("{error}")))?;
        let ours: BTreeMap<String, String> =
            variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let mut in_force = BTreeMap::new();
        for (name, raw) in ours {
            let path = name[PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
            let keys: Vec<&str> = path.split("--").collect();
            put(&mut table, &keys, &raw);
            in_force.insert(keys.join("."), name);
        }
        if let Some(Value::Table(store)) = table.get_mut("store") {
            // A variable may say another kind than the file: the keys of that are left aside.
            let kind = store.get("kind").and_then(Value::as_str).unwrap_or("redb").to_owned();
            for (of, key) in [("redb", "path"), ("dynamodb", "table")] {
                if kind != of {
                    store.remove(key);
                }
            }
        }
        Ok(Self { path: path.to_owned(), is_there, table, variables: in_force })
    }

    /// The text at this key: `store.path`.
    pub(crate) fn text(&self, table: &str, key: &str) -> Option<&str> {
        self.table.get(table)?.get(key)?.as_str()
    }

    /// The plan file.
    pub(crate) fn plans_file(&self) -> PathBuf {
        self.text("plans", "file").unwrap_or("plans.toml").into()
    }

    /// The log of decisions, if the service keeps one.
    pub(crate) fn decisions_file(&self) -> Option<PathBuf> {
        self.table.get("decisions")?;
        Some(self.text("decisions", "file").unwrap_or("decisions.ndjson").into())
    }

    /// Where the data are.
    pub(crate) fn store(&self) -> StoreAt {
        match self.text("store", "kind") {
            Some("memory") => StoreAt::Memory,
            Some("dynamodb") => {
                StoreAt::Dynamodb(self.text("store", "table").unwrap_or("tallygate").to_owned())
            }
            _ => StoreAt::Redb(self.text("store", "path").unwrap_or("tallygate.redb").into()),
        }
    }
}

/// Puts a variable's value at a path of keys.
fn put(table: &mut Table, keys: &[&str], raw: &str) {
    match keys {
        [] => {}
        [key] => {
            table.insert((*key).to_owned(), value(key, raw));
        }
        [key, rest @ ..] => {
            let inner = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, raw);
            }
        }
    }
}

/// The value of a variable: TOML, or else text.
fn value(key: &str, raw: &str) -> Value {
    let parsed = format!("it = {raw}").parse::<Table>().ok();
    match parsed.and_then(|mut table| table.remove("it")) {
        Some(value @ (Value::String(_) | Value::Array(_) | Value::Table(_))) => value,
        Some(value @ Value::Integer(_)) if COUNTS.contains(&key) => value,
        _ => Value::String(raw.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, variables: &[(&str, &str)]) -> Settings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Settings::of(Path::new("x"), text, true, variables.iter().map(own)).unwrap()
    }

    #[test]
    fn the_environment_is_laid_over_the_file() {
        let file = "[store]\npath = \"a.redb\"\n[flush]\nmax-write-units = 5";
        let plain = settings(file, &[]);
        assert_eq!(plain.store(), StoreAt::Redb("a.redb".into()));
        let same = settings(file, &[("TALLYGATE__STORE__KIND", "redb")]);
        assert_eq!(same.store(), StoreAt::Redb("a.redb".into()));
        let over = settings(
            file,
            &[
                ("TALLYGATE__STORE__KIND", "dynamodb"),
                ("TALLYGATE__FLUSH__MAX_WRITE_UNITS", "20"),
                ("TALLYGATE__STORE__SPACE", "42"),
                ("TALLYGATE__PROXY__TRUST", "[\"10.0.0.0/8\"]"),
                ("TALLYGATE_PEPPER", "no"),
            ],
        );
        assert_eq!(over.store(), StoreAt::Dynamodb("tallygate".into()));
        assert_eq!(over.table["flush"]["max-write-units"], Value::Integer(20));
        assert_eq!(over.table["store"]["space"], Value::String("42".into()));
        assert_eq!(over.table["proxy"]["trust"][0], Value::String("10.0.0.0/8".into()));
        assert_eq!(over.variables["flush.max-write-units"], "TALLYGATE__FLUSH__MAX_WRITE_UNITS");
        assert_eq!(over.variables.len(), 4);
    }
}

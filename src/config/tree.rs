//! The service file as a tree of values with their positions, with the environment's overrides
//! applied. The meaning of the values is handled elsewhere.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, ConfigErrors};
use crate::text_file::{self, said};

/// Prefix of overriding environment variables.
const PREFIX: &str = "TALLYGATE__";

/// The position of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueLocation {
    /// In the file, by line and column from 1.
    File(u32, u32),
    /// In this environment variable.
    Env(String),
}

/// A value and its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) place: ValueLocation,
    /// The raw text. An environment variable's may be meant as text though it parses as a number.
    pub(super) raw: String,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Text(String),
    Int(i64),
    Array(Vec<Node>),
    /// Keys with their positions.
    Table(BTreeMap<String, (ValueLocation, Node)>),
    /// A type that no key of the service file takes: a float, a date, a boolean.
    Other(&'static str),
}

impl Data {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "text",
            Data::Int(_) => "a number",
            Data::Array(_) => "a list",
            Data::Table(_) => "a table",
            Data::Other(kind) => kind,
        }
    }
}

/// The tree of a file's text. A byte order mark is skipped.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    // The line may hold an inline secret.
    let words = String::new();
    let wrong = |at: usize, message: String, help: Option<String>| {
        let (line, column) = lines.line_column(at);
        ConfigError { file: file.to_owned(), line, column, words: words.clone(), message, help }
    };
    if let Some(damage) = text_file::damage(text) {
        return Err(wrong(damage.at.start, damage.message, Some(damage.help.to_owned())).into());
    }
    if let Ok(table) = DeTable::parse(text) {
        let place = ValueLocation::File(1, 1);
        return Ok(Node { data: table_of(&lines, table.into_inner()), place, raw: String::new() });
    }
    let errors = text_file::syntax_errors(text).into_iter().map(|error| {
        let message = format!("this is not TOML: {}", error.message().trim_end());
        wrong(error.span().map_or(0, |span| span.start), said(&message), None)
    });
    Err(ConfigErrors(errors.collect()))
}

/// Applies the variables whose names begin with `TALLYGATE__` to the tree, in the order of their
/// names. `__` separates tables, `_` stands for `-`; a value is a TOML value, or else text.
pub(super) fn lay_over(
    root: &mut Node,
    env: impl IntoIterator<Item = (String, String)>,
) -> Vec<ConfigError> {
    let ours = env.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
    let ours: BTreeMap<String, String> = ours.collect();
    let mut errors = Vec::new();
    for (name, raw) in ours {
        let path = name[PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
        // `__` has become `--`, which no key contains.
        let path: Vec<&str> = path.split("--").collect();
        if path.iter().any(|key| key.is_empty()) || !put(root, &path, &name, raw) {
            errors.push(ConfigError {
                file: format!("environment variable {name}"),
                line: 0,
                column: 0,
                words: String::new(),
                message: "it is not a key of the service file".into(),
                help: Some(format!("write {PREFIX}TABLE__KEY, `_` for `-`")),
            });
        }
    }
    errors
}

/// Puts a value at a path, creating tables along it. False if a value blocks the path.
fn put(root: &mut Node, path: &[&str], variable: &str, raw: String) -> bool {
    let place = ValueLocation::Env(variable.to_owned());
    let Some((last, tables)) = path.split_last() else {
        return false;
    };
    let mut at = root;
    for key in tables {
        let Data::Table(entries) = &mut at.data else {
            return false;
        };
        let empty = || Node {
            data: Data::Table(BTreeMap::new()),
            place: place.clone(),
            raw: String::new(),
        };
        at = &mut entries.entry((*key).to_owned()).or_insert_with(|| (place.clone(), empty())).1;
    }
    let Data::Table(entries) = &mut at.data else {
        return false;
    };
    let mut data = match DeValue::parse(&raw) {
        Ok(value) => node_of(&Lines::of(&raw), value).data,
        Err(_) => Data::Text(raw.clone()),
    };
    stand_in(&mut data, &place);
    entries.insert((*last).to_owned(), (place.clone(), Node { data, place, raw }));
    true
}

/// Sets the position of everything within a value to the variable that holds it.
fn stand_in(data: &mut Data, place: &ValueLocation) {
    let set = |node: &mut Node| {
        node.place = place.clone();
        stand_in(&mut node.data, place);
    };
    match data {
        Data::Array(nodes) => nodes.iter_mut().for_each(set),
        Data::Table(entries) => entries.values_mut().for_each(|(key, node)| {
            *key = place.clone();
            node.place = place.clone();
            stand_in(&mut node.data, place);
        }),
        Data::Text(_) | Data::Int(_) | Data::Other(_) => {}
    }
}

fn table_of(lines: &Lines<'_>, table: DeTable<'_>) -> Data {
    let entries = table.into_iter().map(|(key, value)| {
        let place = lines.place(key.span().start);
        (key.into_inner().into_owned(), (place, node_of(lines, value)))
    });
    Data::Table(entries.collect())
}

fn node_of(lines: &Lines<'_>, value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let place = lines.place(span.start);
    let raw = lines.text.get(span).unwrap_or_default();
    // Lists and tables need only a quotation: each would repeat everything within it.
    let raw = match value.get_ref() {
        DeValue::Array(_) | DeValue::Table(_) => text_file::quoted(raw),
        _ => raw.to_owned(),
    };
    let data = match value.into_inner() {
        DeValue::String(text) => Data::Text(text.into_owned()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Data::Int(n),
            Err(_) => Data::Other("a number out of range"),
        },
        DeValue::Array(values) => {
            Data::Array(values.into_iter().map(|value| node_of(lines, value)).collect())
        }
        DeValue::Table(table) => table_of(lines, table),
        DeValue::Float(_) => Data::Other("a number with a fraction"),
        DeValue::Boolean(_) => Data::Other("true or false"),
        DeValue::Datetime(_) => Data::Other("a date"),
    };
    Node { data, place, raw }
}

/// A text with the start of each line, so that a position is found without reading what precedes
/// it.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn place(&self, offset: usize) -> ValueLocation {
        let (line, column) = self.line_column(offset);
        ValueLocation::File(line, column)
    }

    fn line_column(&self, offset: usize) -> (u32, u32) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        (count(line), count(before.chars().count()).saturating_add(1))
    }
}

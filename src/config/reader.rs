//! Typed reading from the tree: each mistake is recorded with its position, and reading continues,
//! so that all of them are reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::ConfigError;
use super::tree::{Data, Node, ValueLocation};
use crate::text_file::{quoted, said};

/// Most mistakes kept. There may be one for each value of a file.
const MAX_KEPT: usize = 1_000;

/// Collects errors.
pub(super) struct Reader {
    file: String,
    errors: RefCell<Vec<ConfigError>>,
}

impl Reader {
    pub(super) fn new(file: &str, errors: Vec<ConfigError>) -> Self {
        Self { file: file.to_owned(), errors: RefCell::new(errors) }
    }

    /// The errors, in the order of the file, the environment last.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| (error.line == 0, error.line, error.column));
        errors
    }

    /// Records a mistake with the words at fault.
    pub(super) fn wrong(&self, node: &Node, message: impl Into<String>, help: impl Into<String>) {
        let words = match &node.place {
            ValueLocation::File(..) => node.raw.lines().next().unwrap_or_default(),
            ValueLocation::Env(_) => "",
        };
        self.note(&node.place, words, message.into(), Some(help.into()));
    }

    /// Records a mistake whose words may be a secret.
    pub(super) fn wrong_secret(&self, node: &Node, message: &str, help: &str) {
        self.note(&node.place, "", message.into(), Some(help.into()));
    }

    pub(super) fn note(
        &self,
        at: &ValueLocation,
        words: &str,
        message: String,
        help: Option<String>,
    ) {
        let (file, line, column) = match at {
            ValueLocation::File(line, column) => (self.file.clone(), *line, *column),
            ValueLocation::Env(name) => (format!("environment variable {name}"), 0, 0),
        };
        let mut errors = self.errors.borrow_mut();
        if errors.len() < MAX_KEPT {
            let (words, message) = (quoted(words), said(&message));
            let help = help.map(|help| said(&help));
            errors.push(ConfigError { file, line, column, words, message, help });
        }
    }

    /// A node that must be a table.
    pub(super) fn table<'a>(&'a self, node: &'a Node, path: &str) -> Option<ServiceTable<'a>> {
        match &node.data {
            Data::Table(entries) => Some(ServiceTable {
                reader: self,
                place: &node.place,
                path: path.to_owned(),
                entries,
                known: RefCell::default(),
            }),
            // It may be an inline secret.
            other => {
                let message = format!("`{path}` is a table, not {}", other.kind());
                self.note(&node.place, "", message, Some("write `{ name = value }`".into()));
                None
            }
        }
    }

    /// A node that must be text.
    pub(super) fn text<'a>(&self, node: &'a Node) -> Option<&'a str> {
        match (&node.data, &node.place) {
            (Data::Text(text), _) => Some(text),
            (Data::Int(_) | Data::Other(_), ValueLocation::Env(_)) => Some(&node.raw),
            (other, _) => {
                let message = format!("this is text, not {}", other.kind());
                self.wrong(node, message, "write it in quotes");
                None
            }
        }
    }
}

/// A table being read. Keys that were never read are unknown.
pub(super) struct ServiceTable<'a> {
    pub(super) reader: &'a Reader,
    pub(super) path: String,
    place: &'a ValueLocation,
    entries: &'a BTreeMap<String, (ValueLocation, Node)>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> ServiceTable<'a> {
    /// The value of a key, which counts as known from now on.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a Node> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.entries.get(key).map(|(_, node)| node)
    }

    pub(super) fn table(&self, key: &'static str) -> Option<ServiceTable<'a>> {
        let path = self.path_of(key);
        self.get(key).and_then(|node| self.reader.table(node, &path))
    }

    /// Non-empty text.
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.text_node(key).map(|(_, text)| text)
    }

    pub(super) fn text_node(&self, key: &'static str) -> Option<(&'a Node, &'a str)> {
        let node = self.get(key)?;
        let text = self.reader.text(node)?;
        if text.is_empty() {
            let message = format!("`{}` is empty", self.path_of(key));
            self.reader.wrong(node, message, "write a value, or leave the key out");
            return None;
        }
        Some((node, text))
    }

    /// Required text.
    pub(super) fn required(&self, key: &'static str) -> Option<&'a str> {
        if !self.entries.contains_key(key) {
            self.missing(key);
        }
        self.text(key)
    }

    pub(super) fn missing(&self, key: &'static str) {
        let message = format!("`{}` is missing", self.path_of(key));
        self.reader.note(self.place, "", message, Some(format!("add `{key} = ..`")));
    }

    /// The one of these keys that is present. None, or a second one, is a mistake; `help` is the
    /// advice about the second. No words are shown: one of them may be a secret.
    pub(super) fn one_of(&self, keys: &[&'static str], help: &str) -> Option<&'static str> {
        let quoted = |keys: &[&str]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
        let there = keys.iter().filter_map(|key| Some((*key, self.get(key)?)));
        match *there.collect::<Vec<_>>() {
            [] => {
                let keys = quoted(keys).join(", ");
                let message = format!("`{}` needs one of {keys}", self.path);
                let help = "add one of them".to_owned();
                self.reader.note(self.place, "", message, Some(help));
                None
            }
            [(key, _)] => Some(key),
            [(first, _), (second, node), ..] => {
                let both = quoted(&[first, second]).join(" or ");
                let message = format!("one `{}` has {both}, not both", self.path);
                self.reader.wrong_secret(node, &message, help);
                None
            }
        }
    }

    /// One text, or a list of texts.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<(&'a Node, &'a str)>> {
        let node = self.get(key)?;
        let nodes = match &node.data {
            Data::Array(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let texts = nodes.iter().filter_map(|node| Some((node, self.reader.text(node)?)));
        Some(texts.collect())
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (node, text) = self.text_node(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let message = format!("`{}` has no such choice", self.path_of(key));
            self.reader.wrong(node, message, format!("write one of {}", words.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &self,
        key: &'static str,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let (node, text) = self.text_node(key)?;
        let Some(duration) = parse_duration(text) else {
            let help = "write a whole number and ms, s, min, h or d: \"500ms\", \"1s\"";
            self.reader.wrong(node, "this is not a duration", help);
            return None;
        };
        if duration < least || duration > most {
            let message = format!("`{}` is between {least:?} and {most:?}", self.path_of(key));
            self.reader.wrong(node, message, "write a duration within these bounds");
            return None;
        }
        Some(duration)
    }

    /// A whole number of at least 1.
    pub(super) fn count(&self, key: &'static str) -> Option<u32> {
        let node = self.get(key)?;
        match &node.data {
            Data::Int(n) if let Ok(n @ 1..) = u32::try_from(*n) => Some(n),
            _ => {
                let message = format!("`{}` is a whole number of at least 1", self.path_of(key));
                self.reader.wrong(node, message, "write it without quotes");
                None
            }
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// All entries with any key; each must be text.
    pub(super) fn all_texts(self) -> BTreeMap<String, String> {
        let read = |(key, (_, node)): (&String, &(ValueLocation, Node))| {
            Some((key.clone(), self.reader.text(node)?.to_owned()))
        };
        self.entries.iter().filter_map(read).collect()
    }

    /// Reports the keys that were never read.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for (key, (place, _)) in self.entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            let message = format!("unknown key `{}`", self.path_of(key));
            let help = match nearest(key, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are: {}", known.join(", ")),
            };
            self.reader.note(place, "", message, Some(help));
        }
    }
}

/// `N(ms|s|min|h|d)`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

/// The known word most similar to a mistyped one, if any is close.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|known| (distance(word, known), *known)).min()?;
    (near.0 <= 1 + word.chars().count() / 4).then_some(near.1)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("2min"), Some(120_000));
        assert_eq!(ms("1d"), Some(86_400_000));
        for wrong in ["", "5", "s", "1.5s", "-1s", "1 s", "1m", "1S", "99999999999999999d"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour_and_a_strange_one_none() {
        let known = ["path", "table", "space", "max-write-units"];
        assert_eq!(nearest("pth", &known), Some("path"));
        assert_eq!(nearest("tabel", &known), Some("table"));
        assert_eq!(nearest("max-write-unit", &known), Some("max-write-units"));
        assert_eq!(nearest("colour", &known), None);
    }
}

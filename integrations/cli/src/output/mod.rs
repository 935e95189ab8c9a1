//! What a command prints: data on standard output, everything else on standard error.
//!
//! # Laws
//!
//! 1. With `--json` standard output is one JSON document, or a line for each entry of a list.
//! 2. No control character, and none that turns the direction of a line, reaches an output as it
//!    is: not from a name in the store, not from the command line. An export that goes to no
//!    terminal has the ids as they are, for programs.
//! 3. Colour only at a terminal, and not with `NO_COLOR`.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use clap::builder::StyledStr;
use serde_json::Value;

use crate::failure::{Failure, code};

mod table;

pub(crate) use table::{Colour, Table};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON for programs, instead of tables for people.
    pub(crate) json: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour: colour && !json }
    }

    /// Prints a JSON document on a line.
    pub(crate) fn document(self, value: &Value) -> Result<(), Failure> {
        print(&json_line(value))
    }

    /// Prints a table.
    pub(crate) fn table(self, table: &Table) -> Result<(), Failure> {
        print(&table.text(self.colour))
    }

    /// Prints a line of text, escaped.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        print(&format!("{}\n", escaped(text)))
    }

    /// Prints help.
    pub(crate) fn help(self, text: &StyledStr) -> Result<(), Failure> {
        match self.colour {
            true => print(&text.ansi().to_string()),
            false => print(&text.to_string()),
        }
    }

    /// Prints a text of ours with its line breaks: a script, a schema.
    pub(crate) fn whole(self, text: &str) -> Result<(), Failure> {
        print(text)
    }
}

/// Says something beside the data.
pub(crate) fn say(text: &str) {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    // Who has closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| not_printed(&error))
}

/// Standard output does not take any more.
pub(crate) fn not_printed(error: &std::io::Error) -> Failure {
    match error.kind() {
        // A pager, or `head`, that has read enough.
        ErrorKind::BrokenPipe => Failure::new(code::OK, ""),
        _ => Failure::new(code::FAILURE, format!("standard output: {error}")),
    }
}

/// Whether a character acts on a terminal instead of being shown.
fn acts(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || turns
}

/// A text that a terminal shows as it is.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// The same of a line of JSON, with its end.
pub(crate) fn json_line(value: &Value) -> String {
    format!("{}\n", escaped_json(&value.to_string()))
}

/// The same of JSON, where such characters are within strings only.
fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match acts(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        let hostile = "a\u{1b}[31m\n\t\u{9b}2J\u{202e}b\u{7f}";
        assert_eq!(escaped(hostile), "a\\u{1b}[31m\\n\\t\\u{9b}2J\\u{202e}b\\u{7f}");
        assert_eq!(escaped("héllo 日本"), "héllo 日本");
        let json = escaped_json(&serde_json::json!({ "id": hostile }).to_string());
        assert!(json.is_ascii() && !json.bytes().any(|b| b < b' ' || b == 127), "{json}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["id"], hostile);
    }
}

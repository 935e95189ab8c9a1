//! What came of checks, and how it is printed. Law: the exit code is that of the first trouble,
//! which is the cause of the others.

use serde_json::json;

use super::Ran;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table};

/// What came of a check.
pub(super) enum Found {
    Ok(String),
    /// The trouble, and what to do.
    Trouble(Failure),
    /// It does not apply, or cannot be made after the trouble before it.
    Left(String),
}

/// Prints the checks by their names.
pub(super) fn print(out: Output, checks: Vec<(&'static str, Found)>) -> Ran {
    let mut table = Table::new(["CHECK", "STATE", "DETAIL"]);
    let mut first = code::OK;
    for (name, found) in checks {
        let (state, colour, text) = match found {
            Found::Ok(text) => ("ok", Colour::Green, text),
            Found::Left(text) => ("left out", Colour::Yellow, text),
            Found::Trouble(failure) => {
                first = if first == code::OK { failure.code } else { first };
                ("trouble", Colour::Red, failure.text)
            }
        };
        if out.json {
            out.document(&json!({ "check": name, "state": state, "detail": text }))?;
            continue;
        }
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        table.coloured([name.to_owned(), state.to_owned(), line], (1, colour));
        lines.for_each(|line| table.row([String::new(), String::new(), line.to_owned()]));
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(first)
}

//! The reader of both TOML files: parses them, checks them against tables of their keys, and
//! reports all mistakes at once, each with its position and what to write instead.
//!
//! A file's keys are data (`form`): from them the parser checks (`shape`), and the JSON Schema of
//! the file is printed (`schema`). What a file means is for `catalog` and `config` to say: they
//! lower the checked tables (`table`) and record further mistakes in the same [`Findings`]. In a
//! file that may hold secrets by mistake, errors hide values (`mask`).

use toml::Spanned;
use toml::de::DeTable;

mod findings;
mod form;
mod mask;
mod names;
mod schema;
#[cfg(test)]
pub(crate) mod schema_tests;
mod shape;
mod table;
mod units;

pub(crate) use findings::Findings;
pub use findings::{FileError, FileErrors, Place, Warning};
pub(crate) use form::{Form, Names, Own, Shape, key};
pub(crate) use mask::looks_secret;
pub(crate) use names::{did_you_mean, known_names, unknown_help};
pub(crate) use schema::{schema, units as unit_pattern, words as word_schema};
pub(crate) use shape::{check_table, fault};
pub(crate) use table::{TableLine, Text, TomlNode, TomlTable, integer, items};
pub(crate) use units::{TextFault, Units, counted, help_for};

use crate::text_file;

/// The file as TOML.
///
/// # Errors
///
/// Its syntax errors alone, because the rest would be guesswork.
pub(crate) fn read<'t>(
    report: &mut Findings<'t>,
    text: &'t str,
) -> Result<Spanned<DeTable<'t>>, FileErrors> {
    match text_file::damage(text) {
        Some(damage) => report.error(damage.at, damage.message, damage.help),
        None => match DeTable::parse(text) {
            Ok(document) => {
                report.mask.iter_mut().for_each(|mask| mask.parsed(document.get_ref()));
                return Ok(document);
            }
            Err(_) => syntax(report, text),
        },
    }
    Err(std::mem::replace(report, Findings::new("", "")).into_errors())
}

/// Records the errors of a text that is not valid TOML.
fn syntax(report: &mut Findings<'_>, text: &str) {
    let mut twice_until = 0;
    for error in text_file::syntax_errors(text) {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim();
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        let is_header = text[line..].trim_start().starts_with('[');
        let help = match message {
            // Keys below a duplicate header are duplicates for the same reason.
            "duplicate key" if span.start < twice_until => continue,
            "duplicate key" if is_header => {
                let rest = text.get(span.start..).unwrap_or_default();
                twice_until = span.start + rest.find("\n[").unwrap_or(rest.len());
                "a table is made once: by its header, or by dotted keys such as \
                 `quota.requests = ..` in the table above it. Put all of it in one place"
            }
            "duplicate key" => "write each key once",
            _ => "see https://toml.io: strings are in double quotes, tables in square brackets",
        };
        report.error(span, message.replace('\n', ": "), help);
    }
}

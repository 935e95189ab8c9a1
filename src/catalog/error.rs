//! Errors of a plan file, with their position and what to write instead.
//!
//! Loading never stops at the first mistake: all are collected in a [`Findings`] and returned as
//! one [`PlanErrors`], in the order of the file. One mistake is reported once, even if several
//! plans inherit it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::model::Place;
use crate::text_file::{MAX_MISTAKES, around, list, quoted, said};

/// All errors of a plan file, in the order of the file; only the first 50, if there are more. Never
/// empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanErrors(Vec<PlanError>);

impl PlanErrors {
    /// The errors, by place.
    pub fn iter(&self) -> std::slice::Iter<'_, PlanError> {
        self.0.iter()
    }

    /// Their number, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a PlanErrors {
    type Item = &'a PlanError;
    type IntoIter = std::slice::Iter<'a, PlanError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0, "\n\n")?;
        if self.0.len() < MAX_MISTAKES { Ok(()) } else { f.write_str("\n\nand perhaps more") }
    }
}

impl std::error::Error for PlanErrors {}

/// One error in a plan file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanError {
    /// The file, as named by its reader.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1, as an editor shows it.
    pub column: u32,
    /// The words at fault, as written; the first 160 characters of them.
    pub words: String,
    /// The error.
    pub message: String,
    /// The suggested fix.
    pub help: String,
    /// The line, for display, or 160 characters around the words.
    source: String,
    /// Column at which `source` begins in the line, in characters.
    source_from: u32,
}

impl fmt::Display for PlanError {
    /// `plans.toml:12:18: message`, the line with a caret below the words, and `help: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, words, message, help, source, source_from } = self;
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        let number = line.to_string();
        writeln!(f, " {number} | {source}")?;
        let before = column.saturating_sub(1).saturating_sub(*source_from) as usize;
        // A tab stays a tab, so that the caret aligns with the word in the terminal.
        let lead: String =
            source.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let first = words.lines().next().unwrap_or_default();
        let carets = "^".repeat(first.chars().count().max(1));
        writeln!(f, " {:1$} | {lead}{carets}", "", number.len())?;
        write!(f, "help: {help}")
    }
}

impl std::error::Error for PlanError {}

/// Something legal in a plan file that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its position.
    pub place: Place,
    /// The message, one or two sentences.
    pub message: String,
}

/// The mistakes and warnings found so far, with the text they are about.
pub(super) struct Findings<'s> {
    file: Arc<str>,
    text: &'s str,
    /// Byte offset of each line's first character.
    lines: Vec<usize>,
    /// By byte offset and message, so that one mistake is kept once.
    errors: BTreeMap<(usize, String), PlanError>,
    /// The words behind each [`Place`] that was returned.
    marks: BTreeMap<(u32, u32), Range<usize>>,
    warnings: BTreeMap<(u32, u32, String), Warning>,
}

impl<'s> Findings<'s> {
    pub(super) fn new(file: &str, text: &'s str) -> Self {
        // A byte order mark is not a character of the first line.
        let first = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file: file.into(),
            text,
            lines: std::iter::once(first).chain(ends).collect(),
            errors: BTreeMap::new(),
            marks: BTreeMap::new(),
            warnings: BTreeMap::new(),
        }
    }

    /// Records a mistake in the words at `span` (bytes).
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (place, line) = self.locate(span.start);
        let message = said(&message.into());
        let (source, source_from) = around(line, place.column.saturating_sub(1) as usize);
        let error = PlanError {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            words: quoted(self.words(&span).lines().next().unwrap_or_default()),
            message: message.clone(),
            help: said(&help.into()),
            source,
            source_from: saturating(source_from),
        };
        self.errors.entry((span.start, message)).or_insert(error);
        if self.errors.len() > MAX_MISTAKES {
            self.errors.pop_last();
        }
    }

    /// Records a mistake in the words marked at `place`.
    pub(super) fn error_at(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.marks.get(&(place.line, place.column)).cloned().unwrap_or(0..0);
        self.error(span, message, help);
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let message = said(&message.into());
        let key = (place.line, place.column, message.clone());
        self.warnings.insert(key, Warning { place, message });
        if self.warnings.len() > MAX_MISTAKES {
            self.warnings.pop_last();
        }
    }

    /// The place of the words at `span`, which [`Findings::error_at`] finds again.
    pub(super) fn mark(&mut self, span: Range<usize>) -> Place {
        let (place, _) = self.locate(span.start);
        self.marks.insert((place.line, place.column), span);
        place
    }

    /// The words at `span`, as written.
    pub(super) fn words(&self, span: &Range<usize>) -> &'s str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The span of `part` within the string `content`, whose literal is at `span`. For a literal
    /// with escapes, the whole literal.
    pub(super) fn within(
        &self,
        span: Range<usize>,
        content: &str,
        part: Range<usize>,
    ) -> Range<usize> {
        let literal = self.words(&span);
        let quotes = literal.chars().take_while(|c| matches!(c, '"' | '\'')).count().min(3);
        let quotes = if quotes == 3 { 3 } else { 1 };
        match literal.get(quotes..) {
            Some(rest) if rest.starts_with(content) && part.start < content.len() => {
                let start = span.start + quotes;
                start + part.start..start + part.end
            }
            _ => span,
        }
    }

    /// The warnings if there are no errors, otherwise all errors.
    pub(super) fn finish(self) -> Result<Vec<Warning>, PlanErrors> {
        if self.errors.is_empty() {
            Ok(self.warnings.into_values().collect())
        } else {
            Err(PlanErrors(self.errors.into_values().collect()))
        }
    }

    /// The errors, if any.
    pub(super) fn into_errors(self) -> PlanErrors {
        PlanErrors(self.errors.into_values().collect())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    fn locate(&self, at: usize) -> (Place, &'s str) {
        let line = self.lines.partition_point(|start| *start <= at).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let whole = self.text.get(start..end).unwrap_or_default();
        let before = self.text.get(start..at).map_or(0, |text| text.chars().count());
        let place = Place { line: saturating(line + 1), column: saturating(before + 1) };
        (place, whole.trim_end_matches(['\n', '\r']))
    }
}

const BOM: char = '\u{feff}';

fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// "did you mean `x`?" for the known name closest to `word`, if one is close.
pub(super) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(far, name)| *far <= 1 + name.chars().count() / 4)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// "write `a`", "write `a` or `b`", or a note that nothing of this kind is defined.
pub(super) fn known_names<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    /// More names than this are no help.
    const SHOWN: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    let mut text = known.iter().take(SHOWN).map(|k| format!("`{k}`")).collect::<Vec<_>>();
    if known.len() > SHOWN {
        text.push("...".to_owned());
    }
    text.join(", ")
}

/// Help for an unknown name: the closest one, or all of them.
pub(super) fn unknown_help<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match did_you_mean(word, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => match known_names(known) {
            names if names.is_empty() => "there is none yet: define it first".to_owned(),
            names => format!("write one of {names}"),
        },
    }
}

/// Edit distance from `a` to `b`: insertions, deletions, substitutions and swaps of neighbours
/// (optimal string alignment). Words longer than any name are not compared.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 128;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut older: Vec<usize> = vec![0; b.len() + 1];
    let mut old: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut new = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            new[j] = (old[j] + 1).min(new[j - 1] + 1).min(old[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                new[j] = new[j].min(older[j - 2] + 1);
            }
        }
        older = std::mem::replace(&mut old, new);
    }
    old[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_close_word_and_not_a_far_one() {
        let known = ["requests", "egress", "credits"];
        assert_eq!(did_you_mean("reqeusts", known), Some("requests"));
        assert_eq!(did_you_mean("request", known), Some("requests"));
        assert_eq!(did_you_mean("Egress", known), Some("egress"));
        assert_eq!(did_you_mean("bananas", known), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn columns_count_characters_and_skip_the_byte_order_mark() {
        let text = "\u{feff}é = 1\r\nß = x\r\n";
        let mut report = Findings::new("p", text);
        let x = text.find('x').unwrap();
        report.error(x..x + 1, "no", "yes");
        report.error(3..5, "no", "yes");
        let errors = report.finish().unwrap_err();
        let places: Vec<_> = errors.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(places, [(1, 1), (2, 5)]);
        let shown = errors.iter().last().unwrap().to_string();
        assert_eq!(shown, "p:2:5: no\n 2 | ß = x\n   |     ^\nhelp: yes");
    }

    #[test]
    fn one_mistake_is_reported_once() {
        let mut report = Findings::new("p", "a = 1\n");
        report.error(0..1, "no", "yes");
        report.error(0..1, "no", "yes");
        assert_eq!(report.finish().unwrap_err().len(), 1);
    }
}

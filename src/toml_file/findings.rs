//! Errors of a file, with their position and what to write instead.
//!
//! Loading never stops at the first mistake: all are collected in a [`Findings`] and returned as
//! one [`FileErrors`], in the order of the file. One mistake is reported once, even if several
//! plans inherit it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::form::Shape;
use super::mask::{HIDDEN, MASKED, Mask, looks_secret, unmask};
use crate::text_file::{MAX_MISTAKES, around, list, quoted, said};

/// All errors of a file, in the order of the file; only the first 50, if there are more. Never
/// empty. An [`Error`](crate::Error) of opening or reloading holds them; print them for the person
/// who edits the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileErrors(Vec<FileError>);

impl FileErrors {
    /// The errors, by place.
    pub fn iter(&self) -> std::slice::Iter<'_, FileError> {
        self.0.iter()
    }

    /// Their number, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a FileErrors {
    type Item = &'a FileError;
    type IntoIter = std::slice::Iter<'a, FileError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0, "\n\n")?;
        if self.0.len() < MAX_MISTAKES { Ok(()) } else { f.write_str("\n\nand perhaps more") }
    }
}

impl std::error::Error for FileErrors {}

/// One error in a file. Its message says what to write instead.
/// [`PlanErrors`](crate::catalog::PlanErrors) lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileError {
    /// The file, as named by its reader, or the environment variable.
    pub file: Arc<str>,
    /// Line, from 1; 0 in an environment variable.
    pub line: u32,
    /// Column in characters, from 1, as an editor shows it; 0 in an environment variable.
    pub column: u32,
    /// The words at fault, as written; the first 160 characters of them. `***` for a value that
    /// may be a secret.
    pub words: String,
    /// The error.
    pub message: String,
    /// The suggested fix.
    pub help: String,
    /// The line, for display, or 160 characters around the words.
    source: String,
    /// The words' place in `source`, in characters.
    lead: usize,
}

impl fmt::Display for FileError {
    /// `plans.toml:12:18: message`, the line with a caret below the words, and `help: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, words, message, help, source, lead } = self;
        if *line == 0 {
            return write!(f, "{file}: {message}\nhelp: {help}");
        }
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        let number = line.to_string();
        writeln!(f, " {number} | {source}")?;
        // A tab stays a tab, so that the caret aligns with the word in the terminal.
        let lead: String =
            source.chars().take(*lead).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let first = words.lines().next().unwrap_or_default();
        let carets = "^".repeat(first.chars().count().max(1));
        writeln!(f, " {:1$} | {lead}{carets}", "", number.len())?;
        write!(f, "help: {help}")
    }
}

impl std::error::Error for FileError {}

/// A position in a file, for errors. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Something legal in a file that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its position.
    pub place: Place,
    /// The message, one or two sentences.
    pub message: String,
}

/// The mistakes and warnings found so far, with the text they are about.
pub(crate) struct Findings<'s> {
    file: Arc<str>,
    text: &'s str,
    /// Byte offset of each line's first character.
    lines: Vec<usize>,
    /// Span and help by byte offset and message, so that one mistake is kept once.
    errors: BTreeMap<(usize, String), (Range<usize>, String)>,
    /// The words behind each [`Place`] that was returned.
    marks: BTreeMap<(u32, u32), Range<usize>>,
    warnings: BTreeMap<(u32, u32, String), Warning>,
    /// What of the text is hidden in errors; `None`: nothing.
    pub(super) mask: Option<Mask>,
    /// The environment variables that override the file; each has a place beyond the text's end.
    variables: Vec<&'s str>,
}

impl<'s> Findings<'s> {
    pub(crate) fn new(file: &str, text: &'s str) -> Self {
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
            mask: None,
            variables: Vec::new(),
        }
    }

    /// The same of a file with secrets among these keys: errors hide every value except those that
    /// the check of the shape shows.
    pub(crate) fn masked(file: &str, text: &'s str, keys: &Shape) -> Self {
        Self { mask: Some(Mask::new(keys)), ..Self::new(file, text) }
    }

    /// A value as errors name it.
    pub(crate) fn named<'t>(&self, text: &'t str) -> &'t str {
        if self.mask.is_some() && looks_secret(text) { MASKED } else { text }
    }

    /// The span of everything in this environment variable.
    pub(crate) fn variable(&mut self, name: &'s str) -> Range<usize> {
        self.variables.push(name);
        let at = self.text.len() + self.variables.len();
        at..at
    }

    /// Whether the words at `span` are those of an environment variable.
    pub(crate) fn is_variable(&self, span: &Range<usize>) -> bool {
        span.start > self.text.len()
    }

    /// Records a mistake in the words at `span` (bytes).
    pub(crate) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (message, help) = (said(&message.into()), said(&help.into()));
        self.errors.entry((span.start, message)).or_insert((span, help));
        if self.errors.len() > MAX_MISTAKES {
            self.errors.pop_last();
        }
    }

    /// Records a mistake in the words marked at `place`.
    pub(crate) fn error_at(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.marks.get(&(place.line, place.column)).cloned().unwrap_or(0..0);
        self.error(span, message, help);
    }

    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let message = said(&message.into());
        let key = (place.line, place.column, message.clone());
        self.warnings.insert(key, Warning { place, message });
        if self.warnings.len() > MAX_MISTAKES {
            self.warnings.pop_last();
        }
    }

    /// The place of the words at `span`, which [`Findings::error_at`] finds again.
    pub(crate) fn mark(&mut self, span: Range<usize>) -> Place {
        let (place, _) = self.locate(span.start);
        self.marks.insert((place.line, place.column), span);
        place
    }

    /// The words at `span`, as written.
    pub(crate) fn words(&self, span: &Range<usize>) -> &'s str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The span of `part` within the string `content`, whose literal is at `span`. For a literal
    /// with escapes, the whole literal.
    pub(crate) fn within(
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
    pub(crate) fn finish(self) -> Result<Vec<Warning>, FileErrors> {
        match self.errors.is_empty() {
            true => Ok(self.warnings.into_values().collect()),
            false => Err(self.into_errors()),
        }
    }

    /// The errors, if any.
    pub(crate) fn into_errors(mut self) -> FileErrors {
        let errors = std::mem::take(&mut self.errors);
        let text = match &self.mask {
            Some(mask) => Cow::Owned(mask.over(self.text)),
            None => Cow::Borrowed(self.text),
        };
        let shown = |((_, message), (span, help))| self.shown(&text, span, message, help);
        FileErrors(errors.into_iter().map(shown).collect())
    }

    /// An error with its line from `text`, the file's text under the mask.
    fn shown(&self, text: &str, span: Range<usize>, message: String, help: String) -> FileError {
        let variable = span.start.checked_sub(self.text.len() + 1);
        let file = match variable.and_then(|n| self.variables.get(n)) {
            Some(name) => format!("environment variable {name}").into(),
            None => self.file.clone(),
        };
        let (place, line) = self.locate(span.start);
        let unmasked = |part: &str| match self.mask {
            Some(_) => unmask(part),
            None => part.to_owned(),
        };
        let before = text.get(line.start..span.start).unwrap_or_default();
        let words = text.get(span).unwrap_or_default();
        let whole = text.get(line).unwrap_or_default().trim_end_matches(['\n', '\r']);
        let mut lead = unmasked(before).chars().count();
        if self.mask.is_some() && before.ends_with(HIDDEN) && words.starts_with(HIDDEN) {
            lead -= MASKED.len();
        }
        let (source, from) = around(&unmasked(whole), lead);
        FileError {
            file,
            line: place.line,
            column: place.column,
            words: quoted(&unmasked(words.lines().next().unwrap_or_default())),
            message,
            help,
            source,
            lead: lead - from,
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The place of a byte, and the span of its line; none in an environment variable.
    fn locate(&self, at: usize) -> (Place, Range<usize>) {
        if at > self.text.len() {
            return (Place::default(), at..at);
        }
        let line = self.lines.partition_point(|start| *start <= at).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let before = self.text.get(start..at).map_or(0, |text| text.chars().count());
        (Place { line: saturating(line + 1), column: saturating(before + 1) }, start..end)
    }
}

const BOM: char = '\u{feff}';

fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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

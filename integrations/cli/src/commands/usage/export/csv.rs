//! Rows as CSV (RFC 4180): a heading, commas, texts in quotes, lines that end with CR LF.
//!
//! Laws: an amount is exact, as everywhere in this command. A tenant's id, which a customer may
//! have chosen, is no formula to a spreadsheet: one that begins as a formula does has `'` before
//! it, and so has one that begins with `'`, so that what was there can be read back.

use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};

use super::{Row, Rows, Sink, not_written, period};
use crate::args::By;
use crate::failure::Failure;
use crate::output::escaped;

/// How texts are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells {
    /// As they are: for programs.
    pub(super) raw: bool,
    /// Without characters that act on a terminal.
    pub(super) at_terminal: bool,
}

/// CSV that is being written.
pub(super) struct Csv {
    to: Writer<Sink>,
    by: By,
    cells: Cells,
}

impl Csv {
    /// Writes the heading.
    pub(super) fn begin(sink: Sink, by: By, cells: Cells) -> Result<Self, Failure> {
        let mut builder = WriterBuilder::new();
        // Quoted, a text stays one cell where a spreadsheet expects semicolons, too.
        builder.quote_style(QuoteStyle::NonNumeric).terminator(Terminator::CRLF);
        let mut to = builder.from_writer(sink);
        to.write_record(["tenant", "meter", by.word(), "used"]).map_err(failed)?;
        Ok(Self { to, by, cells })
    }
}

impl Rows for Csv {
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        let id = self.cells.text(row.tenant);
        let (day, used) = (period(row.day, self.by), row.used.to_string());
        self.to.write_record([id.as_str(), row.meter, &day, &used]).map_err(failed)
    }

    fn end(mut self: Box<Self>) -> Result<(), Failure> {
        self.to.flush().map_err(not_written)
    }
}

impl Cells {
    fn text(self, id: &str) -> String {
        let id = if self.at_terminal { escaped(id) } else { id.to_owned() };
        match id.chars().next() {
            Some(first) if !self.raw && (is_formula(first) || first == '\'') => format!("'{id}"),
            _ => id,
        }
    }
}

/// Whether a cell that begins so is a formula to some spreadsheet; the wide forms are where wide
/// characters are typed.
fn is_formula(first: char) -> bool {
    matches!(first, '=' | '+' | '-' | '@' | '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}')
}

fn failed(error: csv::Error) -> Failure {
    not_written(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_a_formula_is_text_and_can_be_read_back() {
        let cells = Cells { raw: false, at_terminal: false };
        for formula in ["=1+1", "+1", "-1", "@sum", "\u{ff1d}1", "'quoted"] {
            let text = cells.text(formula);
            assert_eq!(text.strip_prefix('\''), Some(formula));
            assert_eq!(Cells { raw: true, ..cells }.text(formula), formula);
        }
        for plain in ["acme", "a=1", "9", " =1", "日本"] {
            assert_eq!(cells.text(plain), plain);
        }
        assert_eq!(Cells { at_terminal: true, ..cells }.text("a\u{202e}b"), "a\\u{202e}b");
    }
}

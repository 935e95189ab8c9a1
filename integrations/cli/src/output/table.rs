//! Tables for people: columns as wide as their widest cell, two spaces between them.

use unicode_width::UnicodeWidthStr as _;

use super::escaped;

/// The colour of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// As everything else.
    Plain,
    /// Something is wrong.
    Red,
    /// All is well.
    Green,
    /// Something to look at.
    Yellow,
}

impl Colour {
    fn around(self, text: &str) -> String {
        let number = match self {
            Self::Plain => return text.to_owned(),
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        };
        format!("\u{1b}[{number}m{text}\u{1b}[0m")
    }
}

/// A table. Its cells are escaped as they are put in.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Colour)>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let row = headings.map(|it| (it.to_owned(), Colour::Plain));
        Self { rows: vec![row.to_vec()] }
    }

    /// A table of names and their values, without headings.
    pub(crate) fn of_pairs() -> Self {
        Self::default()
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|it| (escaped(&it), Colour::Plain));
        self.rows.push(cells.collect());
    }

    /// A row with one cell in a colour, by its number.
    pub(crate) fn coloured<const N: usize>(
        &mut self,
        cells: [String; N],
        (at, colour): (usize, Colour),
    ) {
        self.row(cells);
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.get_mut(at)) {
            cell.1 = colour;
        }
    }

    /// A name and its value.
    pub(crate) fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.row([name.to_owned(), value.into()]);
    }

    pub(crate) fn text(&self, colour: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|(text, _)| text.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (text, own)) in row.iter().enumerate() {
                let shown = if colour { own.around(text) } else { text.clone() };
                line.push_str(&shown);
                if at + 1 < row.len() {
                    let pad = widths.get(at).map_or(0, |width| width - text.width().min(*width));
                    line.push_str(&" ".repeat(pad + 2));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_are_shown() {
        let mut table = Table::new(["ID", "PLAN"]);
        table.row(["日本".to_owned(), "free".to_owned()]);
        table.row(["a\u{1b}".to_owned(), "pro".to_owned()]);
        assert_eq!(table.text(false), "ID       PLAN\n日本     free\na\\u{1b}  pro\n");
    }

    #[test]
    fn colour_is_around_the_text_alone() {
        let mut table = Table::of_pairs();
        table.coloured(["ok".to_owned(), "x".to_owned()], (0, Colour::Green));
        assert_eq!(table.text(true), "\u{1b}[32mok\u{1b}[0m  x\n");
        assert_eq!(table.text(false), "ok  x\n");
    }
}

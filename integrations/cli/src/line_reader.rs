//! The lines of a log, one by one, each within a bound: the file may be of any size, and anything.

use std::io::{BufRead, Read as _, Result};

/// Most bytes of a line: eight times the longest request line that servers take, and a hundred
/// times a usual decision.
pub(crate) const MOST: usize = 64 * 1024;

/// Reads a log by lines.
pub(crate) struct LineReader<R> {
    from: R,
    line: Vec<u8>,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Whole(&'a [u8]),
    /// It has more than [`MOST`] bytes, and was passed over.
    TooLong,
}

impl<R: BufRead> LineReader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, line: Vec::new() }
    }

    /// The next line; `None`: the log has ended.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.line.clear();
        let most = MOST as u64 + 1; // with its end
        let read = (&mut self.from).take(most).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read > MOST {
            self.pass_over()?;
            return Ok(Some(Line::TooLong));
        }
        Ok((read > 0).then_some(Line::Whole(&self.line)))
    }

    /// Goes to the end of the line.
    fn pass_over(&mut self) -> Result<()> {
        loop {
            let part = self.from.fill_buf()?;
            let end = part.iter().position(|byte| *byte == b'\n');
            let read = end.map_or(part.len(), |end| end + 1);
            self.from.consume(read);
            if end.is_some() || read == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_the_bound_is_passed_over_and_the_next_is_read() {
        let most = "x".repeat(MOST);
        let log = format!("a\n\n{most}\n{most}y\n{most}{most}\nb");
        let mut lines = LineReader::new(log.as_bytes());
        for wanted in ["a", "", &most] {
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(wanted.as_bytes())));
        }
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"b")));
        assert_eq!(lines.next().unwrap(), None);
        assert!(lines.line.capacity() <= 2 * MOST + 2, "{}", lines.line.capacity());
    }
}

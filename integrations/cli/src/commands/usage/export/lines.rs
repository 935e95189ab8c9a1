//! Rows as lines of JSON, with amounts as `usage history --json` has them: whole units, and beside
//! them the exact text where those are not exact.

use std::io::Write as _;

use serde_json::json;

use super::{Row, Rows, Sink, not_written, period};
use crate::args::By;
use crate::failure::Failure;
use crate::output::json_line;

/// Largest whole number that every reader of JSON represents exactly.
const EXACT: u64 = 1 << 53;

/// Lines that are being written.
pub(super) struct Lines {
    to: Sink,
    by: By,
}

impl Lines {
    pub(super) fn begin(to: Sink, by: By) -> Self {
        Self { to, by }
    }
}

impl Rows for Lines {
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        let (whole, text) = (row.used.whole(), row.used.to_string());
        let mut line = json!({ "tenant": row.tenant, "meter": row.meter, "used": whole });
        line[self.by.word()] = json!(period(row.day, self.by));
        if whole > EXACT || row.used != whole {
            line["used_text"] = json!(text);
        }
        self.to.write_all(json_line(&line).as_bytes()).map_err(not_written)
    }

    fn end(mut self: Box<Self>) -> Result<(), Failure> {
        self.to.flush().map_err(not_written)
    }
}

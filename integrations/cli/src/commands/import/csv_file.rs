//! `import csv`: a heading, and a row for each tenant or each of its keys. A cell that is empty
//! says nothing.

use csv::{ByteRecord, ReaderBuilder};

use super::key;
use super::rows::{KeyRow, Place, Read, Row, within};
use crate::failure::Failure;

/// The columns, of which `tenant` must be there.
const COLUMNS: [&str; 6] = ["tenant", "plan", "account", "key", "key_sha256", "key_name"];
/// Most columns of a file, of which others may have more than are read here.
const MOST_COLUMNS: usize = 1_000;
/// The name of a key whose row has none.
const NAME: &str = "imported";

/// Reads a file. An error is about the heading: without it no row means anything.
pub(super) fn read(bytes: &[u8], prefixes: &[String]) -> Result<Read, Failure> {
    let (heading, records) = records(bytes, &COLUMNS)?;
    let known = |name: &String| COLUMNS.contains(&name.as_str());
    if let Some(other) = heading.iter().find(|name| !known(name)) {
        let text = format!("there is no column {other:?}\nhelp: write some of ");
        return Err(Failure::usage(text + &COLUMNS.join(", ")));
    }
    if !heading.iter().any(|name| name == "tenant") {
        let text = "the first line has no column \"tenant\"\nhelp: begin with tenant,plan,key";
        return Err(Failure::usage(text));
    }
    let mut read = Read::default();
    for (line, cells) in records {
        let at = Place { word: "line", number: line };
        let row = cells.and_then(|cells| row(at, &Cells { heading: &heading, cells }, prefixes));
        read.add(at, row)?;
    }
    Ok(read)
}

/// The cells of a row by their columns.
pub(super) struct Cells<'a> {
    pub(super) heading: &'a [String],
    pub(super) cells: Vec<String>,
}

impl Cells<'_> {
    /// What stands in a column; `None`: nothing.
    pub(super) fn get(&self, column: &str) -> Option<&str> {
        let at = self.heading.iter().position(|name| name == column)?;
        self.cells.get(at).map(String::as_str).filter(|cell| !cell.is_empty())
    }
}

fn row(at: Place, cells: &Cells<'_>, prefixes: &[String]) -> Result<Row, String> {
    let own = |column| cells.get(column).map(str::to_owned);
    let tenant = own("tenant").ok_or("it names no tenant")?;
    let sha256 = match (cells.get("key"), cells.get("key_sha256")) {
        (Some(_), Some(_)) => return Err("it has a key and a key_sha256: leave one out".to_owned()),
        (Some(plain), None) => Some(key::hash(plain, prefixes)?),
        (None, Some(hex)) => Some(key::hashed(hex)?),
        (None, None) => None,
    };
    let name = own("key_name");
    let key = match (sha256, name) {
        (None, Some(_)) => return Err("it has a key_name and no key".to_owned()),
        (None, None) => None,
        (Some(sha256), name) => {
            Some(KeyRow { name: name.unwrap_or_else(|| NAME.to_owned()), sha256 })
        }
    };
    Ok(Row { at, tenant, plan: own("plan"), account: own("account"), key })
}

/// The cells of a line, or what is wrong with it.
type Record = (u64, Result<Vec<String>, String>);

/// The heading of a CSV file, in lower case, and its other lines with their numbers. The heading
/// has each of the columns that are read at most once.
pub(super) fn records(
    bytes: &[u8],
    columns: &[&str],
) -> Result<(Vec<String>, Vec<Record>), Failure> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let (mut heading, mut records) = (None::<Vec<String>>, Vec::new());
    let mut lines = Lines { of: bytes, at: 0, number: 1 };
    for record in reader.byte_records() {
        // Of what is in memory nothing but its form can be wrong, and all forms are read.
        let record = record.map_err(|error| Failure::usage(error.to_string()))?;
        let line = lines.number_at(record.position().map_or(0, csv::Position::byte));
        match &heading {
            None => {
                let cells = texts(&record, record.len().min(MOST_COLUMNS));
                let cells =
                    cells.map_err(|why| Failure::usage(format!("the first line: {why}")))?;
                heading = Some(cells.iter().map(|name| name.to_lowercase()).collect());
            }
            Some(heading) => records.push((line, texts(&record, heading.len()))),
        }
        within(records.len())?;
    }
    let heading = heading.ok_or_else(|| Failure::usage("the file is empty: it has no heading"))?;
    let times = |column: &str| heading.iter().filter(|name| *name == column).count();
    if let Some(column) = columns.iter().find(|column| times(column) > 1) {
        let text = format!("the heading names the column {column:?} twice");
        return Err(Failure::usage(text + "\nhelp: leave one of them out"));
    }
    Ok((heading, records))
}

/// The numbers of lines as an editor counts them: the reader's own are one less behind CR LF.
struct Lines<'a> {
    of: &'a [u8],
    at: usize,
    number: u64,
}

impl Lines<'_> {
    /// The line of a row that begins here, or behind line breaks that follow.
    fn number_at(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(next) = self.of.get(self.at) {
            if self.at >= byte && !matches!(next, b'\r' | b'\n') {
                break;
            }
            self.number += u64::from(*next == b'\n');
            self.at += 1;
        }
        self.number
    }
}

/// The cells of a row, which has as many as there are columns.
fn texts(record: &ByteRecord, columns: usize) -> Result<Vec<String>, String> {
    if record.len() != columns {
        return Err(format!(
            "it has {} cells, and there are {columns} columns: put a cell with a comma into double \
             quotes",
            record.len()
        ));
    }
    let text = |cell: &[u8]| {
        let text = std::str::from_utf8(cell).map_err(|_| "it is not UTF-8".to_owned())?;
        match text.chars().any(char::is_control) {
            true => Err("it has a control character, or a quote that does not end".to_owned()),
            false => Ok(text.trim().to_owned()),
        }
    };
    record.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Result<Read, Failure> {
        read(text, &["tg_".to_owned()])
    }

    #[test]
    fn rows_are_read_in_every_form_of_csv() {
        let text = "\u{feff}Plan,tenant,key\r\n pro ,acme,\"\"\n\n\"\",\"a,\"\"b\"\"\",\r\n";
        let read = of(text.as_bytes()).unwrap();
        let rows = read.rows.iter().map(|it| (it.at.number, &*it.tenant, it.plan.as_deref()));
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows, [(2, "acme", Some("pro")), (4, "a,\"b\"", None)]);
        assert!(read.wrong.is_empty() && read.rows.iter().all(|it| it.key.is_none()));
    }

    #[test]
    fn each_wrong_row_is_named_and_the_others_are_read() {
        let text =
            b"tenant,key,key_sha256,key_name\nacme,,,\n,,,\nb,short,,\nc,,12ab,\nd,,,laptop\n\
                     e,x\ng,\xff,,\nh,a\x1bb,,\nglobex,,,\ni,\"open,,\nj,,,\n";
        let read = of(text).unwrap();
        let ids: Vec<_> = read.rows.iter().map(|row| row.tenant.as_str()).collect();
        assert_eq!(ids, ["acme", "globex"]);
        let wrong: Vec<u64> = read.wrong.iter().map(|it| it.at.number).collect();
        assert_eq!(wrong, [3, 4, 5, 6, 7, 8, 9, 11]);
        for heading in ["", "plan\nx\n", "tenant,colour\na,b\n"] {
            assert!(of(heading.as_bytes()).is_err(), "{heading}");
        }
    }
}

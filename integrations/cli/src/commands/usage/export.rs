//! `usage export`: what tenants have used by day or month, page by page, as rows of a format. Only
//! a page of tenants and what the ledger has folded are in memory, whatever is exported.

use std::io::{BufWriter, IsTerminal as _, Write};
use std::ops::Range;
use std::sync::Arc;

use jiff::civil::Date;
use tallygate::directory::TenantRecord;
use tallygate::report::Granularity;
use tallygate::{Amount, Gate, RecordedUse};
use tokio::task::JoinSet;

use super::Ran;
use crate::args::{By, ExportFormat, UsageExport};
use crate::failure::{Failure, code};
use crate::new_file::NewFile;
use crate::output::{Output, not_printed, say};
use crate::progress::Progress;
use crate::service::{For, with_gate};
use crate::settings::Settings;

mod csv;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;

/// Tenants of one page of the list.
const PAGE: usize = 250;
/// Tenants whose usage is read at once: a table answers each in milliseconds.
const AT_ONCE: usize = 16;

/// What is written of a tenant, a meter, and a day or month.
struct Row<'a> {
    tenant: &'a str,
    meter: &'a str,
    /// The day, or the first of the month.
    day: Date,
    used: Amount,
}

/// A format that is being written.
trait Rows: Send {
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure>;
    /// Writes what is left, and what stands at the end.
    fn end(self: Box<Self>) -> Result<(), Failure>;
}

/// Where the bytes go.
type Sink = Box<dyn Write + Send>;

pub(super) async fn run(out: Output, settings: &Settings, what: &UsageExport) -> Ran {
    let days = days(what)?;
    can_be_written(out, what)?;
    let file = what.output.as_deref().map(NewFile::begin).transpose()?;
    let written = with_gate(settings, For::Tenants, async |gate| {
        known_meters(gate, &what.meter)?;
        let named = named(gate, &what.tenant).await?;
        let sink: Sink = match &file {
            Some(file) => Box::new(BufWriter::new(file.writer()?)),
            None => Box::new(BufWriter::new(std::io::stdout())),
        };
        let (rows, progress) = (rows(out, what, sink)?, Progress::begin(file.is_none()));
        let mut walk = Walk { gate, what, days, rows, progress, count: 0 };
        if what.tenant.is_empty() {
            walk.list().await?
        } else {
            walk.write(&named).await?
        }
        walk.rows.end()?;
        Ok(walk.count)
    })
    .await?;
    if let Some(file) = file {
        file.finish()?;
        say(&format!("{written} {}", if written == 1 { "row" } else { "rows" }));
    }
    Ok(code::OK)
}

/// Whether this build writes the format, and to where it is to go.
fn can_be_written(out: Output, what: &UsageExport) -> Result<(), Failure> {
    if out.json || what.format != ExportFormat::Parquet {
        return Ok(());
    }
    if cfg!(not(feature = "parquet")) {
        return Err(no_parquet());
    }
    if what.output.is_none() && std::io::stdout().is_terminal() {
        let text = "Parquet is no text, and standard output is a terminal";
        return Err(Failure::usage(format!("{text}\nhelp: write --output FILE")));
    }
    Ok(())
}

fn no_parquet() -> Failure {
    let text = "this build writes no Parquet: it lacks the feature `parquet`";
    let help = "cargo install tallygate-cli --features parquet; or --format csv";
    Failure::new(code::FILE, format!("{text}\nhelp: {help}"))
}

/// The rows of the format that is asked for.
fn rows(out: Output, what: &UsageExport, sink: Sink) -> Result<Box<dyn Rows>, Failure> {
    let at_terminal = what.output.is_none() && std::io::stdout().is_terminal();
    Ok(match what.format {
        _ if out.json => Box::new(lines::Lines::begin(sink, what.by)),
        ExportFormat::Csv => {
            let cells = csv::Cells { raw: what.raw, at_terminal };
            Box::new(csv::Csv::begin(sink, what.by, cells)?)
        }
        #[cfg(feature = "parquet")]
        ExportFormat::Parquet => Box::new(parquet::Parquet::begin(sink, what.by)?),
        #[cfg(not(feature = "parquet"))]
        ExportFormat::Parquet => return Err(no_parquet()),
    })
}

/// The tenants that are named, each once, in the order of their ids.
async fn named(gate: &Gate, ids: &[String]) -> Result<Vec<Arc<TenantRecord>>, Failure> {
    let mut records = Vec::new();
    for id in ids {
        let tenant = gate.directory().find(id).await?;
        records.push(tenant.ok_or_else(|| Failure::no_tenant(id))?.record().clone());
    }
    records.sort_by(|a, b| a.id.cmp(&b.id));
    records.dedup_by(|a, b| a.id == b.id);
    Ok(records)
}

/// The days that are asked for, as numbers: 20261124.
fn days(what: &UsageExport) -> Result<Range<u32>, Failure> {
    let number = |day: Date| {
        let parts = [(day.year().into(), 10_000), (day.month().into(), 100), (day.day().into(), 1)];
        parts.iter().map(|(part, by): &(i32, i32)| part * by).sum::<i32>().try_into().unwrap_or(0)
    };
    let range = what.from.map_or(0, number)..what.until.map_or(u32::MAX, number);
    match range.is_empty() {
        true => Err(Failure::usage("--until must be later than --from: it is the day after")),
        false => Ok(range),
    }
}

/// A day of the library's as a date.
fn date(day: u32) -> Result<Date, Failure> {
    let part = |by: u32, of: u32| i8::try_from(day / by % of);
    let year = i16::try_from(day / 10_000);
    let date = match (year, part(100, 100), part(1, 100)) {
        (Ok(year), Ok(month), Ok(day)) => Date::new(year, month, day).ok(),
        _ => None,
    };
    date.ok_or_else(|| Failure::new(code::FAILURE, format!("{day} in the store is no day")))
}

/// Whether the plan file has these meters.
fn known_meters(gate: &Gate, asked: &[String]) -> Result<(), Failure> {
    let known = gate.meter_names();
    for name in asked.iter().filter(|name| !known.iter().any(|it| **it == ***name)) {
        gate.meter(name)?;
    }
    Ok(())
}

/// The walk over tenants.
struct Walk<'a> {
    gate: &'a Gate,
    what: &'a UsageExport,
    days: Range<u32>,
    rows: Box<dyn Rows>,
    progress: Progress,
    count: u64,
}

impl Walk<'_> {
    /// All tenants with the prefix.
    async fn list(&mut self) -> Result<(), Failure> {
        let (mut after, mut seen) = (String::new(), 0);
        loop {
            let page = self.gate.directory().list(&self.what.prefix, &after, PAGE).await?;
            let records: Vec<_> = page.iter().map(|tenant| tenant.record().clone()).collect();
            self.write(&records).await?;
            seen += records.len();
            self.progress.say(format!("{seen} tenants, {} rows", self.count));
            match records.last() {
                Some(last) if records.len() == PAGE => after.clone_from(&last.id),
                _ => return Ok(()),
            }
        }
    }

    async fn write(&mut self, records: &[Arc<TenantRecord>]) -> Result<(), Failure> {
        for some in records.chunks(AT_ONCE) {
            for (record, uses) in some.iter().zip(self.uses(some).await?) {
                for it in &uses {
                    self.row(&record.id, it)?;
                }
            }
        }
        Ok(())
    }

    /// What these tenants have used, in their order.
    async fn uses(&self, of: &[Arc<TenantRecord>]) -> Result<Vec<Vec<RecordedUse>>, Failure> {
        let by = match self.what.by {
            By::Day => Granularity::Day,
            By::Month => Granularity::Month,
        };
        let mut reads = JoinSet::new();
        for (place, record) in of.iter().enumerate() {
            let (gate, record, days) = (self.gate.clone(), record.clone(), self.days.clone());
            reads.spawn(async move { (place, gate.recorded_use(&record, by, days).await) });
        }
        let mut read = Vec::with_capacity(of.len());
        while let Some(ended) = reads.join_next().await {
            let (place, uses) =
                ended.map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
            read.push((place, uses?));
        }
        read.sort_by_key(|(place, _)| *place);
        Ok(read.into_iter().map(|(_, uses)| uses).collect())
    }

    fn row(&mut self, tenant: &str, of: &RecordedUse) -> Result<(), Failure> {
        let meters = &self.what.meter;
        if !meters.is_empty() && !meters.iter().any(|it| **it == *of.meter) {
            return Ok(());
        }
        let row = Row { tenant, meter: &of.meter, day: date(of.day)?, used: of.used };
        self.count += 1;
        self.rows.row(&row)
    }
}

/// Nothing more can be written.
fn not_written(error: impl Into<std::io::Error>) -> Failure {
    let error = error.into();
    let failure = not_printed(&error);
    match failure.text.is_empty() {
        true => failure,
        false => Failure { text: format!("the export cannot be written: {error}"), ..failure },
    }
}

/// A row's day or month as text.
fn period(day: Date, by: By) -> String {
    match by {
        By::Day => day.to_string(),
        By::Month => day.strftime("%Y-%m").to_string(),
    }
}

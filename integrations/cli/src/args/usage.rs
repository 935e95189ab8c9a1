//! `usage`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;

use crate::when::{self, When};

/// `usage`.
#[derive(Debug, Subcommand)]
pub(crate) enum Usage {
    /// Show a tenant's limits, and what it has used of them
    Show {
        /// The tenant
        id: String,
    },
    /// Say what so many units would get now, and use none: admitted, or refused by which limit
    Peek {
        /// The tenant
        id: String,
        /// The meter
        meter: String,
        /// Whole units
        units: u64,
    },
    /// Show a tenant's usage of a meter over time
    History(UsageHistory),
    /// Write the usage of all tenants, or of some, for spreadsheets and other programs
    Export(UsageExport),
    /// Count units that were used elsewhere; the same id counts once
    Record {
        /// The tenant
        id: String,
        /// The meter
        meter: String,
        /// Whole units
        units: u64,
        /// The event's id, the same at each repetition
        #[arg(long = "id", value_name = "EVENT")]
        event: String,
        /// When it was used; now if it is left out
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        at: Option<When>,
        /// Check the tenant and the meter, and count nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `usage history`.
#[derive(Debug, Args)]
pub(crate) struct UsageHistory {
    /// The tenant
    pub(crate) id: String,
    /// The meter
    pub(crate) meter: String,
    /// The first instant, or a date; 30 days before the end if it is left out
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// The first instant after the last, or a date; now if it is left out
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// The length of a row
    #[arg(long, value_enum, default_value_t = By::Day)]
    pub(crate) by: By,
}

/// `usage export`.
#[derive(Debug, Args)]
pub(crate) struct UsageExport {
    /// This tenant alone; several times for several
    #[arg(long, value_name = "ID", conflicts_with = "prefix")]
    pub(crate) tenant: Vec<String>,
    /// Only tenants whose ids begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// This meter alone; several times for several
    #[arg(long, value_name = "NAME")]
    pub(crate) meter: Vec<String>,
    /// The first day, in the plan file's time zone; the first on record if it is left out
    #[arg(long, value_name = "DATE", value_parser = when::day)]
    pub(crate) from: Option<Date>,
    /// The first day after the last; there is none if it is left out
    #[arg(long, value_name = "DATE", value_parser = when::day)]
    pub(crate) until: Option<Date>,
    /// The length of a row
    #[arg(long, value_enum, default_value_t = By::Day)]
    pub(crate) by: By,
    /// The format; with --json it is a line of JSON for each row
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv, conflicts_with = "json")]
    pub(crate) format: ExportFormat,
    /// Write into this file, which is not there yet, instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write ids into CSV as they are; a spreadsheet may take one that begins with `=` for a
    /// formula
    #[arg(long)]
    pub(crate) raw: bool,
}

/// The format of `usage export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// RFC 4180
    Csv,
    /// Apache Parquet
    Parquet,
}

/// The length of a row of `usage history` and `usage export`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum By {
    /// A day in the plan file's time zone
    Day,
    /// A month in the plan file's time zone
    Month,
}

impl By {
    /// Its word in a query, and the name of a column.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

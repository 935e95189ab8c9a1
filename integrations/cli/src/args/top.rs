//! `top`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::when;

/// `top`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Top {
    /// Of a store: only tenants whose ids begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Most tenants
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) limit: u64,
    /// How long it shows a reading
    #[arg(long, value_name = "TIME", value_parser = when::duration, default_value = "2s")]
    pub(crate) every: Duration,
    /// The order to begin with
    #[arg(long, value_enum, default_value_t = TopSort::Share)]
    pub(crate) sort: TopSort,
    /// Print one reading, and end; with --json as a line
    #[arg(long)]
    pub(crate) once: bool,
}

/// The order of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopSort {
    /// The nearest to a limit first
    Share,
    /// By id
    Tenant,
    /// By plan, and the nearest to a limit first in each
    Plan,
}

//! The command line of `restore`.

use std::path::PathBuf;

use clap::Args;

use super::Decision;

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup; without it, the store is one already: a table that AWS restored, a copied file
    pub(crate) file: Option<PathBuf>,
    /// Units that were free in the backup are free again; without it they count as used
    #[arg(long)]
    pub(crate) free: bool,
    #[command(flatten)]
    pub(crate) how: Decision,
}

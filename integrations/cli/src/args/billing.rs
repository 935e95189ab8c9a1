//! The command line of what has to do with Stripe.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// `outbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum Outbox {
    /// List the entries whose outcome is not final; exits with 7 if one waits for an operator
    List,
    /// Decide about an entry that waits for an operator: settled or owed
    #[command(group(ArgGroup::new("decision").args(["settled", "owed"]).required(true)))]
    Decide {
        /// The entry's identifier, as `outbox list` has it, or its beginning
        entry: String,
        /// Its units count: they were billed by other means, or are forgiven
        #[arg(long)]
        settled: bool,
        /// Its units do not count: they are owed, and sent anew by the next report
        #[arg(long)]
        owed: bool,
        #[command(flatten)]
        how: Decided,
    },
    /// Let the next report send anew what Stripe has refused; not what may have counted
    Retry {
        /// The entry's identifier, or its beginning
        #[arg(required_unless_present = "all")]
        entry: Option<String>,
        /// All that were refused
        #[arg(long, conflicts_with = "entry")]
        all: bool,
        #[command(flatten)]
        how: Decided,
    },
    /// List what was decided, by whom, when and why: the last 32 of each tenant's meter and period
    Decided,
}

/// What a decision about an entry takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Decided {
    #[command(flatten)]
    pub(crate) how: Decision,
    /// Who decides; the user of this machine if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// What a decision takes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Decision {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Say what would be decided, and decide nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `stripe`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Stripe {
    /// Compare meters and prices at Stripe with the plan file; exits with 7 if they differ
    Verify,
    /// Make the meters that are missing; nothing that is there is changed
    Sync {
        /// Say what would be made, and make nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `event`.
#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// Apply an event as its webhook would be, and say what it changes
    Apply {
        /// The event as Stripe shows it, in JSON
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Say what the event is and whose, and apply nothing
        #[arg(long)]
        dry_run: bool,
        /// Who applies it, for the history; the user of this machine if it is left out
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
    },
}

/// `report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Say what waits to be sent, and send nothing: this is `audit`, which reads all logs
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// After a restore: what was sent to Stripe since the backup. Reports are resumed
    #[arg(long, value_enum, value_name = "SENT", conflicts_with = "dry_run")]
    pub(crate) resume: Option<Since>,
}

/// What was sent to Stripe since a backup.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Since {
    /// Not known: Stripe's sums say, some hours later
    AskStripe,
    /// Nothing
    Nothing,
}

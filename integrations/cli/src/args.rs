//! The command line. What stands here is also its help, its manual pages and its completions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::failure::code;
use crate::output::{self, Output};
use crate::prices::{self, OfMeter, OfPlan};
use crate::when::{self, When};

mod billing;
mod copies;
mod import;
mod infra;
#[cfg(feature = "top")]
mod top;
mod usage;

#[cfg(feature = "stripe")]
pub(crate) use billing::{Decided, Since};
pub(crate) use billing::{Decision, Event, Outbox, Report, Stripe};
pub(crate) use copies::Restore;
pub(crate) use import::{ApiGateway, Governor, Import, ImportHow, TenantFrom};
pub(crate) use infra::{Dashboard, DashboardFormat, Iam, IamRole, Infra, OfTable, TemplateFormat};
#[cfg(feature = "top")]
pub(crate) use top::{Top, TopSort};
pub(crate) use usage::{By, ExportFormat, Usage, UsageExport, UsageHistory};

/// Tenants, keys, plans, usage and billing of a service with tallygate.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line, 3 plan or service file wrong, 4 not found, 5
/// not permitted, 6 conflict, 7 differences found.
#[derive(Debug, Parser)]
#[command(name = "tallygate", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The service file; a missing one is empty. Paths in it are relative to the working directory
    #[arg(long, global = true, value_name = "FILE", default_value = "tallygate.toml")]
    pub(crate) service: PathBuf,
    #[command(flatten)]
    pub(crate) far: Far,
    /// Print JSON: one document, or a line for each entry of a list
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more to standard error; twice for all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A service that runs, to be asked instead of its store.
#[derive(Clone, Debug, Args)]
pub(crate) struct Far {
    /// Ask a service that runs, instead of opening its store: at the place of its operator's routes
    /// (https://api.example.com/admin), or at its admin socket (unix:/run/acme/tallygate.sock).
    /// Also from TALLYGATE_URL; empty: the store. The token is in TALLYGATE_OPERATOR_TOKEN
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Read the token from this file instead
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Send the token to a host that is not this one although it is not encrypted
    #[arg(long, global = true)]
    pub(crate) insecure_http: bool,
}

/// The subjects.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a plan file and a service file to begin with; never over one that is there
    Init(Init),
    /// Plan files: check, show, compare
    #[command(subcommand)]
    Plans(Plans),
    /// Tenants: list, create, change
    #[command(subcommand)]
    Tenant(Tenant),
    /// API keys: make, list, rotate, end
    #[command(subcommand)]
    Key(Key),
    /// What tenants used, and what they have left
    #[command(subcommand)]
    Usage(Usage),
    /// Quotas: begin one anew
    #[command(subcommand)]
    Quota(Quota),
    /// Bring tenants, keys and limits over from elsewhere
    #[command(subcommand)]
    Import(Import),
    /// Operators' tokens for the admin routes: make, list, revoke
    #[command(subcommand)]
    Operator(Operator),
    /// Send what is owed to Stripe now, instead of at the next interval
    Report(Report),
    /// Compare what was recorded, owed and sent with what Stripe counts; exits with 7 on gaps
    Audit,
    /// Entries on their way to Stripe: list, decide about those that wait for an operator
    #[command(subcommand)]
    Outbox(Outbox),
    /// A tenant's invoices at Stripe, and its usage by period against them
    Invoices {
        /// The tenant
        id: String,
    },
    /// Meters and prices at Stripe: compare them with the plan file, make what is missing
    #[command(subcommand)]
    Stripe(Stripe),
    /// Stripe's events: apply one from a file
    #[command(subcommand)]
    Event(Event),
    /// Messages of a queue that could not be counted: list, show, replay, drop
    #[command(subcommand)]
    Dlq(Dlq),
    /// Alerts: test the destinations, list what waits
    #[command(subcommand)]
    Alerts(Alerts),
    /// Ask a service that runs what is wrong with it; exits with 1 if anything is
    Health,
    /// Show live who is near a limit, what is refused, and what is wrong
    #[cfg(feature = "top")]
    Top(Top),
    /// Check the service file, the plan file, the store, the pepper, Stripe's key and the clock
    Doctor,
    /// Show the configuration in force, without secrets, and where each value comes from
    Env,
    /// Write all that the store's file holds into a new file, and check that
    Backup {
        /// The new file; one that is there is not replaced
        file: PathBuf,
        /// Read all of the store, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a backup in the store's place and make it fit for use; or a table that was restored
    Restore(Restore),
    /// What stands around a service: its table, and rights to it
    #[command(subcommand)]
    Infra(Infra),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder; it is made if it is missing
        dir: PathBuf,
    },
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `plans`.
#[derive(Debug, Subcommand)]
pub(crate) enum Plans {
    /// Report all mistakes and warnings of a plan file
    Check {
        /// The plan file; the one of the service file if it is left out
        file: Option<PathBuf>,
    },
    /// Show what each plan gives, with what it extends
    Show {
        /// The plan file; the one of the service file if it is left out
        file: Option<PathBuf>,
        /// This plan alone
        #[arg(long)]
        plan: Option<String>,
    },
    /// Print the JSON Schema of plan files, for editors
    Schema,
    /// Say how a request of a tenant would be decided now, and why
    Explain {
        /// The tenant
        #[arg(long)]
        tenant: String,
        /// The method and the path: 'POST /v1/chat'
        request: String,
        /// What the caller may do, for a route with `needs-permission`; several times for several
        #[arg(long, value_name = "NAME")]
        permission: Vec<String>,
        /// The id of the key that the caller presents: its permissions are the caller's
        #[arg(long, value_name = "ID", conflicts_with = "permission")]
        key: Option<String>,
    },
    /// Decide a log of decisions, or an access log, again under plan files
    Simulate(Box<Simulate>),
    /// Compare two plan files, plan by plan; exits with 7 if they differ
    Diff {
        /// The plan file before
        old: PathBuf,
        /// The plan file after
        new: PathBuf,
        /// Also name the tenants whose use of the windows that are open would newly be refused, or
        /// billed more, by the store
        #[arg(long)]
        tenants: bool,
        /// The same by a log of decisions, decided again under both files
        #[arg(long, value_name = "FILE", conflicts_with = "tenants")]
        log: Option<PathBuf>,
    },
}

/// `plans simulate`.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A log of decisions, with its older files; the one of the service file if it is left out
    #[arg(long, value_name = "FILE", conflicts_with = "access_log")]
    pub(crate) log: Option<PathBuf>,
    /// An access log instead: in Common Log Format, where the user is the tenant, or JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// The member of an access log's JSON lines with the instant
    #[arg(long, value_name = "NAME", default_value = "time", requires = "access_log")]
    pub(crate) time_member: String,
    /// The member with the tenant
    #[arg(long, value_name = "NAME", default_value = "tenant", requires = "access_log")]
    pub(crate) tenant_member: String,
    /// The member with the method
    #[arg(long, value_name = "NAME", default_value = "method", requires = "access_log")]
    pub(crate) method_member: String,
    /// The member with the path
    #[arg(long, value_name = "NAME", default_value = "path", requires = "access_log")]
    pub(crate) path_member: String,
    /// Another plan file, beside the one of the service file
    #[arg(long, value_name = "FILE")]
    pub(crate) plans: Option<PathBuf>,
    /// Write the results as a page with plots too: one HTML file, which is not there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sold: Sold,
}

/// What the simulated use is sold for. The plan file has no prices: they are Stripe's.
#[derive(Debug, Args)]
pub(crate) struct Sold {
    /// The price of a unit beyond quotas that bill: `pages=0.002`; of so many: `egress=0.09/GB`
    #[arg(long, value_name = "METER=AMOUNT", value_parser = prices::of_meter)]
    pub(crate) price: Vec<OfMeter>,
    /// The price of a plan for each billing period in which there were calls: `pro=49`
    #[arg(long, value_name = "PLAN=AMOUNT", value_parser = prices::of_plan)]
    pub(crate) plan_price: Vec<OfPlan>,
    /// The same under the other plan file, where it differs
    #[arg(long, value_name = "METER=AMOUNT", value_parser = prices::of_meter, requires = "plans")]
    pub(crate) new_price: Vec<OfMeter>,
    /// The same of a plan
    #[arg(long, value_name = "PLAN=AMOUNT", value_parser = prices::of_plan, requires = "plans")]
    pub(crate) new_plan_price: Vec<OfPlan>,
    /// The currency of the prices, to show beside them: `EUR`
    #[arg(long, value_name = "CODE", value_parser = prices::currency)]
    pub(crate) currency: Option<String>,
}

/// What a command that writes takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Write {
    /// Check and show the change, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Who makes the change, for the history; the user of this machine if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// What a command that destroys takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Destroy {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) write: Write,
}

/// `tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// List tenants in the order of their ids
    List(TenantList),
    /// Show a tenant: plan, state, exceptions, grants
    Show {
        /// The tenant
        id: String,
    },
    /// Create a tenant
    Create {
        /// The new tenant's id
        id: String,
        /// Its plan; the default plan if it is left out
        #[arg(long)]
        plan: Option<String>,
        #[command(flatten)]
        write: Write,
    },
    /// Assign a plan
    SetPlan {
        /// The tenant
        id: String,
        /// The plan
        #[arg(required_unless_present = "default")]
        plan: Option<String>,
        /// Go back to the default plan of the plan file
        #[arg(long, conflicts_with = "plan")]
        default: bool,
        #[command(flatten)]
        write: Write,
    },
    /// Make an exception for this tenant; it needs --reason
    Override {
        /// The tenant
        id: String,
        /// TOML in the words of a [tenant.x] table: 'quota.requests = "50k/month"'
        changes: String,
        /// The end of the exception; it has none if this is left out
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        until: Option<When>,
        #[command(flatten)]
        write: Write,
    },
    /// End an exception, or all of them
    EndOverride {
        /// The tenant
        id: String,
        /// The exception's id, as `tenant show` has it
        #[arg(value_name = "OVERRIDE", required_unless_present = "all")]
        exception: Option<String>,
        /// End all of them
        #[arg(long, conflicts_with = "exception")]
        all: bool,
        #[command(flatten)]
        how: Destroy,
    },
    /// Give units once, beside the quotas of the plan
    Grant {
        /// The tenant
        id: String,
        /// The meter
        meter: String,
        /// Whole units of the meter
        units: u64,
        /// The grant's id: the same grant given twice is given once
        #[arg(long = "id", value_name = "GRANT")]
        grant: String,
        /// From when on the rest can no longer be spent
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        expires: Option<When>,
        /// Where it comes from
        #[arg(long, default_value = "operator")]
        source: String,
        #[command(flatten)]
        write: Write,
    },
    /// End a grant: what is left of it can no longer be spent, and it cannot be given again
    EndGrant {
        /// The tenant
        id: String,
        /// The grant's id
        grant: String,
        #[command(flatten)]
        how: Destroy,
    },
    /// Suspend a tenant: every request is refused until it is resumed
    Suspend {
        /// The tenant
        id: String,
        #[command(flatten)]
        how: Destroy,
    },
    /// Resume a suspended tenant
    Resume {
        /// The tenant
        id: String,
        #[command(flatten)]
        write: Write,
    },
    /// Erase who a tenant is; its usage and what it owes stay, under another id. It needs --reason
    Erase {
        /// The tenant
        id: String,
        #[command(flatten)]
        how: Destroy,
    },
    /// List every change of a tenant: when, by whom, why
    History {
        /// The tenant
        id: String,
    },
    /// List the last refusals of a tenant from the log of decisions, the newest first
    Refusals {
        /// The tenant
        id: String,
        /// Most refusals
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// The log; the one of the service file if it is left out
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
}

/// `tenant list`.
#[derive(Debug, Args)]
pub(crate) struct TenantList {
    /// Only ids that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Only ids after this one
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(crate) after: String,
    /// Only tenants on this plan now, also by default
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// Only tenants of this status: active, suspended, trial-over, payment-required
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only tenants of this payment state: good, trialing, past-due, unpaid, canceled
    #[arg(long)]
    pub(crate) payment: Option<String>,
    /// Most tenants
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

/// `key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make an API key; it is printed once, and stored as a hash
    Create {
        /// The tenant
        id: String,
        /// The key's name, for lists
        #[arg(long, default_value = "cli")]
        name: String,
        /// The end of the key; it has none if this is left out
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        expires: Option<When>,
        /// What it may do, for routes with `needs-permission`; several times for several
        #[arg(long, value_name = "NAME")]
        permission: Vec<String>,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// List the keys of a tenant, the oldest first, ended ones as well
    List {
        /// The tenant
        id: String,
    },
    /// Make another key of the same name, and let the old one work for a while
    Rotate {
        /// The tenant
        id: String,
        /// The key's id
        key: String,
        /// How long the old key goes on working
        #[arg(long, value_name = "TIME", value_parser = when::duration, default_value = "1d")]
        overlap: Duration,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// Let a key end at an instant; ends move only to an earlier one
    Expire {
        /// The tenant
        id: String,
        /// The key's id
        key: String,
        /// When it ends
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        at: When,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// Revoke a key at once
    Revoke {
        /// The tenant
        id: String,
        /// The key's id
        key: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// Import a key from a system that stored its SHA-256
    ImportSha256 {
        /// The tenant
        id: String,
        /// The SHA-256 of the key, 64 hexadecimal digits
        hash: String,
        /// The key's name, for lists
        #[arg(long, default_value = "imported")]
        name: String,
        /// The end of the key; it has none if this is left out
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        expires: Option<When>,
        /// What it may do, for routes with `needs-permission`; several times for several
        #[arg(long, value_name = "NAME")]
        permission: Vec<String>,
        #[command(flatten)]
        write: KeyWrite,
    },
}

/// What a command that writes a key takes: a change of a key has no reason in the history.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyWrite {
    /// Check and show the change, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Who makes the change, for the history; the user of this machine if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
}

/// `quota`.
#[derive(Debug, Subcommand)]
pub(crate) enum Quota {
    /// Give back what was used of a quota, until its window ends; it needs --reason
    Reset {
        /// The tenant
        id: String,
        /// The quota, as `usage show` has it: credits/month
        limit: String,
        #[command(flatten)]
        write: Write,
    },
}

/// `operator`.
#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make a token for the admin routes; it is printed once, and stored as a hash
    Create {
        /// The operator's name, which is the actor in the history of what it changes
        name: String,
        /// What the operator may do
        #[arg(long, value_enum, default_value_t = May::Read)]
        role: May,
        /// The end of the token; it has none if this is left out
        #[arg(long, value_name = "WHEN", value_parser = when::instant)]
        expires: Option<When>,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// List the operators, the oldest token first, ended ones as well
    List,
    /// Revoke a token at once
    Revoke {
        /// The token's id
        token: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        write: KeyWrite,
    },
    /// List which tokens were made and revoked: when, and by whom
    History,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum May {
    /// Look
    Read,
    /// Look and change
    Write,
}

/// `dlq`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List the letters, in the order of their ids
    List {
        /// Only ids after this one
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        after: String,
        /// Most letters
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Show a letter with its message
    Show {
        /// The letter
        id: String,
    },
    /// Count a letter after all, and remove it
    Replay {
        /// The letter
        id: String,
        /// Check the message, the tenant and the meter, and count nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a letter: its usage is never counted
    Drop {
        /// The letter
        id: String,
        #[command(flatten)]
        how: Destroy,
    },
}

/// `alerts`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Alerts {
    /// Send a test to each destination, and say what it answered; exits with 1 if one fails
    Test,
    /// List the alerts that were not delivered yet, the oldest first
    List,
}

/// Reads the command line of this process. Where it is wrong, or asks for help, that is said, and
/// the exit code returned.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Help is ours: nothing of the command line is in it.
            let _ = Output::new(false).help(&error.render());
            ExitCode::from(code::OK)
        }
        _ => {
            output::say(error.to_string().trim_end());
            ExitCode::from(code::USAGE)
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

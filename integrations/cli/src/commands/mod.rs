//! The commands, a file for each subject; here each is found and its outcome turned into an exit
//! code.

mod alerts;
#[cfg(feature = "stripe")]
mod billing;
#[cfg(not(feature = "stripe"))]
#[path = "no_billing.rs"]
mod billing;
#[cfg(feature = "redb")]
mod copies;
#[cfg(not(feature = "redb"))]
#[path = "no_copies.rs"]
mod copies;
mod dlq;
mod doctor;
mod env;
mod found;
mod import;
mod infra;
mod init;
mod key;
mod operator;
mod plans;
mod quota;
mod shell;
mod tenant;
#[cfg(feature = "top")]
mod top;
mod usage;

use std::process::ExitCode;

use crate::args::{Cli, Command, Global};
use crate::failure::{Failure, code};
use crate::output::{self, Output};
use crate::settings::Settings;

/// A command that ran: its exit code.
type Ran = Result<u8, Failure>;

/// Runs the command, and says what went wrong.
pub(crate) fn main(cli: Cli) -> ExitCode {
    crate::log::begin(cli.global.verbose);
    let ran = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(code::FAILURE, format!("no threads: {error}")))
        .and_then(|runtime| runtime.block_on(run(cli)));
    match ran {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                output::say(&format!("error: {text}"));
            }
            ExitCode::from(code)
        }
    }
}

async fn run(cli: Cli) -> Ran {
    let Cli { global, command } = cli;
    let out = Output::new(global.json);
    match command {
        Command::Init(init) => init::run(out, &init),
        Command::Plans(what) => plans::run(out, &global, what).await,
        Command::Tenant(what) => tenant::run(out, &settings(&global)?, what).await,
        Command::Key(what) => key::run(out, &settings(&global)?, what).await,
        Command::Usage(what) => usage::run(out, &settings(&global)?, what).await,
        Command::Quota(what) => quota::run(out, &settings(&global)?, what).await,
        Command::Import(what) => import::run(out, &global, what).await,
        Command::Operator(what) => operator::run(out, &settings(&global)?, what).await,
        Command::Report(how) => billing::report(out, &settings(&global)?, &how).await,
        Command::Audit => billing::audit(out, &settings(&global)?).await,
        Command::Outbox(what) => billing::outbox(out, &settings(&global)?, what).await,
        Command::Invoices { id } => billing::invoices(out, &settings(&global)?, &id).await,
        Command::Stripe(what) => billing::stripe(out, &settings(&global)?, what).await,
        Command::Event(what) => billing::event(out, &settings(&global)?, what).await,
        Command::Dlq(what) => dlq::run(out, &settings(&global)?, what).await,
        Command::Alerts(what) => alerts::run(out, &settings(&global)?, what).await,
        #[cfg(feature = "top")]
        Command::Top(what) => top::run(out, &global, what).await,
        Command::Doctor => doctor::run(out, &global).await,
        Command::Env => env::run(out, &settings(&global)?),
        Command::Backup { file, dry_run } => {
            copies::backup(out, &settings(&global)?, &file, dry_run).await
        }
        Command::Restore(what) => copies::restore(out, &settings(&global)?, &what).await,
        Command::Infra(what) => infra::run(out, &settings(&global)?, what).await,
        Command::Completions { shell } => shell::completions(out, shell),
        Command::Man { dir } => shell::man(&dir),
    }
}

fn settings(global: &Global) -> Result<Settings, Failure> {
    Settings::read(&global.service)
}

/// Who makes a change: what the command line says, else the user of this machine.
fn actor(said: Option<&String>) -> String {
    let user = || ["USER", "LOGNAME"].iter().find_map(|it| std::env::var(it).ok());
    let user = || user().filter(|name| !name.is_empty());
    said.cloned().or_else(user).unwrap_or_else(|| "tallygate-cli".to_owned())
}

//! `tallygate`, the operator's command: tenants, keys, plans, usage and billing of a service, from
//! its service file. It stands on the library's public API alone and decides nothing about limits.
//!
//! | part | does |
//! |---|---|
//! | `args` | the command line |
//! | `place`, `client` | where a command goes: to the store, or to a service that runs |
//! | `settings`, `service` | the service file with the environment over it; a gate opened from it |
//! | `rehearsal` | what a change would do, on a copy in memory (`--dry-run`) |
//! | `line_reader` | the lines of a log, within bounds |
//! | `decisions` | the files of a log of decisions, and their records |
//! | `new_file`, `progress` | a file that appears whole or not at all; how far long work is |
//! | `output` | tables, JSON, instants; nothing reaches a terminal unescaped |
//! | `prices` | prices of the command line, and exact money |
//! | `failure` | errors, what to write instead, and the exit codes |
//! | `commands` | a file for each subject |

mod args;
mod ask;
mod client;
mod commands;
mod decisions;
mod failure;
mod line_reader;
mod log;
mod new_file;
mod output;
mod place;
mod prices;
mod progress;
mod rehearsal;
mod service;
mod settings;
mod when;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse() {
        Ok(cli) => commands::main(cli),
        Err(code) => code,
    }
}

//! `completions` and `man`: for the shell that the command is used in.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Ran;
use crate::args::Cli;
use crate::failure::{Failure, code};
use crate::output::{Output, say};

/// Prints the completions of a shell.
pub(super) fn completions(out: Output, shell: Shell) -> Ran {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tallygate", &mut script);
    out.whole(&String::from_utf8_lossy(&script))?;
    Ok(code::OK)
}

/// Writes a manual page for each command.
pub(super) fn man(dir: &Path) -> Ran {
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Failure::of_file(dir, &error))?;
    say(&format!("the manual pages are in {0}: man -l {0}/tallygate.1", dir.display()));
    Ok(code::OK)
}

//! The question before something is destroyed. Law: without a terminal there is no question, and
//! nothing is destroyed without `--yes`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::args::{Decision, Destroy};
use crate::failure::{Failure, code};
use crate::output::escaped;

/// Lets a change through that `--yes` or a person at the terminal allows. A dry run destroys
/// nothing.
pub(crate) fn allowed(what: &str, how: &Destroy) -> Result<(), Failure> {
    decided(what, Decision { yes: how.yes, dry_run: how.write.dry_run })
}

/// The same for what is in no history.
pub(crate) fn decided(what: &str, how: Decision) -> Result<(), Failure> {
    if how.yes || how.dry_run {
        return Ok(());
    }
    let (input, terminal) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !terminal.is_terminal() {
        let text = format!("{what}: write --yes, for there is no terminal to ask at");
        return Err(Failure::new(code::NOT_PERMITTED, text));
    }
    // A terminal that takes no question gives no answer either.
    let _ = write!(terminal.lock(), "{}? [y/N] ", escaped(what));
    let mut answer = String::new();
    let _ = input.lock().read_line(&mut answer);
    match answer.trim().eq_ignore_ascii_case("y") {
        true => Ok(()),
        false => Err(Failure::new(code::NOT_PERMITTED, "nothing was changed")),
    }
}

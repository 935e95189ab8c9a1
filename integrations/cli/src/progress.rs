//! How far long work is: a line on standard error, at a terminal only, and gone when it ends.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line. It draws nothing by itself: there is no thread behind it.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A line for work whose data go to standard output if `prints`: data and the line would mix
    /// at a terminal.
    pub(crate) fn begin(prints: bool) -> Self {
        let target = match prints && std::io::stdout().is_terminal() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(), // hidden where that is no terminal
        };
        let bar = ProgressBar::with_draw_target(None, target);
        Self(match ProgressStyle::with_template("{spinner} {msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// Shows this text of ours.
    pub(crate) fn say(&self, text: String) {
        self.0.set_message(text);
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

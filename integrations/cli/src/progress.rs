//! How far long work is: a line on standard error, at a terminal only, and gone when it ends.

use std::io::IsTerminal as _;
#[cfg(any(feature = "redb", feature = "stripe"))]
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often work that says nothing of itself is drawn.
#[cfg(any(feature = "redb", feature = "stripe"))]
const TURN: Duration = Duration::from_millis(200);

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

    /// Shows what is being done, and for how long, until this has ended.
    #[cfg(any(feature = "redb", feature = "stripe"))]
    pub(crate) async fn during<T>(prints: bool, what: &str, work: impl Future<Output = T>) -> T {
        let line = Self::begin(prints);
        line.say(what.to_owned());
        let mut work = std::pin::pin!(work);
        for turn in 1_u32.. {
            match tokio::time::timeout(TURN, &mut work).await {
                Ok(done) => return done,
                Err(_) => line.say(format!("{what}: {} s", (TURN * turn).as_secs())),
            }
        }
        work.await
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

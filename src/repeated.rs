//! Rate-limits log lines that outsiders can trigger: by a request that any client may send, or a
//! store that is away. Each place in the code writes its line at most once a second; suppressed
//! ones are counted, and the count is logged with the next.
//!
//! The count is per process, like the log, and takes a few words for each place in the code,
//! whatever arrives.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Minimum time between two lines, in milliseconds.
pub(crate) const PERIOD_MS: i64 = 1_000;

/// A rate-limited line: one for each place in the code, made by [`repeated!`].
#[derive(Debug)]
pub(crate) struct RepeatedLine {
    text: &'static str,
    /// When it was last written, Unix milliseconds.
    written_ms: AtomicI64,
    held_back: AtomicU64,
    /// Whether it is in the list that [`settle`] checks.
    is_listed: AtomicBool,
}

/// The lines that were ever suppressed. At most one for each place in the code.
static LISTED: Mutex<Vec<&'static RepeatedLine>> = Mutex::new(Vec::new());

impl RepeatedLine {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self {
            text,
            written_ms: AtomicI64::new(i64::MIN),
            held_back: AtomicU64::new(0),
            is_listed: AtomicBool::new(false),
        }
    }

    /// The line's text.
    pub(crate) fn text(&self) -> &'static str {
        self.text
    }

    /// Whether it may be written now; if so, how often it was suppressed since the last time, if at
    /// all.
    pub(crate) fn due(&'static self, now_ms: i64) -> Option<Option<u64>> {
        if self.begins(now_ms) {
            let held_back = self.held_back.swap(0, Ordering::Relaxed);
            return Some((held_back > 0).then_some(held_back));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        if !self.is_listed.swap(true, Ordering::Relaxed) {
            LISTED.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        None
    }

    /// Whether a period begins now; true for one caller only. A clock set back starts a new one.
    fn begins(&self, now_ms: i64) -> bool {
        let last_ms = self.written_ms.load(Ordering::Relaxed);
        let is_running = last_ms <= now_ms && now_ms.saturating_sub(last_ms) < PERIOD_MS;
        let relaxed = Ordering::Relaxed;
        !is_running && self.written_ms.compare_exchange(last_ms, now_ms, relaxed, relaxed).is_ok()
    }
}

/// Held while a unit test counts lines. The gates of the tests beside it have other clocks, under
/// which each line would begin a new period.
#[cfg(test)]
pub(crate) static COUNTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Logs suppressed lines that have not recurred since. Called every second.
pub(crate) fn settle(now_ms: i64) {
    #[cfg(test)]
    let Ok(_none_counts) = COUNTING.try_read() else { return };
    settle_listed(now_ms);
}

fn settle_listed(now_ms: i64) {
    let listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for line in listed {
        if line.held_back.load(Ordering::Relaxed) > 0 && line.begins(now_ms) {
            let held_back = line.held_back.swap(0, Ordering::Relaxed);
            tracing::warn!(held_back, "repeated: {}", line.text());
        }
    }
}

/// Writes a log line, at most once a second:
/// `repeated!(warn, now_ms, "what happened"; %error, tenant)`. `held_back` is the number of
/// suppressed repetitions.
macro_rules! repeated {
    ($level:ident, $now_ms:expr, $text:expr $(; $($field:tt)+)?) => {{
        static LINE: $crate::repeated::RepeatedLine = $crate::repeated::RepeatedLine::new($text);
        if let Some(held_back) = LINE.due($now_ms) {
            tracing::$level!(held_back, $($($field)+,)? "{}", LINE.text());
        }
    }};
}

pub(crate) use repeated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_second_with_how_often_it_was_held_back() {
        let _counting = COUNTING.write().unwrap_or_else(PoisonError::into_inner);
        static LINE: RepeatedLine = RepeatedLine::new("a line of a test");
        assert_eq!(LINE.due(5_000), Some(None));
        for at_ms in 5_000..5_999 {
            assert_eq!(LINE.due(at_ms), None);
        }
        assert_eq!(LINE.due(6_000), Some(Some(999)));
        assert_eq!(LINE.due(9_000), Some(None));
        assert_eq!(LINE.due(9_001), None);
        assert_eq!(LINE.due(4_000), Some(Some(1)), "a clock that was set back stops nothing");
    }

    #[test]
    fn what_was_held_back_last_is_told_without_another() {
        let _counting = COUNTING.write().unwrap_or_else(PoisonError::into_inner);
        static LINE: RepeatedLine = RepeatedLine::new("the last line of a test");
        LINE.due(0);
        LINE.due(1);
        settle_listed(500);
        assert_eq!(LINE.held_back.load(Ordering::Relaxed), 1, "not yet");
        settle_listed(1_500);
        assert_eq!(LINE.held_back.load(Ordering::Relaxed), 0);
    }
}

//! Hand-written files: read within limits, off the runtime, and checked before they are parsed. A
//! file may be torn, huge, a pipe, or on a disk that does not answer: none of these may stop a
//! running server or fill its log.

use std::fmt::Display;
use std::io::{Error, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// Limit on a plan or service file, in bytes: enough for ten thousand tenant exceptions. Anything
/// larger is some other file.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// Limit on a line, in bytes: columns are counted along it, once for every value on it.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// Limit on reading a file: disks answer within milliseconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on the errors reported for one file. More do not help to repair it.
pub(crate) const MAX_MISTAKES: usize = 50;

/// Limit on the report for one file, in bytes: the log keeps it beside everything else.
const MAX_TOLD: usize = 16 * 1024;

/// Limit on a text quoted in an error, in characters.
const MAX_QUOTED: usize = 160;

/// How far to parse past the first syntax error, in bytes, so that more can be reported with it.
/// The parser makes an error for every character that it does not accept.
const READ_ON: usize = 2 * 1024;

/// Runs file work on separate threads, one at a time per owner. A thread that waits for a disk
/// cannot be stopped, so it must not be a task of the runtime, which would wait for it when the
/// process exits.
#[derive(Clone, Debug)]
pub(crate) struct OffRuntime(Arc<Semaphore>);

impl Default for OffRuntime {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl OffRuntime {
    /// Does the work on a thread of its own, after any earlier work, and waits at most [`TIMEOUT`]
    /// for it.
    ///
    /// # Errors
    ///
    /// The work has not ended by then, or the earlier work has not.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let done = async {
            let Ok(place) = self.0.clone().acquire_owned().await else { return Err(slow()) };
            let (send, ended) = oneshot::channel();
            std::thread::Builder::new().name("tallygate-files".to_owned()).spawn(move || {
                // Released when the work has ended, even by a panic.
                let place = place;
                let done = work();
                drop(place);
                // The caller may be gone by now.
                let _ = send.send(done);
            })?;
            ended.await.map_err(|_| Error::other("the thread reading the file panicked"))
        };
        tokio::time::timeout(TIMEOUT, done).await.unwrap_or_else(|_| Err(slow()))
    }
}

fn slow() -> Error {
    let message = format!("no answer within {TIMEOUT:?}: check the disk or network it is on");
    Error::new(std::io::ErrorKind::TimedOut, message)
}

/// Fails if there is something else than a regular file at the path. To be called before it is
/// opened: opening a pipe without a writer blocks, and a device has no end.
///
/// # Errors
///
/// System errors; it is not a regular file. A path that leads nowhere is none.
pub(crate) fn regular_or_absent(path: &Path) -> Result<(), Error> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(not_regular()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn not_regular() -> Error {
    Error::other("not a regular file: name a regular file")
}

/// Reads a file of at most `most` bytes. Blocks: see [`OffRuntime`].
///
/// # Errors
///
/// System errors; the file is not a regular file, or is larger.
pub(crate) fn bytes(path: &Path, most: usize) -> Result<Vec<u8>, Error> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = std::fs::File::open(path)?;
    let mut read = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut read)?;
    if read.len() > most {
        return Err(Error::other(format!("larger than {most} bytes: name another file")));
    }
    Ok(read)
}

/// Reads a file as text of at most [`MAX_BYTES`].
///
/// # Errors
///
/// Those of [`bytes`]; the text is not UTF-8.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let text = String::from_utf8(bytes(path, MAX_BYTES)?);
    text.map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::other(format!("not UTF-8 text (at byte {at}): save the file as UTF-8"))
    })
}

/// Damage found before parsing: where it is, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// The first thing in a text that no legal file has: characters that TOML accepts nowhere, or lines
/// or a total size beyond the limits.
pub(crate) fn damage(text: &str) -> Option<Damage> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        return Some(Damage { at: 0..0, message, help: "name another file, or make it smaller" });
    }
    let is_control =
        |byte: u8| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r') || byte == 127;
    if let Some(at) = text.bytes().position(is_control) {
        let code = text.as_bytes()[at];
        return Some(Damage {
            at: at..at + 1,
            message: format!("unexpected control character (0x{code:02x})"),
            help: "the file was damaged, or was read while being written: write it again under \
                   another name, then rename it",
        });
    }
    let mut start = 0;
    for line in text.split('\n') {
        if line.len() > MAX_LINE {
            return Some(Damage {
                at: start..start,
                message: format!("this line has {} bytes, more than {MAX_LINE}", line.len()),
                help: "break the line: a list may span several lines",
            });
        }
        start += line.len() + 1;
    }
    None
}

/// The syntax errors in a text, near the first of them: at most [`MAX_MISTAKES`].
pub(crate) fn syntax_errors(text: &str) -> Vec<toml::de::Error> {
    let Err(first) = toml::de::DeTable::parse(text) else {
        return Vec::new();
    };
    let from = first.span().map_or(0, |span| span.start);
    let mut end = text.len().min(from.saturating_add(READ_ON));
    // Up to the last complete line, if there is one.
    if end < text.len()
        && let Some(newline) = text.as_bytes()[from..end].iter().rposition(|byte| *byte == b'\n')
    {
        end = from + newline + 1;
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let near = &text[..end];
    let (_, mut errors) = toml::de::DeTable::parse_recoverable(near);
    // A construct left open at the cut is an error only there: the last one.
    if end < text.len() {
        errors.pop();
    }
    errors.truncate(MAX_MISTAKES);
    if errors.is_empty() { vec![first] } else { errors }
}

/// A text as quoted in an error: its beginning, without terminal control characters.
pub(crate) fn quoted(text: &str) -> String {
    quoted_up_to(text, MAX_QUOTED)
}

/// The same for a complete sentence, which may contain several quotes.
pub(crate) fn said(text: &str) -> String {
    quoted_up_to(text, 4 * MAX_QUOTED)
}

fn quoted_up_to(text: &str, most: usize) -> String {
    let mut chars = text.chars();
    let plain = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let mut shown: String = chars.by_ref().take(most).map(plain).collect();
    if chars.next().is_some() {
        shown.push_str("..");
    }
    shown
}

/// The part of a line around a column (characters, from 0), and its start in the line.
pub(crate) fn around(line: &str, column: usize) -> (String, usize) {
    let from = column.saturating_sub(MAX_QUOTED / 2);
    // A short line is shown completely.
    let from = if line.chars().nth(MAX_QUOTED).is_none() { 0 } else { from };
    let start = line.char_indices().nth(from).map_or(line.len(), |(at, _)| at);
    let part = quoted(line.get(start..).unwrap_or_default());
    (part, from)
}

/// Lists errors in order, one per block, and the number of further ones.
pub(crate) fn list<T: Display>(
    f: &mut std::fmt::Formatter<'_>,
    mistakes: &[T],
    between: &str,
) -> std::fmt::Result {
    let mut told = 0;
    for (n, mistake) in mistakes.iter().enumerate() {
        if n > 0 {
            f.write_str(between)?;
        }
        if n >= MAX_MISTAKES || told >= MAX_TOLD {
            return write!(f, "and {} more: repair these first", mistakes.len() - n);
        }
        let mistake = mistake.to_string();
        told += mistake.len();
        f.write_str(&mistake)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_text_is_damaged_where_it_was_torn() {
        assert_eq!(damage("a = 1\n\tb = \"\u{e9}\"\r\n"), None);
        let torn = format!("a = 1\n# c{}", "\0".repeat(16 * 1024));
        let damage = damage(&torn).unwrap();
        assert_eq!((damage.at, damage.help.contains("rename")), (9..10, true));
        let long = format!("a = 1\nb = {}", "7".repeat(MAX_LINE));
        assert_eq!(super::damage(&long).unwrap().at, 6..6);
        assert!(super::damage(&" \n".repeat(MAX_BYTES)).unwrap().message.contains("bytes"));
    }

    #[test]
    fn mistakes_of_syntax_are_few_however_long_the_text() {
        assert!(syntax_errors("a = 1\n").is_empty());
        assert_eq!(syntax_errors("a = \nb = \nc = 1\n").len(), 2);
        for torn in ["= ", "]\n", "a", "\"\n", "[[", "a.", "{"] {
            let torn = torn.repeat(200_000);
            let errors = syntax_errors(&torn);
            assert!(!errors.is_empty() && errors.len() <= MAX_MISTAKES);
        }
        // A cut in the middle adds no errors of its own.
        let rest = "x = [\n1,\n".to_owned() + &"2,\n".repeat(2_000) + "]\n";
        assert_eq!(syntax_errors(&format!("a = \n{rest}")).len(), 1);
    }

    #[test]
    fn what_is_quoted_is_short_and_plain() {
        assert_eq!(quoted("a\tb\u{1b}[2J"), "a\tb\u{fffd}[2J");
        assert_eq!(quoted(&"é".repeat(1_000)).chars().count(), MAX_QUOTED + 2);
        let line = "x".repeat(500) + "here" + &"y".repeat(500);
        let (part, from) = around(&line, 500);
        assert!(part[500 - from..].starts_with("here"), "{part}");
        assert_eq!(around("short", 3), ("short".to_owned(), 0));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_never_answers_is_given_up_and_not_begun_again() {
        let files = OffRuntime::default();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        tokio::time::pause();
        let slow = files.run(move || held.recv().is_ok()).await.unwrap_err();
        assert_eq!(slow.kind(), std::io::ErrorKind::TimedOut);
        assert!(files.run(|| true).await.is_err(), "one thread at most");
        hold.send(()).unwrap();
        tokio::time::resume();
        assert!(files.run(|| true).await.unwrap());
    }

    #[test]
    fn only_regular_files_within_the_bound_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(bytes(dir.path(), 10).unwrap_err().to_string().contains("not a regular file"));
        let path = dir.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(bytes(&path, 10).unwrap(), b"0123456789");
        assert!(bytes(&path, 9).unwrap_err().to_string().contains("larger than 9 bytes"));
        std::fs::write(&path, b"a = \xff").unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("at byte 4"));
    }
}

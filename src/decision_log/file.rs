//! The files of the log: `decisions.ndjson`, and the older `decisions.ndjson.1` to `.3`. Blocks:
//! called off the runtime.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::DecisionRecord;
use crate::text_file::regular_or_absent;

/// Files of one log, the one that is written among them: what is deleted at once is a quarter.
const FILES: u64 = 4;

/// Processes that log under one name on one machine: more than run on any.
const PLACES: usize = 64;

/// Bytes at the end of the files that are read for refusals when a log is opened: some thousand
/// lines, in milliseconds.
const TAIL: u64 = 1 << 20;

/// The log of this process, behind a lock that ends with it. A process that finds it locked takes
/// `decisions-2.ndjson`, and so on.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    /// Bytes of one file.
    most: u64,
    _lock: File,
}

impl LogFiles {
    /// Opens the log for lines of at most so many bytes in all, and ends a torn line.
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        for n in 1..=PLACES {
            let path = nth(path, n);
            let lock_path = with_ending(&path, ".lock");
            regular_or_absent(&lock_path)?;
            regular_or_absent(&path)?;
            let lock = File::create(&lock_path)?;
            match lock.try_lock() {
                Ok(()) => {
                    opened(&path)?;
                    return Ok(Self { path, most: max_bytes / FILES, _lock: lock });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{PLACES} processes log there already")))
    }

    /// Fails if this process could not open the log here. Makes nothing that stays.
    pub(super) fn check(path: &Path) -> io::Result<()> {
        let mut is_new = false;
        for file in [&*with_ending(path, ".lock"), path] {
            regular_or_absent(file)?;
            match OpenOptions::new().append(true).open(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => is_new = true,
                opened => drop(opened?),
            }
        }
        if is_new {
            let probe = with_ending(path, ".probe");
            regular_or_absent(&probe)?;
            File::create(&probe)?;
            let _ = std::fs::remove_file(probe); // another may have been as fast
        }
        Ok(())
    }

    /// Appends whole lines. The file is opened for each call: other tools may move it, and a line
    /// that a failed write has torn is ended before the next.
    pub(super) fn append(&self, mut lines: &[u8]) -> io::Result<()> {
        let (mut file, mut length) = opened(&self.path)?;
        while !lines.is_empty() {
            let fitting = fitting(lines, self.most.saturating_sub(length));
            if fitting == 0 && length > 0 {
                self.rotate()?;
                (file, length) = opened(&self.path)?;
                continue;
            }
            // A line longer than a file has one of its own.
            let end = if fitting == 0 { line_end(lines) } else { fitting };
            file.write_all(&lines[..end])?;
            (lines, length) = (&lines[end..], length + end as u64);
        }
        Ok(())
    }

    /// Moves each file to the next older name; the oldest is replaced.
    fn rotate(&self) -> io::Result<()> {
        for n in (0..FILES - 1).rev() {
            match std::fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The refusals at the end of the files, the oldest first.
    pub(super) fn last_refusals(&self) -> Vec<DecisionRecord> {
        let mut left = TAIL;
        let mut found = Vec::new();
        for n in 0..FILES {
            // What cannot be read is not remembered.
            let text = tail(&older(&self.path, n), left).unwrap_or_default();
            left = left.saturating_sub(text.len() as u64);
            let lines = text.split(|byte| *byte == b'\n');
            let records = lines.filter_map(|line| serde_json::from_slice(line).ok());
            let refusals: Vec<_> = records.filter(DecisionRecord::is_refusal).collect();
            found.splice(0..0, refusals);
            if left == 0 {
                break;
            }
        }
        found
    }
}

/// How many bytes of whole lines fit into so many.
fn fitting(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// Where the first line ends.
fn line_end(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

/// A file to append to, and its length. A last line without an end gets one.
fn opened(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

/// The last bytes of a file.
fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// The n-th older file; 0: the one that is written.
fn older(path: &Path, n: u64) -> PathBuf {
    if n == 0 { path.to_owned() } else { with_ending(path, &format!(".{n}")) }
}

/// The log of the n-th process: `decisions-2.ndjson`.
fn nth(path: &Path, n: usize) -> PathBuf {
    if n == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{n}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

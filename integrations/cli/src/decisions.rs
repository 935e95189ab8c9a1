//! The files of a log of decisions (`[decisions]` in the service file), and their records.

use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use tallygate::DecisionRecord;

use crate::failure::{Failure, code};
use crate::line_reader::{Line, LineReader};
use crate::output::say;
use crate::settings::Settings;

/// Older files of one process's log.
const OLDER: usize = 3;

/// Processes that log side by side.
const PROCESSES: usize = 64;

/// The records of a log, of all its processes, the oldest first.
pub(crate) fn read(log: &Path) -> Result<Vec<DecisionRecord>, Failure> {
    let mut records = Vec::new();
    each(log, |record| records.push(record))?;
    // Each process writes in the order of its decisions; a stable sort keeps that.
    records.sort_by_key(DecisionRecord::at);
    Ok(records)
}

/// Takes the records of a log one by one, those of each process the oldest first. Torn lines are
/// left out, and their number said.
pub(crate) fn each(log: &Path, mut take: impl FnMut(DecisionRecord)) -> Result<(), Failure> {
    let (mut torn, mut found) = (0_u64, false);
    for file in files(log) {
        let opened = match std::fs::File::open(&file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::of_file(&file, &error)),
        };
        found = true;
        let mut lines = LineReader::new(BufReader::new(opened));
        while let Some(line) = lines.next().map_err(|error| Failure::of_file(&file, &error))? {
            let Line::Whole(line) = line else {
                torn += 1;
                continue;
            };
            match serde_json::from_slice(line) {
                Ok(record) => take(record),
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) => torn += 1,
            }
        }
    }
    if !found {
        let text = format!("{}: there is no log of decisions here", log.display());
        return Err(Failure::not_found(text));
    }
    if torn > 0 {
        say(&format!("{torn} lines are torn, and were left out"));
    }
    Ok(())
}

/// The log of the command line, else of the service file.
pub(crate) fn named(settings: &Settings, given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    given.or_else(|| settings.decisions_file()).ok_or_else(|| {
        let text = format!(
            "{}: the service keeps no log of decisions\nhelp: write `[decisions]` in its service \
             file, or name a log with --log",
            settings.path.display()
        );
        Failure::new(code::FILE, text)
    })
}

/// The names of the files, those of each process the oldest first.
fn files(log: &Path) -> impl Iterator<Item = PathBuf> {
    let own = log.to_owned();
    let logs = (1..=PROCESSES).map(move |n| of_process(&own, n));
    logs.flat_map(|log| (0..=OLDER).rev().map(move |n| older(&log, n)))
}

fn older(log: &Path, n: usize) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    if n > 0 {
        name.push(format!(".{n}"));
    }
    name.into()
}

/// `decisions-2.ndjson`
fn of_process(log: &Path, n: usize) -> PathBuf {
    let Some(stem) = log.file_stem().filter(|_| n > 1) else { return log.to_owned() };
    let mut name = stem.to_owned();
    name.push(format!("-{n}"));
    if let Some(extension) = log.extension() {
        name.push(".");
        name.push(extension);
    }
    log.with_file_name(name)
}

//! The machine that the service runs on: usage left in a journal, room on the disk, memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Found;
use crate::failure::{Failure, code};
use crate::settings::{Settings, StoreAt};
use crate::when::{now, written};

/// A journal in use loses its segments within seconds: one that lies for longer waits for a start.
const LEFT: Duration = Duration::from_secs(3_600);

/// Least room on a disk: a journal's largest segment in an outage.
const LOW_DISK: u64 = 256 << 20;

/// Least memory: a process with some ten thousand tenants in use.
const LOW_MEMORY: u64 = 128 << 20;

/// Where memory is bounded for the processes of this container or unit, and on this machine.
const CGROUP: &str = "/sys/fs/cgroup/memory.max";
const MEMINFO: &str = "/proc/meminfo";

/// Usage in a local journal that is in no store.
pub(super) fn journal(settings: &Settings) -> Found {
    let mode = settings.text("flush", "mode");
    let is_memory = settings.store() == StoreAt::Memory;
    if mode.is_some_and(|mode| mode != "journal") || is_memory && mode.is_none() {
        return Found::Left("flush.mode is not \"journal\": there is none".to_owned());
    }
    let path = journal_path(settings);
    let segments = segments(&path);
    let bytes: u64 = segments.iter().map(|it| it.1).sum();
    let newest = segments.iter().map(|it| it.2).max();
    match newest {
        None => Found::Ok(format!("{}: empty", path.display())),
        Some(at) if now().duration_since(at).is_ok_and(|age| age > LEFT) => {
            Found::Trouble(Failure::new(
                code::FAILURE,
                format!(
                    "{}: {bytes} bytes of usage since {} are in no store\nhelp: start the service \
                     here: it records them, once; or move the files to where it starts",
                    path.display(),
                    written(at)
                ),
            ))
        }
        Some(_) => Found::Ok(format!("{}: {bytes} bytes for the next start", path.display())),
    }
}

fn journal_path(settings: &Settings) -> PathBuf {
    match (settings.text("flush", "journal-path"), settings.store()) {
        (Some(path), _) => path.into(),
        (None, StoreAt::Redb(path)) => {
            let mut name = path.into_os_string();
            name.push(".journal");
            name.into()
        }
        (None, _) => "tallygate.journal".into(),
    }
}

/// The segments of the journals under this path that hold anything, with their bytes and when they
/// were written: `NAME.1`, and `NAME-2.1` of a second process.
fn segments(path: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    let is_segment = |found: &str| {
        let Some((journal, number)) = found.rsplit_once('.') else { return false };
        let process = journal.strip_prefix(name);
        let is_ours = |it: &str| it.is_empty() || it.strip_prefix('-').is_some_and(is_number);
        is_number(number) && process.is_some_and(is_ours)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter(|it| it.file_name().to_str().is_some_and(is_segment));
    let with_size = found.filter_map(|it| {
        let about = it.metadata().ok()?;
        Some((it.path(), about.len(), about.modified().ok()?))
    });
    with_size.filter(|it| it.1 > 0).collect()
}

/// Room where the store and the journal are.
pub(super) fn disk(settings: &Settings) -> Found {
    let file = match settings.store() {
        StoreAt::Redb(path) => path,
        StoreAt::Dynamodb(_) => journal_path(settings),
        StoreAt::Memory => return Found::Left("in memory: nothing is written".to_owned()),
    };
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = folder.display();
    match free(folder) {
        None => Found::Left(format!("how much is free at {shown} cannot be seen")),
        Some(bytes) if bytes < LOW_DISK => Found::Trouble(Failure::new(
            code::FAILURE,
            format!(
                "{} MiB are free at {shown}: usage is about to stay in memory\nhelp: make room, or \
                 move store.path to a larger disk while the service is stopped",
                bytes >> 20
            ),
        )),
        Some(_) => Found::Ok(format!("{} MiB or more are free at {shown}", LOW_DISK >> 20)),
    }
}

/// Bytes that the service may still write there.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

/// The memory that a process may take here.
pub(super) fn memory() -> Found {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    match limit(&read(CGROUP), &read(MEMINFO)) {
        None => Found::Left("how much there is cannot be seen".to_owned()),
        Some(bytes) if bytes < LOW_MEMORY => Found::Trouble(Failure::new(
            code::FAILURE,
            format!(
                "a process may take {} MiB here\nhelp: give it 128 MiB, and half a KiB for each \
                 tenant that is idle",
                bytes >> 20
            ),
        )),
        Some(_) => Found::Ok(format!("a process may take {} MiB or more", LOW_MEMORY >> 20)),
    }
}

/// The smaller of both limits.
fn limit(cgroup: &str, meminfo: &str) -> Option<u64> {
    let of_machine = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1_024)
    });
    cgroup.trim().parse().ok().into_iter().chain(of_machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_of_memory_holds() {
        let machine = "MemTotal:        2048 kB\nMemFree: 1 kB\n";
        assert_eq!(limit("1048576\n", machine), Some(1 << 20));
        assert_eq!(limit("max\n", machine), Some(2 << 20));
        assert_eq!((limit("", ""), limit("4194304", machine)), (None, Some(2 << 20)));
    }

    #[test]
    fn segments_are_those_of_this_journal_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["j.1", "j-2.7", "j.lock", "j.1.bak", "other.1", "j2.1", "jx-2.1"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::write(folder.path().join("j.2"), "").unwrap();
        let mut found: Vec<_> = segments(&folder.path().join("j"))
            .into_iter()
            .map(|it| it.0.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, ["j-2.7", "j.1"]);
    }
}

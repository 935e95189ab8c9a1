//! Assigns journals to the processes of one machine that share a folder, and perhaps a store:
//! `PATH`, `PATH-2`, `PATH-3`, .., each behind a lock that ends with its holder.
//!
//! A process takes the first unlocked place. The contents of other unlocked places were left by
//! dead processes, and are carried over by the next process to come. A place with the journal of
//! another store is passed over: that is carried over when a process opens that store here.
//!
//! Not promised: anything on a network file system that does not keep locks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::text_file::regular_or_absent;

/// Limit on the processes of one machine with journals under one path: more than run on any, and
/// few enough to search.
const PLACES: usize = 256;

/// Suffix of a lock's file name.
const LOCK: &str = ".lock";

/// A journal path that is exclusively ours while this lives.
#[derive(Debug)]
pub(crate) struct JournalPath {
    pub(crate) path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl JournalPath {
    /// Whether a process has ever kept a journal at this path or beside it.
    pub(crate) fn was_taken(path: &Path) -> bool {
        used(path).is_ok_and(|used| !used.is_empty())
    }

    /// The unlocked places: ours first, then those left by dead processes; without those whose
    /// journal `is_of_another` store.
    pub(crate) fn free(
        path: &Path,
        is_of_another: impl Fn(&Path) -> io::Result<bool>,
    ) -> io::Result<Vec<Self>> {
        let (used, mut free) = (used(path)?, Vec::new());
        let unused = (1..=PLACES).filter(|n| !used.contains(n));
        for n in used.iter().copied().chain(unused) {
            if !free.is_empty() && !used.contains(&n) {
                break;
            }
            let path = nth(path, n);
            match locked(&path)? {
                Some(_) if is_of_another(&path)? => pass_over(&path),
                Some(lock) => free.push(Self { path, _lock: lock }),
                None => {}
            }
        }
        match free.is_empty() {
            true => Err(none_free()),
            false => Ok(free),
        }
    }
}

/// The lock of a place, unless another process has it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let lock_path = with_ending(path, LOCK);
    let named = |error| io::Error::other(format!("{}: {error}", lock_path.display()));
    regular_or_absent(&lock_path).map_err(named)?;
    let lock = File::create(&lock_path)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The numbers of the places in which there is a lock or a segment. There may be gaps: files are
/// removed by hand.
fn used(path: &Path) -> io::Result<BTreeSet<usize>> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // It is said where the journal is written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut used = BTreeSet::new();
    for entry in entries {
        let file = entry?.file_name();
        let Some(ending) = file.to_str().and_then(|file| file.strip_prefix(&name)) else {
            continue;
        };
        let Some((place, kind)) = ending.split_once('.') else { continue };
        let number = match place.strip_prefix('-') {
            Some(number) => number.parse().ok().filter(|n| *n > 1),
            None => place.is_empty().then_some(1),
        };
        if kind == &LOCK[1..] || kind.parse::<u64>().is_ok() {
            used.extend(number.filter(|n| *n <= PLACES));
        }
    }
    Ok(used)
}

fn pass_over(path: &Path) {
    tracing::warn!(
        journal = %path.display(),
        "this journal is of another store or space, or of the time before this one was restored: \
         its usage is not carried over here. Open a gate on its own store with it, or remove its \
         files"
    );
}

fn none_free() -> io::Error {
    io::Error::other(format!(
        "{PLACES} journals of other processes or stores are there: name another place \
         (`flush.journal-path`)"
    ))
}

fn nth(path: &Path, n: usize) -> PathBuf {
    if n == 1 { path.to_owned() } else { with_ending(path, &format!("-{n}")) }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(places: &[JournalPath]) -> Vec<&str> {
        places.iter().map(|place| place.path.file_name().unwrap().to_str().unwrap()).collect()
    }

    fn ours(_: &Path) -> io::Result<bool> {
        Ok(false)
    }

    #[test]
    fn a_journal_of_another_store_is_passed_over_and_what_is_ours_is_found_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let is_of_another = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            Ok(["j", "j-3"].contains(&name))
        };
        for file in ["j.1", "j-3.lock", "j-4.7", "j.x", "j-0.1", "j-5.probe", "k.1"] {
            File::create(folder.path().join(file)).unwrap();
        }
        assert_eq!(used(&path).unwrap(), [1, 3, 4].into());
        let first = JournalPath::free(&path, is_of_another).unwrap();
        let second = JournalPath::free(&path, is_of_another).unwrap();
        assert_eq!((names(&first), names(&second)), (vec!["j-4"], vec!["j-2"]));
        let none = |_: &Path| Ok(true);
        assert!(JournalPath::free(&path, none).unwrap_err().to_string().contains("journal-path"));
    }

    #[test]
    fn each_process_has_its_own_and_what_the_dead_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut first = JournalPath::free(&path, ours).unwrap();
        assert_eq!(names(&first), ["j"]);
        let second = JournalPath::free(&path, ours).unwrap();
        let third = JournalPath::free(&path, ours).unwrap();
        assert_eq!((names(&second), names(&third)), (vec!["j-2"], vec!["j-3"]));
        // The second dies: the next process takes its place.
        drop(second);
        let again = JournalPath::free(&path, ours).unwrap();
        assert_eq!(names(&again), ["j-2"]);
        // The first and the third die, and a new process finds what both left.
        first.clear();
        drop(third);
        assert_eq!(names(&JournalPath::free(&path, ours).unwrap()), ["j", "j-3"]);
    }
}

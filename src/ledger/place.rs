//! Assigns journals to the processes of one machine that share a store and perhaps a folder:
//! `PATH`, `PATH-2`, `PATH-3`, .., each behind a lock that ends with its holder.
//!
//! A process takes the first unlocked place. The contents of other unlocked places were left by
//! dead processes, and are carried over by the next process to come.
//!
//! Not promised: anything on a network file system that does not keep locks.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
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
    /// Held for its lock. `None`: the store serves one process, which is exclusive enough.
    _lock: Option<File>,
}

impl JournalPath {
    /// The path itself, for a store that serves one process.
    pub(crate) fn only(path: &Path) -> Vec<Self> {
        vec![Self { path: path.to_owned(), _lock: None }]
    }

    /// Whether a process has ever kept a journal there as one of several.
    pub(crate) fn was_taken(path: &Path) -> bool {
        with_ending(path, LOCK).exists()
    }

    /// The unlocked places: ours first, then those left by dead processes.
    pub(crate) fn free(path: &Path) -> io::Result<Vec<Self>> {
        let mut free = Vec::new();
        for n in 1..=PLACES {
            let path = nth(path, n);
            let lock_path = with_ending(&path, LOCK);
            if !free.is_empty() && !lock_path.exists() {
                break; // never used, and neither are later ones
            }
            let named = |error| io::Error::other(format!("{}: {error}", lock_path.display()));
            regular_or_absent(&lock_path).map_err(named)?;
            let lock = File::create(&lock_path)?;
            match lock.try_lock() {
                Ok(()) => free.push(Self { path, _lock: Some(lock) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        if free.is_empty() {
            let message = format!("{PLACES} processes keep their journals there already");
            return Err(io::Error::other(message));
        }
        Ok(free)
    }
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

    #[test]
    fn each_process_has_its_own_and_what_the_dead_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut first = JournalPath::free(&path).unwrap();
        assert_eq!(names(&first), ["j"]);
        let second = JournalPath::free(&path).unwrap();
        let third = JournalPath::free(&path).unwrap();
        assert_eq!((names(&second), names(&third)), (vec!["j-2"], vec!["j-3"]));
        // The second dies: the next process takes its place.
        drop(second);
        let again = JournalPath::free(&path).unwrap();
        assert_eq!(names(&again), ["j-2"]);
        // The first and the third die, and a new process finds what both left.
        first.clear();
        drop(third);
        assert_eq!(names(&JournalPath::free(&path).unwrap()), ["j", "j-3"]);
    }
}

//! Assigns journals to the processes of one machine that share a store and perhaps a folder:
//! `PATH`, `PATH-2`, `PATH-3`, .., each behind a lock that ends with its holder.
//!
//! A process takes the first unlocked place. The contents of other unlocked places were left by
//! dead processes, and are carried over by the next process to come. A place with the journal of
//! another store is passed over: that is carried over when a process opens that store here.
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

/// Places that are looked at for a store that serves one process: another is needed only beside
/// journals of other stores.
const PLACES_OF_ONE: usize = 8;

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
    /// The places for a store that serves one process: ours first, then those with something of
    /// ours. `left` looks at a path.
    pub(crate) fn only(
        path: &Path,
        left: impl Fn(&Path) -> io::Result<Left>,
    ) -> io::Result<Vec<Self>> {
        let mut free = Vec::new();
        for n in 1..=PLACES_OF_ONE {
            let path = nth(path, n);
            match left(&path)? {
                Left::OfAnother => pass_over(&path),
                Left::Nothing if !free.is_empty() => {}
                Left::Nothing | Left::Ours => free.push(Self { path, _lock: None }),
            }
        }
        if free.is_empty() {
            return Err(none_free(PLACES_OF_ONE));
        }
        Ok(free)
    }

    /// Whether a process has ever kept a journal there as one of several.
    pub(crate) fn was_taken(path: &Path) -> bool {
        with_ending(path, LOCK).exists()
    }

    /// The unlocked places: ours first, then those left by dead processes. `left` looks at a path.
    pub(crate) fn free(
        path: &Path,
        left: impl Fn(&Path) -> io::Result<Left>,
    ) -> io::Result<Vec<Self>> {
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
                Ok(()) if left(&path)? == Left::OfAnother => pass_over(&path),
                Ok(()) => free.push(Self { path, _lock: Some(lock) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        if free.is_empty() {
            return Err(none_free(PLACES));
        }
        Ok(free)
    }
}

/// What earlier processes have left at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    Ours,
    /// A journal of another store, or of this one before it was restored from a backup.
    OfAnother,
}

fn pass_over(path: &Path) {
    tracing::warn!(
        journal = %path.display(),
        "this journal is of another store or space, or of the time before this one was restored: \
         its usage is not carried over here. Open a gate on its own store with it, or remove its \
         files"
    );
}

fn none_free(places: usize) -> io::Error {
    io::Error::other(format!(
        "{places} journals of other processes or stores are there: name another place \
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

    fn ours(_: &Path) -> io::Result<Left> {
        Ok(Left::Ours)
    }

    #[test]
    fn a_journal_of_another_store_is_passed_over_and_what_is_ours_is_found_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let left = |path: &Path| {
            Ok(match path.file_name().unwrap().to_str().unwrap() {
                "j" | "j-3" => Left::OfAnother,
                "j-4" => Left::Ours,
                _ => Left::Nothing,
            })
        };
        assert_eq!(names(&JournalPath::only(&path, left).unwrap()), ["j-2", "j-4"]);
        let first = JournalPath::free(&path, left).unwrap();
        let second = JournalPath::free(&path, left).unwrap();
        assert_eq!((names(&first), names(&second)), (vec!["j-2"], vec!["j-4"]));
        let none = |_: &Path| Ok(Left::OfAnother);
        assert!(JournalPath::only(&path, none).unwrap_err().to_string().contains("journal-path"));
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

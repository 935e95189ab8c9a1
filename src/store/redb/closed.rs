//! The note of a clean close, `PATH.closed`: a file that is as it was left then is served from at
//! once, and read beside the requests. Without it all of the file is read first.
//!
//! # Laws
//!
//! 1. The note says how the file was once it had been closed whole: its inode and length, and when
//!    its contents and its inode last changed. It is believed only where all of them are the same:
//!    a copy, a restored file and one that anything has written to differ.
//! 2. It is taken away, durably, once the file is open and before the first write: a process that
//!    dies leaves none.
//! 3. It is made only of a file that its process has read to the end, or made: one that is closed
//!    before the reading beside has ended has none, and the next start reads it first.
//!
//! Not promised: a disk that returns other bytes than were written. Such a file is found by the
//! read beside the requests, about a second per gigabyte after the start, and serves nothing from
//! then on; until then items that are missing count as never having been, and their units are
//! granted once more.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::place;
use crate::store::StoreError;

/// More than the longest note: anything longer is no note.
const NOTE_MAX: u64 = 256;

/// How a file is now, as the note says it; `None` where the system does not tell.
pub(super) fn state_of(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let found = fs::metadata(path).ok()?;
        let (inode, length) = (found.ino(), found.len());
        let written = (found.mtime(), found.mtime_nsec());
        let changed = (found.ctime(), found.ctime_nsec());
        Some(format!(
            "closed whole: inode {inode}, {length} bytes, written {}.{:09}, changed {}.{:09}\n",
            written.0, written.1, changed.0, changed.1
        ))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Takes the note away. Whether it says that the file was closed in the state in which it was found
/// before it was opened.
pub(super) fn take(path: &Path, found: Option<&str>) -> Result<bool, StoreError> {
    let note = note_of(path);
    let mut text = String::new();
    // A note that cannot be read says nothing; one that cannot be removed must not be left.
    let read = File::open(&note).and_then(|file| file.take(NOTE_MAX).read_to_string(&mut text));
    match fs::remove_file(&note) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(place::cannot(&note, "be removed", &error)),
        Ok(()) => place::sync_directory(path)?,
    }
    Ok(read.is_ok() && found == Some(text.as_str()))
}

/// Makes the note. The file is locked meanwhile: another process that has opened it since would be
/// found in its note.
pub(super) fn note(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    file.try_lock()?;
    file.sync_all()?;
    let Some(state) = state_of(path) else { return Ok(()) };
    let (fresh, mut note) = place::beside(path).map_err(io::Error::other)?;
    let made = note.write_all(state.as_bytes()).and_then(|()| note.sync_all());
    let made = made.and_then(|()| fs::rename(&fresh, note_of(path)));
    if made.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    made?;
    place::sync_directory(path).map_err(io::Error::other)
}

fn note_of(path: &Path) -> PathBuf {
    place::with_ending(path, ".closed")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::file::StoreFile;
    use super::*;

    /// More than the step in which a file system counts the time.
    const TICK: Duration = Duration::from_millis(30);

    /// Opens it, reads it to its end, and closes it.
    fn opened_unread(path: &Path) -> bool {
        let file = StoreFile::at(path).unwrap();
        let was_unread = file.is_unread();
        let (_open, ends) = mpsc::channel();
        file.read_beside(&ends);
        assert!(!file.is_unread());
        was_unread
    }

    #[tokio::test]
    async fn a_file_is_served_from_unread_only_as_it_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        assert!(!opened_unread(&path), "a new one");
        assert!(opened_unread(&path));
        assert!(opened_unread(&path), "and once more");

        let other = folder.path().join("other");
        let touches: [(&str, &dyn Fn()); 6] = [
            ("written to", &|| fs::write(&path, fs::read(&path).unwrap()).unwrap()),
            ("a copy in its place", &|| {
                fs::copy(&path, &other).unwrap();
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
                fs::rename(&other, &path).unwrap();
            }),
            ("with the time set", &|| {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(fs::metadata(&path).unwrap().modified().unwrap()).unwrap();
            }),
            ("a note that says less", &|| fs::write(note_of(&path), "closed whole").unwrap()),
            ("a note that is no text", &|| fs::write(note_of(&path), [0xff; 90]).unwrap()),
            ("no note", &|| fs::remove_file(note_of(&path)).unwrap()),
        ];
        for (what, touch) in touches {
            tokio::time::sleep(TICK).await;
            touch();
            assert!(!opened_unread(&path), "{what}");
            assert!(opened_unread(&path), "after {what}, it was read and closed");
        }
    }

    #[test]
    fn a_file_that_is_closed_before_it_was_read_has_no_note() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        opened_unread(&path);
        assert!(StoreFile::at(&path).unwrap().is_unread());
        assert!(!note_of(&path).exists());
        assert!(!opened_unread(&path), "it is read first");
        assert!(opened_unread(&path));
    }

    #[test]
    fn a_process_that_dies_leaves_no_note_and_neither_does_a_failed_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        drop(StoreFile::at(&path).unwrap());
        let file = StoreFile::at(&path).unwrap();
        assert!(!note_of(&path).exists(), "none while it is open");
        assert!(note(&path).is_err(), "nor can there be one");
        file.fail();
        drop(file);
        assert!(!note_of(&path).exists());
        let killed = folder.path().join("killed.redb");
        let file = StoreFile::at(&path).unwrap();
        fs::copy(&path, &killed).unwrap();
        drop(file);
        assert!(!opened_unread(&killed));
    }
}

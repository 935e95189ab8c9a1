//! The place of the file: created once and only from scratch, and checked for as long as it is
//! open.
//!
//! # Laws
//!
//! 1. A file appears under its name only when it is complete: it is made beside it and then linked.
//!    So an empty one was never ours, or is damaged.
//! 2. Beside a file stands its marker, `PATH.made`. Where the marker exists and the file does not,
//!    a store was lost, and none is made in its place.
//! 3. Once the name leads to another file, or to none, no write is acknowledged: the next process
//!    to open the name would not find it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{StoreError, StoreErrorKind};
use crate::text_file::regular_or_absent;

/// Contents of the marker.
const MARKER: &str = "A tallygate store was made beside this file. If it is gone, restore it from \
                      a copy.\nOnly to start over, with nothing recorded: remove this file too.\n";

/// Identity of a file, as distinct from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

/// The path of an open file.
#[derive(Debug)]
pub(super) struct OpenFilePath {
    path: PathBuf,
    id: FileId,
    /// Set once the file's absence has been reported.
    gone: AtomicBool,
}

impl OpenFilePath {
    /// The file that this name leads to now.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let id = id_of(path).map_err(|error| cannot(path, "be looked at", &error))?;
        Ok(Self { path: path.to_owned(), id, gone: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) fn is_known_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Checks that the file is still in its place. Logs once when it is not, and once when it is
    /// back.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        let path = self.path.display();
        let (what, help) = match id_of(&self.path) {
            Ok(id) if id == self.id => {
                if self.gone.swap(false, Ordering::AcqRel) {
                    tracing::info!("{path} is back: the store serves again");
                    crate::telemetry::degraded("store", false);
                }
                return Ok(());
            }
            Ok(_) => ("was replaced", "stop this process before you put another file there"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                ("is gone", "put it back, or stop this process and restore it from a copy")
            }
            // A file that cannot be examined may still be there.
            Err(_) => ("cannot be examined", "check its folder"),
        };
        if !self.gone.swap(true, Ordering::AcqRel) {
            tracing::error!("the store file {path} {what} while it is open: {help}");
            crate::telemetry::degraded("store", true);
        }
        let message = format!("the store file {path} {what}: {help}");
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    }
}

/// Whether no store is here, nor was one. A place that cannot be examined may have one.
pub(super) fn is_new(path: &Path) -> bool {
    let is_absent = |path: &Path| matches!(path.try_exists(), Ok(false));
    is_absent(path) && is_absent(&marker_of(path))
}

/// Creates the file if its place is plainly new. `fill` creates a store in an empty file.
pub(super) fn prepare(
    path: &Path,
    fill: impl FnOnce(File) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let marker = marker_of(path);
    regular_or_absent(path).map_err(|error| cannot(path, "be opened", &error))?;
    match fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            let path = path.display();
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "{path} is empty, which a store never is: restore it from a copy; to start \
                     over, remove it and {}",
                    marker.display()
                ),
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(cannot(path, "be looked at", &error));
        }
        Err(_) if marker.exists() => {
            let path = path.display();
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "{path} is gone, and {marker} says that a store was here: restore the file \
                     from a copy; to start over, with nothing recorded, remove {marker}",
                    marker = marker.display()
                ),
            ));
        }
        Err(_) => make(path, fill)?,
    }
    if !marker.exists() {
        let marked = private(&marker).and_then(|mut file| {
            file.write_all(MARKER.as_bytes())?;
            file.sync_all()
        });
        match marked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(cannot(&marker, "be written", &error));
            }
            _ => {}
        }
    }
    sync_directory(path)
}

fn make(path: &Path, fill: impl FnOnce(File) -> Result<(), StoreError>) -> Result<(), StoreError> {
    make_new(path, |fresh, _| fill(fresh)).map(drop)
}

/// Makes a file that appears under its name once it is filled, at the place that is passed with it.
/// `None`: another file has that name, and is left as it is.
pub(super) fn make_new<T>(
    path: &Path,
    fill: impl FnOnce(File, &Path) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    if path.exists() {
        return Ok(None);
    }
    let (fresh, file) = beside(path)?;
    let linked = fill(file, &fresh).and_then(|filled| match link(&fresh, path) {
        Ok(()) => Ok(Some(filled)),
        Err(_) if path.exists() => Ok(None),
        Err(error) => Err(error),
    });
    let _ = fs::remove_file(&fresh);
    linked
}

/// A new file beside this one, that only its owner may read.
pub(super) fn beside(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let fresh = drawn(path, "new")?;
    let file = private(&fresh).map_err(|error| cannot(path, "be made", &error))?;
    Ok((fresh, file))
}

/// A name beside this one. Drawn: processes in containers that share a volume may all be number 1.
/// One that died while it made a file leaves that behind, since whether it lives still is not known
/// here.
pub(super) fn drawn(path: &Path, what: &str) -> Result<PathBuf, StoreError> {
    let drawn = crate::random::u64().map_err(|error| cannot(path, "be made", &error))?;
    Ok(with_ending(path, &format!(".{what}-{drawn:016x}")))
}

/// Gives a file another name. A link does not replace a file that another process may have made
/// meanwhile; the name before may stay.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    let linked = match fs::hard_link(from, to) {
        // Some file systems have no links.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => fs::rename(from, to),
        linked => linked,
    };
    linked.map_err(|error| cannot(to, "be made", &error))
}

/// A new file that only its owner may read: it contains hashes of keys.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn id_of(path: &Path) -> io::Result<FileId> {
    let found = fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(FileId(found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = found; // there, whichever it is
        Ok(FileId(0, 0))
    }
}

fn marker_of(path: &Path) -> PathBuf {
    with_ending(path, ".made")
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(super) fn cannot(path: &Path, what: &str, error: &dyn std::fmt::Display) -> StoreError {
    let message = format!("{} cannot {what}: {error}", path.display());
    StoreError::new(StoreErrorKind::Unavailable, message)
}

/// A newly created file may be gone after a power cut until its directory is synced too.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if !cfg!(unix) {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot(directory, "be synced", &error))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// Processes in containers that share a volume may have the same number.
    #[test]
    fn a_file_that_another_process_has_not_filled_is_not_put_in_place() {
        let folder = std::env::temp_dir().join(format!("tallygate-place-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("t.redb");
        let (half, is_half) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let other = path.clone();
        let slow = move || -> JoinHandle<Result<(), StoreError>> {
            thread::spawn(move || {
                make(&other, |mut file| {
                    file.write_all(b"half").unwrap();
                    half.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok(())
                })
            })
        };
        let mut slower = None;
        let made = make(&path, |mut file| {
            slower = Some(slow());
            is_half.recv().unwrap();
            file.write_all(b"whole").unwrap();
            Ok(())
        });
        let found = fs::read(&path).unwrap_or_default();
        go_on.send(()).unwrap();
        let made_later = slower.unwrap().join().unwrap();
        let (kept, files) = (fs::read(&path).unwrap_or_default(), fs::read_dir(&folder).unwrap());
        let files = files.count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((&*found, &*kept, files), (&b"whole"[..], &b"whole"[..], 1));
        made.and(made_later).unwrap();
    }
}

//! A unix socket in the file system that its owner alone can open.
//!
//! # Laws
//!
//! 1. It is never there with wider rights than its owner's: it is made in a folder that is its
//!    owner's alone, narrowed, and only then linked to its path.
//! 2. A socket that a process listens on is left alone, and so is every file that is no socket. One
//!    whose process has ended is replaced.
//! 3. A lock beside it (`.lock`), which ends with its process, keeps two that start at once from
//!    taking each other's away. The lock's file stays.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Read and write, for the owner.
const OWN: u32 = 0o600;
/// The same for a folder.
const OWN_FOLDER: u32 = 0o700;

/// A socket at its path, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    id: (u64, u64),
    owner: u32,
    _lock: File,
}

impl SocketFile {
    /// Makes the socket and listens on it.
    pub(crate) async fn listen(path: &Path) -> io::Result<(UnixListener, Self)> {
        let lock = lock(path)?;
        remove_if_stale(path).await?;
        let room = Room::beside(path)?;
        let made = room.socket();
        let listener = UnixListener::bind(&made).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                said(path, error.kind(), "the path is too long for a socket")
            }
            _ => error,
        })?;
        fs::set_permissions(&made, Permissions::from_mode(OWN))?;
        let meta = fs::symlink_metadata(&made)?;
        fs::hard_link(&made, path)?;
        let (id, owner) = ((meta.dev(), meta.ino()), meta.uid());
        Ok((listener, Self { path: path.to_owned(), id, owner, _lock: lock }))
    }

    /// The user of this process, whose the socket is.
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |it: fs::Metadata| (it.dev(), it.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // One that stays is stale, and the next start takes it away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn said(path: &Path, kind: ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, format!("{}: {text}", path.display()))
}

fn in_use(path: &Path) -> io::Error {
    said(path, ErrorKind::AddrInUse, "another process listens here: name another path")
}

/// Held by the process that listens, or is about to.
fn lock(path: &Path) -> io::Result<File> {
    let beside = with_end(path, ".lock");
    // A pipe would block when it is opened, and a link lead to a file of another name.
    match fs::symlink_metadata(&beside) {
        Ok(found) if !found.is_file() => {
            let text = "it is there and is no file: remove it, or name another path";
            return Err(said(&beside, ErrorKind::AlreadyExists, text));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut how = OpenOptions::new();
    let file = how.write(true).create(true).truncate(false).mode(OWN).open(&beside);
    let file = file.map_err(|error| said(&beside, error.kind(), &error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(in_use(path)),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes room at the path, if what is there is the socket of a process that has ended.
async fn remove_if_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "it is there and is no socket, so it is left as it is: name another path";
        return Err(said(path, ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Also one that is too busy to answer, or that is another user's.
        Ok(_) | Err(_) => Err(in_use(path)),
    }
}

/// A folder of this user's alone, in which a socket is made. It goes with this.
struct Room(PathBuf);

impl Room {
    fn beside(path: &Path) -> io::Result<Self> {
        let room = Self(with_end(path, ".new"));
        let make = || DirBuilder::new().mode(OWN_FOLDER).create(&room.0);
        match make() {
            // Of a process that died at this point: the lock says that there is no other.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                room.clear();
                make()?;
            }
            made => made?,
        }
        Ok(room)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    /// Removes the socket, and the folder if nothing else is in it.
    fn clear(&self) {
        let socket = self.socket();
        if fs::symlink_metadata(&socket).is_ok_and(|it| it.file_type().is_socket()) {
            let _ = fs::remove_file(&socket);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}

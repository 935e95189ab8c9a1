//! Copies of a process's folder as SIGKILL at one moment would leave it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Copies before it is given up that the folder ever holds still.
const TRIES: usize = 1_000;

/// Copies the files of a folder, as they are at one moment: again, if any has come, gone or changed
/// meanwhile. The journal's segments come and go as the store takes what is in them.
///
/// # Panics
///
/// If the folder cannot be read or written, or never holds still.
pub fn copy_at_one_moment(from: &Path, to: &Path) {
    for _ in 0..TRIES {
        fs::create_dir_all(to).unwrap();
        let before = files(from);
        let copied =
            before.iter().all(|(name, ..)| match fs::copy(from.join(name), to.join(name)) {
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => panic!("{}: {error}", name.display()),
            });
        if copied && files(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("{} never holds still", from.display());
}

/// Names, lengths and times of change.
fn files(folder: &Path) -> Vec<(OsString, u64, SystemTime)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let about = entry.metadata().ok()?; // gone meanwhile
            Some((entry.file_name(), about.len(), about.modified().unwrap()))
        })
        .collect();
    found.sort();
    found
}

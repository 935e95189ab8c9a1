//! A file that appears under its name whole or not at all, and never in the place of another.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// A file that is being written, under another name in the same folder. Only its owner may read
/// it. Where it is dropped unfinished it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl NewFile {
    /// Begins the file that will be at this path; it is an error if one is there already.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(is_there(path));
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new().prefix(".tallygate-").tempfile_in(folder);
        let file = file.map_err(|error| Failure::of_file(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// What is written into it.
    pub(crate) fn writer(&self) -> Result<File, Failure> {
        self.file.as_file().try_clone().map_err(|error| Failure::of_file(&self.path, &error))
    }

    /// Lets it appear, once its content is on the disk.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { path, file } = self;
        file.as_file().sync_all().map_err(|error| Failure::of_file(&path, &error))?;
        let placed = file.persist_noclobber(&path);
        placed.map(drop).map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => is_there(&path),
            _ => Failure::of_file(&path, &error.error),
        })
    }
}

fn is_there(path: &Path) -> Failure {
    let failure = Failure::of_file(path, &Error::from(ErrorKind::AlreadyExists));
    let text = format!("{}: it is there, and is left as it is", path.display());
    Failure { text: format!("{text}\nhelp: name another file, or remove it"), ..failure }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn it_appears_whole_and_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let cut_off = NewFile::begin(&path).unwrap();
        cut_off.writer().unwrap().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(cut_off);
        assert_eq!(names(), 0);

        let [first, second] = [NewFile::begin(&path).unwrap(), NewFile::begin(&path).unwrap()];
        first.writer().unwrap().write_all(b"whole").unwrap();
        first.finish().unwrap();
        for error in [second.finish().unwrap_err(), NewFile::begin(&path).unwrap_err()] {
            assert_eq!(error.code, crate::failure::code::CONFLICT, "{error:?}");
            assert!(error.text.contains("it is there"), "{error:?}");
        }
        assert_eq!((std::fs::read(&path).unwrap(), names()), (b"whole".to_vec(), 1));
    }
}

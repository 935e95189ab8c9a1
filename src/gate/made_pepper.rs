//! The pepper of a development start. Where the service file names no `pepper`, and the variable of
//! the default one is not set, a new redb store gets a pepper of its own, in a file beside it, so
//! that a first start needs no environment.
//!
//! # Laws
//!
//! 1. One is made with a new store only. Beside a store that is already there its file is missing
//!    because it was lost, or because the secret was configured elsewhere; another would make every
//!    key unknown.
//! 2. The file appears under its name complete, and once: processes that start at the same time
//!    read the same secret, and a crash leaves none or all of it.
//! 3. A pepper that the service file names is never made, nor is one for a store that processes
//!    share.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config::{Config, PepperConfig, Secret, SecretSource, StoreKind};
use crate::error::Error;
use crate::identity::hex;
use crate::text_file::regular_or_absent;

/// Random bytes of a pepper; it is written as twice as many hex digits.
const BYTES: usize = 32;

/// The pepper of a development start.
pub(super) struct MadePepper {
    pub(super) secret: Secret,
    /// The absolute path of its file, if it was made just now.
    pub(super) made: Option<PathBuf>,
}

/// The pepper of this gate's own, if this is a development start. `has_store`: the host has handed
/// in a store of its own, which may be shared.
pub(super) fn of(
    config: &Config,
    pepper: &PepperConfig,
    has_store: bool,
) -> Result<Option<MadePepper>, Error> {
    let SecretSource::Env(variable) = &pepper.secret.source else { return Ok(None) };
    if !pepper.is_default || has_store || std::env::var_os(variable).is_some() {
        return Ok(None);
    }
    match &config.store.kind {
        // The keys end with the process, and so may their pepper.
        StoreKind::Memory => {
            let secret = draw()?;
            Ok(Some(MadePepper { secret: Secret::new(secret), made: None }))
        }
        StoreKind::Redb { path } if cfg!(feature = "redb") => beside(path),
        _ => Ok(None),
    }
}

/// The pepper beside the store at this path; it is made with the store.
fn beside(store: &Path) -> Result<Option<MadePepper>, Error> {
    let path = file_of(store);
    let shown = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let failed = |source| Error::File { path: shown.display().to_string(), source };
    // A folder, say of a wrong mount, is no store whose pepper was lost.
    regular_or_absent(store).map_err(|source| {
        let path = std::path::absolute(store).unwrap_or_else(|_| store.to_owned());
        Error::File { path: format!("store.path: {}", path.display()), source }
    })?;
    // First the store, which another process makes after its pepper.
    let is_new = is_new(store);
    regular_or_absent(&path).map_err(failed)?;
    let is_made = is_new && make(&path, &draw()?).map_err(failed)?;
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(MadePepper {
            secret: whole(&text).map_err(failed)?,
            made: is_made.then(|| shown.clone()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The file of the pepper of the store at this path.
fn file_of(store: &Path) -> PathBuf {
    with_ending(store, ".pepper")
}

#[cfg(feature = "redb")]
fn is_new(store: &Path) -> bool {
    crate::store::Redb::is_new_at(store)
}

#[cfg(not(feature = "redb"))]
fn is_new(_: &Path) -> bool {
    false
}

fn draw() -> Result<String, Error> {
    let mut bytes = [0; BYTES];
    crate::random::fill(&mut bytes).map_err(|error| Error::Random(error.to_string()))?;
    Ok(hex(&bytes))
}

/// The secret of a file that was not cut or edited.
fn whole(text: &str) -> io::Result<Secret> {
    let secret = text.trim_end();
    if secret.len() == 2 * BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Secret::new(secret));
    }
    let message = "this is not the pepper that was made with the store: restore it from a copy";
    Err(io::Error::other(message))
}

/// Makes the file, unless it is there. Returns whether it did. All who make it take turns under a
/// lock, which ends with its process: what a dead one left unfinished is overwritten.
fn make(path: &Path, secret: &str) -> io::Result<bool> {
    let unfinished = with_ending(path, ".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    regular_or_absent(&unfinished)?;
    let mut file = options.open(&unfinished)?;
    file.lock()?;
    // From here on: what was opened may have got the name while this process waited.
    if path.try_exists()? {
        // Another process that has come as late may be faster.
        let _ = fs::remove_file(&unfinished);
        return Ok(false);
    }
    file.set_len(0)?;
    file.write_all(format!("{secret}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    if cfg!(unix) {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(true)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_at_once_read_one_secret_and_one_of_them_has_made_it() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let store = folder.path().join("s.redb");
            // As a process leaves it that died while it wrote.
            fs::write(with_ending(&file_of(&store), ".new"), "0123").unwrap();
            let begin = std::sync::Barrier::new(8);
            let one = || {
                begin.wait();
                beside(&store).unwrap().unwrap()
            };
            let made: Vec<MadePepper> = std::thread::scope(|scope| {
                let makers: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            assert!(made.iter().all(|it| it.secret == made[0].secret));
            assert_eq!(made.iter().filter(|it| it.made.is_some()).count(), 1);
            let left = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
            assert_eq!(left.collect::<Vec<_>>(), ["s.redb.pepper"]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn its_owner_alone_may_read_it_and_what_was_cut_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("s.redb");
        let made = beside(&store).unwrap().unwrap();
        let file = made.made.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(beside(&store).unwrap().unwrap().made.is_none(), "read the second time");
        fs::write(&file, &made.secret.expose()[..20]).unwrap();
        let error = beside(&store).err().unwrap().to_string();
        assert!(error.contains("s.redb.pepper") && error.contains("restore"), "{error}");
        assert!(!error.contains(&made.secret.expose()[..20]), "{error}");
    }

    /// As a wrong mount leaves it: no pepper would help.
    #[test]
    fn a_store_that_is_a_folder_is_named_and_not_the_pepper() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("s.redb");
        fs::create_dir(&store).unwrap();
        let error = beside(&store).err().unwrap().to_string();
        assert!(error.contains("s.redb: not a regular file"), "{error}");
        assert!(!error.contains("pepper"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn none_is_made_beside_a_store_that_is_there_or_was() {
        for there in ["s.redb", "s.redb.made"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(there), "x").unwrap();
            let store = folder.path().join("s.redb");
            assert!(beside(&store).unwrap().is_none(), "{there}");
            assert!(!file_of(&store).exists());
        }
    }
}

//! Damage to a store file by disks and operators: deleted, replaced, emptied, torn, bits flipped.
//! Never a panic, never another number, never a new store in place of an old one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::StoreFile;
use super::verify::Depth;
use super::{Redb, closed, ended};
use crate::store::{Change, Key, Store, StoreError, StoreErrorKind, Value, Write, Written};
use crate::testing::heard;

const ITEMS: i64 = 400;

fn key(n: i64) -> Key {
    Key { pk: format!("p{}", n % 7), sk: format!("{n:05}") }
}

fn set(n: i64) -> Write {
    let text = Value::Text(format!("tenant {n} used {n}"));
    let change = vec![Change::Set("n".into(), Value::Int(n)), Change::Set("t".into(), text)];
    Write { key: key(n), when: vec![], change }
}

/// A store of [`ITEMS`] items that was closed, or left as a killed process leaves it.
async fn made(folder: &Path, is_closed: bool) -> PathBuf {
    let path = folder.join("store.redb");
    let store = Redb::open(&path).unwrap();
    for n in 0..ITEMS {
        store.write(set(n)).await.unwrap();
    }
    if is_closed {
        store.close().await.unwrap();
        return path;
    }
    let left = folder.join("left.redb");
    fs::copy(&path, &left).unwrap();
    store.close().await.unwrap();
    left
}

/// Opens a copy and reads all of it. Returns how many items are as they were written, and the
/// errors.
async fn read(path: &Path) -> Result<(i64, Vec<StoreError>), StoreError> {
    let store = Redb::open(path)?;
    let (mut right, mut errors) = (0, Vec::new());
    for n in 0..ITEMS {
        match store.read(key(n)).await {
            Ok(Some(item)) => {
                assert_eq!(item.int("n"), Some(n), "another number");
                right += 1;
            }
            // As after a power cut, redb may go back to the commit before the last.
            Ok(None) if n == ITEMS - 1 => errors.push(ended(StoreErrorKind::Corrupt)),
            Ok(None) => panic!("item {n} is gone without a word"),
            Err(error) => errors.push(error),
        }
    }
    store.close().await.unwrap();
    Ok((right, errors))
}

/// Random positions of damage, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_an_error_and_never_a_panic_or_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let (mut refused, mut named, mut unhurt) = (0, 0, 0);
    for is_closed in [true, false] {
        let home = folder.path().join(format!("{is_closed}"));
        fs::create_dir(&home).unwrap();
        let whole = fs::read(made(&home, is_closed).await).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        for n in 0..120 {
            let mut bytes = whole.clone();
            let at = dice.below(used) as usize;
            match n % 4 {
                0 => bytes.truncate(at),
                1 => {
                    let end = (at + 600).min(bytes.len());
                    bytes[at..end].iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
                }
                _ => bytes[at] ^= 1 << dice.below(8),
            }
            let path = home.join(format!("copy-{n}.redb"));
            fs::write(&path, &bytes).unwrap();
            match read(&path).await {
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
                    assert!(error.message.contains("cop"), "says what to do: {error}");
                    refused += 1;
                }
                Ok((ITEMS, errors)) => {
                    assert!(errors.is_empty());
                    unhurt += 1;
                }
                Ok((_, errors)) => {
                    assert!(errors.iter().all(|error| error.kind == StoreErrorKind::Corrupt));
                    named += 1;
                }
            }
            fs::remove_file(&path).unwrap();
        }
    }
    assert!(refused > 20 && unhurt > 20, "{refused} refused, {named} named, {unhurt} unhurt");
}

/// As a disk damages a file between its close and the next start.
#[tokio::test]
async fn what_is_missing_from_a_file_that_was_closed_whole_is_found_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let (mut dice, mut found, mut unhurt) = (Dice(11), 0, 0);
    for _ in 0..120 {
        let mut bytes = whole.clone();
        bytes[dice.below(used) as usize] ^= 1 << dice.below(8);
        fs::write(&path, &bytes).unwrap();
        closed::note(&path).unwrap();
        let Ok(file) = StoreFile::at(&path) else { continue };
        assert!(file.is_unread() && file.look().is_ok(), "it serves at once");
        let (_open, ends) = std::sync::mpsc::channel();
        file.read_beside(&ends);
        match file.look() {
            Ok(()) => unhurt += 1,
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Corrupt);
                assert!(error.message.contains("store.redb is damaged"), "{error}");
                assert!(file.write(&[set(1)])[0].is_err());
                file.read(|snapshot| assert!(snapshot.is_err()));
                drop(file);
                assert_eq!(Redb::open(&path).unwrap_err().kind, StoreErrorKind::Corrupt);
                found += 1;
            }
        }
    }
    assert!(found > 3 && unhurt > 20, "{found} found, {unhurt} unhurt");
}

/// An item less and another more: as many as before.
fn exchange_an_item(path: &Path) {
    let transaction = ::redb::Database::open(path).unwrap().begin_write().unwrap();
    {
        let mut items = transaction.open_table(super::file::ITEMS).unwrap();
        let gone = key(3);
        items.remove((gone.pk.as_str(), gone.sk.as_str())).unwrap().unwrap();
        items.insert(("p9", "other"), [7; 40].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_store_that_was_opened_unread_is_read_by_itself_and_closes_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let store = Redb::open(&path).unwrap();
    assert!(store.0.file().unwrap().0.is_unread());
    store.close().await.unwrap();
    exchange_an_item(&path);
    closed::note(&path).unwrap();
    let store = Redb::open(&path).unwrap();
    let refused = async {
        while store.read(key(1)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.write(set(1)).await.unwrap_err()
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert!(refused.message.contains("not all those that it had"), "{refused}");
    store.close().await.unwrap();
    assert_eq!(Redb::open(&path).unwrap_err().kind, StoreErrorKind::Corrupt, "read first now");
}

#[tokio::test]
async fn a_file_that_was_cut_within_its_head_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let whole = fs::read(&path).unwrap();
    for length in [1, 9, 100, 319, 320, 4_095, 4_096] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Redb::open(&path).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{length} bytes: {error}");
        assert!(error.message.contains("put a copy in its place"), "{length} bytes: {error}");
    }
}

#[tokio::test]
async fn a_bit_that_turns_over_in_a_value_is_an_error_for_whoever_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let mut bytes = fs::read(&path).unwrap();
    let text = b"tenant 123 used 123";
    let at = bytes.windows(text.len()).rposition(|some| some == text).unwrap();
    bytes[at + text.len() - 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (right, errors) = read(&path).await.unwrap();
    assert_eq!((right, errors.len()), (ITEMS - 1, 1));
    assert_eq!(errors[0].kind, StoreErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_deleted_or_replaced_is_noticed_and_answers_for_nothing() {
    for is_replaced in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = made(folder.path(), true).await;
        let store = Redb::open(&path).unwrap();
        let (kept, other) = (folder.path().join("kept"), folder.path().join("other.redb"));
        if is_replaced {
            fs::copy(&path, &other).unwrap();
        }
        fs::rename(&path, &kept).unwrap();
        if is_replaced {
            fs::rename(&other, &path).unwrap();
        }
        let error = store.write(set(1)).await.unwrap_err();
        let word = if is_replaced { "was replaced" } else { "is gone" };
        assert!(error.message.contains(word), "{error}");
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(store.read(key(1)).await.unwrap_err().message.contains(word));
        assert_eq!(path.exists(), is_replaced, "nothing is made in its place");
        // And back.
        fs::rename(&kept, &path).unwrap();
        assert!(matches!(store.write(set(1)).await, Ok(Written::Applied(_))));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_was_lost_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let opened = || Redb::open(&path).map(drop);
    fs::write(&path, "").unwrap();
    let empty = opened().unwrap_err();
    assert!(empty.kind == StoreErrorKind::Corrupt && empty.message.contains("is empty"));
    fs::remove_file(&path).unwrap();
    let gone = opened().unwrap_err();
    assert!(gone.message.contains("restore") && gone.message.contains("store.redb.made"));
    assert!(!path.exists(), "nothing is made");
    fs::remove_file(folder.path().join("store.redb.made")).unwrap();
    Redb::open(&path).unwrap().close().await.unwrap();
    let there: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(there.len(), 3, "the file, its marker, its note: {there:?}");
    let nowhere = Redb::open(folder.path().join("gone/store.redb")).unwrap_err();
    assert_eq!(nowhere.kind, StoreErrorKind::Unavailable);
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_and_what_is_beside_it_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), true).await;
    let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap());
    let modes = files.map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode()));
    let modes: Vec<_> = modes.collect();
    assert_eq!(modes.len(), 3, "a store, its marker, its note: {modes:?}");
    for (name, mode) in modes {
        assert_eq!(mode & 0o777, 0o600, "{}", name.display());
    }
}

/// Even with no call to the store, the loss is reported.
#[tokio::test]
async fn a_file_that_is_gone_is_noticed_within_a_second_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let file = std::sync::Arc::new(StoreFile::at(&path).unwrap());
    let store = Redb::serve(file.clone()).unwrap();
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(file.is_known_gone());
    drop(file);
    store.close().await.unwrap();
}

/// After a disk failure the file is reopened while it is missing.
#[tokio::test]
async fn a_store_that_is_opened_again_after_a_failure_is_never_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let kept = folder.path().join("kept");
    let file = StoreFile::at(&path).unwrap();
    file.fail();
    fs::rename(&path, &kept).unwrap();
    for _ in 0..2 {
        // Reopens it without checking its path first.
        assert_eq!(file.verify(Depth::All).unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(file.write(&[set(1)])[0].is_err());
        file.read(|snapshot| assert!(snapshot.is_err()));
        assert!(!path.exists(), "nothing is made in its place");
    }
    fs::rename(&kept, &path).unwrap();
    assert!(file.write(&[set(1)])[0].is_ok());
}

#[tokio::test]
async fn a_file_that_is_gone_is_named_once_and_once_more_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), true).await;
    let file = StoreFile::at(&path).unwrap();
    let kept = folder.path().join("kept");
    for _ in 0..2 {
        fs::rename(&path, &kept).unwrap();
        let said = heard::lines(|| (0..100).for_each(|_| assert!(file.look().is_err())));
        assert!(said.len() == 1 && said[0].contains("is gone while it is open"), "{said:?}");
        assert!(said[0].contains(&*path.to_string_lossy()), "{said:?}");
        fs::rename(&kept, &path).unwrap();
        let said = heard::lines(|| (0..100).for_each(|_| assert!(file.look().is_ok())));
        assert!(said.len() == 1 && said[0].contains("is back"), "{said:?}");
    }
}

//! Copies: what is in one, what is refused, and what an interruption leaves.

use super::copy::{self, back_up};
use super::*;
use crate::store::{Change, Value};

fn key(n: usize) -> Key {
    Key { pk: format!("p{}", n % 7), sk: format!("{n:06}") }
}

/// A store with so many items in a new folder.
async fn store(items: usize) -> (tempfile::TempDir, PathBuf, Redb) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.redb");
    let store = Redb::open(&path).unwrap();
    put(&store, 0..items).await;
    (folder, path, store)
}

async fn put(store: &Redb, numbers: std::ops::Range<usize>) {
    let writes = numbers.map(|n| {
        let change = vec![Change::Set("n".into(), Value::Text("x".repeat(n % 900)))];
        store.write(Write { key: key(n), when: vec![], change })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
}

async fn length(store: &Redb, n: usize) -> Option<usize> {
    let item = store.read(key(n)).await.unwrap();
    item.map(|item| item.text("n").unwrap().len())
}

/// The names in a folder.
fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_holds_one_instant_while_the_store_goes_on() {
    let (folder, path, store) = store(3_000).await;
    let to = folder.path().join("b.redb");
    let (copied, ()) = tokio::join!(store.back_up(to.clone()), put(&store, 3_000..6_000));
    let copied = copied.unwrap();
    assert!(copied.items >= 3_000 && copied.bytes > 3_000 * 400, "{copied:?}");
    put(&store, 6_000..6_001).await;
    assert_eq!(names(&folder), ["b.redb", "t.redb", "t.redb.made"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let refused = store.back_up(to.clone()).await.unwrap_err();
    assert!(refused.message.contains("is left as it is"), "{refused}");
    let other = store.back_up(folder.path().join("c.redb")).await.unwrap();
    assert_eq!(other.items, 6_001);
    store.close().await.unwrap();
    Redb::open(&path).expect("a copy that is done holds the file no longer");

    let same = Redb::replacement(&to, &path).unwrap();
    assert_eq!(same.copy(), copied, "the second copy has not touched the first");
    let copy = Redb::open(&to).unwrap();
    for n in [0, 1, 899, 1_801, 2_999] {
        assert_eq!(length(&copy, n).await, Some(n % 900));
    }
    assert_eq!(length(&copy, 6_000).await, None, "written after that instant");
}

#[tokio::test]
async fn a_store_that_is_damaged_has_no_backup() {
    let (folder, path, store) = store(2_000).await;
    store.close().await.unwrap();
    file::forge(&path, ("p9", "last"), &[7; 40]);
    let store = Redb::open(&path);
    // It has an item too many for its tally; and with the tally right, one that is damaged.
    assert!(store.is_err());
    let whole = StoreFile::with(Box::new(move || ::redb::Database::open(&path))).unwrap();
    let refused = back_up(&whole, &folder.path().join("b.redb")).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt);
    assert!(refused.message.contains("nothing was copied"), "{refused}");
    assert_eq!(names(&folder), ["t.redb", "t.redb.made"], "and no note of a clean close");
}

/// What a process leaves that is killed while it writes a backup, before the commit.
#[tokio::test]
async fn a_file_that_was_not_written_to_its_end_is_no_store() {
    let (folder, path, store) = store(2_000).await;
    let to = folder.path().join("half.redb");
    let half = std::fs::File::create_new(&to).unwrap();
    let whole = store.0.file().unwrap().0.whole().unwrap();
    let cut = copy::Snapshot { tally: Default::default(), ..whole };
    copy::write(&cut, half).unwrap_err();
    assert!(std::fs::metadata(&to).unwrap().len() > 0, "it has pages");
    let refused = Redb::replacement(&to, &path).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt, "{refused}");
    assert_eq!(names(&folder), ["half.redb", "t.redb", "t.redb.made"]);
}

#[tokio::test]
async fn a_copy_that_was_damaged_is_refused_or_says_the_same() {
    let (folder, path, store) = store(1_000).await;
    let good = folder.path().join("good.redb");
    let copied = store.back_up(good.clone()).await.unwrap();
    store.close().await.unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let (bad, mut refused) = (folder.path().join("bad.redb"), 0);
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&bad, &damaged).unwrap();
        match Redb::replacement(&bad, &path) {
            Ok(it) => assert_eq!(it.copy(), copied, "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(error.message.contains("bad.redb"), "{error}");
            }
        }
    }
    assert!(refused > 10, "{refused}");
    for length in [0, 100, bytes.len() / 2] {
        std::fs::write(&bad, &bytes[..length]).unwrap();
        Redb::replacement(&bad, &path).unwrap_err();
    }
    let none = Redb::replacement(&folder.path().join("none"), &path).unwrap_err();
    assert!(none.message.contains("No such file"), "{none}");
    assert_eq!(names(&folder), ["bad.redb", "good.redb", "t.redb", "t.redb.closed", "t.redb.made"]);
}

#[tokio::test]
async fn a_copy_takes_the_place_of_a_store_that_is_lost_or_set_aside() {
    let (folder, path, store) = store(50).await;
    let to = folder.path().join("b.redb");
    store.back_up(to.clone()).await.unwrap();
    put(&store, 50..60).await;

    let held = Redb::replacement(&to, &path).unwrap().put(true).await.unwrap_err();
    assert!(held.message.contains("already open in another process"), "{held}");
    store.close().await.unwrap();
    let refused = Redb::replacement(&to, &path).unwrap().put(false).await.unwrap_err();
    assert!(refused.message.contains("is left as it is"), "{refused}");
    drop(Redb::replacement(&to, &path).unwrap());
    let as_before = ["b.redb", "t.redb", "t.redb.closed", "t.redb.made"];
    assert_eq!(names(&folder), as_before, "as if it had not been");

    let aside = Redb::replacement(&to, &path).unwrap().put(true).await.unwrap().unwrap();
    let (now, before) = (Redb::open(&path).unwrap(), Redb::open(&aside).unwrap());
    assert_eq!((length(&now, 49).await, length(&now, 55).await), (Some(49), None));
    assert_eq!(length(&before, 55).await, Some(55));
    now.close().await.unwrap();

    std::fs::remove_file(&path).unwrap();
    assert!(Redb::open(&path).is_err(), "a store was lost here");
    let put = Redb::replacement(&to, &path).unwrap().put(false).await.unwrap();
    assert_eq!(put, None);
    assert_eq!(length(&Redb::open(&path).unwrap(), 49).await, Some(49));
    assert!(to.exists(), "the copy stays");
}

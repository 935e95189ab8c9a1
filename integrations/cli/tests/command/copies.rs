//! `backup` and `restore`: usage and billing over them, what is refused, and interruptions.

use std::time::Duration;

use serde_json::Value;
use tallygate::store::{Change, Key, Redb, Store, Write};

use crate::home::Home;

fn record(home: &Home, id: &str, units: &str) -> String {
    home.run(&["usage", "record", "acme", "requests", units, "--id", id]).ok()
}

/// What acme has used, and has left.
fn usage(home: &Home) -> (Value, Value) {
    let usage = home.run(&["usage", "show", "acme", "--json"]).json();
    let meter = &usage["meters"][0];
    (meter["used"].clone(), meter["limits"][0]["remaining"].clone())
}

/// The names in a home's folder that begin so.
fn names(home: &Home, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(home.path("")).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort();
    names
}

#[test]
fn usage_and_keys_are_as_they_were_and_no_unit_of_the_copy_is_given_out_again() {
    for free in [false, true] {
        let home = Home::with_tenants();
        assert_eq!(record(&home, "e1", "5"), "counted\n");
        let made = home.run(&["backup", "b.redb", "--json"]).json();
        assert_eq!((&made["file"], &made["dry_run"]), (&"b.redb".into(), &false.into()));
        let (items, checksum) = (made["items"].as_u64().unwrap(), made["checksum"].clone());
        assert!(items > 5 && checksum.as_str().unwrap().len() == 16, "{made}");
        record(&home, "e2", "7");
        home.run(&["tenant", "create", "late"]).ok();

        let asked = home.run(&["restore", "b.redb"]).fails(5);
        assert!(
            asked.contains("tallygate.redb is set aside") && asked.contains("--yes"),
            "{asked}"
        );
        assert_eq!(usage(&home).0, 12, "nothing was done");
        let flag: &[&str] = if free { &["--free"] } else { &[] };
        let args = [&["restore", "b.redb", "--yes", "--json"], flag].concat();
        let dry = home.run(&[&args[..], &["--dry-run"]].concat()).json();
        assert_eq!((&dry["copy"]["checksum"], &dry["aside"]), (&checksum, &Value::Null));
        assert_eq!(usage(&home).0, 12, "nothing was done");
        let done = home.run(&args).json();
        assert_eq!((&done["copy"]["items"], &done["pools"]), (&items.into(), &1.into()), "{done}");
        let left = if free { 999_995 } else { 0 };
        assert_eq!(usage(&home), (5.into(), left.into()), "free: {free}");
        home.run(&["tenant", "show", "late"]).fails(4);
        assert_eq!(record(&home, "e1", "5"), "counted before\n");

        // The store before is whole, and comes back in the same way.
        let aside = done["aside"].as_str().unwrap();
        home.run(&["restore", aside, "--yes"]).ok();
        assert_eq!(usage(&home).0, 12);
        home.run(&["tenant", "show", "late"]).ok();
        assert!(names(&home, "tallygate.redb.new").is_empty());
    }
}

#[test]
fn a_backup_replaces_nothing_and_a_damaged_one_is_not_restored() {
    let home = Home::with_tenants();
    let none = Home::empty().run(&["backup", "b.redb"]).fails(4);
    assert!(none.contains("there is no store here"), "{none}");
    home.run(&["backup", "b.redb", "--dry-run"]).ok();
    assert!(!home.path("b.redb").exists());
    home.run(&["backup", "b.redb"]).ok();
    let good = std::fs::read(home.path("b.redb")).unwrap();
    let there = home.run(&["backup", "b.redb"]).fails(6);
    assert!(there.contains("is left as it is") && there.contains("name a new file"), "{there}");
    assert_eq!(std::fs::read(home.path("b.redb")).unwrap(), good);
    home.run(&["restore", "gone.redb", "--yes"]).fails(4);

    let mut bad = good.clone();
    let at = bad.windows(6).position(|it| it == b"globex").unwrap();
    bad[at] ^= 1;
    std::fs::write(home.path("bad.redb"), bad).unwrap();
    let before = home.run(&["tenant", "list", "--json"]).ok();
    for file in ["bad.redb", "plans.toml"] {
        let refused = home.run(&["restore", file, "--yes"]).fails(1);
        assert!(refused.contains(file), "{refused}");
    }
    assert_eq!(home.run(&["tenant", "list", "--json"]).ok(), before);
    assert_eq!(
        names(&home, "tallygate.redb"),
        [
            "tallygate.redb",
            "tallygate.redb.closed",
            "tallygate.redb.journal.lock",
            "tallygate.redb.made",
            "tallygate.redb.pepper"
        ]
    );

    // Where a store was lost, a backup needs no question.
    std::fs::remove_file(home.path("tallygate.redb")).unwrap();
    assert!(home.run(&["tenant", "list"]).fails(1).contains("is gone"));
    home.run(&["restore", "b.redb"]).ok();
    assert_eq!(home.run(&["tenant", "list", "--json"]).ok(), before);
    let in_place = home.run(&["restore"]).fails(5);
    assert!(in_place.contains("leases end"), "{in_place}");
    home.run(&["restore", "--yes"]).ok();
    home.write("tallygate.toml", "[store]\nkind = \"memory\"\n");
    for args in [&["backup", "c.redb"][..], &["restore", "b.redb"]] {
        assert!(home.run(args).fails(4).contains("is \"memory\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_service_has_the_store_open_neither_is_done() {
    let home = Home::with_tenants();
    home.run(&["backup", "b.redb"]).ok();
    let store = Redb::open(home.path("tallygate.redb")).unwrap();
    let held = home.run(&["backup", "c.redb"]).fails(6);
    assert!(held.contains("already open") && held.contains("gate.backup(file)"), "{held}");
    let held = home.run(&["restore", "b.redb", "--yes"]).fails(6);
    assert!(held.contains("already open"), "{held}");
    assert!(names(&home, "tallygate.redb.new").is_empty());
    store.close().await.unwrap();
    home.run(&["restore", "b.redb", "--yes"]).ok();
}

/// Killed at any time, it leaves no file of the name, or a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_no_file_that_looks_complete() {
    let home = Home::with_tenants();
    let store = Redb::open(home.path("tallygate.redb")).unwrap();
    for part in 0..10 {
        let write = |n: usize| {
            let key = Key { pk: format!("x{part}"), sk: format!("{n:06}") };
            let change =
                vec![Change::Set("n".into(), tallygate::store::Value::Bytes(vec![7; 900]))];
            store.write(Write { key, when: vec![], change })
        };
        for write in (0..3_000).map(write).collect::<Vec<_>>() {
            write.await.unwrap();
        }
    }
    store.close().await.unwrap();
    let mut cut = 0;
    for n in 0..8 {
        let name = format!("b{n}.redb");
        let mut running = home.start(&["backup", &name]);
        let begins = async {
            while names(&home, &format!("{name}.new")).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), begins).await;
        tokio::time::sleep(Duration::from_millis(15 * n)).await;
        running.kill().unwrap();
        running.wait().unwrap();
        if home.path(&name).exists() {
            home.run(&["restore", &name, "--yes", "--dry-run"]).ok();
            continue;
        }
        cut += 1;
        for half in names(&home, &format!("{name}.new")) {
            home.run(&["restore", &half, "--yes", "--dry-run"]).fails(1);
        }
        home.run(&["backup", &name]).ok();
    }
    assert!(cut > 0, "some were killed in time");
}

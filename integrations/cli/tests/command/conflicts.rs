//! Another process that has the store, and files that are in the way.

use tallygate::store::{Redb, Store as _};

use crate::home::Home;

/// This process is the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_process_holds_is_said_to_be_held_with_what_to_do() {
    let home = Home::with_tenants();
    let held = Redb::open(home.path("tallygate.redb")).unwrap();
    for args in [
        &["tenant", "list"][..],
        &["tenant", "create", "initech"],
        &["tenant", "suspend", "acme", "--yes"],
        &["tenant", "suspend", "acme", "--dry-run"],
        &["key", "create", "acme"],
        &["usage", "show", "acme", "--json"],
    ] {
        let said = home.run(args).fails(6);
        assert!(said.contains("tallygate.redb is already open in another process"), "{said}");
        assert!(said.contains("stop that process") && said.contains("--url"), "{said}");
    }
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code == 6 && doctor.stdout.contains("already open"), "{}", doctor.stdout);
    held.close().await.unwrap();
    assert!(home.run(&["tenant", "list"]).ok().contains("globex"));
}

#[test]
fn init_overwrites_nothing() {
    let home = Home::empty();
    home.write("tallygate.toml", "# mine\n");
    assert!(home.run(&["init"]).fails(6).contains("left as it is"));
    assert_eq!(std::fs::read_to_string(home.path("tallygate.toml")).unwrap(), "# mine\n");
    assert!(!home.path("plans.toml").exists(), "none of the two, or both");
}

/// A first tenant makes the store as a first start of the service would: with a pepper.
#[test]
fn the_first_tenant_makes_the_store_with_its_pepper() {
    let home = Home::with_tenants();
    assert!(home.path("tallygate.redb.pepper").is_file());
    let key = home.run(&["key", "create", "acme"]).ok();
    assert!(key.starts_with("tg_") && key.lines().count() == 1, "{key}");
}

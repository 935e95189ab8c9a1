//! `--dry-run` of every command that writes: the same checks, and nothing is different after.

use crate::home::Home;

/// Everything that the store says of its tenants, their keys, histories and usage.
fn listing(home: &Home) -> String {
    let mut all = home.run(&["tenant", "list", "--all", "--json"]).ok();
    for id in ["acme", "globex"] {
        all += &home.run(&["key", "list", id, "--json"]).ok();
        all += &home.run(&["tenant", "history", id, "--json"]).ok();
        all += &home.run(&["operator", "history", "--json"]).ok();
        let usage = home.run(&["usage", "show", id, "--json"]).json();
        all += &usage["meters"][0]["used"].to_string();
    }
    all
}

#[test]
fn nothing_is_different_after_a_dry_run() {
    let home = Home::with_tenants();
    let key = home.run(&["key", "create", "acme", "--json"]).json();
    let key = key["id"].as_str().unwrap();
    let token = home.run(&["operator", "create", "kim", "--json"]).json();
    let token = token["id"].as_str().unwrap();
    let (hash, grant) = ("0".repeat(64), ["--id", "welcome"]);
    let [id, welcome] = grant;
    let changes = "quota.requests = \"5/day\"";
    home.run(&["tenant", "override", "acme", changes, "--reason", "x"]).ok();
    home.run(&["tenant", "grant", "acme", "requests", "5", id, welcome]).ok();
    home.write("tenants.csv", "tenant,plan\ninitech,pro\n");
    let before = listing(&home);
    for args in [
        &["tenant", "create", "initech", "--plan", "pro"][..],
        &["import", "csv", "tenants.csv"],
        &["tenant", "set-plan", "acme", "free"],
        &["tenant", "override", "globex", changes, "--reason", "x"],
        &["tenant", "end-override", "acme", "--all"],
        &["tenant", "grant", "globex", "requests", "5", id, welcome],
        &["tenant", "end-grant", "acme", "welcome"],
        &["tenant", "suspend", "acme"],
        &["tenant", "resume", "acme"],
        &["tenant", "erase", "acme", "--reason", "x"],
        &["backup", "b.redb"],
        &["key", "create", "acme", "--name", "other"],
        &["key", "rotate", "acme", key],
        &["key", "expire", "acme", key, "--at", "1d"],
        &["key", "revoke", "acme", key],
        &["key", "import-sha256", "acme", &hash],
        &["usage", "record", "acme", "requests", "5", "--id", "e1"],
        &["quota", "reset", "acme", "requests/day", "--reason", "x"],
        &["operator", "create", "lee"],
        &["operator", "revoke", token],
    ] {
        let args = [args, &["--dry-run"]].concat();
        let ran = home.run(&args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("dry run: nothing was"), "{args:?}: {}", ran.stderr);
        let json = home.run(&[&args[..], &["--json"]].concat()).json();
        assert_eq!(json["dry_run"], true, "{args:?}: {json}");
        assert!(
            !ran.stdout.contains("tg_") && !ran.stdout.contains("tgop_"),
            "{args:?}: no key of a dry run is shown"
        );
    }
    assert_eq!(listing(&home), before);
}

#[test]
fn a_dry_run_makes_no_store() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.run(&["tenant", "create", "acme", "--dry-run"]).ok();
    assert!(!home.path("tallygate.redb").exists() && !home.path("tallygate.redb.pepper").exists());
    let other = Home::empty();
    other.run(&["init", "--dry-run"]).ok();
    assert!(!other.path("plans.toml").exists());
}

/// Nor does `doctor`, and it leaves a journal to the service that wrote it.
#[test]
fn doctor_makes_nothing() {
    let mut home = Home::empty();
    home.run(&["init"]).ok();
    home.write("tallygate.toml", "[stripe]\nkey = { env = \"STRIPE_SECRET_KEY\" }\n");
    home.set("STRIPE_SECRET_KEY", "sk_test_x");
    let files = || {
        let files = std::fs::read_dir(home.path("")).unwrap();
        let mut names: Vec<_> = files.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code == 0 && doctor.stdout.contains("in mode test"), "{}", doctor.stdout);
    assert_eq!(files(), before);
}

/// What the change itself would be refused for, a dry run is.
#[test]
fn a_dry_run_fails_as_the_change_would() {
    let home = Home::with_tenants();
    let ended = home.run(&["key", "create", "acme", "--json"]).json();
    let ended = ended["id"].as_str().unwrap();
    home.run(&["key", "revoke", "acme", ended, "--yes"]).ok();
    for (args, code) in [
        (&["tenant", "create", "acme"][..], 6),
        (&["tenant", "erase", "acme", "--reason", "acme has asked"], 2),
        (&["key", "rotate", "acme", ended], 4),
        (&["tenant", "create", "a\nb"], 2),
        (&["tenant", "create", "initech", "--plan", "gold"], 4),
        (&["tenant", "set-plan", "acme", "gold"], 4),
        (&["tenant", "override", "acme", "quota.x = 5", "--reason", "x"], 2),
        (&["tenant", "override", "acme", "quota.requests = \"5/day\""], 2),
        (&["tenant", "grant", "acme", "tokens", "5", "--id", "g"], 4),
        (&["tenant", "suspend", "hooli"], 4),
        (&["tenant", "end-grant", "acme", "g"], 4),
        (&["key", "create", "acme", "--name", ""], 2),
        (&["key", "revoke", "acme", "k0000000000000000"], 4),
        (&["usage", "record", "acme", "tokens", "5", "--id", "e"], 4),
    ] {
        let dry = home.run(&[args, &["--dry-run"]].concat());
        assert_eq!(dry.code, code, "{args:?}: {}{}", dry.stdout, dry.stderr);
        let yes = ["suspend", "end-grant", "revoke", "erase"].contains(&args[1]);
        let real = if yes { [args, &["--yes"]].concat() } else { args.to_vec() };
        let real = home.run(&real).fails(code);
        assert_eq!(dry.stderr.lines().last(), real.lines().last(), "{args:?}");
    }
}

/// The number is the one that is given back then: not the use, of which an earlier reset has given
/// back a part.
#[test]
fn a_dry_run_of_a_reset_computes_what_the_reset_would() {
    let home = Home::with_tenants();
    let quota = "requests/cycle";
    let reset = |more: &[&str]| home.run(&[&["quota", "reset", "acme", quota], more].concat());
    let long = "x".repeat(513);
    home.run(&["usage", "record", "acme", "requests", "7", "--id", "e1"]).ok();
    for reason in ["", &long, "a\u{1}b"] {
        let dry = reset(&["--reason", reason, "--dry-run"]).fails(2);
        let real = reset(&["--reason", reason]).fails(2);
        assert_eq!(dry.lines().last(), real.lines().last(), "{reason:?}");
    }
    let agree = |given: &str| {
        let dry = reset(&["--reason", "x", "--dry-run"]).ok();
        let json = reset(&["--reason", "x", "--dry-run", "--json"]).json();
        let real = reset(&["--reason", "x", "--json"]).json();
        let of = |it: &serde_json::Value| (it["grant"].clone(), it["limit"].clone());
        assert_eq!(json["dry_run"], true, "{json}");
        assert_eq!(of(&json), of(&real));
        assert!(dry.contains(given), "{dry}");
    };
    agree("would begin anew: 7 requests would be given back");
    home.run(&["usage", "record", "acme", "requests", "5", "--id", "e2"]).ok();
    agree("would begin anew: 5 requests would be given back");
    agree("nothing to give back");
}

//! Every exit code, from a command that ends with it.

use crate::home::Home;

#[test]
fn each_code_is_reached() {
    let home = Home::with_tenants();
    home.write("broken.toml", "default-plan = 5\n");
    home.write("new.toml", "default-plan = \"free\"\n[plan.free]\nrate.all = \"5/s\"\n");
    home.write("damaged.redb", "no store");
    home.write("damaged.toml", "[store]\npath = \"damaged.redb\"\n");
    for (code, args) in [
        (0, &["tenant", "list"][..]),
        (0, &["--help"]),
        (0, &["--version"]),
        (1, &["tenant", "list", "--service", "damaged.toml"]),
        (2, &[]),
        (2, &["tenant"]),
        (2, &["tenant", "lst"]),
        (2, &["key", "create", "acme", "--expires", "tomorrow"]),
        (3, &["plans", "check", "broken.toml"]),
        (3, &["tenant", "list", "--service", "no/such/folder/tallygate.toml"]),
        (4, &["tenant", "show", "hooli"]),
        (5, &["tenant", "suspend", "acme"]),
        (6, &["tenant", "create", "acme"]),
        (7, &["plans", "diff", "plans.toml", "new.toml"]),
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.stdout, ran.stderr);
        let says = ran.stderr.lines().next().unwrap_or_default();
        let is_error = (1..=6).contains(&code) && !args.is_empty() && args != ["tenant"];
        assert_eq!(says.starts_with("error: "), is_error, "{args:?}: {says}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_not_permitted() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::with_tenants();
    let locked = |name: &str| {
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(home.path(name), closed).unwrap();
        std::fs::File::open(home.path(name)).is_err()
    };
    if !locked("tallygate.redb") {
        return println!("not held: this user reads every file");
    }
    home.run(&["tenant", "list"]).fails(5);
    locked("plans.toml");
    home.run(&["plans", "check"]).fails(5);
}

/// `head` and pagers read as much as they want.
#[test]
fn a_closed_pipe_is_no_failure() {
    let home = Home::with_tenants();
    let line = "{ tallygate plans schema; echo $? >code; } | true; cat code";
    assert_eq!(home.shell(line).stdout, "0\n");
}

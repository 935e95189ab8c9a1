//! At a terminal: a question before what destroys, and colour.

use crate::home::Home;

const SUSPEND: &str = "tallygate tenant suspend acme";

#[test]
fn what_destroys_is_asked_about() {
    let home = Home::with_tenants();
    for no in ["n\n", "\n", "yo\n"] {
        let ran = home.terminal(SUSPEND, no);
        assert_eq!(ran.code, 5, "{}", ran.stdout);
        let question = "suspend \"acme\": all its requests are refused? [y/N] ";
        assert!(ran.stdout.contains(question), "{}", ran.stdout);
        assert!(ran.stdout.contains("nothing was changed"), "{}", ran.stdout);
    }
    assert!(!home.run(&["tenant", "list"]).ok().contains("suspended"));
    // A dry run and `--yes` are asked nothing.
    for quiet in ["--dry-run", "--yes"] {
        let ran = home.terminal(&format!("{SUSPEND} {quiet}"), "");
        assert!(ran.code == 0 && !ran.stdout.contains("[y/N]"), "{quiet}: {}", ran.stdout);
    }
    home.run(&["tenant", "resume", "acme"]).ok();
    let ran = home.terminal(SUSPEND, "y\n");
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(home.run(&["tenant", "list"]).ok().contains("suspended"));
}

#[test]
fn states_have_a_colour_unless_that_is_not_wanted() {
    let home = Home::with_tenants();
    let list = home.terminal("tallygate tenant list", "");
    assert!(list.stdout.contains("\u{1b}[32mactive\u{1b}[0m"), "{}", list.stdout);
    for line in ["NO_COLOR=1 tallygate tenant list", "tallygate tenant list --json"] {
        let plain = home.terminal(line, "");
        assert!(plain.code == 0 && !plain.stdout.contains('\u{1b}'), "{}", plain.stdout);
    }
    let plain = home.terminal("NO_COLOR=1 tallygate --help", "");
    assert!(plain.code == 0 && !plain.stdout.contains('\u{1b}'), "{}", plain.stdout);
}

/// How far long work is: on standard error, and nowhere but at a terminal.
#[test]
fn long_work_says_how_far_it_is() {
    let home = Home::with_tenants();
    let decision = r#"{"at":"2026-11-24T10:00:01Z","kind":"work","verdict":"admitted","tenant":"acme","user":null,"key":null,"route":null,"plan":"free","revision":1,"one_in":1,"reason":null,"limit":null,"status":null,"retry_after_seconds":null,"cost":{"requests":1}}"#;
    home.write("decisions.ndjson", &format!("{decision}\n"));
    let simulate = "tallygate plans simulate --log decisions.ndjson";
    for (line, said) in [
        (simulate, "0 of 1 decisions, under "),
        ("tallygate backup copy.redb", "copying the store"),
    ] {
        let at_terminal = home.terminal(&format!("stty cols 120; {line}"), "");
        assert_eq!(at_terminal.code, 0, "{line}: {}", at_terminal.stdout);
        assert!(at_terminal.stdout.contains(said), "{line}: {}", at_terminal.stdout);
        let elsewhere = home.shell(&format!("rm -f copy.redb; {line}"));
        assert!(elsewhere.code == 0 && !elsewhere.stdout.contains(said), "{}", elsewhere.stdout);
        assert!(!elsewhere.stderr.contains(said), "{}", elsewhere.stderr);
    }
}

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

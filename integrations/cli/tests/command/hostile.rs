//! Names with characters that act on a terminal: no output has one, on any command.

use crate::home::Home;

/// What erases, colours, and turns the direction of a line.
const NASTY: &str = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}\u{8}\r\nx";
/// What an id may have of it: it is no control character.
const TURNED: &str = "acme\u{202e}gpj";

#[track_caller]
fn is_safe(text: &str) {
    let acts = |c: &char| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
    assert_eq!(text.chars().find(acts), None, "{text:?}");
}

/// A usage plan with such a name.
fn json_of_usage_plans() -> String {
    let plan =
        serde_json::json!({ "id": NASTY, "name": TURNED, "apiStages": [{ "apiId": NASTY }] });
    serde_json::json!({ "items": [plan] }).to_string()
}

#[test]
fn what_acts_on_a_terminal_is_printed_escaped() {
    let home = Home::with_tenants();
    home.run(&["tenant", "create", TURNED, "--reason", "two\nlines\tand a tab"]).ok();
    let grant = ["tenant", "grant", TURNED, "requests", "5", "--id", "g"];
    home.run(&[&grant[..], &["--source", TURNED]].concat()).ok();
    home.run(&["tenant", "suspend", TURNED, "--yes", "--actor", TURNED]).ok();
    home.write("rows.csv", &format!("tenant,plan\n{TURNED},gold{TURNED}\n{NASTY},pro\n"));
    home.write("plans.json", &json_of_usage_plans());
    for args in [
        &["import", "csv", "rows.csv"][..],
        &["import", "csv", NASTY],
        &["import", "api-gateway", "--usage-plans", "plans.json"],
        &["import", "tower-governor", "--per-second", "1", "--burst-size", "1", "--plan", NASTY],
        &["usage", "export", "--tenant", NASTY],
        &["usage", "export", "--meter", NASTY],
        &["usage", "export", "--output", NASTY],
        &["top", "--once"],
        &["top", "--once", "--url", NASTY],
        &["tenant", "list"],
        &["tenant", "show", TURNED],
        &["tenant", "history", TURNED],
        &["tenant", "suspend", TURNED],
        &["tenant", "set-plan", TURNED, NASTY],
        &["tenant", "show", NASTY],
        &["tenant", "create", NASTY],
        &["tenant", "list", "--prefix", NASTY],
        &["tenant", "end-grant", TURNED, NASTY, "--yes"],
        &["key", "create", TURNED, "--name", NASTY],
        &["key", "revoke", TURNED, NASTY, "--yes"],
        &["key", "expire", TURNED, NASTY, "--at", NASTY],
        &["usage", "show", TURNED],
        &["usage", "history", TURNED, NASTY],
        &["usage", "record", TURNED, NASTY, "5", "--id", "x"],
        &["usage", "record", TURNED, "requests", "5", "--id", NASTY],
        &["plans", "check", NASTY],
        &["plans", "show", "--plan", NASTY],
        &["tenant", "list", "--service", NASTY],
        &["init", NASTY],
        &[NASTY],
        &["tenant", NASTY],
    ] {
        for json in [&[][..], &["--json"]] {
            let ran = home.run(&[args, json].concat());
            is_safe(&ran.stdout);
            is_safe(&ran.stderr);
        }
    }
    let listed = home.run(&["tenant", "list"]).ok();
    assert!(listed.contains("acme\\u{202e}gpj"), "{listed}");
    let shown = home.run(&["tenant", "show", TURNED, "--json"]).json();
    assert_eq!(shown["id"], TURNED, "a program reads what it is");
}

#[test]
fn a_plan_file_cannot_act_on_the_terminal_either() {
    let home = Home::empty();
    let name = "\\u001b[2J";
    home.write("plans.toml", &format!("default-plan = \"{name}\"\n[plan.\"{name}\"]\n"));
    let ran = home.run(&["plans", "check"]);
    is_safe(&ran.stdout);
    is_safe(&ran.stderr);
    let ran = home.run(&["plans", "diff", "plans.toml", "plans.toml"]);
    is_safe(&ran.stderr);
}

/// Without a terminal there is no colour, whatever the environment says.
#[test]
fn a_pipe_gets_no_colour() {
    let mut home = Home::with_tenants();
    home.set("CLICOLOR_FORCE", "1");
    for args in [&["tenant", "list"][..], &["doctor"], &["tenant", "lst"], &["--help"]] {
        let ran = home.run(args);
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{args:?}");
    }
}

//! What `doctor` finds in a store, in a journal and in the clock's neighbours, and how it is put
//! right.

use std::process::Command;

use serde_json::Value;
use tallygate::GateBuilder;

use crate::home::Home;

/// A check's state and detail.
pub(crate) fn check(home: &Home, name: &str, args: &[&str]) -> (String, String) {
    let ran = home.run(&[&["doctor", "--json"], args].concat());
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let all: Vec<_> = lines.collect();
    let found = all.iter().find(|it| it["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name}: {all:?} {}", ran.stderr));
    let text = |of: &str| found[of].as_str().unwrap().to_owned();
    (text("state"), text("detail"))
}

#[tokio::test]
async fn letters_that_were_not_counted_are_found_until_they_are_dropped() {
    let home = Home::with_tenants();
    assert_eq!(check(&home, "dead letters", &[]).0, "ok");
    let store = home.path("tallygate.redb");
    let text = format!("identify = []\n[store]\npath = {:?}\n", store.to_str().unwrap());
    let plans = std::fs::read_to_string(home.path("plans.toml")).unwrap();
    let gate = GateBuilder::from_text(&text).plans(&plans).open().await.unwrap();
    assert!(gate.ingest().messages(&["no JSON"]).await.iter().all(Result::is_err));
    gate.close().await.unwrap();
    let (state, detail) = check(&home, "dead letters", &[]);
    assert!(state == "trouble" && detail.contains("tallygate dlq list"), "{detail}");
    assert_eq!(home.run(&["doctor"]).code, 1);
    let letter = home.run(&["dlq", "list", "--json"]).json();
    home.run(&["dlq", "drop", letter["id"].as_str().unwrap(), "--yes"]).ok();
    assert_eq!(check(&home, "dead letters", &[]).0, "ok");
}

#[test]
fn keys_that_end_soon_are_named() {
    let home = Home::with_tenants();
    home.run(&["key", "create", "acme", "--expires", "30d"]).ok();
    assert_eq!(check(&home, "keys", &[]), ("ok".into(), "no key ends within 7 days".into()));
    home.run(&["key", "create", "acme", "--name", "ci", "--expires", "3d"]).ok();
    home.run(&["operator", "create", "kim", "--expires", "1d"]).ok();
    let (state, detail) = check(&home, "keys", &[]);
    assert_eq!(state, "trouble");
    assert!(detail.starts_with("2 keys end within 7 days: "), "{detail}");
    assert!(detail.contains("(ci) of acme") && detail.contains("of the operator kim"), "{detail}");
    let keys = home.run(&["key", "list", "acme", "--json"]).ok();
    let keys = keys.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ci = keys.into_iter().find(|it| it["name"] == "ci").unwrap();
    home.run(&["key", "revoke", "acme", ci["id"].as_str().unwrap(), "--yes"]).ok();
    assert!(check(&home, "keys", &[]).1.starts_with("1 keys end"), "it does not work any more");
}

#[test]
fn alerts_on_their_way_are_no_trouble() {
    let home = Home::with_tenants();
    assert_eq!(check(&home, "alerts", &[]).0, "left out");
    home.write(
        "alerts.toml",
        "[[notify]]\nname = \"ops\"\nwebhook = \"http://127.0.0.1:9/\"\n\
         secret = { env = \"ALERTS_SECRET\" }\n",
    );
    let service = ["--service", "alerts.toml"];
    assert_eq!(check(&home, "alerts", &service), ("ok".into(), "none waits".into()));
    home.run(&[&["tenant", "set-plan", "globex", "pro"][..], &service].concat()).ok();
    assert_eq!(check(&home, "alerts", &service), ("ok".into(), "1 are on their way".into()));
}

/// A store that opens takes it over: `doctor` names what nothing can record.
#[test]
fn a_journal_that_no_start_can_record_is_found() {
    let home = Home::with_tenants();
    let journal = home.path("tallygate.redb.journal.1");
    assert_eq!(check(&home, "journal", &[]).0, "ok");
    home.write("plans.toml", "default-plan = 5\n");
    std::fs::write(&journal, "usage").unwrap();
    let (state, detail) = check(&home, "journal", &[]);
    assert!(state == "ok" && detail.contains("5 bytes for the next start"), "{detail}");
    let touched = Command::new("touch").args(["-d", "2 hours ago"]).arg(&journal).status();
    assert!(touched.unwrap().success());
    let (state, detail) = check(&home, "journal", &[]);
    assert!(state == "trouble" && detail.contains("in no store"), "{detail}");
}

/// Whatever ends a start of the service, on a store that is there.
#[test]
fn what_keeps_the_service_from_starting_is_found() {
    let notify = "[[notify]]\nname = \"ops\"\nwebhook = \"https://x.test/\"\nsecret = ";
    let whsec = "{ env = \"ALERTS_SECRET\" }\n";
    let jwt = |secret: &str| {
        format!(
            "[[identify]]\njwt = {{ secret = {secret}, issuer = \"i\", audience = \"a\", \
             tenant = \"org\" }}\n"
        )
    };
    let cases = [
        ("[decisions]\nfile = \"/nonexistent/d.ndjson\"\n".to_owned(), "decisions.file"),
        ("[decisions]\nfile = \"/tmp\"\n".to_owned(), "not a regular file"),
        ("[ingest]\ntoken = { env = \"NOPE\" }\n".to_owned(), "NOPE is not set"),
        ("[ingest]\ntoken = { ssm = \"/x\" }\n".to_owned(), "no AWS secrets source"),
        ("[ingest]\ntoken = { env = \"SHORT\" }\n".to_owned(), "at least 16"),
        (format!("{notify}{{ env = \"NOPE\" }}\n"), "NOPE is not set"),
        (format!("{notify}{{ env = \"SHORT\" }}\n"), "whsec_"),
        ("[[notify]]\nname = \"t\"\nsns = { env = \"NOPE\" }\n".to_owned(), "NOPE is not set"),
        (jwt("{ env = \"NOPE\" }"), "NOPE is not set"),
        (jwt("{ env = \"SHORT\" }"), "identify.jwt"),
    ];
    let secret = format!("whsec_{}", "QUJD".repeat(8));
    let mut home = Home::with_tenants();
    for (name, value) in [("ALERTS_SECRET", &*secret), ("SHORT", "abc"), ("LONG", &secret)] {
        home.set(name, value);
    }
    let written = std::fs::read_to_string(home.path("tallygate.toml")).unwrap();
    let start = |home: &Home, more: &str| {
        home.write("tallygate.toml", &format!("{written}\n{more}"));
        check(home, "start", &[])
    };
    for (more, says) in &cases {
        let (state, detail) = start(&home, more);
        assert!(state == "trouble" && detail.contains(says), "{more}{detail}");
        assert!(!detail.contains("abc"), "a secret is shown: {detail}");
        assert_eq!(home.run(&["doctor"]).code, 3, "{more}");
    }

    // As it should be; and nothing is made.
    let ok = format!(
        "[decisions]\nfile = \"d.ndjson\"\n[ingest]\ntoken = {{ env = \"LONG\" }}\n\
         {}[[notify]]\nname = \"bus\"\neventbridge = \"default\"\n{notify}{whsec}",
        jwt("{ env = \"LONG\" }")
    );
    let (state, detail) = start(&home, &ok);
    assert_eq!(state, "ok", "{detail}");
    let made = |name: &str| home.path(name).exists();
    assert!(!made("d.ndjson") && !made("d.ndjson.lock") && !made("d.ndjson.probe"));
    home.set("HTTPS_PROXY", "socks5://127.0.0.1:1");
    let (state, detail) = check(&home, "start", &[]);
    assert!(state == "trouble" && detail.contains("HTTPS_PROXY"), "{detail}");
    home.set("HTTPS_PROXY", "");
    home.set("SSL_CERT_FILE", "/nonexistent.pem");
    let (state, detail) = check(&home, "start", &[]);
    assert!(state == "trouble" && detail.contains("SSL_CERT_FILE"), "{detail}");
}

//! `report` and `audit`, with a Stripe beside them.

use stripe_sim::{Fault, FaultKind, Settings, Sim};

use crate::doctor::check;
use crate::home::Home;

const PLANS: &str = "default-plan = \"free\"\n\
                     [meter.calls]\nstripe = { event = \"calls\", send = \"all\" }\n\
                     [plan.free]\n\
                     quota.calls = { limit = \"0/cycle\", over = \"bill\" }\n";

/// A service that bills into this simulator, with a tenant that owes units.
fn home(sim: &Sim) -> Home {
    let mut home = Home::empty();
    let service = "[stripe]\nkey = { env = \"STRIPE_SECRET_KEY\" }\napi-base = \"BASE\"\n";
    home.write("plans.toml", PLANS);
    home.write("tallygate.toml", &service.replace("BASE", &sim.url()));
    // What only reads and writes tenants needs no key of Stripe's.
    home.run(&["tenant", "create", "acme"]).ok();
    home.set("STRIPE_SECRET_KEY", "sk_test_x");
    home
}

fn record(home: &Home, id: &str, units: &str) {
    home.run(&["usage", "record", "acme", "calls", units, "--id", id]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_reported_once_and_the_audit_says_so() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    sim.create_meter("calls").unwrap();
    let home = home(&sim);
    record(&home, "before", "3");

    // Used before there is a customer: a gap that stays.
    let audit = home.run(&["audit", "--json"]);
    assert_eq!(audit.code, 7, "{}", audit.stderr);
    let found: serde_json::Value = serde_json::from_str(&audit.stdout).unwrap();
    assert_eq!(found["clean"], false, "{found}");
    let gap = &found["lines"][0]["gaps"][0];
    assert!(gap["text"].as_str().unwrap().contains("before a customer was linked"), "{gap}");
    let audit = home.run(&["audit"]);
    assert!(audit.code == 7 && audit.stdout.contains("3 units used before"), "{}", audit.stdout);
    assert!(audit.stderr.contains("there are gaps"), "{}", audit.stderr);
    let report = home.run(&["report", "--json"]).json();
    assert_eq!((&report["sent"], &report["units"]), (&0.into(), &0.into()), "{report}");
    let table = home.run(&["report"]).ok();
    assert!(table.contains("sent      0 entries of 0 units"), "{table}");
    let dry = home.run(&["report", "--dry-run", "--json"]).json();
    assert_eq!((&dry["dry_run"], &dry["units"]), (&true.into(), &0.into()));
}

/// What the service's own program does when a customer signs up.
async fn link(home: &Home, customer: &str) {
    let store = home.path("tallygate.redb");
    let text = format!("identify = []\n[store]\npath = {:?}\n", store.to_str().unwrap());
    let gate = tallygate::GateBuilder::from_text(&text).plans(PLANS).open().await.unwrap();
    let acme = gate.directory().tenant("acme").account(Some(customer.to_owned()));
    acme.save().await.unwrap();
    gate.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_sends_what_is_owed_and_the_audit_is_clean_then() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    sim.create_meter("calls").unwrap();
    let customer = sim.call("POST", "/v1/customers", "name=acme");
    let home = home(&sim);
    test_support::waits::past_a_minutes_end();
    link(&home, customer["id"].as_str().unwrap()).await;
    record(&home, "e1", "3");
    let audit = home.run(&["audit"]);
    assert!(audit.code == 0 && audit.stdout.contains("wait for the next"), "{}", audit.stdout);
    let dry = home.run(&["report", "--dry-run"]);
    assert!(dry.stderr.contains("nothing was sent"), "{}", dry.stderr);
    assert_eq!(dry.ok(), "3 units would be sent\n");
    home.run(&["doctor"]).ok();
    // An audit ends without a close, which would report, and leaves nothing to repair.
    assert_eq!(home.run(&["tenant", "list"]).stderr, "");
    assert!(sim.totals().is_empty(), "{:?}", sim.totals());

    let report = home.run(&["report", "--json"]).json();
    assert_eq!((&report["sent"], &report["units"]), (&1.into(), &3.into()), "{report}");
    assert_eq!(sim.totals().len(), 1, "{:?}", sim.totals());
    assert!(home.run(&["report"]).ok().starts_with("sent      0 entries of 0 units"));
    let audit = home.run(&["audit", "--json"]).json();
    assert_eq!((&audit["clean"], &audit["lines"][0]["sent"]), (&true.into(), &3.into()), "{audit}");
}

/// No command but `report` sends anything, and a key of the wrong mode ends those that bill alone.
#[tokio::test(flavor = "multi_thread")]
async fn other_commands_need_no_key() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let mut home = home(&sim);
    home.set("STRIPE_SECRET_KEY", "sk_live_x");
    home.run(&["tenant", "list"]).ok();
    home.run(&["usage", "show", "acme"]).ok();
    for args in [&["report"][..], &["audit"], &["report", "--dry-run"]] {
        let said = home.run(args).fails(3);
        assert!(said.contains("live key") && !said.contains("sk_live_x"), "{said}");
    }
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code == 3 && doctor.stdout.contains("live key"), "{}", doctor.stdout);
    assert!(!doctor.stdout.contains("sk_live_x"), "{}", doctor.stdout);
}

/// A tenant that has been a customer for an hour: there are minutes for several entries.
async fn customer_for_an_hour(home: &Home, sim: &Sim) {
    let customer = sim.call("POST", "/v1/customers", "name=globex");
    let then_ms = (sim.now() - 3_600) * 1_000;
    let store = home.path("tallygate.redb");
    let text = format!("identify = []\n[store]\npath = {:?}\n", store.to_str().unwrap());
    let builder = tallygate::GateBuilder::from_text(&text).plans(PLANS);
    let clock = tallygate::ManualClock::at_unix_ms(then_ms);
    let gate = builder.clock(clock).open().await.unwrap();
    let account = customer["id"].as_str().unwrap().to_owned();
    gate.directory().tenant("globex").account(Some(account)).save().await.unwrap();
    gate.close().await.unwrap();
    home.run(&["usage", "record", "globex", "calls", "3", "--id", "e1"]).ok();
}

/// What `top` says of a store with an entry that waits for an operator: with Stripe's key, and
/// without.
fn shown_by_top(home: &Home) {
    let top = home.run(&["top", "--json"]).json();
    let outbox = &top["outbox"];
    assert_eq!((&outbox["waiting"], &outbox["decide"]), (&0.into(), &1.into()), "{top}");
    assert!(outbox["oldest"].is_string() && outbox["partial"] == false, "{top}");
    let text = home.run(&["top", "--once"]).ok();
    let line = text.lines().find(|line| line.starts_with("outbox")).unwrap();
    assert!(line.contains("1 to decide: tallygate outbox list, none waits, oldest "), "{text}");
    let without = home.shell("unset STRIPE_SECRET_KEY; tallygate top --once");
    let text = without.ok();
    assert!(text.contains("outbox  not read: ") && text.contains("STRIPE_SECRET_KEY"), "{text}");
    assert!(text.contains("in use  2"), "the tenants all the same\n{text}");
}

/// Stripe has no meter of this name yet: it refuses the entry, which waits for an operator.
#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_refused_is_listed_and_decided_about() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    assert!(home.run(&["outbox", "list"]).stderr.contains("nothing is on its way"));
    customer_for_an_hour(&home, &sim).await;
    let report = home.run(&["report"]);
    assert_eq!(report.code, 7, "{}{}", report.stdout, report.stderr);
    assert!(report.stderr.contains("an operator must decide about 1 entry"), "{}", report.stderr);
    assert!(report.stderr.contains("tallygate outbox list"), "{}", report.stderr);
    // It is made once, also not again as the command ends.
    assert!(!report.stderr.contains("usage was reported"), "{}", report.stderr);
    let report = home.run(&["report", "--json"]);
    assert_eq!(report.code, 7, "{}{}", report.stdout, report.stderr);
    let found: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&found["verdict"], &found["open"]), (&"decide".into(), &1.into()), "{found}");
    let why = found["stopped"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("refused: "), "{found}");

    let list = home.run(&["outbox", "list", "--json"]);
    assert_eq!(list.code, 7, "{}", list.stderr);
    let row: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&row["tenant"], &row["units"]), (&"globex".into(), &3.into()), "{row}");
    assert_eq!(row["state"], "stopped");
    assert!(row["why"].as_str().unwrap().starts_with("refused: "), "{row}");
    let entry = row["entry"].as_str().unwrap();
    assert!(home.run(&["outbox", "list"]).stdout.contains(entry));
    shown_by_top(&home);
    let (state, detail) = check(&home, "outbox", &[]);
    assert!(state == "trouble" && detail.starts_with("1 entries wait for a decision"), "{detail}");
    let (state, detail) = check(&home, "reports", &[]);
    assert_eq!((&*state, &*detail), ("ok", "no process reports at the moment"));

    // Without a decision it stays; a dry run decides nothing.
    home.run(&["outbox", "decide", entry, "--settled"]).fails(5);
    let said = home.run(&["outbox", "decide", entry]).fails(2);
    assert!(said.contains("--settled") && said.contains("--owed"), "{said}");
    // No prefix, or one that every entry has, names none.
    for args in [&["decide", "", "--owed"][..], &["decide", "tg_", "--settled"], &["retry", ""]] {
        let said = home.run(&[&["outbox"], args, &["--yes"]].concat()).fails(2);
        assert!(said.contains("outbox list"), "{args:?}: {said}");
    }
    home.run(&["outbox", "decide", "tg_x", "--owed", "--yes"]).fails(4);
    let dry = home.run(&["outbox", "retry", "--all", "--dry-run"]);
    assert!(dry.stderr.contains("nothing was decided"), "{}", dry.stderr);
    assert_eq!(home.run(&["outbox", "list"]).code, 7);

    assert!(home.run(&["outbox", "decided"]).stderr.contains("nothing was decided"));

    // Owed anew, it is sent once the meter is there; what was accepted needs no decision.
    sim.create_meter("calls").unwrap();
    let retried = home.run(&["outbox", "retry", &entry[..12], "--yes"]).ok();
    assert_eq!(retried, format!("{entry}: 3 units are owed\n"));
    assert!(sim.totals().is_empty(), "a decision sends nothing");
    let list = home.run(&["outbox", "list"]);
    assert!(list.stderr.contains("report --dry-run") && !list.stderr.contains("verified"));
    let report = home.run(&["report", "--json"]).json();
    assert_eq!(report["units"], 3, "{report}");
    let sent = home.run(&["outbox", "list", "--json"]).json();
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_eq!(check(&home, "outbox", &[]), ("ok".into(), "nothing is on its way".into()));
    assert_ne!(sent["entry"], entry, "under an identifier of its own");
    let sent = sent["entry"].as_str().unwrap();
    assert!(home.run(&["outbox", "decide", sent, "--owed", "--yes"]).fails(6).contains("reports"));
    home.run(&["outbox", "retry", sent, "--yes"]).fails(6);
}

/// An answer that never came is a send that failed, and it is nothing to decide about.
#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_does_not_answer_fails_the_report_and_resolves_by_itself() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    sim.create_meter("calls").unwrap();
    let home = home(&sim);
    customer_for_an_hour(&home, &sim).await;
    let (code, applied) = (500, false);
    let kind = FaultKind::Status { code, applied, should_retry: Some(false), retry_after: None };
    let events = "POST /v1/billing/meter_events";
    sim.fault(Fault { on: events.into(), skip: 0, times: 0, kind });
    let report = home.run(&["report"]);
    assert_eq!(report.code, 1, "{}{}", report.stdout, report.stderr);
    let said = &report.stderr;
    assert!(said.contains("1 entry was not answered") && said.contains("globex"), "{said}");
    let report = home.run(&["report", "--json"]);
    assert_eq!(report.code, 1, "{}{}", report.stdout, report.stderr);
    let found: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&found["verdict"], &found["open"]), (&"failed".into(), &1.into()), "{found}");
    assert!(!found["unanswered"][0]["why"].as_str().unwrap().is_empty(), "{found}");

    let row = home.run(&["outbox", "list", "--json"]).json();
    assert_eq!(row["state"], "uncertain", "{row}");
    let entry = row["entry"].as_str().unwrap();
    for args in [&["retry", entry][..], &["decide", entry, "--owed"]] {
        let said = home.run(&[&["outbox"], args, &["--yes"]].concat()).fails(6);
        assert!(said.contains("tallygate report") && !said.contains("outbox decide"), "{said}");
    }
    sim.heal();
    let report = home.run(&["report", "--json"]).json();
    assert_eq!((&report["verdict"], &report["sent"]), (&"sent".into(), &1.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_settled_is_never_sent() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    customer_for_an_hour(&home, &sim).await;
    assert_eq!(home.run(&["report"]).code, 7);
    let row: serde_json::Value =
        serde_json::from_str(&home.run(&["outbox", "list", "--json"]).stdout).unwrap();
    let entry = row["entry"].as_str().unwrap();
    let by = ["--actor", "kim", "--reason", "paid by wire", "--yes", "--json"];
    let done = home.run(&[&["outbox", "decide", entry, "--settled"], &by[..]].concat()).json();
    assert_eq!(done["decided"], "settled");
    let kept = home.run(&["outbox", "decided", "--json"]).json();
    assert_eq!((&kept["entry"], &kept["tenant"]), (&row["entry"], &row["tenant"]));
    assert_eq!((&kept["decided"], &kept["units"]), (&done["decided"], &row["units"]));
    assert_eq!((&kept["actor"], &kept["reason"]), (&"kim".into(), &"paid by wire".into()));
    let shown = home.run(&["outbox", "decided"]).ok();
    assert!(shown.contains("settled") && shown.contains("paid by wire"), "{shown}");
    sim.create_meter("calls").unwrap();
    assert_eq!(home.run(&["report", "--json"]).json()["units"], 0);
    assert!(sim.totals().is_empty() && home.run(&["outbox", "list"]).code == 0);
}

/// What was sent after a backup is not in it, and is not sent again once that was restored.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_billed_twice_over_a_restore() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    sim.create_meter("calls").unwrap();
    let customer = sim.call("POST", "/v1/customers", "name=acme");
    let home = home(&sim);
    test_support::waits::past_a_minutes_end();
    link(&home, customer["id"].as_str().unwrap()).await;
    let billed = || sim.totals().iter().map(|total| total.total).sum::<i64>();
    record(&home, "e1", "3");
    home.run(&["backup", "b.redb"]).ok();
    home.run(&["report"]).ok();
    assert_eq!(billed(), 3, "of which the backup knows nothing");

    let restored = home.run(&["restore", "b.redb", "--yes"]);
    assert!(restored.stderr.contains("before `tallygate report --resume`"), "{}", restored.stderr);
    let waits = home.run(&["report"]).fails(6);
    assert!(waits.contains("restored"), "{waits}");
    home.run(&["report", "--resume", "ask-stripe"]).ok();
    assert_eq!(billed(), 3, "Stripe's sums are asked for first, some hours later");
    assert_eq!(home.run(&["outbox", "list"]).code, 0);
}

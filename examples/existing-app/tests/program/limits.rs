//! Plans: what an organisation may use, all of its users together and no other, until it upgrades.

use serde_json::json;
use test_support::examples::Home;

use crate::support::{App, WITH_PLANS, home, json};

/// A folder whose free plan has these requests a month, at any rate.
fn home_with(requests: &str) -> Home {
    let home = home();
    home.edit_plans("5/s burst 20", "10k/s burst 10k");
    home.edit_plans("\"1k/month\"", &format!("\"{requests}/month\""));
    home
}

#[test]
fn at_the_limit_of_its_plan_an_organisation_is_refused_until_it_upgrades() {
    let home = home_with("3");
    let app = App::start(WITH_PLANS, &home);
    let [ada, alan, ian] = ["ada", "alan", "ian"].map(|user| app.sign_in(user));
    assert_eq!(ada.get("/api/notes/export").status, 403, "not in its plan, and not charged");
    for user in [&ada, &alan, &ada] {
        assert_eq!(user.get("/api/notes").status, 200);
    }
    for user in [&ada, &alan] {
        let answer = user.get("/api/notes");
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        let problem = json(&answer);
        assert_eq!(problem["violated-policies"], json!(["requests/month"]));
        assert_eq!((&problem["plan"], &problem["limit"]["used"]), (&json!("free"), &json!(3)));
    }
    assert_eq!(ian.get("/api/notes").status, 200, "another organisation");

    assert_eq!(alan.send("POST", "/api/upgrade", "").status, 200, "which no limit hinders");
    assert_eq!(ada.get("/api/notes").status, 200);
    assert_eq!(ada.get("/api/notes/export").status, 200);
    assert_eq!((&ada.usage()["plan"], ada.requests()), (&json!("pro"), 5), "what was used counts");
    assert_eq!((&ian.usage()["plan"], ian.requests()), (&json!("free"), 1));
    assert_eq!(ian.get("/api/notes/export").status, 403);
}

#[test]
fn at_its_rate_an_organisation_waits_and_no_other() {
    let home = home();
    home.edit_plans("5/s burst 20", "1/min");
    let app = App::start(WITH_PLANS, &home);
    let [ada, ian, grace] = ["ada", "ian", "grace"].map(|user| app.sign_in(user));
    assert_eq!(ada.get("/api/notes").status, 200);
    let answer = ada.get("/api/notes");
    assert_eq!((answer.status, &json(&answer)["violated-policies"]), (429, &json!(["default"])));
    assert_eq!(ian.get("/api/notes").status, 200);
    for _ in 0..20 {
        assert_eq!(grace.get("/api/notes").status, 200, "on the plan pro");
    }
}

#[test]
fn a_restart_keeps_what_was_used() {
    let home = home_with("3");
    let app = App::start(WITH_PLANS, &home);
    let ada = app.sign_in("ada");
    for _ in 0..2 {
        assert_eq!(ada.get("/api/notes").status, 200);
    }
    assert_eq!(ada.requests(), 2);
    assert!(app.ends_well());
    assert!(!home.path("existing-app.redb.pepper").exists(), "there are no API keys");

    let app = App::start(WITH_PLANS, &home);
    let ada = app.sign_in("ada"); // sessions were in memory
    assert_eq!(ada.requests(), 2);
    assert_eq!(ada.get("/api/notes").status, 200);
    assert_eq!(ada.get("/api/notes").status, 429);
}

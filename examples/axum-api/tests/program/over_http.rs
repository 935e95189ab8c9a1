//! The example as a program, over real HTTP: what its README promises.

use std::io::Read;

use crate::support::Home;

const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";
const LATE: &str = "tg_demo_late";
const SEARCH: &str = "/v1/search?q=tide";
const EXPORT: &str = "/v1/accounts/7/exports";

#[test]
fn each_tenant_gets_what_its_plan_says() {
    let home = Home::new();
    let api = home.start();

    let found = api.raw("GET", SEARCH, &[("authorization", "Bearer tg_demo_acme")], "");
    assert_eq!(found.status, 200);
    assert!(found.body.contains("\"tenant\":\"acme\""), "{found:?}");
    assert!(found.header("ratelimit").contains("\"requests/day\";r=99999;"), "{found:?}");
    assert!(found.header("ratelimit-policy").contains("\"search\";q=10;w=1"), "{found:?}");

    let late = api.send("GET", SEARCH, LATE);
    assert_eq!((late.status, late.header("retry-after")), (402, ""));
    assert!(late.body.contains("https://example.com/billing"), "{late:?}");

    let solo = api.send("POST", EXPORT, SOLO);
    assert_eq!(solo.status, 403);
    assert!(solo.body.contains("/problems/feature-not-in-plan"), "{solo:?}");

    assert_eq!(api.raw("GET", SEARCH, &[], "").status, 401);
    assert_eq!(api.send("GET", SEARCH, "tg_demo_nobody").status, 401);
    assert_eq!(api.raw("GET", "/healthz", &[], "").body, "ok\n");
}

#[test]
fn usage_moves_by_what_requests_cost() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.used("requests", ACME), 0);
    assert_eq!(api.send("POST", EXPORT, ACME).status, 202);
    assert_eq!(api.used("requests", ACME), 25);
    assert_eq!(api.send("HEAD", SEARCH, ACME).body, "");
    assert_eq!(api.used("requests", ACME), 26);

    let before = api.used("egress", ACME);
    let streamed = api.send("GET", "/v1/stream?chunks=200", ACME);
    assert_eq!(streamed.body.len(), 200_000);
    assert_eq!(api.used("egress", ACME) - before, 200_000);
    assert_eq!(api.meter("egress", ACME, "held"), 0);

    let upload = api.raw("POST", "/v1/upload", &[("x-api-key", ACME)], "twelve bytes");
    assert!(upload.body.contains("\"received\":12"), "{upload:?}");
    assert_eq!(api.used("ingress", ACME), 12);

    // Looking is free.
    assert_eq!(api.used("requests", ACME), 28);
    let page = api.raw("GET", "/usage-page", &[], "");
    assert!(page.body.contains("<!doctype html>"), "{}", page.status);
}

#[test]
fn a_client_that_goes_away_pays_for_what_passed() {
    let home = Home::new();
    let api = home.start();
    let mut socket = api.open("GET", "/v1/stream?chunks=100000", ACME);
    socket.read_exact(&mut [0; 1000]).unwrap();
    drop(socket);
    api.until("the hold goes back", |api| api.meter("egress", ACME, "held") == 0);
    let used = api.used("egress", ACME);
    assert!((1_000..100_000_000).contains(&used), "{used}");
    assert_eq!(api.used("egress", ACME), used, "settled once");
    assert_eq!(api.used("requests", ACME), 1);
}

#[test]
fn a_raised_limit_acts_on_a_caller_that_is_refused() {
    let home = Home::new();
    home.edit_plans("\"10k/month\"", "\"3/day\"");
    home.edit_plans("{ requests = 25 }", "{ requests = 2 }");
    let api = home.start_with(&[("PLANS", home.path("plans.toml").to_str().unwrap())]);
    for _ in 0..3 {
        assert_eq!(api.send("GET", SEARCH, SOLO).status, 200);
    }
    let refused = api.send("GET", SEARCH, SOLO);
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(refused.body.contains("\"violated-policies\":[\"requests/day\"]"), "{refused:?}");
    assert_eq!(api.used("requests", SOLO), 3, "and looking still works");

    home.edit_plans("\"3/day\"", "\"5/day\"");
    api.until("the plan file is in force", |api| {
        api.stderr().contains("a changed plan file is in force")
    });
    assert_eq!(api.send("GET", SEARCH, SOLO).status, 200, "on the next request");
    assert_eq!(api.send("GET", SEARCH, SOLO).status, 200);
    assert_eq!(api.send("GET", SEARCH, SOLO).status, 429, "what was used stays used");
}

#[test]
fn a_broken_plan_file_is_named_and_the_one_before_stays() {
    let home = Home::new();
    let api = home.start();
    home.edit_plans("rate.search    = \"30/min\"", "rate.serch     = \"30/min\"");
    api.until("the mistake is reported", |api| api.stderr().contains("rate.serch"));
    let stderr = api.stderr();
    let text = home.read("plans.toml");
    let line = text.lines().position(|l| l.contains("serch")).unwrap() + 1;
    assert!(stderr.contains(&format!("plans.toml:{line}:")), "{stderr}");
    assert_eq!(api.send("GET", SEARCH, ACME).status, 200);
    drop(api);

    let broken = home.program().output().unwrap();
    assert!(!broken.status.success(), "it does not start with broken plans");
    let stderr = String::from_utf8(broken.stderr).unwrap();
    assert!(stderr.contains(&format!("plans.toml:{line}:")), "{stderr}");
}

#[test]
fn sigterm_drains_and_the_next_start_knows_what_was_used() {
    let home = Home::new();
    let store = home.path("elsewhere.redb");
    let env = [("TALLYGATE__STORE__PATH", store.to_str().unwrap())];
    let api = home.start_with(&env);
    assert_eq!(api.send("POST", EXPORT, ACME).status, 202);
    assert_eq!(api.send("GET", SEARCH, ACME).status, 200);
    let egress = api.used("egress", ACME);

    // A request in hand when the signal comes is answered to its end.
    let mut open = api.open("GET", "/v1/stream?chunks=20000", ACME);
    open.read_exact(&mut [0; 1]).unwrap();
    api.terminate();
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "{} bytes\n{}", rest.len(), api.stderr());
    assert!(api.ends_well());
    assert!(store.exists());

    let api = home.start_with(&env);
    assert_eq!(api.used("requests", ACME), 27);
    let usage = api.send("GET", "/usage", ACME).body;
    assert!(usage.contains("\"limit\":100000,\"used\":27,\"remaining\":99973"), "{usage}");
    assert_eq!(api.used("egress", ACME), egress + 20_000_000);
    let found = api.send("GET", SEARCH, ACME);
    assert!(found.header("ratelimit").contains("\"requests/day\";r=99972;"), "{found:?}");
}

#[test]
fn what_is_logged_at_the_start_goes_to_the_subscriber_alone() {
    let home = Home::new();
    let api = home.start();
    let said = api.stderr();
    assert!(said.contains("WARN no pepper is configured"), "{said}");
    assert!(said.contains("a crash of this process loses"), "{said}");
    assert!(!said.contains("tallygate: "), "{said}");
}

/// The operator's side: a token printed once, for the console and the routes below it.
#[test]
fn an_operator_gives_units_to_a_tenant_that_is_refused() {
    let home = Home::new();
    let api = home.start();
    let token = api.printed_after("its token, shown this once: ");
    let bearer = format!("Bearer {token}");
    let as_operator = [("authorization", &*bearer)];
    assert!(api.raw("GET", "/admin", &[], "").body.contains("<!doctype html>"));
    for not_one in [&[][..], &[("authorization", "Bearer tg_demo_acme")]] {
        assert_eq!(api.raw("GET", "/admin/tenants", not_one, "").status, 401);
    }
    let listed = api.raw("GET", "/admin/tenants", &as_operator, "");
    for id in ["acme", "late", "solo"] {
        assert!(listed.body.contains(&format!("\"id\":\"{id}\"")), "{listed:?}");
    }

    assert_eq!(api.send("POST", EXPORT, SOLO).status, 403);
    let refused = api.raw("GET", "/admin/tenants/solo/refusals", &as_operator, "");
    assert!(refused.body.contains("feature-not-in-plan"), "{refused:?}");
    let moved = r#"{"plan":"team","reason":"asked for exports"}"#;
    assert_eq!(api.raw("PATCH", "/admin/tenants/solo", &as_operator, moved).status, 200);
    api.until("the plan is in force", |api| api.send("POST", EXPORT, SOLO).status == 202);

    api.terminate();
    assert!(api.ends_well());
    let again = home.start();
    assert_eq!(again.raw("GET", "/admin/operator", &as_operator, "").status, 200);
    assert!(!again.printed().contains("shown this once"), "the token is printed once");
}

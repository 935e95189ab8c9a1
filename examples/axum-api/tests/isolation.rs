//! No tenant can read, spend or slow down another: everything that a request could forge, tried
//! over real HTTP against the program as it is shipped.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]
#![cfg(unix)]

pub(crate) mod support;

use support::{Api, Home};

const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";

/// All that `/usage` tells a tenant, without the instants that pass by themselves.
fn standing(api: &Api, key: &str) -> serde_json::Value {
    let usage = api.send("GET", "/usage", key);
    assert_eq!(usage.status, 200, "{usage:?}");
    let usage: serde_json::Value = serde_json::from_str(&usage.body).unwrap();
    let meters = usage["meters"].as_array().unwrap().iter().map(|meter| {
        let names = ["name", "used", "over", "held", "limits", "grants"];
        names.map(|name| meter[name].clone())
    });
    serde_json::json!({ "plan": usage["plan"], "meters": meters.collect::<Vec<_>>() })
}

/// Runs something and returns what it spent of `acme`'s requests and of `solo`'s.
fn spent(api: &Api, run: impl FnOnce(&Api)) -> (u64, u64) {
    let used = |key| api.used("requests", key);
    let before = (used(ACME), used(SOLO));
    run(api);
    (used(ACME) - before.0, used(SOLO) - before.1)
}

#[test]
fn only_the_key_says_who_is_calling() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.send("GET", "/v1/search", ACME).status, 200);
    let acme = standing(&api, ACME);

    let forged = [
        ("x-tenant", "acme"),
        ("x-tenant-id", "acme"),
        ("x-user", "acme"),
        ("x-gateway-tenant", "acme"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-forwarded-user", "acme"),
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-http-method-override", "GET"),
        ("cookie", "x-api-key=tg_demo_acme"),
    ];
    for (name, value) in forged {
        let (of_acme, of_solo) = spent(&api, |api| {
            let headers = [("x-api-key", SOLO), (name, value)];
            let answer =
                api.raw("GET", "/v1/search?tenant=acme&x-api-key=tg_demo_acme", &headers, "");
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert!(answer.body.contains("\"tenant\":\"solo\""), "{name}: {answer:?}");
            let alone = api.raw("GET", "/v1/search?x-api-key=tg_demo_acme", &[(name, value)], "");
            assert_eq!(alone.status, 401, "{name} is no credential");
        });
        assert_eq!((of_acme, of_solo), (0, 1), "{name}");
    }
    assert_eq!(standing(&api, ACME), acme);
}

#[test]
fn two_keys_are_nobody() {
    let home = Home::new();
    let api = home.start();
    let both: [&[(&str, &str)]; 3] = [
        &[("x-api-key", SOLO), ("authorization", "Bearer tg_demo_acme")],
        &[("x-api-key", SOLO), ("x-api-key", ACME)],
        &[("authorization", "Bearer tg_demo_solo"), ("authorization", "Bearer tg_demo_acme")],
    ];
    for headers in both {
        let unspent = spent(&api, |api| {
            assert_eq!(api.raw("GET", "/v1/search", headers, "").status, 401, "{headers:?}");
            assert_eq!(api.raw("GET", "/usage", headers, "").status, 401, "{headers:?}");
        });
        assert_eq!(unspent, (0, 0));
    }
}

#[test]
fn a_key_is_taken_to_the_letter() {
    let home = Home::new();
    let api = home.start();
    let keys = [
        "TG_DEMO_ACME",
        "tg_demo_acme2",
        "tg_demo_acm",
        "tg_demo_acme, tg_demo_solo",
        "tg_demo_acme#b",
        "tg_demo_acme\0",
        "acme",
        "demo",
        "",
    ];
    for key in keys {
        let answer = api.send("GET", "/usage", key);
        assert!([400, 401].contains(&answer.status), "{key:?}: {answer:?}");
    }
}

#[test]
fn a_path_in_disguise_costs_what_the_path_costs() {
    let home = Home::new();
    let api = home.start();
    let disguised = [
        ("GET", "/v1/search?x=/healthz", 200, 1),
        ("POST", "/v1/accounts/a%2Fb/exports", 202, 25),
        ("POST", "/v1/accounts/a%23b/exports", 202, 25),
        ("POST", "/v1/accounts/%68ealthz/exports", 202, 25),
        ("POST", "/v1/accounts/solo/exports", 202, 25),
    ];
    for (method, path, status, cost) in disguised {
        let spends = spent(&api, |api| {
            let answer = api.send(method, path, ACME);
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        });
        assert_eq!(spends, (cost, 0), "{path}");
        // What the plan lacks is not had by spelling it otherwise.
        if cost == 25 {
            assert_eq!(api.send(method, path, SOLO).status, 403, "{path}");
        }
    }
}

#[test]
fn one_tenant_at_its_limit_slows_no_other() {
    let home = Home::new();
    home.edit_plans("\"30/min\"", "\"3/min\"");
    let api = home.start();
    let acme = standing(&api, ACME);
    let statuses: Vec<u16> = (0..6).map(|_| api.send("GET", "/v1/search", SOLO).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    assert_eq!(standing(&api, ACME), acme);
    let found = api.send("GET", "/v1/search", ACME);
    assert_eq!(found.status, 200);
    assert!(found.header("ratelimit").contains("\"search\";r=9;"), "{found:?}");
}

#[test]
fn no_refusal_or_log_shows_a_key() {
    let home = Home::new();
    let api = home.start_with(&[("RUST_LOG", "trace")]);
    for key in [ACME, SOLO, "tg_demo_late", "tg_demo_wrong"] {
        for path in ["/v1/search", "/usage", "/usage/history?meter=nothing"] {
            let answer = api.send("GET", path, key);
            assert!(!format!("{answer:?}").contains("tg_demo"), "{answer:?}");
        }
    }
    assert!(!api.stderr().contains("tg_demo"), "{}", api.stderr());
}

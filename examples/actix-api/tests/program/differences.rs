//! What differs from `axum-api`: actix-web decodes a path before it routes it, and asks who calls
//! before that.

use crate::support::Home;

const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";

#[test]
fn it_sells_what_axum_api_sells() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).unwrap();
    assert_eq!(read("plans.toml"), read("../axum-api/plans.toml"));
    let theirs = read("../axum-api/tallygate.toml").replace("axum-api", "actix-api");
    assert_eq!(read("tallygate.toml"), theirs);
}

#[cfg(feature = "stripe")]
#[test]
fn without_a_key_nothing_of_stripe_is_there() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.raw("POST", "/webhooks/stripe", &[], "{}").status, 401);
    assert_eq!(api.send("POST", "/webhooks/stripe", "tg_demo_acme").status, 404);
    assert_eq!(api.send("POST", "/demo/report", "tg_demo_acme").status, 404);
}

#[test]
fn a_path_that_actix_decodes_costs_what_it_leads_to() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.send("GET", "/v1/%73earch", ACME).status, 200);
    assert_eq!(api.used("requests", ACME), 1);
    let disguised = "/v1/accounts/7/%65xports";
    assert_eq!(api.send("POST", disguised, ACME).status, 202);
    assert_eq!(api.used("requests", ACME), 26);
    assert_eq!(api.send("POST", disguised, SOLO).status, 403);
}

#[test]
fn a_path_that_leads_nowhere_is_a_request_like_any_other() {
    let home = Home::new();
    let api = home.start();
    let nowhere = ["/healthz/../v1/search", "/v1//search", "/v1/search/", "/HEALTHZ"];
    for (nth, path) in (1..).zip(nowhere) {
        assert_eq!(api.raw("GET", path, &[], "").status, 401, "{path}");
        assert_eq!(api.send("GET", path, ACME).status, 404, "{path}");
        assert_eq!(api.used("requests", ACME), nth, "{path}");
    }
}

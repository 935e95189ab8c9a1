//! No tenant can read, spend or slow down another: what `axum-api` is held to, tried over real HTTP
//! against this program, and what differs: actix-web decodes a path before it routes it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[path = "../../axum-api/tests/isolation.rs"]
mod as_axum_api;

use as_axum_api::support::Home;

const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";

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

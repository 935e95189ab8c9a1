//! What is the app's own stays so behind the gate: its authentication, its CORS rules, its 404s,
//! and the routes that have no plan.

use serde_json::json;

use crate::support::{App, BEFORE, WITH_PLANS, home, json};

#[test]
fn a_request_without_a_session_is_refused_by_the_app_and_not_by_the_gate() {
    let home = home();
    for program in [BEFORE, WITH_PLANS] {
        let app = App::start(program, &home);
        for path in ["/api/me", "/api/notes", "/api/events", "/api/ws", "/api/usage", "/api/x"] {
            for headers in [&[][..], &[("cookie", "session=forged")], &[("x-tenant", "acme")]] {
                let answer = app.raw("GET", path, headers, "");
                assert_eq!(answer.status, 401, "{path}: {answer:?}");
                assert_eq!(json(&answer), json!({ "error": "sign in first" }));
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("ratelimit"), "");
            }
        }
        let login = r#"{ "user": "ada", "password": "wrong" }"#;
        let headers = [("content-type", "application/json")];
        assert_eq!(app.raw("POST", "/login", &headers, login).status, 401);

        let ada = app.sign_in("ada");
        let me = json!({ "user": "ada", "organisation": "acme", "plan": "free" });
        assert_eq!(json(&ada.get("/api/me")), me);
    }
}

#[test]
fn only_what_the_api_answers_is_charged() {
    let home = home();
    let app = App::start(WITH_PLANS, &home);
    let ada = app.sign_in("ada");
    assert_eq!(ada.requests(), 0);

    for (path, status) in [("/", 200), ("/healthz", 200), ("/nowhere", 404), ("/api/me", 200)] {
        let answer = ada.get(path);
        assert_eq!((answer.status, answer.header("ratelimit")), (status, ""), "{path}");
    }
    assert_eq!(ada.requests(), 0, "outside of the gate, or of no plan");

    assert_eq!(ada.send("POST", "/api/notes", "tea").status, 201);
    assert_eq!(ada.get("/api/notes").body, r#"["tea"]"#);
    assert_eq!(ada.requests(), 2);
    let nowhere = ada.get("/api/nowhere");
    assert_eq!((nowhere.status, &*nowhere.body), (404, "there is nothing here\n"));
    assert_eq!(ada.requests(), 3, "a 404 of the API is charged as any answer");
}

#[test]
fn preflights_are_free_and_pages_of_the_front_end_read_limits() {
    let home = home();
    let app = App::start(WITH_PLANS, &home);
    let origin = ("origin", "https://notes.example.com");
    let preflight = [origin, ("access-control-request-method", "POST")];
    let answer = app.raw("OPTIONS", "/api/notes", &preflight, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert_eq!(answer.header("ratelimit"), "");

    let ada = app.sign_in("ada");
    assert_eq!(ada.requests(), 0);
    let answer = app.raw("GET", "/api/notes", &[("cookie", &ada.cookie), origin], "");
    let exposed = answer.header("access-control-expose-headers");
    assert_eq!((answer.status, exposed), (200, "RateLimit, RateLimit-Policy, Retry-After"));
    assert_eq!(ada.requests(), 1);
}

#[test]
fn before_it_has_plans_it_has_no_limits() {
    let home = home();
    let app = App::start(BEFORE, &home);
    let ada = app.sign_in("ada");
    for _ in 0..40 {
        let answer = ada.get("/api/notes/export");
        assert_eq!((answer.status, answer.header("ratelimit")), (200, ""));
    }
    assert_eq!(ada.get("/api/usage").status, 404);
    assert!(app.ends_well());
}

//! A tenant's own keys, where the host mounts their routes.

use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, http};
use serde_json::Value;
use tallygate::directory::NewKey;
use tallygate::{Gate, GateBuilder};
use tallygate_actix_web::{GateMiddleware, usage_routes, usage_routes_with_keys};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"2/day\"\n";

async fn gate() -> (Gate, NewKey) {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\""; // a pepper is drawn
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let acme = gate.directory().tenant("acme").note("new").save().await.unwrap();
    let key = acme.new_key("first").await.unwrap();
    (gate, key)
}

fn asked(key: &str, line: &str, body: &str) -> TestRequest {
    let (method, path) = line.split_once(' ').unwrap();
    TestRequest::with_uri(path)
        .method(http::Method::from_bytes(method.as_bytes()).unwrap())
        .insert_header(("authorization", format!("Bearer {key}")))
        .insert_header(("content-type", "application/json"))
        .insert_header(("idempotency-key", "r-1"))
        .set_payload(body.to_owned())
}

#[actix_web::test]
async fn a_tenant_makes_and_revokes_its_keys_and_pays_nothing_for_it() {
    let (gate, first) = gate().await;
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(usage_routes_with_keys(&gate));
    let app = init_service(app).await;
    let call = async |key: &str, line: &str, body: &str| {
        let response = call_service(&app, asked(key, line, body).to_request()).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(read_body(response).await.to_vec()).unwrap())
    };
    let make = async || call(first.expose(), "POST /usage/keys", r#"{"name":"ci"}"#).await;
    let (status, made) = make().await;
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(make().await.0, 409, "the same request");
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    for _ in 0..3 {
        let (status, listed) = call(key, "GET /usage/keys", "").await;
        assert!(status == 200 && listed.contains(id) && !listed.contains(key), "{listed}");
    }
    let revoke = format!("DELETE /usage/keys/{id}");
    assert_eq!(call(key, &revoke, "").await.0, 409, "its own");
    assert_eq!(call(first.expose(), &revoke, "").await.0, 200);
    assert_eq!(call(key, "GET /usage/keys", "").await.0, 401);
    let long = "x".repeat(8 * 1024);
    assert_eq!(call(first.expose(), "POST /usage/keys", &long).await.0, 413);
    let (_, page) = call("", "GET /usage-page", "").await;
    assert!(page.contains("<html lang=\"en\" data-keys>"));
}

#[actix_web::test]
async fn without_the_hosts_word_there_are_no_routes_for_keys() {
    let (gate, first) = gate().await;
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(usage_routes(&gate));
    let app = init_service(app).await;
    let make = asked(first.expose(), "POST /usage/keys", r#"{"name":"ci"}"#);
    assert_eq!(call_service(&app, make.to_request()).await.status(), 404);
    let page = call_service(&app, asked("", "GET /usage-page", "").to_request()).await;
    assert!(!String::from_utf8_lossy(&read_body(page).await).contains("data-keys>"));
}

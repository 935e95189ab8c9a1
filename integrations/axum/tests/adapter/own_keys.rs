//! A tenant's own keys, where the host mounts their routes.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::Value;
use tallygate::directory::NewKey;
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{GateLayer, usage_router, usage_router_with_keys};

use crate::support::{send, text};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"2/day\"\n";

async fn gate() -> (Gate, NewKey) {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\""; // a pepper is drawn
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let acme = gate.directory().tenant("acme").note("new").save().await.unwrap();
    let key = acme.new_key("first").await.unwrap();
    (gate, key)
}

async fn call(app: &Router, key: &str, line: &str, body: &str) -> (u16, String) {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path);
    let request = request.header("authorization", format!("Bearer {key}"));
    let request = request.header("content-type", "application/json");
    let request = request.header("idempotency-key", "r-1").body(Body::from(body.to_owned()));
    let response = send(app, request.unwrap()).await;
    (response.status().as_u16(), text(response).await)
}

#[tokio::test]
async fn a_tenant_makes_and_revokes_its_keys_and_pays_nothing_for_it() {
    let (gate, first) = gate().await;
    let app = Router::new().layer(GateLayer::new(&gate)).merge(usage_router_with_keys(&gate));
    let make = async || call(&app, first.expose(), "POST /usage/keys", r#"{"name":"ci"}"#).await;
    let (status, made) = make().await;
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(make().await.0, 409, "the same request");
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    for _ in 0..3 {
        let (status, listed) = call(&app, key, "GET /usage/keys", "").await;
        assert!(status == 200 && listed.contains(id) && !listed.contains(key), "{listed}");
    }
    let revoke = format!("DELETE /usage/keys/{id}");
    assert_eq!(call(&app, key, &revoke, "").await.0, 409, "its own");
    assert_eq!(call(&app, first.expose(), &revoke, "").await.0, 200);
    assert_eq!(call(&app, key, "GET /usage/keys", "").await.0, 401);
    assert_eq!(call(&app, "unknown", "GET /usage/keys", "").await.0, 401);
    let long = "x".repeat(8 * 1024);
    assert_eq!(call(&app, first.expose(), "POST /usage/keys", &long).await.0, 413);
    let page = send(&app, Request::get("/usage-page").body(Body::empty()).unwrap()).await;
    assert!(text(page).await.contains("<html lang=\"en\" data-keys>"));
}

#[tokio::test]
async fn without_the_hosts_word_there_are_no_routes_for_keys() {
    let (gate, first) = gate().await;
    let app = Router::new().layer(GateLayer::new(&gate)).merge(usage_router(&gate));
    let (status, _) = call(&app, first.expose(), "POST /usage/keys", r#"{"name":"ci"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND.as_u16());
    let page = send(&app, Request::get("/usage-page").body(Body::empty()).unwrap()).await;
    assert!(!text(page).await.contains("data-keys>"));
}

//! docs/testing-your-limits.md: the tests that it shows.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{self, Request};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tallygate::identity::Claims;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty};
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{Caller, GateLayer, Refused, Usage, usage_router};
use tower::ServiceExt;

/// The app that the page's tests are of.
fn app(gate: &Gate) -> Router {
    Router::new()
        .route("/v1/search", get(async || "found"))
        .route("/v1/chat", post(chat))
        .layer(GateLayer::new(gate))
}

async fn chat(usage: Usage) -> Result<&'static str, Refused> {
    usage.take("output-tokens", 10).await?;
    usage.add("output-tokens", 7);
    Ok("hello")
}

const PLANS: &str = include_str!("plans.toml");

async fn status(app: &Router, request: Request<Body>) -> u16 {
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

fn search(tenant: &str) -> Request<Body> {
    Request::get("/v1/search").header("x-tenant", tenant).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_burst_is_refused_and_a_second_later_it_is_not() {
    let (gate, clock) = testing::gate(PLANS); // panics with every mistake of the plan file
    let app = app(&gate);
    for _ in 0..5 {
        assert_eq!(status(&app, search("acme")).await, 200);
    }
    assert_eq!(status(&app, search("acme")).await, 429);
    assert_eq!(status(&app, search("globex")).await, 200); // another tenant is not held up
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&app, search("acme")).await, 200);
}

#[tokio::test]
async fn the_day_after_there_are_units_again() {
    let (gate, clock) = testing::gate(&PLANS.replace("1k/day", "1/day"));
    let app = app(&gate);
    assert_eq!(status(&app, search("acme")).await, 200);
    assert_eq!(status(&app, search("acme")).await, 429);
    clock.advance(Duration::from_secs(12 * 3600)); // it begins at noon, UTC
    assert_eq!(status(&app, search("acme")).await, 200);
}

#[tokio::test]
async fn a_plan_is_bought() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate);
    let export = || Request::get("/v1/export").header("x-tenant", "acme").body(Body::empty());
    assert_eq!(status(&app, export().unwrap()).await, 403);
    gate.directory().tenant("acme").plan("pro").note("test").save().await.unwrap();
    assert_eq!(status(&app, export().unwrap()).await, 404); // past the gate
}

#[tokio::test]
async fn the_files_and_the_program_agree() {
    let (gate, _clock) = testing::gate(PLANS);
    gate.meter("output-tokens").unwrap();
    let error = gate.check_routes(["GET /v1/search", "POST /v1/chat"]).unwrap_err();
    assert!(error.to_string().contains("GET /v1/export"), "{error}");
}

#[tokio::test]
async fn a_key_is_made_and_revoked() {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\""; // a pepper is drawn
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let app = app(&gate);
    let acme = gate.directory().tenant("acme").save().await.unwrap();
    let key = acme.new_key("test").await.unwrap();
    let search =
        || Request::get("/v1/search").header("x-api-key", key.expose()).body(Body::empty());
    assert_eq!(status(&app, search().unwrap()).await, 200);
    let id = acme.keys().await.unwrap()[0].id.clone();
    acme.revoke_key(&id).await.unwrap();
    assert_eq!(status(&app, search().unwrap()).await, 401);
}

#[tokio::test]
async fn claims_of_an_authorizer_are_the_tenant() {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"\nidentity.unknown = \"create\"\n\
                   [[identify]]\nclaim = \"org\"\nuser-claim = \"sub\"";
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let app = app(&gate);
    let mut request = Request::get("/v1/search").body(Body::empty()).unwrap();
    assert_eq!(status(&app, Request::get("/v1/search").body(Body::empty()).unwrap()).await, 401);
    request.extensions_mut().insert(Claims::from_iter([("org", "acme"), ("sub", "ann")]));
    assert_eq!(status(&app, request).await, 200);
}

#[derive(Clone)]
struct User {
    org: &'static str,
}

#[tokio::test]
async fn the_apps_own_session_is_the_tenant() {
    let (gate, _clock) = testing::gate(PLANS);
    let layer = GateLayer::new(&gate).caller(|extensions| {
        let user = extensions.get::<User>()?;
        Some(Caller::new(user.org).plan("pro"))
    });
    let app = Router::new().route("/v1/export", get(async || "all of it")).layer(layer);
    let mut request = Request::get("/v1/export").body(Body::empty()).unwrap();
    request.extensions_mut().insert(User { org: "acme" });
    assert_eq!(status(&app, request).await, 200);
}

#[tokio::test]
async fn what_was_used_is_counted() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate).merge(usage_router(&gate));
    let of = |request: http::request::Builder| request.header("x-tenant", "acme");
    let chat = of(Request::post("/v1/chat")).body(Body::empty()).unwrap();
    assert_eq!(status(&app, chat).await, 200);
    let usage = of(Request::get("/usage")).body(Body::empty()).unwrap();
    let body = app.oneshot(usage).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let usage: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let tokens =
        &usage["meters"].as_array().unwrap().iter().find(|it| it["name"] == "output-tokens");
    assert_eq!(tokens.unwrap()["used"], 7);
}

#[tokio::test(start_paused = true)]
async fn without_its_store_a_new_tenant_is_asked_to_come_back() {
    let store = Faulty::scripted(Memory::new(), []);
    let (gate, _clock) = testing::gate_with(PLANS, store.clone());
    let app = app(&gate);
    assert_eq!(status(&app, search("acme")).await, 200);
    store.outage(true);
    assert_eq!(status(&app, search("acme")).await, 200); // in memory, and so is its lease
    assert_eq!(status(&app, search("globex")).await, 503);
}

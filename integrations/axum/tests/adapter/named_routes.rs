//! Routes of the plan file that are named at the router: [`GateLayer::route`].

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http::Request;
use tallygate::{Error, Gate, ManualClock, testing};
use tallygate_axum::{Caller, GateLayer};

use crate::support::{meter, request, send};

const PLANS: &str = r#"
    default-plan = "free"
    [route.chat]
    match = []
    cost  = { requests = 5 }
    [route.search]
    match = "GET /v1/search"
    cost  = { requests = 2 }
    [plan.free]
    quota.requests = "100/day"
"#;

fn app(gate: &Gate) -> Router {
    let chat = GateLayer::new(gate).route("chat").unwrap();
    Router::new()
        .route("/v1/search", get(async || "found"))
        .route("/v1/other", get(async || "other"))
        .layer(GateLayer::new(gate))
        .route("/v1/chat/{id}", post(async || "hello").route_layer(chat))
}

#[tokio::test]
async fn a_route_named_at_the_router_decides_for_it_alone() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate);
    let mut used = 0;
    for (method, path, status, cost) in [
        ("POST", "/v1/chat/7", 200, 5),
        ("POST", "/v1/ch%61t/7", 404, 1),
        ("POST", "/v1/chat/%2F", 200, 5),
        ("GET", "/v1/chat/7", 405, 0),
        ("GET", "/v1/search", 200, 2),
        ("GET", "/v1/other", 200, 1),
    ] {
        assert_eq!(send(&app, request(method, path)).await.status(), status, "{path}");
        used += cost;
        assert_eq!(meter(&gate, "requests").await.0, used, "{method} {path}");
    }
}

#[tokio::test]
async fn a_mistyped_route_is_an_error_that_names_the_one_that_was_meant() {
    let (gate, _clock) = testing::gate(PLANS);
    let error = GateLayer::new(&gate).route("caht").unwrap_err();
    assert!(matches!(error, Error::Routes(_)), "{error}");
    assert!(error.to_string().contains("did you mean `chat`?"), "{error}");
}

#[tokio::test]
async fn a_named_route_follows_the_plan_file() {
    let plans = testing::Plans::new(PLANS);
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = plans.read_by(testing::builder("")).clock(clock.clone()).open().await.unwrap();
    let app = app(&gate);
    let used = async || {
        gate.flush_now().await.unwrap();
        clock.advance(Duration::from_secs(31)); // what was recorded is read again
        meter(&gate, "requests").await.0
    };
    let cost = async || {
        let before = used().await;
        assert_eq!(send(&app, request("POST", "/v1/chat/7")).await.status(), 200);
        used().await - before
    };
    assert_eq!(cost().await, 5);
    plans.set(&PLANS.replace("requests = 5", "requests = 7"));
    assert!(gate.reload().await.unwrap());
    assert_eq!(cost().await, 7);
    // Another route has its place: patterns decide.
    plans.set(&PLANS.replace("[route.chat]", "[route.talk]"));
    assert!(gate.reload().await.unwrap());
    assert_eq!(cost().await, 1);
    gate.close().await.unwrap();
}

/// The layer that authenticates stands around the router, and so before every route's layer.
#[tokio::test]
async fn a_host_that_names_callers_does_so_before_a_named_route() {
    let (gate, _clock) = testing::gate(PLANS);
    let chat = GateLayer::new(&gate).caller(|extensions| extensions.get::<Caller>().cloned());
    let app = Router::new()
        .route("/v1/chat", post(async || "hello").layer(chat.route("chat").unwrap()))
        .layer(axum::middleware::map_request(async |mut request: Request<_>| {
            request.extensions_mut().insert(Caller::new("acme"));
            request
        }));
    let anonymous = Request::post("/v1/chat").body(axum::body::Body::empty()).unwrap();
    assert_eq!(send(&app, anonymous).await.status(), 200);
    assert_eq!(meter(&gate, "requests").await.0, 5);
}

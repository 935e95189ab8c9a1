//! Which route of the plan file a request is on: the one of the handler that it reaches, however
//! its path is spelled.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use tollgate::{Admitted, Gate, testing};
use tollgate_axum::{TollgateLayer, usage_router};
use tower::Layer;

mod support;

use support::{meter, request, send, text};

const PLANS: &str = r#"
    default-plan = "free"
    [route.export]
    match = "POST /v1/accounts/{account}/exports"
    cost = { requests = 25 }
    needs = "exports"
    [route.two]
    match = "GET /{a}/{b}"
    [route.under-a]
    match = "GET /a/{*r}"
    [route.z]
    match = "GET /{y}/z"
    cost = { requests = 5 }
    [route.costly]
    match = "GET /v1/models/costly"
    cost = { requests = 25 }
    [route.healthz]
    match = "GET /healthz"
    auth = "none"
    [plan.free]
    quota.requests = "1000/day"
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

async fn used(gate: &Gate) -> u64 {
    meter(gate, "requests").await.0
}

/// Says on which route it is.
async fn said(admitted: axum::extract::Extension<Admitted>) -> String {
    admitted.route().map_or("none".to_owned(), |route| route.to_string())
}

#[tokio::test]
async fn an_empty_segment_does_not_walk_around_a_price() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route(
            "/v1/accounts/{id}/exports",
            post(async |Path(_): Path<String>| StatusCode::ACCEPTED),
        )
        .route("/{y}/z", get(said))
        .layer(TollgateLayer::new(&gate));
    for path in ["/v1/accounts/7/exports", "/v1/accounts//exports", "/v1/accounts/%20/exports"] {
        assert_eq!(send(&app, request("POST", path)).await.status(), 403, "{path}");
    }
    assert_eq!(used(&gate).await, 0);
    let acme = gate.directory().tenant("acme").plan("pro").save().await;
    acme.unwrap();
    let (gate, _clock) = testing::gate(&PLANS.replace("needs = \"exports\"", ""));
    let app = Router::new()
        .route("/v1/accounts/{id}/exports", post(async || StatusCode::ACCEPTED))
        .route("/{y}/z", get(said))
        .layer(TollgateLayer::new(&gate));
    assert_eq!(send(&app, request("POST", "/v1/accounts//exports")).await.status(), 202);
    assert_eq!(used(&gate).await, 25);
    assert_eq!(text(send(&app, request("GET", "//z")).await).await, "z");
    assert_eq!(used(&gate).await, 30);
}

#[tokio::test]
async fn the_routers_own_match_says_which_of_two_routes_a_spelling_is() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/{a}/{b}", get(said))
        .route("/a/{*rest}", get(said))
        .layer(TollgateLayer::new(&gate));
    assert_eq!(text(send(&app, request("GET", "/%61/a")).await).await, "two");
    assert_eq!(text(send(&app, request("GET", "/a/a")).await).await, "under-a");
}

#[tokio::test]
async fn a_parameter_in_disguise_costs_what_its_value_costs() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/v1/models/{model}", get(said)).layer(TollgateLayer::new(&gate));
    for path in ["/v1/models/costly", "/v1/models/%63ostly", "/v1/models/c%6Fstl%79"] {
        assert_eq!(text(send(&app, request("GET", path)).await).await, "costly", "{path}");
    }
    assert_eq!(text(send(&app, request("GET", "/v1/models/cheap")).await).await, "none");
}

#[tokio::test]
async fn an_open_route_in_disguise_opens_no_other_handler() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/healthz", get(async || "well"))
        .route("/{page}", get(async |Path(page): Path<String>| page))
        .layer(TollgateLayer::new(&gate));
    let anonymous = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(text(send(&app, anonymous("/healthz")).await).await, "well");
    assert_eq!(send(&app, anonymous("/%68ealthz")).await.status(), 401);
}

#[tokio::test]
async fn a_layer_around_the_whole_router_knows_the_same_routes() {
    let (gate, _clock) = testing::gate(PLANS);
    let router =
        Router::new().route("/v1/accounts/{id}/exports", post(async || StatusCode::ACCEPTED));
    let app = Router::new().fallback_service(TollgateLayer::new(&gate).layer(router));
    assert_eq!(send(&app, request("POST", "/v1/accounts//exports")).await.status(), 403);
}

#[tokio::test]
async fn a_path_that_no_route_has_is_gated_also_behind_the_usage_routes() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/a", get(async || "four"))
        .layer(TollgateLayer::new(&gate))
        .merge(usage_router(&gate));
    let anonymous = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(send(&app, anonymous("/nowhere")).await.status(), 401);
    assert_eq!(send(&app, request("GET", "/nowhere")).await.status(), 404);
    assert_eq!(used(&gate).await, 1);
    assert_eq!(send(&app, request("GET", "/usage")).await.status(), 200);
    assert_eq!(used(&gate).await, 1);
}

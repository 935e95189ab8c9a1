//! The layer in axum's own routers: where it stands, and every way in which a request can end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::error_handling::HandleErrorLayer;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Router, body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tallygate::{Gate, testing};
use tallygate_axum::GateLayer;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{PLANS, meter, request, send, text};

/// A layer without type parameters can be named and returned.
fn gated(gate: &Gate) -> GateLayer {
    GateLayer::new(gate)
}

fn app(gate: &Gate) -> Router {
    Router::new().route("/a", get(async || "four")).layer(gated(gate))
}

#[tokio::test]
async fn a_request_without_a_body_needs_no_length() {
    let plans = r#"
        default-plan = "free"
        [meter.ingress]
        count = "request-bytes"
        hold = "1B"
        [plan.free]
        quota.ingress = "10B/day"
    "#;
    let (gate, _clock) = testing::gate(plans);
    let app = app(&gate);
    assert_eq!(send(&app, request("GET", "/a")).await.status(), 200);
    let unknown = Body::from_stream(tokio_stream::once(Ok::<_, Infallible>("xx")));
    let unknown = request("GET", "/a").map(|_| unknown);
    assert_eq!(send(&app, unknown).await.status(), 411);
    assert_eq!(meter(&gate, "ingress").await, (0, 0));
}

#[tokio::test]
async fn a_body_is_charged_as_it_is_read_whatever_length_is_stated() {
    let plans = r#"
        default-plan = "free"
        [meter.ingress]
        count = "request-bytes"
        hold = "1KB"
        [plan.free]
        quota.ingress = "2KB/day"
    "#;
    let (gate, _clock) = testing::gate(plans);
    let app = Router::new()
        .route("/unread", axum::routing::post(async || "not read"))
        .route("/read", axum::routing::post(async |body: Bytes| body.len().to_string()))
        .layer(gated(&gate));
    let stated = || request("POST", "/unread").map(|_| Body::from(vec![b'x'; 1 << 20]));
    for _ in 0..3 {
        assert_eq!(send(&app, stated()).await.status(), 200);
    }
    assert_eq!(meter(&gate, "ingress").await, (0, 0));
    let huge = || {
        let mut huge = request("POST", "/read");
        let said = (1u64 << 59).to_string().parse().unwrap();
        huge.headers_mut().insert("content-length", said);
        huge.map(|_| Body::from_stream(tokio_stream::once(Ok::<_, Infallible>("four"))))
    };
    assert_eq!(send(&app, huge()).await.status(), 200);
    assert_eq!(meter(&gate, "ingress").await, (4, 0));
    let long = request("POST", "/read").map(|_| Body::from(vec![b'x'; 1_996]));
    assert_eq!(text(send(&app, long).await).await, "1996");
    assert_eq!(meter(&gate, "ingress").await, (2_000, 0));
    let more = request("POST", "/read").map(|_| Body::from("x"));
    assert_eq!(send(&app, more).await.status(), 429);
}

#[tokio::test]
async fn routes_match_the_path_that_was_asked_for_inside_nest() {
    let (gate, _clock) = testing::gate(PLANS);
    let within = Router::new().route("/search", get(async || "found")).layer(gated(&gate));
    let app = Router::new().nest("/api", within);
    assert_eq!(text(send(&app, request("GET", "/api/search")).await).await, "found");
    assert_eq!(meter(&gate, "requests").await, (5, 0), "the cost of /api/search");
}

#[tokio::test]
async fn a_path_in_disguise_costs_the_same() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/api/search", get(async || "found")).layer(gated(&gate));
    send(&app, request("GET", "/api/%73earch")).await;
    assert_eq!(meter(&gate, "requests").await.0, 5);
}

#[tokio::test]
async fn a_fallback_stands_behind_the_layer() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .fallback(async || (StatusCode::NOT_FOUND, "nothing here"))
        .layer(gated(&gate));
    let anonymous = Request::get("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(send(&app, anonymous).await.status(), 401);
    assert_eq!(send(&app, request("GET", "/nowhere")).await.status(), 404);
    assert_eq!(meter(&gate, "requests").await.0, 1);
}

#[tokio::test]
async fn routes_without_identity_pass() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/healthz", get(async || "ok")).layer(gated(&gate));
    let anonymous = Request::get("/healthz").body(Body::empty()).unwrap();
    let response = send(&app, anonymous).await;
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("ratelimit"));
}

#[tokio::test]
async fn what_must_be_made_ready_is_made_ready() {
    // Without a meter that holds units: twenty requests at once would hold more than there are.
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"100/day\"";
    let (gate, _clock) = testing::gate(plans);
    let within = ServiceBuilder::new()
        .layer(gated(&gate))
        .layer(HandleErrorLayer::new(async |_: tower::BoxError| StatusCode::INTERNAL_SERVER_ERROR))
        .buffer(8)
        .concurrency_limit(1);
    let app = Router::new().route("/a", get(async || tokio::task::yield_now().await)).layer(within);
    let calls = (0..20).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { send(&app, request("GET", "/a")).await.status() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(meter(&gate, "requests").await, (20, 0));
}

#[tokio::test]
async fn head_and_204_are_complete_without_a_poll_of_their_body() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/a", get(async || "four"))
        .route("/b", get(async || StatusCode::NO_CONTENT))
        .layer(gated(&gate));
    drop(send(&app, request("HEAD", "/a")).await);
    drop(send(&app, request("GET", "/b")).await);
    assert_eq!(meter(&gate, "requests").await, (2, 0));
    assert_eq!(meter(&gate, "egress").await, (0, 0));
}

/// A body of endless frames of 400 bytes.
fn endless() -> Body {
    let frames = std::iter::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 400])));
    Body::from_stream(tokio_stream::iter(frames))
}

#[tokio::test]
async fn a_stream_counts_what_passed_and_no_more_when_its_client_goes_away() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/a", get(async || endless())).layer(gated(&gate));
    let mut body = send(&app, request("GET", "/a")).await.into_body();
    for _ in 0..4 {
        body.frame().await.unwrap().unwrap();
    }
    let (used, held) = meter(&gate, "egress").await;
    assert!(held > 0, "{used} used, {held} held");
    drop(body);
    assert_eq!(meter(&gate, "egress").await, (1600, 0));
    assert_eq!(meter(&gate, "requests").await, (1, 0));
    assert_eq!(tallygate::testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_stream_of_many_draws_is_counted_to_the_byte() {
    let (gate, _clock) = testing::gate(PLANS);
    // 700 KB in frames of 700 bytes, against a hold of 1 KB: more draws than a byte can number.
    let frames = std::iter::repeat_n(Ok::<_, Infallible>([b'x'; 700].to_vec()), 1_000);
    let frames = std::sync::Arc::new(std::sync::Mutex::new(Some(tokio_stream::iter(frames))));
    let app = Router::new()
        .route("/a", get(async move || Body::from_stream(frames.lock().unwrap().take().unwrap())))
        .layer(gated(&gate));
    assert_eq!(text(send(&app, request("GET", "/a")).await).await.len(), 700_000);
    assert_eq!(meter(&gate, "egress").await, (700_000, 0));
}

#[tokio::test]
async fn a_panic_is_a_failure_and_holds_nothing_back() {
    let (gate, _clock) = testing::gate(PLANS);
    let outside = Router::new()
        .route("/a", get(async || -> &'static str { panic!("on purpose") }))
        .layer(gated(&gate))
        .layer(CatchPanicLayer::new());
    assert_eq!(send(&outside, request("GET", "/a")).await.status(), 500);
    let inside = Router::new()
        .route("/a", get(async || -> &'static str { panic!("on purpose") }))
        .layer(CatchPanicLayer::new())
        .layer(gated(&gate));
    let response = send(&inside, request("GET", "/a")).await;
    assert_eq!(response.status(), 500);
    let sent = text(response).await.len() as u64;
    // `charge-on` leaves 5xx out: no request is charged. Bytes that were sent were sent.
    assert_eq!(meter(&gate, "requests").await, (0, 0));
    assert_eq!(meter(&gate, "egress").await, (sent, 0));
    assert_eq!(tallygate::testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_request_that_is_given_up_before_its_answer_holds_nothing_back() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/a", get(async || std::future::pending::<&'static str>().await))
        .layer(gated(&gate));
    let call = send(&app, request("GET", "/a"));
    let given_up = tokio::time::timeout(Duration::from_millis(50), call).await;
    assert!(given_up.is_err());
    assert_eq!(meter(&gate, "requests").await, (1, 0), "aborted, and charged");
    assert_eq!(tallygate::testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn the_peer_is_the_one_axum_knows() {
    let plans = r#"
        default-plan = "free"
        [plan.free]
        quota.requests = "1/day per ip"
    "#;
    let (gate, _clock) = testing::gate(plans);
    let app = app(&gate);
    let from = |address: &str| {
        let mut request = request("GET", "/a");
        let peer: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    assert_eq!(send(&app, from("192.0.2.1:1")).await.status(), 200);
    assert_eq!(send(&app, from("192.0.2.1:2")).await.status(), 429);
    assert_eq!(send(&app, from("192.0.2.2:1")).await.status(), 200);
}

#[tokio::test]
async fn a_refusal_never_reaches_the_handler() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/export", axum::routing::post(async || unreachable_handler()))
        .layer(gated(&gate));
    let response = send(&app, request("POST", "/export")).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert!(std::str::from_utf8(&body).unwrap().contains("exports"));
}

fn unreachable_handler() -> &'static str {
    panic!("the handler was called")
}

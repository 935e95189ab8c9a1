//! What both test files need: plans, a request, a look at what was used.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed, and says where; each file uses its part"
)]

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
use tallygate::{Gate, testing};
use tower::ServiceExt;

pub(crate) const PLANS: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [route.search]
    match = "GET /api/search"
    cost = { requests = 5 }
    [route.export]
    match = "POST /export"
    needs = "exports"
    [route.chat]
    match = "POST /chat"
    cost = { tokens = 0 }
    [route.open]
    match = "GET /healthz"
    auth = "none"
    [plan.free]
    quota.requests = "100/day"
    quota.egress = "1MB/day"
    quota.tokens = "100/day"
    feature.seats = 3
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

/// A request of `acme` without a body.
pub(crate) fn request(method: &str, path: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    builder.header("x-tenant", "acme").body(Body::empty()).unwrap()
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// `(used, held)` of a meter of `acme`.
pub(crate) async fn meter(gate: &Gate, name: &str) -> (u64, u64) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.iter().find(|m| &*m.name == name).unwrap();
    (meter.used, meter.held)
}

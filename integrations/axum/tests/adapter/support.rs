//! Requests of `acme` to a router, and what comes back.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
pub(crate) use test_support::gates::meter;
pub(crate) use test_support::plans::ADAPTER as PLANS;
use tower::ServiceExt;

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

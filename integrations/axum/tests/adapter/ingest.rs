//! `POST /usage` behind axum: beside `GET /usage`, with a token of its own.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tallygate_axum::{GateLayer, ingest_router, usage_router};
use test_support::gates::{INGEST_TOKEN, with_ingest};
use tower::ServiceExt;

async fn post(app: &Router, token: Option<&str>, body: String) -> (StatusCode, String) {
    let mut request = Request::post("/usage");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn takes_events_with_the_token_and_from_nobody_else() {
    let gate = with_ingest().await;
    let app = Router::new().layer(GateLayer::new(&gate));
    let app = app.merge(usage_router(&gate)).merge(ingest_router(&gate));
    let event = r#"{"id":"call-1","tenant":"acme","meter":"minutes","quantity":7}"#;
    let (status, body) = post(&app, Some(INGEST_TOKEN), event.into()).await;
    assert_eq!(status, 202);
    assert_eq!(body, r#"{"results":[{"id":"call-1","status":"counted"}]}"#);
    let (status, body) = post(&app, Some(INGEST_TOKEN), event.into()).await;
    assert_eq!((status.as_u16(), body.contains("duplicate")), (202, true), "{body}");
    for token in [None, Some("other")] {
        assert_eq!(post(&app, token, event.into()).await.0, 401);
    }
    let long = " ".repeat(tallygate::ingest::MAX_BODY + 1);
    assert_eq!(post(&app, Some(INGEST_TOKEN), long).await.0, 413);
    gate.close().await.unwrap();
    assert_eq!(post(&app, Some(INGEST_TOKEN), event.replace("call-1", "call-2")).await.0, 503);
}

#[tokio::test]
async fn without_the_token_nothing_of_a_body_is_awaited() {
    let gate = with_ingest().await;
    let app = Router::new().layer(GateLayer::new(&gate)).merge(ingest_router(&gate));
    for token in [None, Some("Bearer other")] {
        let body = Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let mut request = Request::post("/usage");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answer = app.clone().oneshot(request.body(body).unwrap());
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), answer).await;
        assert_eq!(answer.expect("it is answered").unwrap().status(), 401, "{token:?}");
    }
    gate.close().await.unwrap();
}

//! `POST /usage` behind actix-web: beside `GET /usage`, with a token of its own.

use std::pin::Pin;

use actix_web::body::to_bytes;
use actix_web::dev::Payload;
use actix_web::{App, test};
use tallygate_actix_web::{GateMiddleware, ingest_routes, usage_routes};
use test_support::gates::{INGEST_TOKEN, with_ingest};
use tokio_stream::Stream;

#[actix_web::test]
async fn takes_events_with_the_token_and_from_nobody_else() {
    let gate = with_ingest().await;
    let app = App::new().wrap(GateMiddleware::new(&gate));
    let app = app.configure(usage_routes(&gate)).configure(ingest_routes(&gate));
    let app = test::init_service(app).await;
    let post = async |token: &str, body: String| {
        let request = test::TestRequest::post().uri("/usage").set_payload(body);
        let request = request.insert_header(("authorization", format!("Bearer {token}")));
        let answer = test::call_service(&app, request.to_request()).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body()).await.unwrap_or_default();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let event = r#"{"id":"call-1","tenant":"acme","meter":"minutes","quantity":7}"#;
    let (status, body) = post(INGEST_TOKEN, event.into()).await;
    assert_eq!(status, 202);
    assert_eq!(body, r#"{"results":[{"id":"call-1","status":"counted"}]}"#);
    let (status, body) = post(INGEST_TOKEN, event.into()).await;
    assert_eq!((status, body.contains("duplicate")), (202, true), "{body}");
    assert_eq!(post("other", event.into()).await.0, 401);
    let long = " ".repeat(tallygate::ingest::MAX_BODY + 1);
    assert_eq!(post(INGEST_TOKEN, long).await.0, 413);
    gate.close().await.unwrap();
    assert_eq!(post(INGEST_TOKEN, event.replace("call-1", "call-2")).await.0, 503);
}

#[actix_web::test]
async fn without_the_token_nothing_of_a_body_is_awaited() {
    let gate = with_ingest().await;
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(ingest_routes(&gate));
    let app = test::init_service(app).await;
    for token in [None, Some("Bearer other")] {
        let mut request = test::TestRequest::post().uri("/usage");
        if let Some(token) = token {
            request = request.insert_header(("authorization", token));
        }
        let payload = Box::pin(tokio_stream::pending()) as Pin<Box<dyn Stream<Item = _>>>;
        let request = request.to_request().replace_payload(Payload::Stream { payload }).0;
        let answer = test::call_service(&app, request);
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), answer).await;
        assert_eq!(answer.expect("it is answered").status(), 401, "{token:?}");
    }
    gate.close().await.unwrap();
}

//! `POST /usage` behind axum: beside `GET /usage`, with a token of its own.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{GateLayer, ingest_router, usage_router};
use tower::ServiceExt;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.minutes]
    [plan.free]
    quota.minutes = "100/month"
"#;

async fn gate() -> Gate {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken-of-sixteen").unwrap();
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"tenant\"\n[flush]\nmode = \"fast\"\n\
         [ingest]\ntoken = {{ file = {token:?} }}\n"
    );
    let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
    gate.directory().tenant("acme").note("test").save().await.unwrap();
    gate
}

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
    let gate = gate().await;
    let app = Router::new().layer(GateLayer::new(&gate));
    let app = app.merge(usage_router(&gate)).merge(ingest_router(&gate));
    let event = r#"{"id":"call-1","tenant":"acme","meter":"minutes","quantity":7}"#;
    let (status, body) = post(&app, Some("t0ken-of-sixteen"), event.into()).await;
    assert_eq!(status, 202);
    assert_eq!(body, r#"{"results":[{"id":"call-1","status":"counted"}]}"#);
    let (status, body) = post(&app, Some("t0ken-of-sixteen"), event.into()).await;
    assert_eq!((status.as_u16(), body.contains("duplicate")), (202, true), "{body}");
    for token in [None, Some("other")] {
        assert_eq!(post(&app, token, event.into()).await.0, 401);
    }
    let long = " ".repeat(tallygate::ingest::MAX_BODY + 1);
    assert_eq!(post(&app, Some("t0ken-of-sixteen"), long).await.0, 413);
    gate.close().await.unwrap();
    assert_eq!(
        post(&app, Some("t0ken-of-sixteen"), event.replace("call-1", "call-2")).await.0,
        503
    );
}

#[tokio::test]
async fn without_the_token_nothing_of_a_body_is_awaited() {
    let gate = gate().await;
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

//! Requests that count once behind [`DigestBodies`]: a retry is the same request, body and query
//! included.

use std::io::Error;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::RawQuery;
use axum::routing::post;
use http::{Request, StatusCode};
use tallygate::{Gate, testing};
use tallygate_axum::{DigestBodies, GateLayer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{meter, send, text};

const PLANS: &str = r#"
    default-plan = "free"
    [route.pay]
    match = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    quota.requests = "100/day"
"#;

fn app(gate: &Gate) -> Router {
    let pay = async |RawQuery(query): RawQuery, body: Bytes| {
        format!("{} {}", query.unwrap_or_default(), body.len())
    };
    Router::new()
        .route("/pay", post(pay))
        .route("/note", post(async |body: Bytes| body.len().to_string()))
        .layer(GateLayer::new(gate))
        .layer(DigestBodies::new(gate).at_most(10))
}

fn pay(key: &str, query: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(format!("/pay?{query}"));
    let request = request.header("x-tenant", "acme").header("idempotency-key", key);
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn another_body_or_query_under_an_idempotency_key_is_another_request() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate);
    let mut served = Vec::new();
    for (key, query, body) in ["k", "l"].into_iter().flat_map(|key| {
        let queries = ["amount=1", "amount=2", "amount=3"].into_iter();
        queries.flat_map(move |query| ["one", "two"].map(|body| (key, query, body)))
    }) {
        let answer = send(&app, pay(key, query, body)).await;
        match answer.status() {
            StatusCode::OK => served.push((key, query, body)),
            status => assert_eq!(status, StatusCode::CONFLICT),
        }
    }
    assert_eq!(served, [("k", "amount=1", "one"), ("l", "amount=1", "one")]);
    for (key, query, body) in served {
        let retry = send(&app, pay(key, query, body)).await;
        assert_eq!(retry.status(), StatusCode::OK);
        assert_eq!(text(retry).await, "amount=1 3", "the handler has its body");
    }
    assert_eq!(meter(&gate, "requests").await.0, 2);
}

#[tokio::test]
async fn a_body_that_is_too_long_to_compare_is_refused() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate);
    let chunks = ["six by", "six by"].map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
    let stream = Body::from_stream(tokio_stream::iter(chunks));
    for body in [Body::from("eleven byte"), stream] {
        let answer = send(&app, pay("k", "", body)).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(text(answer).await.contains("at most 10 bytes"));
    }
    assert_eq!(send(&app, pay("k", "", "ten  bytes")).await.status(), StatusCode::OK);
    // Where nothing is compared, bodies are the handler's.
    let note = Request::post("/note").header("x-tenant", "acme").header("idempotency-key", "k");
    let note = send(&app, note.body("eleven byte".into()).unwrap()).await;
    assert_eq!(text(note).await, "11");
    let keyless = Request::post("/pay").header("x-tenant", "acme");
    let keyless = send(&app, keyless.body("eleven byte".into()).unwrap()).await;
    assert_eq!(keyless.status(), StatusCode::OK);
    assert_eq!(meter(&gate, "requests").await.0, 5);
}

const WATCHED: &str = r#"
    default-plan = "free"
    [meter.ingress]
    count = "request-bytes"
    hold = "1B"
    [route.pay]
    match = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    concurrency = 1
    quota.requests = "100/day"
    quota.ingress = "1KB/day"
"#;

/// A body of which so much has been sent as its client says.
fn body_under_way() -> (mpsc::Sender<Result<Bytes, Error>>, Body) {
    let (sender, sent) = mpsc::channel(1);
    (sender, Body::from_stream(ReceiverStream::new(sent)))
}

fn chunk() -> Result<Bytes, Error> {
    Ok(Bytes::from_static(b"four"))
}

#[tokio::test]
async fn nothing_is_read_of_a_body_whose_sender_is_not_known() {
    let (gate, _clock) = testing::gate(WATCHED);
    let (client, body) = body_under_way();
    let stranger = Request::post("/pay").header("idempotency-key", "k").body(body).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), send(&app(&gate), stranger)).await;
    assert_eq!(answer.expect("it is answered before its body ends").status(), 401);
    assert!(client.is_closed(), "and the body is not wanted");
}

#[tokio::test]
async fn a_body_that_is_being_read_for_its_digest_is_in_flight() {
    let (gate, _clock) = testing::gate(WATCHED);
    let app = app(&gate);
    let (client, body) = body_under_way();
    let first = tokio::spawn({
        let (app, request) = (app.clone(), pay("k", "", body));
        async move { send(&app, request).await }
    });
    client.send(chunk()).await.unwrap();
    client.reserve().await.unwrap(); // it has been read
    let second = send(&app, pay("l", "", "body")).await;
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(client);
    assert_eq!(text(first.await.unwrap()).await, " 4");
    assert_eq!(send(&app, pay("l", "", "body")).await.status(), StatusCode::OK);
    assert_eq!(meter(&gate, "requests").await, (2, 0));
    assert_eq!(meter(&gate, "ingress").await, (8, 0));
}

#[tokio::test]
async fn what_was_sent_of_a_body_that_never_ends_is_paid() {
    let (gate, _clock) = testing::gate(WATCHED);
    let app = app(&gate);
    let (client, body) = body_under_way();
    let gone = tokio::spawn({
        let (app, request) = (app.clone(), pay("k", "", body));
        async move { send(&app, request).await }
    });
    client.send(chunk()).await.unwrap();
    client.reserve().await.unwrap();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(meter(&gate, "requests").await, (1, 0));
    assert_eq!(meter(&gate, "ingress").await, (4, 0));

    let (client, body) = body_under_way();
    let broken = tokio::spawn(async move { send(&app, pay("k", "", body)).await });
    client.send(chunk()).await.unwrap();
    client.send(Err(Error::other("broken off"))).await.unwrap();
    broken.await.unwrap();
    assert_eq!(meter(&gate, "requests").await, (2, 0));
    assert_eq!(meter(&gate, "ingress").await, (8, 0));
}

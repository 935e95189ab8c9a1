//! The layer behind axum's own server: a body that states its length by a header alone ends where
//! hyper lets go of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use tallygate::store::Memory;
use tallygate::{Gate, GateBuilder, testing};
use tallygate_axum::GateLayer;
use test_support::gates::{Acme, service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;

use crate::support::meter;

/// A request costs, unless its client goes away.
const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
    charge-on = ["2xx"]
"#;

async fn serve(gate: &Gate, handler: fn() -> Response<Body>) -> SocketAddr {
    serve_app(gate, Router::new().route("/a", get(async move || handler()))).await
}

async fn serve_app(gate: &Gate, app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.layer(GateLayer::new(gate));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Two frames of four bytes, which know of no end; with these values of `content-length`.
fn unending(stated: &[&'static str]) -> Response<Body> {
    let frames = std::iter::repeat_n(Ok::<_, Infallible>(Bytes::from_static(b"four")), 2);
    let frames = tokio_stream::iter(frames).chain(tokio_stream::pending());
    let mut response = Response::new(Body::from_stream(frames));
    for value in stated {
        let value = HeaderValue::from_static(value);
        response.headers_mut().append(CONTENT_LENGTH, value);
    }
    response
}

/// Asks, reads until the text ends like this, and goes away.
async fn read_until(address: SocketAddr, end: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /a HTTP/1.1\r\nhost: test\r\nx-tenant: acme\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "closed early");
    }
    String::from_utf8(read).unwrap()
}

async fn used(gate: &Gate) -> u64 {
    let tenant = gate.tenant("acme").await.unwrap();
    while tenant.in_flight() != Some(0) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    meter(gate, "requests").await.0
}

#[tokio::test]
async fn a_length_that_only_a_header_states_ends_a_body() {
    let (gate, _clock) = testing::gate(PLANS);
    let whole = serve(&gate, || unending(&["8"])).await;
    read_until(whole, "fourfour").await;
    assert_eq!(used(&gate).await, 1);
    // Of less than that the client has gone away.
    let longer = serve(&gate, || unending(&["9"])).await;
    read_until(longer, "fourfour").await;
    assert_eq!(used(&gate).await, 1);
    // hyper sends as much as is stated.
    let shorter = serve(&gate, || unending(&["6"])).await;
    read_until(shorter, "fourfo").await;
    assert_eq!(used(&gate).await, 2);
    let nothing = serve(&gate, || unending(&["0"])).await;
    assert!(read_until(nothing, "\r\n\r\n").await.contains("content-length: 0"));
    assert_eq!(used(&gate).await, 3);
}

#[tokio::test]
async fn a_length_that_is_not_one_number_is_none() {
    for stated in [&["+8"][..], &["8, 8"], &[" 8"], &["-0"], &[""], &["8", "8"]] {
        let (gate, _clock) = testing::gate(PLANS);
        let app = Router::new()
            .route("/a", get(async move || unending(stated)))
            .layer(GateLayer::new(&gate));
        let response = crate::support::send(&app, crate::support::request("GET", "/a")).await;
        let mut body = response.into_body().into_data_stream();
        for _ in 0..2 {
            body.next().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(used(&gate).await, 0, "{stated:?}");
    }
}

/// What is owed for a request whose client went away is owed as well where the server goes away.
#[tokio::test]
async fn unfinished_uploads_are_recorded_when_the_gate_is_closed() {
    const UPLOADS: usize = 200;
    let plans = PLANS.replace("concurrency = 100", "concurrency = 1000");
    let plans = plans.replace("100/day", "1000/day").replace("charge-on = [\"2xx\"]", "");
    for is_shared in [true, false] {
        let table = Memory::new();
        let (gate, _clock) = testing::gate_with(&plans, table.clone());
        let layer = GateLayer::new(&gate);
        let layer = if is_shared { layer } else { layer.without_extensions() };
        let app = Router::new().route("/up", post(async |body: Bytes| body.len().to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.layer(layer);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut sockets = Vec::new();
        for _ in 0..UPLOADS {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let begun = "POST /up HTTP/1.1\r\nhost: test\r\nx-tenant: acme\r\n\
                         content-length: 1000\r\n\r\nfour";
            socket.write_all(begun.as_bytes()).await.unwrap();
            sockets.push(socket);
        }
        let tenant = gate.tenant("acme").await.unwrap();
        while tenant.in_flight() != Some(UPLOADS as u32) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The last ones may not have been with their handlers yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.close().await.unwrap();
        let (after, _clock) = testing::gate_with(&plans, table);
        assert_eq!(meter(&after, "requests").await.0, UPLOADS as u64, "shared: {is_shared}");
        drop(sockets);
    }
}

/// A client that delays its acknowledgements lets a server wait 40 ms between two small writes.
#[tokio::test]
async fn in_mode_durable_an_answer_that_is_ready_comes_in_one_write() {
    let plans = r#"
        default-plan = "free"
        [meter.egress]
        count = "response-bytes"
        hold = "1KB"
        [plan.free]
        concurrency = 100
        quota.egress = "1MB/day"
        quota.requests = "100/day"
    "#;
    let builder = GateBuilder::from_text(&service("durable")).plans(plans);
    let gate = builder.identify(Acme).open().await.unwrap();
    let address = serve(&gate, || Response::new(Body::from("four"))).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    for n in 1..=10 {
        let asked = b"GET /a HTTP/1.1\r\nhost: test\r\nx-tenant: acme\r\n\r\n";
        socket.write_all(asked).await.unwrap();
        let mut read = vec![0; 4_096];
        let first = socket.read(&mut read).await.unwrap();
        let first = String::from_utf8_lossy(&read[..first]).into_owned();
        assert!(first.starts_with("HTTP/1.1 200") && first.ends_with("four"), "{n}: {first}");
    }
    assert_eq!(meter(&gate, "egress").await, (40, 0));
    assert_eq!(meter(&gate, "requests").await, (10, 0));
}

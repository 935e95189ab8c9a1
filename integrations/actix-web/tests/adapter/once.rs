//! Requests that count once behind [`DigestBodies`]: a retry is the same request, body and query
//! included.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another thread is waited for by \
              looking"
)]

use std::io::Write;
use std::thread;
use std::time::Duration;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest};
use tallygate_actix_web::{DigestBodies, GateMiddleware};

use test_support::http::read;

use crate::support::{ACME, Answer, Gated, Server};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.ingress]
    count = "request-bytes"
    hold = "1B"
    [route.pay]
    match = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
    quota.ingress = "1KB/day"
"#;

async fn pay(request: HttpRequest, body: Bytes) -> String {
    format!("{} {}", request.query_string(), body.len())
}

fn start(gated: &Gated) -> Server {
    let gate = gated.gate.clone();
    Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .wrap(DigestBodies::new(&gate).at_most(10))
            .route("/pay", web::post().to(pay))
            .route("/note", web::post().to(pay))
    })
}

fn send(server: &Server, target: &str, key: &str, body: &str) -> Answer {
    server.raw("POST", target, &[ACME, ("idempotency-key", key)], body).unwrap()
}

#[test]
fn another_body_or_query_under_an_idempotency_key_is_another_request() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    let mut served = Vec::new();
    for (key, query, body) in ["k", "l"].into_iter().flat_map(|key| {
        let queries = ["amount=1", "amount=2", "amount=3"].into_iter();
        queries.flat_map(move |query| ["one", "two"].map(|body| (key, query, body)))
    }) {
        match send(&server, &format!("/pay?{query}"), key, body).status {
            200 => served.push((key, query, body)),
            status => assert_eq!(status, 409),
        }
    }
    assert_eq!(served, [("k", "amount=1", "one"), ("l", "amount=1", "one")]);
    for (key, query, body) in served {
        let retry = send(&server, &format!("/pay?{query}"), key, body);
        assert_eq!((retry.status, &*retry.body), (200, "amount=1 3"), "the handler has its body");
    }
    gated.settled();
    assert_eq!(gated.meter("requests").0, 2);
}

#[test]
fn a_body_that_is_too_long_to_compare_is_refused() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    let chunked = [ACME, ("idempotency-key", "k"), ("transfer-encoding", "chunked")];
    let long = server.raw("POST", "/pay", &chunked, "6\r\nsix by\r\n6\r\nsix by\r\n0\r\n\r\n");
    for answer in [send(&server, "/pay", "k", "eleven byte"), long.unwrap()] {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.body.contains("at most 10 bytes"), "{answer:?}");
    }
    // What has been read has a length, whatever it said.
    let short = server.raw("POST", "/pay", &chunked, "3\r\nabc\r\n0\r\n\r\n").unwrap();
    assert_eq!((short.status, &*short.body), (200, " 3"));
    // Where nothing is compared, bodies are the handler's.
    assert_eq!(send(&server, "/note", "k", "eleven byte").body, " 11");
    let keyless = server.raw("POST", "/pay", &[ACME], "eleven byte").unwrap();
    assert_eq!(keyless.status, 200);
    gated.settled();
    assert_eq!(gated.meter("requests").0, 5, "and the two 413 are answers like any");
}

/// The head of a payment, and four bytes of its eight.
const HALF: &str = "x-tenant: acme\r\nidempotency-key: h\r\ncontent-length: 8\r\n\r\nfour";

#[test]
fn nothing_is_read_of_a_body_whose_sender_is_not_known() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    let half = HALF.replace("x-tenant: acme\r\n", "");
    let mut socket = server.open_raw("POST", "/pay", &half);
    let answer = read(&mut socket, "POST").expect("it is answered before its body ends");
    assert_eq!(answer.status, 401);
}

#[test]
fn a_body_that_is_being_read_for_its_digest_is_in_flight() {
    let gated = Gated::new(&PLANS.replace("concurrency = 100", "concurrency = 1"));
    let server = start(&gated);
    assert_eq!(send(&server, "/pay", "w", "body").status, 200);
    gated.settled();
    let half = HALF.replace("x-tenant", "connection: close\r\nx-tenant");
    let mut socket = server.open_raw("POST", "/pay", &half);
    gated.until_in_flight(1);
    assert_eq!(send(&server, "/pay", "l", "body").status, 429);
    socket.get_mut().write_all(b"more").unwrap();
    let answer = read(&mut socket, "POST").unwrap();
    assert_eq!((answer.status, &*answer.body), (200, " 8"));
    gated.settled();
    assert_eq!(send(&server, "/pay", "l", "body").status, 200);
    gated.settled();
    assert_eq!((gated.meter("requests"), gated.meter("ingress")), ((3, 0), (16, 0)));
}

#[test]
fn what_was_sent_of_a_body_that_never_ends_is_paid() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    assert_eq!(send(&server, "/pay", "w", "body").status, 200); // from here on it has its units
    gated.settled();
    let socket = server.open_raw("POST", "/pay", HALF);
    gated.until_in_flight(1);
    thread::sleep(Duration::from_millis(300)); // what came with the head is read meanwhile
    drop(socket);
    gated.settled();
    assert_eq!((gated.meter("requests"), gated.meter("ingress")), ((2, 0), (8, 0)));
}

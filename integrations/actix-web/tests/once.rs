//! Requests that count once behind [`DigestBodies`]: a retry is the same request, body and query
//! included.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest};
use tollgate_actix_web::{DigestBodies, Tollgate};

mod support;

use support::{Answer, Gated, Server};

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
            .wrap(Tollgate::new(&gate))
            .wrap(DigestBodies::new(&gate).at_most(10))
            .route("/pay", web::post().to(pay))
            .route("/note", web::post().to(pay))
    })
}

fn send(server: &Server, target: &str, key: &str, body: &str) -> Answer {
    let headers = format!("x-tenant: acme\r\nidempotency-key: {key}\r\n");
    server.raw("POST", target, &headers, body).unwrap()
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
    let chunked = "x-tenant: acme\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n";
    let long = server.raw("POST", "/pay", chunked, "6\r\nsix by\r\n6\r\nsix by\r\n0\r\n\r\n");
    for answer in [send(&server, "/pay", "k", "eleven byte"), long.unwrap()] {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.body.contains("at most 10 bytes"), "{answer:?}");
    }
    // What has been read has a length, whatever it said.
    let short = server.raw("POST", "/pay", chunked, "3\r\nabc\r\n0\r\n\r\n").unwrap();
    assert_eq!((short.status, &*short.body), (200, " 3"));
    // Where nothing is compared, bodies are the handler's.
    assert_eq!(send(&server, "/note", "k", "eleven byte").body, " 11");
    let keyless = server.raw("POST", "/pay", "x-tenant: acme\r\n", "eleven byte").unwrap();
    assert_eq!(keyless.status, 200);
    gated.settled();
    assert_eq!(gated.meter("requests").0, 3);
}

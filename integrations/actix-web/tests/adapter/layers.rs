//! The gate between the middleware that most apps have: `examples/layers.rs`, and what the other
//! order would count.

use std::io::Read;

use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::middleware::Compress;
use actix_web::{App, test, web};
use flate2::read::GzDecoder;
use tallygate::{Gate, testing};
use tallygate_actix_web::GateMiddleware;
use test_support::gates::meter;

#[path = "../../examples/layers.rs"]
mod whole;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    [plan.free]
    quota.requests = "1/day"
    quota.egress = "1MB/day"
"#;

const PAGE: &str = "https://app.example";

fn asked(method: Method) -> test::TestRequest {
    let request = test::TestRequest::with_uri("/v1/report").method(method);
    request.insert_header(("origin", PAGE)).insert_header(("accept-encoding", "gzip"))
}

fn header<'a, B>(response: &'a ServiceResponse<B>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn egress(gate: &Gate) -> u64 {
    meter(gate, "egress").await.0
}

fn unzipped(body: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(body).read_to_string(&mut text).unwrap();
    text
}

#[actix_web::test]
async fn the_example_lets_pages_read_refusals_and_counts_what_is_sent() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = test::init_service(whole::app(gate.clone())).await;

    let preflight = asked(Method::OPTIONS)
        .insert_header(("access-control-request-method", "GET"))
        .insert_header(("access-control-request-headers", "authorization"));
    let response = test::call_service(&app, preflight.to_request()).await;
    assert_eq!((response.status().as_u16(), meter(&gate, "requests").await.0), (200, 0));

    let calls = [(None, 401), (Some("acme"), 200), (Some("acme"), 429)];
    for (tenant, status) in calls {
        let request = asked(Method::GET);
        let request = match tenant {
            Some(tenant) => request.insert_header(("x-tenant", tenant)),
            None => request,
        };
        let response = test::call_service(&app, request.to_request()).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "access-control-allow-origin"), PAGE, "{status}");
        let exposed = header(&response, "access-control-expose-headers").to_ascii_lowercase();
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(exposed.split(',').any(|it| it.trim() == name), "{status}: {exposed}");
        }
        if status == 200 {
            assert_eq!(header(&response, "content-encoding"), "gzip");
            let sent = test::read_body(response).await;
            assert_eq!(egress(&gate).await, sent.len() as u64);
            assert_eq!(unzipped(&sent), "a line of acme\n".repeat(1_000));
        }
    }
    assert_eq!(meter(&gate, "requests").await.0, 1);
}

#[actix_web::test]
async fn with_compress_outside_the_gate_counts_what_the_handler_wrote() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = App::new()
        .wrap(GateMiddleware::new(&gate))
        .wrap(Compress::default())
        .route("/v1/report", web::get().to(async || "a line\n".repeat(1_000)));
    let app = test::init_service(app).await;
    let request = asked(Method::GET).insert_header(("x-tenant", "acme"));
    let response = test::call_service(&app, request.to_request()).await;
    assert_eq!(header(&response, "content-encoding"), "gzip");
    let sent = test::read_body(response).await;
    assert!(sent.len() < 1_000, "{}", sent.len());
    assert_eq!(egress(&gate).await, 7_000);
}

//! Pages of other origins: what their scripts may read of limits and refusals, whoever refuses, and
//! what becomes of their preflights.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpResponse, test, web};
use tallygate::wire::EXPOSE;
use tallygate::{Gate, testing};
use tallygate_actix_web::{GateMiddleware, Refused, Usage};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "1"
    [route.preflight]
    match = ["OPTIONS /", "OPTIONS /{*rest}"]
    auth = "none"
    [plan.free]
    quota.requests = "3/day"
    quota.tokens = "10/day"
"#;

const PAGE: &str = "https://app.example";

/// Whatever comes from the page may be read by it, and its preflights are answered at once.
async fn cors(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match *request.method() {
        Method::OPTIONS => request.into_response(HttpResponse::Ok().finish()),
        _ => next.call(request).await?.map_into_boxed_body(),
    };
    let allowed = HeaderValue::from_static(PAGE);
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    Ok(response)
}

fn asked(path: &str) -> test::TestRequest {
    test::TestRequest::get()
        .uri(path)
        .insert_header(("x-tenant", "acme"))
        .insert_header(("origin", PAGE))
}

fn preflight() -> test::TestRequest {
    let request = test::TestRequest::with_uri("/a").method(Method::OPTIONS);
    request.insert_header(("origin", PAGE)).insert_header(("access-control-request-method", "GET"))
}

async fn used(gate: &Gate) -> u64 {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    report.meters.iter().find(|meter| &*meter.name == "requests").unwrap().used.whole()
}

/// The lines of `Access-Control-Expose-Headers`.
fn exposed<B: MessageBody>(response: &ServiceResponse<B>) -> Vec<&[u8]> {
    let lines = response.headers().get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    lines.map(HeaderValue::as_bytes).collect()
}

#[actix_web::test]
async fn with_cors_outside_preflights_are_not_asked_and_all_answers_can_be_read() {
    let (gate, _clock) = testing::gate(&PLANS.replace("none", "required"));
    let takes = async |usage: Usage| -> Result<&'static str, Refused> {
        usage.take("tokens", 1_000).await?;
        Ok("never")
    };
    let app = App::new()
        .wrap(GateMiddleware::new(&gate))
        .route("/a", web::get().to(async || "four"))
        .route("/takes", web::get().to(takes));
    let app = test::init_service(app.wrap(from_fn(cors))).await;
    for _ in 0..5 {
        assert_eq!(test::call_service(&app, preflight().to_request()).await.status(), 200);
    }
    for (path, status) in [("/a", 200), ("/takes", 429), ("/a", 200), ("/a", 429)] {
        let response = test::call_service(&app, asked(path).to_request()).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().get("access-control-allow-origin").unwrap(), PAGE);
        assert_eq!(exposed(&response), [EXPOSE.as_bytes()], "{path} {status}");
    }
    assert_eq!(used(&gate).await, 3);
}

#[actix_web::test]
async fn with_cors_within_the_plan_file_lets_preflights_through() {
    for (plans, status) in [(PLANS, 200), (&*PLANS.replace("none", "required"), 401)] {
        let (gate, _clock) = testing::gate(plans);
        let within = web::scope("").route("/a", web::get().to(async || "four"));
        let app = App::new().service(within.wrap(from_fn(cors))).wrap(GateMiddleware::new(&gate));
        let app = test::init_service(app).await;
        assert_eq!(test::call_service(&app, preflight().to_request()).await.status(), status);
        let anonymous = test::TestRequest::with_uri("/a").to_request();
        assert_eq!(test::call_service(&app, anonymous).await.status(), 401);
        assert_eq!(used(&gate).await, 0);
    }
}

#[actix_web::test]
async fn what_a_handler_exposes_stays_as_it_is() {
    let (gate, _clock) = testing::gate(PLANS);
    let exposes = async || {
        let mut response = HttpResponse::Ok();
        for line in [&b"ETag, ratelimit"[..], b"Link", b"\xFF"] {
            let line = HeaderValue::from_bytes(line).unwrap();
            response.append_header((header::ACCESS_CONTROL_EXPOSE_HEADERS, line));
        }
        response.body("four")
    };
    let app = App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(exposes));
    let app = test::init_service(app).await;
    let response = test::call_service(&app, asked("/a").to_request()).await;
    let ours = &b"RateLimit-Policy, Retry-After"[..];
    assert_eq!(exposed(&response), [&b"ETag, ratelimit"[..], b"Link", b"\xFF", ours]);
    let app =
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(async || "four"));
    let app = test::init_service(app).await;
    let ask = test::TestRequest::with_uri("/a").insert_header(("x-tenant", "acme"));
    let response = test::call_service(&app, ask.to_request()).await;
    assert!(exposed(&response).is_empty(), "no page has asked");
}

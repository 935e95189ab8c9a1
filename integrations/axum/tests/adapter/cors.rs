//! Pages of other origins: what their scripts may read of limits and refusals, and what becomes of
//! their preflights, with the CORS layer outside of the gate and within.

use axum::Router;
use axum::body::Body;
use axum::response::{AppendHeaders, Response};
use axum::routing::get;
use http::{HeaderName, Request, header};
use tallygate::wire::{EXPOSE, HeaderStyle, WireOptions};
use tallygate::{Gate, testing};
use tallygate_axum::GateLayer;
use tower_http::cors::CorsLayer;

use crate::support::{meter, send};

const PLANS: &str = r#"
    default-plan = "free"
    [route.preflight]
    match = ["OPTIONS /", "OPTIONS /{*rest}"]
    auth = "none"
    [plan.free]
    quota.requests = "2/day"
"#;

const PAGE: &str = "https://app.example";

fn app(gate: &Gate) -> Router {
    Router::new().route("/a", get(async || "four")).layer(GateLayer::new(gate))
}

/// A request of a page's script.
fn asked() -> Request<Body> {
    let mut request = crate::support::request("GET", "/a");
    request.headers_mut().insert(header::ORIGIN, PAGE.parse().unwrap());
    request
}

/// What a browser sends before it, without a credential.
fn preflight() -> Request<Body> {
    let request = Request::options("/a").header("origin", PAGE);
    let request = request.header("access-control-request-method", "GET");
    let request = request.header("access-control-request-headers", "x-tenant");
    request.body(Body::empty()).unwrap()
}

fn cors() -> CorsLayer {
    CorsLayer::new().allow_origin([PAGE.parse().unwrap()])
}

/// The lines of `Access-Control-Expose-Headers`.
fn exposed(response: &Response) -> Vec<&str> {
    let lines = response.headers().get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS).iter();
    lines.map(|line| line.to_str().unwrap()).collect()
}

#[tokio::test]
async fn with_cors_outside_preflights_are_not_asked_and_all_answers_can_be_read() {
    let (gate, _clock) = testing::gate(&PLANS.replace("none", "required"));
    let app = app(&gate).layer(cors());
    for _ in 0..5 {
        let response = send(&app, preflight()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
    }
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = send(&app, asked()).await;
        statuses.push(response.status().as_u16());
        assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
        assert_eq!(exposed(&response), [EXPOSE], "{}", response.status());
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(meter(&gate, "requests").await, (2, 0));
}

#[tokio::test]
async fn a_cors_layer_outside_that_names_headers_is_to_name_these_too() {
    let (gate, _clock) = testing::gate(PLANS);
    let names = |text: &str| -> Vec<HeaderName> {
        text.split(", ").map(|name| name.parse().unwrap()).collect()
    };
    let alone = app(&gate).layer(cors().expose_headers(names("etag")));
    assert_eq!(exposed(&send(&alone, asked()).await), ["etag"], "it replaces what is within");
    let both = app(&gate).layer(cors().expose_headers(names(&format!("ETag, {EXPOSE}"))));
    let all = exposed(&send(&both, asked()).await).join(",");
    assert_eq!(all, "etag,ratelimit,ratelimit-policy,retry-after");
}

#[tokio::test]
async fn with_cors_within_preflights_are_requests_like_any_other() {
    let (gate, _clock) = testing::gate(&PLANS.replace("none", "required"));
    let within = || Router::new().route("/a", get(async || "four")).layer(cors());
    let app = within().layer(GateLayer::new(&gate));
    assert_eq!(send(&app, preflight()).await.status(), 401);
    for status in [200, 200, 429] {
        let response = send(&app, asked()).await;
        assert_eq!(response.status(), status);
        let is_allowed = response.headers().contains_key("access-control-allow-origin");
        assert_eq!(is_allowed, status == 200, "nobody within sees a refusal");
    }

    // Where the plan file lets them through they pass, and nothing else does.
    let (gate, _clock) = testing::gate(PLANS);
    let app = within().layer(GateLayer::new(&gate));
    let response = send(&app, preflight()).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("access-control-allow-origin"));
    let anonymous = Request::get("/a").header("origin", PAGE).body(Body::empty()).unwrap();
    assert_eq!(send(&app, anonymous).await.status(), 401);
    assert_eq!(send(&app, asked()).await.status(), 200);
    assert_eq!(meter(&gate, "requests").await, (1, 0));
}

#[tokio::test]
async fn what_a_handler_exposes_stays_as_it_is() {
    let (gate, _clock) = testing::gate(PLANS);
    let lines = [&b"ETag, ratelimit"[..], b"Link", b"\xFF"];
    let lines = lines.map(|line| {
        let value = http::HeaderValue::from_bytes(line).unwrap();
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, value)
    });
    let app = Router::new()
        .route("/a", get(async move || (AppendHeaders(lines), "four")))
        .layer(GateLayer::new(&gate));
    let response = send(&app, asked()).await;
    let lines = response.headers().get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS).iter();
    let lines: Vec<&[u8]> = lines.map(|line| line.as_bytes()).collect();
    let ours = &b"RateLimit-Policy, Retry-After"[..];
    assert_eq!(lines, [&b"ETag, ratelimit"[..], b"Link", b"\xFF", ours]);
}

#[tokio::test]
async fn whom_no_page_has_asked_for_is_told_nothing_of_it() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = app(&gate).layer(cors());
    for _ in 0..3 {
        let response = send(&app, crate::support::request("GET", "/a")).await;
        assert!(exposed(&response).is_empty(), "{}", response.status());
    }
}

#[tokio::test]
async fn without_limit_headers_a_refusal_names_how_long_to_wait() {
    let wire = WireOptions { style: HeaderStyle::Off, ..WireOptions::default() };
    let gate = testing::builder(PLANS).wire(wire).open().await.unwrap();
    let app = app(&gate);
    for names in [&[][..], &[], &["Retry-After"]] {
        assert_eq!(exposed(&send(&app, asked()).await), names);
    }
}

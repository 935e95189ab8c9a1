//! What handlers see, and the routes that show a tenant its own use.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::Request;
use tallygate::testing;
use tallygate_axum::{GateLayer, Plan, Refused, Tenant, Usage, usage_router};

use crate::support::{PLANS, meter, request, send, text};

#[tokio::test]
async fn extractors_say_who_and_what() {
    let (gate, _clock) = testing::gate(PLANS);
    let who = async |tenant: Tenant, plan: Plan, usage: Usage| {
        assert_eq!((&*tenant, tenant.id()), ("acme", usage.tenant()));
        format!("{tenant} on {}", plan.name)
    };
    let app = Router::new().route("/a", get(who)).layer(GateLayer::new(&gate));
    assert_eq!(text(send(&app, request("GET", "/a")).await).await, "acme on free");
}

#[tokio::test]
async fn without_the_layer_a_sentence_names_what_is_missing() {
    let app = Router::new()
        .route("/a", get(async |_: Tenant| "never"))
        .route("/b", get(async |_: Usage| "never"))
        .route("/c", get(async |tenant: Option<Tenant>| tenant.is_none().to_string()));
    for (path, wanted) in [("/a", "Tenant"), ("/b", "Usage")] {
        let response = send(&app, request("GET", path)).await;
        assert_eq!(response.status(), 500);
        let sentence = text(response).await;
        for word in [wanted, "GateLayer::new(&gate)", "auth = \"none\""] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
    assert_eq!(text(send(&app, request("GET", "/c")).await).await, "true");
}

#[tokio::test]
async fn an_optional_extractor_is_none_where_nobody_is_identified() {
    let (gate, _clock) = testing::gate(PLANS);
    let name = async |tenant: Option<Tenant>| tenant.map_or("nobody".into(), |t| t.to_string());
    let app = Router::new()
        .route("/healthz", get(name))
        .route("/a", get(name))
        .layer(GateLayer::new(&gate));
    assert_eq!(text(send(&app, request("GET", "/healthz")).await).await, "nobody");
    assert_eq!(text(send(&app, request("GET", "/a")).await).await, "acme");
}

/// Takes what the body asks for, reports 7 of it.
async fn chat(usage: Usage, most: String) -> Result<&'static str, Refused> {
    usage.take("tokens", most.parse().unwrap()).await?;
    usage.add("tokens", 7);
    Ok("hello")
}

#[tokio::test]
async fn a_handler_takes_before_it_spends_and_its_refusal_is_the_gates() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/chat", post(chat)).layer(GateLayer::new(&gate));
    let ask = |most: &'static str| request("POST", "/chat").map(|_| Body::from(most));
    assert_eq!(text(send(&app, ask("50")).await).await, "hello");
    assert_eq!(meter(&gate, "tokens").await, (7, 0), "the rest went back");

    let refused = send(&app, ask("500")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert!(refused.headers().contains_key("retry-after"));
    let body = text(refused).await;
    assert!(body.contains("\"violated-policies\":[\"tokens/day\"]"), "{body}");
    assert_eq!(meter(&gate, "tokens").await, (7, 0));
}

#[tokio::test]
async fn a_feature_is_required_within_a_handler() {
    let (gate, _clock) = testing::gate(PLANS);
    let deep = async |plan: Plan| -> Result<&'static str, Refused> {
        plan.require("seats")?;
        plan.require("deep-search")?;
        Ok("found")
    };
    let app = Router::new().route("/a", get(deep)).layer(GateLayer::new(&gate));
    let refused = send(&app, request("GET", "/a")).await;
    assert_eq!(refused.status(), 403);
    let body = text(refused).await;
    assert!(body.contains("\"feature\":\"deep-search\"") && body.contains("free"), "{body}");
}

const SPENT: &str = r#"
    default-plan = "free"
    [route.usage]
    match = ["GET /usage", "GET /usage/history"]
    free = true
    [route.usage-page]
    match = "GET /usage-page"
    auth = "none"
    [plan.free]
    quota.requests = "1/day"
"#;

#[tokio::test]
async fn usage_is_shown_to_who_is_over_its_limit_wherever_the_routes_stand() {
    let (gate, _clock) = testing::gate(SPENT);
    let api = || Router::new().route("/a", get(async || "ok"));
    let layer = GateLayer::new(&gate);
    let outside = api().layer(layer.clone()).merge(usage_router(&gate));
    let inside = api().merge(usage_router(&gate)).layer(layer);
    assert_eq!(send(&outside, request("GET", "/a")).await.status(), 200);
    for app in [outside, inside] {
        assert_eq!(send(&app, request("GET", "/a")).await.status(), 429);
        let response = send(&app, request("GET", "/usage")).await;
        assert_eq!(response.status(), 200);
        assert!(text(response).await.contains("\"used\":1,"));
        let history = "/usage/history?meter=requests";
        assert_eq!(send(&app, request("GET", history)).await.status(), 200);
        let unknown = "/usage/history?meter=nothing";
        assert_eq!(send(&app, request("GET", unknown)).await.status(), 404);
        let anonymous = || Request::get("/usage-page").body(Body::empty()).unwrap();
        let page = send(&app, anonymous()).await;
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.headers().contains_key("content-security-policy"));
    }
}

#[tokio::test]
async fn usage_is_shown_to_nobody_without_a_credential() {
    let (gate, _clock) = testing::gate(SPENT);
    let app: Router = usage_router(&gate);
    for path in ["/usage", "/usage/history?meter=requests"] {
        let anonymous = Request::get(path).body(Body::empty()).unwrap();
        let response = send(&app, anonymous).await;
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
    }
}

#[tokio::test]
async fn usage_that_is_known_already_is_not_sent_again() {
    let (gate, _clock) = testing::gate(SPENT);
    let app: Router = usage_router(&gate);
    let first = send(&app, request("GET", "/usage")).await;
    let etag = first.headers()["etag"].clone();
    let mut again = request("GET", "/usage");
    again.headers_mut().insert("if-none-match", etag);
    let again = send(&app, again).await;
    assert_eq!(again.status(), 304);
    assert_eq!(text(again).await, "");
}

#[tokio::test]
async fn a_history_of_any_dates_is_answered_in_any_zone() {
    for zone in ["America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "Pacific/Niue", "UTC"] {
        let (gate, _clock) = testing::gate(&format!("timezone = {zone:?}\n{SPENT}"));
        let app: Router = usage_router(&gate);
        for (from, to) in FAR {
            for granularity in ["day", "month"] {
                let query = format!("meter=requests&from={from}&to={to}&granularity={granularity}");
                let ask = request("GET", &format!("/usage/history?{query}"));
                let answer = send(&app, ask).await;
                assert_eq!(answer.status(), 400, "{zone} {query}");
                let said = text(answer).await;
                assert!(said.contains("Write ") || said.contains("Ask for less"), "{said}");
            }
        }
        let ask = request("GET", "/usage/history?meter=requests&from=1970-01-01&to=1970-02-01");
        assert_eq!(send(&app, ask).await.status(), 200);
    }
}

/// Spans at the ends of the calendar, and beyond what anything was used in.
const FAR: [(&str, &str); 6] = [
    ("9998-12-01", "9999-01-02"),
    ("9998-12-29", "9998-12-30"),
    ("9999-12-29", "9999-12-30"),
    ("-009999-01-03", "-009999-02-02"),
    ("0000-12-20", "0001-01-10"),
    ("1969-12-01", "1969-12-31"),
];

//! docs/cookbook.md: what clients see of each recipe.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get as on_get, post as on_post};
use pages::cookbook::{credits, graphql, llm, seats};
use serde_json::{Value, json};
use tallygate::store::Memory;
use tallygate::{Gate, GateBuilder, testing};
use tallygate_axum::{GateLayer, usage_router};
use test_support::gates::meter;

use crate::support::{get, page, plans, post, request, send, toml_of};

const PAGE: &str = "docs/cookbook.md";

fn gated(gate: &Gate, routes: Router) -> Router {
    routes.layer(GateLayer::new(gate)).merge(usage_router(gate))
}

/// A router that answers any path.
fn any() -> Router {
    Router::new().fallback(async || "ok")
}

#[tokio::test]
async fn a_chat_costs_what_it_was_and_a_longer_one_than_is_left_is_refused() {
    let (gate, _clock) = testing::gate(&plans(PAGE, "Chat with a language model"));
    let app = gated(&gate, Router::new().route("/v1/chat", on_post(llm::chat)));
    let ask = |most: u64| json!({ "prompt": "which tide", "max_tokens": most });

    assert_eq!(post(&app, "/v1/chat", ask(2_000)).await.status, 200);
    let usage = get(&app, "/usage", "acme").await.json();
    let credits = usage["meters"].as_array().unwrap().iter().find(|it| it["name"] == "credits");
    assert_eq!(credits.unwrap()["used_text"], "4.002");

    let refused = post(&app, "/v1/chat", ask(5_000)).await;
    assert_eq!(refused.status, 429);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    let shown = "Quota `credits/day` has 15.998 left, less than asked (plan free).";
    assert!(detail.starts_with(shown), "{detail}");
    assert!(page(PAGE).contains(shown));
    assert_eq!(meter(&gate, "output-tokens").await, (1_000, 0));
    assert_eq!(meter(&gate, "requests").await, (2, 0), "a 429 of a handler is charged as a 4xx");

    for most in [2_000, 2_000, 1_000] {
        assert_eq!(post(&app, "/v1/chat", ask(most)).await.status, 200);
    }
    // 14.008 of 20 are used: less than the 6 of the holds are left.
    let refused = post(&app, "/v1/chat", ask(10)).await;
    assert_eq!((refused.status, refused.retry_after.is_some()), (429, true), "{}", refused.body);
    assert_eq!(meter(&gate, "requests").await, (5, 0), "a refusal of the gate costs nothing");
}

#[tokio::test]
async fn a_trial_ends_after_its_time_and_after_its_units() {
    let plans = plans(PAGE, "Trials");
    let (gate, clock) = testing::gate(&plans);
    let app = gated(&gate, any());
    assert_eq!(get(&app, "/x", "acme").await.status, 200);
    clock.advance(Duration::from_secs(14 * 86_400));
    let over = get(&app, "/x", "acme").await;
    assert_eq!((over.status, over.retry_after), (402, None));
    let shown: Value = serde_json::from_str(
        r#"{"type":"/problems/payment-required","title":"Payment required","status":402,
        "detail":"The trial of plan trial has ended.","reason":"trial-over","plan":"trial"}"#,
    )
    .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&over.body).unwrap(), shown);
    assert_eq!(send(&app, request("POST", "/upgrade", "acme", None)).await.status, 200);
    gate.directory().tenant("acme").plan("pro").note("paid").save().await.unwrap();
    assert_eq!(get(&app, "/x", "acme").await.status, 200);

    let (gate, _clock) = testing::gate(&plans.replace("\"5k\"", "\"2\""));
    let app = gated(&gate, any());
    for _ in 0..2 {
        assert_eq!(get(&app, "/x", "acme").await.status, 200);
    }
    let over = get(&app, "/x", "acme").await;
    assert_eq!((over.status, over.retry_after.is_none()), (402, true));
    assert!(over.body.contains("\"reason\":\"grant-used-up\""), "{}", over.body);
}

#[tokio::test]
async fn seats_are_as_many_as_the_plan_has() {
    let (gate, _clock) = testing::gate(&plans(PAGE, "Seats"));
    let routes = Router::new().route("/members", on_post(seats::invite));
    let app = gated(&gate, routes.with_state(seats::Members::default()));
    let invite = async || send(&app, request("POST", "/members", "acme", None)).await.status;
    assert_eq!([invite().await, invite().await, invite().await], [201, 201, 409]);
    assert_eq!(get(&app, "/usage", "acme").await.json()["features"], json!({ "seats": 2 }));
    gate.directory().tenant("acme").plan("enterprise").note("signed").save().await.unwrap();
    assert_eq!(invite().await, 201);
}

#[tokio::test]
async fn prepaid_credits_are_spent_and_an_order_is_granted_once() {
    let (gate, _clock) = testing::gate(&plans(PAGE, "Prepaid credits"));
    let app = gated(&gate, Router::new().route("/v1/render", on_post(async || "ok")));
    let render = async || send(&app, request("POST", "/v1/render", "acme", None)).await;
    let refused = render().await;
    assert_eq!(refused.status, 402);
    assert!(refused.body.contains("\"reason\":\"grant-used-up\""), "{}", refused.body);

    credits::paid(&gate, "acme", "order-1").await.unwrap();
    credits::paid(&gate, "acme", "order-1").await.unwrap();
    for left in [400, 300, 200, 100, 0] {
        let answer = render().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = format!("\"credits/once\";r={left}");
        assert!(answer.limits.contains(&told), "{}", answer.limits);
        let usage = get(&app, "/usage", "acme").await.json();
        let meters = usage["meters"].as_array().unwrap();
        let credits = meters.iter().find(|it| it["name"] == "credits").unwrap();
        assert_eq!(credits["grants"][0]["remaining"], left, "{credits}");
    }
    assert_eq!(render().await.status, 402);
    let usage = get(&app, "/usage", "acme").await.json();
    assert!(usage["meters"].to_string().contains("order-1"), "{usage}");
}

#[tokio::test]
async fn one_users_burst_is_not_a_colleagues() {
    let (gate, _clock) = testing::gate(&plans(PAGE, "Fairness among a tenant's users"));
    let app = gated(&gate, any());
    let ask = async |user: &'static str| {
        let mut request = request("GET", "/x", "acme", None);
        request.headers_mut().insert("x-user", user.parse().unwrap());
        send(&app, request).await
    };
    for _ in 0..10 {
        assert_eq!(ask("ann").await.status, 200);
    }
    let refused = ask("ann").await;
    assert_eq!(refused.json()["violated-policies"], json!(["default/user"]));
    assert_eq!(refused.status, 429);
    assert_eq!(ask("bob").await.status, 200);
}

#[tokio::test]
async fn an_operation_costs_its_points() {
    let (gate, clock) = testing::gate(&plans(PAGE, "GraphQL"));
    let app = gated(&gate, Router::new().route("/graphql", on_post(graphql::graphql)));
    let query = |fields: usize| json!({ "query": format!("{{ {} }}", "a ".repeat(fields)) });
    let answer = post(&app, "/graphql", query(3)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.limits.contains("\"points/day\""), "{}", answer.limits);
    assert_eq!(meter(&gate, "points").await, (3, 0));
    let refused = post(&app, "/graphql", query(50_000)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["violated-policies"], json!(["points/day"]));

    // One that is larger than the burst takes all of it: it passes where that is there, and the
    // next waits.
    let early = post(&app, "/graphql", query(2_000)).await;
    assert_eq!(early.json()["violated-policies"], json!(["graphql/points"]), "{early:?}");
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(post(&app, "/graphql", query(2_000)).await.status, 200);
    let refused = post(&app, "/graphql", query(1)).await;
    assert_eq!(refused.json()["violated-policies"], json!(["graphql/points"]), "{refused:?}");
}

#[tokio::test]
async fn callers_of_a_private_network_are_counted_and_not_limited() {
    let blocks = toml_of(PAGE, "Internal callers");
    let [service, plans] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "a secret of at least sixteen bytes").unwrap();
    let keys = "api-key = [\"authorization\", \"x-api-key\"]\n";
    let pepper = format!("{keys}pepper = [{{ id = \"1\", file = {pepper:?} }}]\n");
    let service = service.replace(keys, &pepper);
    let builder = GateBuilder::from_text(&service).plans(plans).store(Memory::new());
    let gate = builder.open().await.unwrap();
    let app = gated(&gate, any().route("/healthz", on_get(async || "ok")));
    let ask = async |path: &'static str, address: &'static str| {
        let mut request = request("GET", path, "", None);
        request.headers_mut().clear();
        let peer: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        send(&app, request).await.status
    };
    for _ in 0..20 {
        assert_eq!(ask("/x", "10.1.2.3:4").await, 200);
    }
    assert_eq!(ask("/x", "192.0.2.1:4").await, 401);
    assert_eq!(ask("/healthz", "192.0.2.1:4").await, 200);
    let known = gate.directory().find("internal").await.unwrap();
    assert!(known.is_some());
}

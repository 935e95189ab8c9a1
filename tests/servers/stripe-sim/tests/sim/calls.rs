//! Calls in general: keys, idempotency, the pace, and every fault of the script.

use serde_json::json;
use stripe_sim::{Settings, Sim};

use crate::client::{Client, EVENTS, NOW, fault, next_event, start, total};

#[tokio::test]
async fn an_idempotency_key_replays_its_answer_and_refuses_other_parameters() {
    let (sim, client) = start().await;
    let post = async |form: &str| client.call("POST", "/v1/customers", form, Some("k")).await;
    let first = post("name=a").await.unwrap().ok();
    assert_eq!(post("name=a").await.unwrap().ok(), first);
    let other = post("name=b").await.unwrap();
    assert_eq!((other.status, &other.body["error"]["type"]), (400, &json!("idempotency_error")));
    sim.advance(24 * 3_600);
    assert_ne!(post("name=a").await.unwrap().ok()["id"], first["id"]);
    let all = client.get("/v1/customers", "limit=100").await.ok();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_whose_first_call_has_not_ended_conflicts() {
    let (sim, client) = start().await;
    sim.set(|settings| settings.latency_ms = 100);
    let post = async || client.call("POST", "/v1/customers", "", Some("k")).await.unwrap();
    let (a, b) = tokio::join!(post(), post());
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn an_answer_is_lost_after_the_call_took_effect() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    for (what, identifier) in [("lose", "a"), ("truncate", "b")] {
        fault(&sim, next_event(json!(what)));
        let sent = client.send(&customer, 5, &format!("identifier={identifier}")).await;
        assert!(sent.is_none(), "{what}");
    }
    assert_eq!(total(&sim), (10, 2));
    let again = client.send(&customer, 5, "identifier=a").await.unwrap();
    assert!(again.message().starts_with("An event already exists"));
    let told: Vec<_> = sim.calls().iter().rev().take(3).map(|c| (c.status, c.applied)).collect();
    assert_eq!(told, [(Some(400), false), (None, true), (None, true)]);
}

#[tokio::test]
async fn a_call_is_cut_before_it_took_effect() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    // Twice, for a client that repeats by itself on a connection that was just closed.
    fault(&sim, json!({ "on": format!("POST {EVENTS}"), "times": 2, "do": "cut" }));
    assert!(client.send(&customer, 5, "identifier=a").await.is_none());
    sim.heal();
    assert_eq!(total(&sim), (0, 0));
    assert_eq!(client.send(&customer, 5, "identifier=a").await.unwrap().status, 200);
    assert_eq!(total(&sim), (5, 1));
}

#[tokio::test]
async fn a_scripted_500_may_have_taken_effect_and_its_key_remembers_it() {
    let (sim, client) = start().await;
    let post = async |key: &str| client.call("POST", "/v1/customers", "", Some(key)).await;
    let applied = json!({ "status": { "code": 500, "applied": true } });
    fault(&sim, json!({ "on": "POST /v1/customers", "do": applied }));
    let refused = json!({ "status": { "code": 503, "retry_after": 7, "should_retry": true } });
    fault(&sim, json!({ "on": "POST /v1/customers", "do": refused }));
    assert_eq!(post("a").await.unwrap().status, 500);
    let later = post("b").await.unwrap();
    assert_eq!((later.status, later.header("retry-after")), (503, "7"));
    assert_eq!(later.header("stripe-should-retry"), "true");
    // Replayed, without the script.
    assert_eq!(post("a").await.unwrap().status, 500);
    assert_eq!(post("b").await.unwrap().status, 200);
    let all = client.get("/v1/customers", "").await.ok();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_call_goes_on_when_its_caller_hangs_up() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    sim.set(|settings| settings.latency_ms = 200);
    let hasty = client.send(&customer, 5, "");
    let hasty = tokio::time::timeout(std::time::Duration::from_millis(80), hasty).await;
    assert!(hasty.is_err());
    for _ in 0..100 {
        if total(&sim) == (5, 1) {
            // And its lock is let go.
            assert_eq!(client.send(&customer, 1, "").await.unwrap().status, 200);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the call ended with its caller");
}

#[tokio::test]
async fn calls_beyond_the_pace_are_refused() {
    let settings = Settings { calls_per_s: Some(3), ..Settings::default() };
    let sim = Sim::start(settings).await.unwrap();
    let client = Client::new(sim.url());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.get("/v1/customers", "").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
}

#[tokio::test]
async fn only_test_keys_are_taken_and_no_key_is_repeated() {
    let (sim, _) = start().await;
    // The last two are `sk:` and `sk_test_x:`.
    for (key, status) in [
        ("", 401),
        ("Bearer sk_live_abc", 401),
        ("Bearer nonsense", 401),
        ("Basic c2s6", 401),
        ("Basic c2tfdGVzdF94Og==", 200),
    ] {
        let request = hyper::Request::get(format!("{}/v1/customers", sim.url()))
            .header("authorization", key)
            .body(String::new())
            .unwrap();
        let pool =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build_http::<String>();
        let response = pool.request(request).await.unwrap();
        assert_eq!(response.status(), status, "{key}");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&body.to_bytes()).contains("sk_live_abc"));
    }
}

#[tokio::test]
async fn it_is_driven_over_http() {
    let (sim, client) = start().await;
    let admin =
        async |path: &str, body: serde_json::Value| client.post(path, &body.to_string()).await;
    let back = admin("/_sim/clock", json!({ "now": NOW - 1 })).await;
    assert_eq!(back.status, 400);
    admin("/_sim/clock", json!({ "advance": 60 })).await.ok();
    assert_eq!(client.get("/_sim/clock", "").await.ok(), json!({ "now": NOW + 60 }));
    assert_eq!(
        client.get("/v1/customers", "").await.header("date"),
        "Tue, 17 Mar 2026 12:01:00 GMT"
    );
    admin("/_sim/faults", json!([{ "do": { "status": { "code": 418 } } }])).await.ok();
    assert_eq!(client.get("/v1/customers", "").await.status, 418);
    assert_eq!(admin("/_sim/faults", json!({ "do": "explode" })).await.status, 400);
    let set = admin("/_sim/settings", json!({ "latency_ms": 1 })).await.ok();
    assert_eq!(set["latency_ms"], 1);
    assert_eq!(admin("/_sim/settings", json!({ "latency": 1 })).await.status, 400);
    assert_eq!(
        client.get("/_sim/calls", "").await.ok().as_array().unwrap().len(),
        sim.calls().len()
    );
    assert_eq!(client.get("/_sim/nothing", "").await.status, 404);
}

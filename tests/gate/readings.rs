//! One reading of a limit: headers, problems, `Usage::limits` and `GET /usage` say the same.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::directory::Grant;
use tallygate::middleware::GateLayer;
use tallygate::{Admitted, Ask, Gate, LimitState, testing};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "team"
    [meter.input]
    count = "reported"
    hold  = 400
    [meter.output]
    count = "reported"
    hold  = 1
    [meter.tokens]
    sum   = { input = 1, output = 4 }
    [meter.credits]
    [plan.team]
    rate.all       = ["5/s burst 20", "1k tokens/min burst 3k"]
    quota.requests = ["100/day", "40/day per user"]
    quota.tokens   = { limit = "2k/day", over = "allow" }
    quota.credits  = "prepaid"
"#;

async fn problem(gate: &Gate, ask: Ask) -> serde_json::Value {
    let refusal = gate.admit(ask).await.unwrap_err();
    serde_json::from_slice(&gate.refusal_reply(&refusal).body).unwrap()
}

async fn usage(gate: &Gate) -> serde_json::Value {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    serde_json::from_slice(&report.reply(None).body).unwrap()
}

/// The `r` of each limit in a `RateLimit` header.
fn left(header: &str) -> Vec<(String, u64)> {
    let items = header.split(", ").map(|item| {
        let (name, rest) = item.split_once(";r=").unwrap();
        let n = rest.split(';').next().unwrap().parse().unwrap();
        (name.trim_matches('"').to_owned(), n)
    });
    items.collect()
}

#[tokio::test]
async fn the_header_of_a_request_is_what_its_handler_reads() {
    let (gate, _clock) = testing::gate(PLANS);
    let read = Arc::new(Mutex::new(Vec::<LimitState>::new()));
    let seen = read.clone();
    let inner = tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let admitted = request.extensions().get::<Admitted>().unwrap().clone();
        *seen.lock().unwrap() = admitted.limits();
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok"))) }
    });
    let service = GateLayer::new(&gate).layer(inner);
    for user in ["ann", "bob", "ann"] {
        let request = Request::get("/v1/chat").header("x-tenant", "acme").header("x-user", user);
        let request = request.body(Empty::new()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let header = response.headers()["ratelimit"].to_str().unwrap();
        let read = read.lock().unwrap();
        let states = read.iter().map(|it| (it.name.to_string(), it.remaining.whole()));
        assert_eq!(left(header), states.collect::<Vec<_>>());
        // 404 tokens are held, and none is used yet.
        let of = |name: &str| read.iter().find(|it| &*it.name == name).expect(header);
        assert_eq!(of("tokens/day").remaining, 2_000);
        assert!(!of("all/tokens").remaining.is_zero(), "a rate of a sum: {header}");
        for state in read.iter() {
            assert_eq!(
                state.used.whole() + state.remaining.whole(),
                state.limit.whole(),
                "{}",
                state.name
            );
        }
    }
}

#[tokio::test]
async fn a_prepaid_meter_without_a_grant_is_named() {
    let (gate, _clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let refused = problem(&gate, Ask::new(&acme, "render").cost("credits", 1)).await;
    assert_eq!(refused["status"], 402);
    assert_eq!(refused["limit"]["name"], refused["violated-policies"][0]);
    assert_eq!(
        (&refused["limit"]["limit"], &refused["limit"]["remaining"]),
        (&0.into(), &0.into())
    );
    assert_eq!(refused["detail"], "There are no prepaid credits.");

    let shown = usage(&gate).await;
    let meters = shown["meters"].as_array().unwrap();
    let credits = meters.iter().find(|meter| meter["name"] == "credits").unwrap();
    assert_eq!(credits["grants"][0]["id"], refused["limit"]["name"]);
    assert_eq!(credits["grants"][0]["limit"], 0);
}

#[tokio::test]
async fn a_refusal_counts_all_that_was_granted() {
    let (gate, _clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let give = async |id: &str, n: u64| {
        let tenant = gate.directory().tenant("acme");
        tenant.grant(Grant::new(id, "credits", n)).save().await.unwrap();
    };
    let ask = |n| Ask::new(&acme, "render").cost("credits", n);
    give("launch", 50).await;
    gate.admit(ask(20)).await.unwrap().settle();
    let refused = problem(&gate, ask(31)).await;
    assert_eq!(refused["limit"]["name"], "credits/once", "as where there are more");
    assert_eq!(refused["detail"], "30 left of the prepaid credits, less than asked.");

    give("summer", 50).await;
    let refused = problem(&gate, ask(81)).await;
    assert_eq!(refused["limit"]["remaining"], 80, "of both");
    assert_eq!((&refused["limit"]["limit"], &refused["limit"]["used"]), (&100.into(), &20.into()));
    gate.admit(ask(80)).await.unwrap().settle();
    let refused = problem(&gate, ask(1)).await;
    assert_eq!(refused["detail"], "The prepaid credits are used up.");

    let shown = usage(&gate).await;
    let meters = shown["meters"].as_array().unwrap();
    let credits = meters.iter().find(|meter| meter["name"] == "credits").unwrap();
    let grants = credits["grants"].as_array().unwrap().iter();
    let sum = |of: &str| grants.clone().map(|grant| grant[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("limit"), sum("used"), sum("remaining")), (100, 100, 0));
}

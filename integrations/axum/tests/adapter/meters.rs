//! Which routes a reported meter concerns.

use axum::Router;
use axum::routing::{get, post};
use tallygate::testing;
use tallygate_axum::{GateLayer, Usage};

use crate::support::{meter, request, send};

fn plans(meters: &str) -> String {
    format!(
        r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold = "2"
        [meter.credits]
        sum = {{ tokens = "1" }}
        [route.chat]
        match = "POST /chat"
        {meters}
        [plan.free]
        quota.tokens = "10/day"
        quota.credits = "10/day"
        quota.requests = "6/day"
        "#
    )
}

#[tokio::test]
async fn a_tenant_without_tokens_still_reads_what_needs_none() {
    for (meters, status) in [("meters = [\"tokens\"]", 200), ("", 429)] {
        let (gate, _clock) = testing::gate(&plans(meters));
        let app = Router::new()
            .route("/chat", post(async |usage: Usage| usage.add("tokens", 10)))
            .route("/me", get(async |usage: Usage| usage.add("tokens", 1)))
            .layer(GateLayer::new(&gate));
        assert_eq!(send(&app, request("POST", "/chat")).await.status(), 200);
        assert_eq!(meter(&gate, "tokens").await.0, 10);
        assert_eq!(send(&app, request("POST", "/chat")).await.status(), 429, "{meters}");
        assert_eq!(send(&app, request("GET", "/me")).await.status(), status, "{meters}");
        assert_eq!(
            send(&app, request("GET", "/nowhere")).await.status(),
            [404, 429][usize::from(status == 429)]
        );
    }
}

#[tokio::test]
async fn a_route_that_a_meter_does_not_concern_may_report_it_all_the_same() {
    let (gate, _clock) = testing::gate(&plans("meters = [\"tokens\"]"));
    let app = Router::new()
        .route("/me", get(async |usage: Usage| usage.add("tokens", 3)))
        .layer(GateLayer::new(&gate));
    assert_eq!(send(&app, request("GET", "/me")).await.status(), 200);
    assert_eq!(meter(&gate, "tokens").await, (3, 0));
    // Requests concern every route.
    for _ in 0..5 {
        assert_eq!(send(&app, request("GET", "/me")).await.status(), 200);
    }
    assert_eq!(send(&app, request("GET", "/me")).await.status(), 429);
}

//! docs/hanging-up.md: what clients that leave early cost.

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http_body_util::BodyExt;
use pages::hanging_up::{as_it_goes, at_its_end, detached, guarded};
use pages::model;
use serde_json::json;
use tallygate::{Gate, testing};
use tallygate_axum::GateLayer;
use test_support::gates::meter;
use tower::ServiceExt;

use crate::support::{page, plans, request};

const PAGE: &str = "docs/hanging-up.md";
/// Tokens that each request may have; the model makes half as many.
const MOST: u64 = 100;

fn app(gate: &Gate) -> Router {
    Router::new()
        .route("/v1/end", post(at_its_end))
        .route("/v1/stream", post(as_it_goes))
        .route("/v1/detached", post(detached))
        .route("/v1/guarded", post(guarded))
        .layer(GateLayer::new(gate))
}

fn ask(path: &str) -> axum::http::Request<Body> {
    request("POST", path, "acme", Some(json!({ "prompt": "x", "max_tokens": MOST })))
}

/// Lets the other tasks run.
async fn steps(n: usize) {
    for _ in 0..n {
        tokio::task::yield_now().await;
    }
}

/// A gate, after a client has left while the handler of this path waited for the model, and the
/// model had the time for its answer.
async fn hung_up(path: &'static str) -> Gate {
    let (gate, _clock) = testing::gate(&plans(PAGE, "What is given away"));
    let client = tokio::spawn(app(&gate).oneshot(ask(path)));
    while meter(&gate, "output-tokens").await.1 < MOST {
        steps(1).await;
    }
    steps(model::STEPS / 2).await;
    assert!(!client.is_finished());
    client.abort();
    assert!(client.await.is_err());
    steps(model::STEPS * 2).await;
    gate
}

#[tokio::test]
async fn a_handler_that_reports_at_its_end_gives_its_work_away() {
    let gate = hung_up("/v1/end").await;
    assert_eq!(meter(&gate, "output-tokens").await, (0, 0));
    assert_eq!(meter(&gate, "requests").await, (1, 0));
}

#[tokio::test]
async fn a_task_and_a_guard_report_what_it_cost() {
    let gate = hung_up("/v1/detached").await;
    assert_eq!(meter(&gate, "output-tokens").await, (MOST / 2, 0));
    let gate = hung_up("/v1/guarded").await;
    assert_eq!(meter(&gate, "output-tokens").await, (MOST, 0));
}

#[tokio::test]
async fn a_task_whose_client_has_left_is_not_in_flight() {
    let plans =
        plans(PAGE, "What is given away").replace("[plan.free]", "[plan.free]\nconcurrency = 1");
    let (gate, _clock) = testing::gate(&plans);
    let app = app(&gate);
    let client = tokio::spawn(app.clone().oneshot(ask("/v1/detached")));
    while meter(&gate, "output-tokens").await.1 < MOST {
        steps(1).await;
    }
    steps(10).await;
    assert_eq!(app.clone().oneshot(ask("/v1/end")).await.unwrap().status(), 429);
    client.abort();
    assert!(client.await.is_err());
    let next = tokio::spawn(app.oneshot(ask("/v1/detached")));
    steps(10).await;
    assert_eq!(meter(&gate, "output-tokens").await.0, 0, "the first task is still at work");
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    steps(model::STEPS).await;
    assert_eq!(meter(&gate, "output-tokens").await, (MOST, 0));
}

#[tokio::test]
async fn with_a_client_that_stays_all_report_what_it_cost() {
    for (path, cost) in
        [("/v1/end", 50), ("/v1/stream", 100), ("/v1/detached", 50), ("/v1/guarded", 50)]
    {
        let (gate, _clock) = testing::gate(&plans(PAGE, "What is given away"));
        let answer = app(&gate).oneshot(ask(path)).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(b"tide "), "{path}");
        assert_eq!(meter(&gate, "output-tokens").await, (cost, 0), "{path}");
    }
}

#[tokio::test]
async fn a_stream_costs_what_was_made_when_the_client_left() {
    let (gate, _clock) = testing::gate(&plans(PAGE, "What is given away"));
    let mut body = app(&gate).oneshot(ask("/v1/stream")).await.unwrap().into_body();
    for _ in 0..7 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert_eq!(meter(&gate, "output-tokens").await, (7, 0));
    assert_eq!(meter(&gate, "requests").await, (1, 0));
}

#[test]
fn the_page_names_each_handler() {
    let page = page(PAGE);
    for name in ["at_its_end", "as_it_goes", "detached", "guarded"] {
        assert!(page.contains(name), "{name}");
    }
}

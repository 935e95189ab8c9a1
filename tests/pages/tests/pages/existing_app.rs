//! docs/existing-app.md: where layers belong, and work that is no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get as on_get;
use pages::existing_app::{Job, Ran, run};
use tallygate::testing;
use tallygate_axum::GateLayer;
use test_support::gates::meter;

use crate::support::get;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.renders]
    [route.note]
    match = "GET /api/notes/{id}"
    cost = { requests = 3 }
    [plan.free]
    quota.requests = "4/day"
    quota.renders = "1/day"
"#;

#[tokio::test]
async fn paths_of_the_plan_file_are_whole_and_a_layer_within_gates_its_part_alone() {
    let (gate, _clock) = testing::gate(PLANS);
    let notes = Router::new()
        .route("/{id}", on_get(async || "a note"))
        .layer(GateLayer::new(&gate))
        .route("/later", on_get(async || "added after the layer"));
    let app = Router::new().nest("/api/notes", notes).route("/free", on_get(async || "free"));
    assert_eq!(get(&app, "/api/notes/7", "acme").await.status, 200);
    assert_eq!(meter(&gate, "requests").await, (3, 0));
    for path in ["/api/notes/later", "/free"] {
        assert_eq!(get(&app, path, "acme").await.status, 200);
    }
    assert_eq!(meter(&gate, "requests").await, (3, 0));
}

#[tokio::test]
async fn a_request_that_passes_two_layers_of_a_gate_is_charged_by_both() {
    let (gate, _clock) = testing::gate(PLANS);
    let within = Router::new().route("/x", on_get(async || "x")).layer(GateLayer::new(&gate));
    let app = Router::new().nest("/api", within).layer(GateLayer::new(&gate));
    assert_eq!(get(&app, "/api/x", "acme").await.status, 200);
    assert_eq!(meter(&gate, "requests").await, (2, 0));
}

#[tokio::test]
async fn only_a_layer_outside_sees_refusals() {
    let (gate, _clock) = testing::gate(PLANS);
    let [outside, inside] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let counting = |of: &Arc<AtomicU64>| {
        let of = of.clone();
        from_fn(move |request: Request, next: Next| {
            of.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        })
    };
    let app = Router::new()
        .route("/x", on_get(async || "x"))
        .layer(counting(&inside))
        .layer(GateLayer::new(&gate))
        .layer(counting(&outside));
    for status in [200, 200, 200, 200, 429, 429] {
        assert_eq!(get(&app, "/x", "acme").await.status, status);
    }
    assert_eq!([outside, inside].map(|it| it.load(Ordering::Relaxed)), [6, 4]);
}

#[tokio::test]
async fn a_job_that_fails_costs_nothing_and_a_refused_one_knows_when() {
    let (gate, _clock) = testing::gate(PLANS);
    let job = |fails| Job { tenant: "acme".to_owned(), fails };
    assert_eq!(run(&gate, &job(true)).await.unwrap(), Ran::Failed);
    assert_eq!(run(&gate, &job(false)).await.unwrap(), Ran::Done);
    assert!(matches!(run(&gate, &job(false)).await.unwrap(), Ran::Later(Some(_))));
    assert_eq!(meter(&gate, "renders").await, (1, 0));
    // Work is no request: it costs what it asks for.
    assert_eq!(meter(&gate, "requests").await, (0, 0));
}

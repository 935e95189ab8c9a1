//! What is logged of callers that the host names, or does not.

use std::convert::Infallible;

use http::{Request, Response};
use tallygate::GateBuilder;
use tallygate::identity::Caller;
use tallygate::middleware::GateLayer;
use tower::{Layer, ServiceExt};

use crate::floods::Log;

const PLANS: &str = r#"
    default-plan = "free"
    [route.open]
    match = "GET /open"
    auth  = "optional"
    [plan.free]
    quota.requests = "9/day"
"#;

/// The statuses of these requests to a gate with this way of identifying callers.
fn statuses(log: &Log, identify: &str, paths: &[&str]) -> Vec<u16> {
    log.over(async {
        let service = format!("{identify}\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"");
        let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
        let app = tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
        let app = GateLayer::new(&gate).layer(app);
        let mut statuses = Vec::new();
        for path in paths {
            let request = Request::get(*path).body(String::new()).unwrap();
            statuses.push(app.clone().oneshot(request).await.unwrap().status().as_u16());
        }
        statuses
    })
}

const HINT: &str = "a request has no caller";

#[test]
fn where_only_the_layer_names_callers_the_first_that_it_does_not_is_logged_once() {
    let log = Log::default();
    assert_eq!(statuses(&log, "identify = []", &["/open"]), [200]);
    assert_eq!(log.count(HINT), 0, "its route asks for none");
    assert_eq!(statuses(&log, "identify = []", &["/a", "/a", "/b"]), [401; 3]);
    assert_eq!(log.count(HINT), 1);
}

#[test]
fn where_callers_have_credentials_one_without_is_not_logged() {
    let log = Log::default();
    let claims = "[[identify]]\nclaim = \"org\"";
    assert_eq!(statuses(&log, claims, &["/a", "/b"]), [401; 2]);
    assert_eq!(log.count(HINT), 0);
}

#[test]
fn a_plan_that_the_file_does_not_have_is_logged_with_the_one_that_was_meant() {
    let log = Log::default();
    log.over(async {
        let service = "identify = []\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"";
        let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
        let app = tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
        let app =
            GateLayer::new(&gate).caller(|_| Some(Caller::new("acme").plan("fre"))).layer(app);
        let request = Request::get("/a").body(String::new()).unwrap();
        assert_eq!(app.oneshot(request).await.unwrap().status(), 200, "on the default plan");
    });
    assert_eq!(log.count("did you mean `free`?"), 1, "{:?}", log.0);
}

//! What is logged of callers that the host names, or does not.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tallygate::GateBuilder;
use tallygate::directory::{HostTenant, TenantSource};
use tallygate::identity::Caller;
use tallygate::middleware::GateLayer;
use tallygate::store::StoreFuture;
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

/// The first curl of a new app: what it gets says where a key goes, and the log how to make one.
#[test]
fn the_first_request_without_a_key_is_helped_to_one() {
    const HINT: &str = ".ensure_key(\"laptop\").await?";
    const GOES: &str = "A key goes into `authorization: Bearer ..` or `x-api-key: ..`.";
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
    let service = format!(
        "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[[identify]]\n\
         api-key = [\"authorization\", \"x-api-key\"]\n\
         pepper = [{{ id = \"1\", file = {pepper:?} }}]"
    );
    // Nothing, a key of another service, and one of ours that was cut.
    let unknown = ["", "hello", "tg_mine", "tg_mine"];
    for (first, knows_a_caller) in [(0, false), (1, false), (2, false), (0, true)] {
        let log = Log::default();
        log.over(async {
            let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
            let app =
                tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::from(""))));
            let app = GateLayer::new(&gate).layer(app);
            let ask = async |key: &str| {
                let request = Request::get("/a").header("x-api-key", key).body(String::new());
                app.clone().oneshot(request.unwrap()).await.unwrap()
            };
            if knows_a_caller {
                let acme = gate.directory().tenant("acme").save().await.unwrap();
                let key = acme.ensure_key("laptop").await.unwrap().unwrap();
                assert_eq!(ask(key.expose()).await.status(), 200);
            }
            for key in &unknown[first..] {
                let refused = ask(key).await;
                assert_eq!(refused.status(), 401);
                let body = refused.into_body().collect().await.unwrap().to_bytes();
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let detail = problem["detail"].as_str().unwrap();
                assert_eq!(detail, format!("Missing or unknown API credential. {GOES}"));
            }
        });
        assert_eq!(log.count(HINT), usize::from(!knows_a_caller), "{first} {:?}", log.0);
    }
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

#[test]
fn a_callers_plan_that_cannot_be_is_logged_with_what_to_write() {
    let log = Log::default();
    log.over(async {
        let service = "identify = []\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"";
        let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
        let app = tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
        let app = GateLayer::new(&gate).caller(|_| Some(Caller::new("acme").plan(""))).layer(app);
        let request = Request::get("/a").body(String::new()).unwrap();
        assert_eq!(app.oneshot(request).await.unwrap().status(), 200, "on the default plan");
    });
    assert_eq!(log.count("Write the name of a plan in the plan file"), 1, "{:?}", log.0);
}

/// A host's table with one row for every tenant.
struct Row(HostTenant);

impl TenantSource for Row {
    fn tenant(&self, _id: &str) -> StoreFuture<Option<HostTenant>> {
        let row = self.0.clone();
        Box::pin(async move { Ok(Some(row)) })
    }
}

#[test]
fn what_cannot_be_in_a_hosts_row_is_logged_with_what_to_write() {
    let log = Log::default();
    let row = HostTenant::new().plan("").override_("quota.gone = \"1/day\"", None);
    let more = |row: HostTenant, n| row.override_(format!("quota.requests = \"{n}/day\""), None);
    let row = (1..=30).fold(row, more);
    let only_bad = HostTenant::new().override_("quota.gone = \"1/day\"", None);
    for row in [row, only_bad] {
        log.over(async {
            let service = "identify = []\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"";
            let builder = GateBuilder::from_text(service).plans(PLANS).tenants(Row(row));
            builder.open().await.unwrap().tenant("acme").await.unwrap();
        });
    }
    for part in ["Write the name of a plan", "Write fewer", "Write what a [tenant.x] table"] {
        assert_eq!(log.count(part), 1, "{part}: {:?}", log.0);
    }
    assert_eq!(log.count("unknown meter `gone`"), 1, "why: {:?}", log.0);
    assert_eq!(log.count("ERROR"), 3, "{:?}", log.0);
}

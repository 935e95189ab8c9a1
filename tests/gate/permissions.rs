//! Routes that ask for a permission, and callers of every kind that have it, or not.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::Value;
use tallygate::directory::{DirectoryError, KeyOptions, Tenant};
use tallygate::identity::{Caller, Claims};
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty, START_MS};
use tallygate::{Gate, GateBuilder, ManualClock};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [route.write]
    match = "POST /items"
    needs-permission = "write"
    [route.watched]
    match = "POST /watched"
    needs-permission = "write"
    enforce = "shadow"
    [plan.free]
    quota.requests = "100/day"
"#;

/// Past this, a cached caller is looked up again.
const AGED: Duration = Duration::from_secs(31);

struct World {
    gate: Gate,
    clock: ManualClock,
    store: Faulty,
    folder: tempfile::TempDir,
}

/// A gate for API keys, and for claims. `of_keys`: more lines about the keys.
async fn world(of_keys: &str) -> World {
    world_of(PLANS, of_keys).await
}

async fn world_of(plans: &str, of_keys: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(START_MS);
    let store = Faulty::scripted(Memory::new(), []);
    let service = service(folder.path(), of_keys);
    let builder = GateBuilder::from_text(&service).plans(plans).store(store.clone());
    let gate = builder.clock(clock.clone()).open().await.unwrap();
    World { gate, clock, store, folder }
}

fn service(folder: &Path, of_keys: &str) -> String {
    let pepper = folder.join("pepper");
    std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
    format!(
        r#"
        [store]
        kind = "redb"
        path = {:?}
        [[identify]]
        api-key = ["x-api-key"]
        pepper  = [{{ id = "1", file = {pepper:?} }}]
        {of_keys}
        [[identify]]
        claim = "org"
        permissions-claim = "scope"
        [flush]
        mode = "fast"
        "#,
        folder.join("tallygate.redb")
    )
}

async fn acme(gate: &Gate) -> Tenant {
    gate.directory().tenant("acme").note("signed up").save().await.unwrap()
}

/// The status of a request, and the permission that its problem names.
async fn asked(gate: &Gate, method: &str, path: &str, key: &str) -> (u16, Option<String>) {
    let request = Request::builder().method(method).uri(path).header("x-api-key", key);
    sent(gate, request.body(Empty::new()).unwrap()).await
}

async fn sent(gate: &Gate, request: Request<Empty<Bytes>>) -> (u16, Option<String>) {
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let layer = GateLayer::new(gate).caller(|extensions| extensions.get::<Caller>().cloned());
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap_or_default().to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, problem["permission"].as_str().map(str::to_owned))
}

fn lacks() -> (u16, Option<String>) {
    (403, Some("write".to_owned()))
}

#[tokio::test]
async fn a_key_does_what_it_may_and_one_without_permissions_nothing_that_asks_for_one() {
    let w = world("").await;
    let acme = acme(&w.gate).await;
    let options = KeyOptions::new("ci").permission("read").permission("write");
    let writes = acme.new_key(options).await.unwrap();
    let reads = acme.new_key(KeyOptions::new("bi").permission("read")).await.unwrap();
    let none = acme.new_key("old").await.unwrap();
    assert_eq!(asked(&w.gate, "POST", "/items", writes.expose()).await, (200, None));
    for key in [&reads, &none] {
        assert_eq!(asked(&w.gate, "POST", "/items", key.expose()).await, lacks());
        assert_eq!(asked(&w.gate, "GET", "/items", key.expose()).await, (200, None));
    }
    let listed = acme.keys().await.unwrap();
    let listed = listed.iter().find(|key| key.id == writes.id).unwrap();
    assert_eq!(listed.permissions, ["read", "write"]);
    let refused = &w.gate.refusals_of(Some("acme"), 10)[0];
    assert_eq!(refused.reason.as_deref(), Some("permission-missing"));
    assert_eq!(refused.about.as_deref(), Some("write"));
    assert_eq!(refused.key.as_deref(), Some(&*none.id));
}

#[tokio::test]
async fn neither_shadow_nor_an_outage_nor_sleep_makes_a_key_do_more_or_less() {
    let w = world("").await;
    let acme = acme(&w.gate).await;
    let writes = acme.new_key(KeyOptions::new("ci").permission("write")).await.unwrap();
    let reads = acme.new_key(KeyOptions::new("bi").permission("read")).await.unwrap();
    for path in ["/items", "/watched"] {
        assert_eq!(asked(&w.gate, "POST", path, writes.expose()).await, (200, None));
        assert_eq!(asked(&w.gate, "POST", path, reads.expose()).await, lacks());
    }
    w.gate.flush_now().await.unwrap();
    testing::leases_at_rest(&w.gate).await;
    w.clock.advance(2 * AGED);
    assert_eq!(testing::doze(&w.gate).await, (1, 0));
    w.store.outage(true);
    assert_eq!(asked(&w.gate, "POST", "/items", writes.expose()).await, (200, None));
    assert_eq!(asked(&w.gate, "POST", "/items", reads.expose()).await, lacks());
}

#[tokio::test]
async fn a_rotated_key_may_do_the_same_on_a_file_that_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), "");
    let open = async || GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
    let gate = open().await;
    let tenant = acme(&gate).await;
    let old = tenant.new_key(KeyOptions::new("ci").permission("write")).await.unwrap();
    let new = tenant.rotate_key(&old.id, Duration::from_secs(60)).await.unwrap();
    gate.close().await.unwrap();
    drop((gate, tenant));
    let gate = open().await;
    for key in [&old, &new] {
        assert_eq!(asked(&gate, "POST", "/items", key.expose()).await, (200, None));
    }
    gate.close().await.unwrap();
}

#[tokio::test]
async fn the_service_file_says_what_keys_without_permissions_may_do() {
    let w = world("permissions = [\"write\"]").await;
    let acme = acme(&w.gate).await;
    let old = acme.new_key("old").await.unwrap();
    let reads = acme.new_key(KeyOptions::new("bi").permission("read")).await.unwrap();
    assert_eq!(asked(&w.gate, "POST", "/items", old.expose()).await, (200, None));
    assert_eq!(asked(&w.gate, "POST", "/items", reads.expose()).await, lacks());
    drop(w.folder);
}

#[tokio::test]
async fn a_verified_claim_and_the_hosts_own_caller_say_what_they_may_do() {
    let w = world("").await;
    acme(&w.gate).await;
    for (scope, expected) in [("read write", (200, None)), ("read", lacks()), ("writer", lacks())] {
        let mut request = Request::post("/items").body(Empty::new()).unwrap();
        let claims = [("org", "acme"), ("scope", scope)].into_iter().collect::<Claims>();
        request.extensions_mut().insert(claims);
        assert_eq!(sent(&w.gate, request).await, expected, "a claim of {scope:?}");
        let mut request = Request::post("/items").body(Empty::new()).unwrap();
        request.extensions_mut().insert(Caller::new("acme").user("7").permission(scope));
        assert_eq!(sent(&w.gate, request).await, expected, "a caller with {scope:?}");
    }
}

#[tokio::test]
async fn a_key_with_a_name_that_no_permission_has_or_with_too_many_is_not_made() {
    let w = world("").await;
    let acme = acme(&w.gate).await;
    let made = acme.new_key(KeyOptions::new("ci").permission("für")).await;
    assert!(matches!(made, Err(DirectoryError::Permission(name)) if name == "für"));
    let many = (0..33).fold(KeyOptions::new("ci"), |key, n| key.permission(format!("p{n}")));
    let made = acme.new_key(many).await;
    assert!(matches!(made, Err(DirectoryError::TooManyPermissions { most: 32 })));
    assert!(acme.keys().await.unwrap().is_empty());
}

/// A caller that may nothing has used nothing of its trial: it begins with what is admitted.
#[tokio::test]
async fn a_refusal_for_a_permission_begins_no_trial() {
    let trial = PLANS.replace("[plan.free]", "[plan.free]\n    expires = \"14d\"");
    let w = world_of(&trial, "").await;
    let acme = acme(&w.gate).await;
    let writes = acme.new_key(KeyOptions::new("ci").permission("write")).await.unwrap();
    let none = acme.new_key("old").await.unwrap();
    let begun = async || {
        let found = w.gate.directory().find("acme").await.unwrap().unwrap();
        found.record().first_request().is_some()
    };
    for _ in 0..4 {
        assert_eq!(asked(&w.gate, "POST", "/items", none.expose()).await, lacks());
        assert!(!begun().await);
        w.clock.advance(5 * 24 * 120 * AGED); // five days
    }
    assert_eq!(asked(&w.gate, "POST", "/items", writes.expose()).await, (200, None));
    assert!(begun().await);
    assert_eq!(asked(&w.gate, "POST", "/items", none.expose()).await, lacks());
    w.clock.advance(15 * 24 * 120 * AGED);
    assert_eq!(asked(&w.gate, "POST", "/items", writes.expose()).await.0, 402);
}

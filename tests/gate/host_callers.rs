//! Callers that the host's own authentication names, and the plans that it says they are on.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::directory::Edit;
use tallygate::identity::{Caller, Claims};
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::testing::{Faulty, START_MS};
use tallygate::{Gate, GateBuilder, ManualClock};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = ["2/day", "1/day per user"]
    [plan.pro]
    quota.requests = "5/day"
"#;

/// Claims that no request here has: no key is ever read, and no pepper made.
const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    claim = "org"
    [flush]
    mode = "fast"
"#;

/// What the host's authentication leaves in a request.
#[derive(Clone)]
struct User {
    org: &'static str,
    id: &'static str,
    plan: &'static str,
}

async fn open() -> (Gate, ManualClock, Faulty) {
    let clock = ManualClock::at_unix_ms(START_MS);
    let store = Faulty::scripted(Memory::new(), []);
    let builder = GateBuilder::from_text(SERVICE).plans(PLANS).store(store.clone());
    (builder.clock(clock.clone()).open().await.unwrap(), clock, store)
}

/// The status of a request of this user.
async fn status(gate: &Gate, user: Option<User>) -> u16 {
    let layer = GateLayer::new(gate).caller(|extensions| {
        let user = extensions.get::<User>()?;
        let caller = Caller::new(user.org).user(user.id);
        Some(if user.plan.is_empty() { caller } else { caller.plan(user.plan) })
    });
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let mut request = Request::get("/search").body(Empty::<Bytes>::new()).unwrap();
    if let Some(user) = user {
        request.extensions_mut().insert(user);
    }
    layer.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

async fn of(gate: &Gate, org: &'static str, id: &'static str, plan: &'static str) -> u16 {
    status(gate, Some(User { org, id, plan })).await
}

#[tokio::test]
async fn a_caller_is_who_the_hosts_own_authentication_says_on_the_plan_that_it_says() {
    let (gate, _clock, _store) = open().await;
    assert_eq!(status(&gate, None).await, 401, "as without the closure");
    assert_eq!(of(&gate, "acme", "1", "free").await, 200, "made on first sight");
    assert_eq!(of(&gate, "acme", "1", "free").await, 429, "one a user");
    assert_eq!(of(&gate, "acme", "2", "free").await, 200);
    assert_eq!(of(&gate, "acme", "3", "free").await, 429, "two a tenant");
    assert_eq!(of(&gate, "globex", "1", "free").await, 200, "another tenant");
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.record().plan.as_deref(), Some("free"));
}

#[tokio::test]
async fn another_plan_holds_for_the_request_that_names_it_and_keeps_what_was_used() {
    let (gate, _clock, store) = open().await;
    assert_eq!(of(&gate, "acme", "1", "free").await, 200);
    assert_eq!(of(&gate, "acme", "2", "free").await, 200);
    assert_eq!(of(&gate, "acme", "3", "free").await, 429);
    for _ in 0..3 {
        assert_eq!(of(&gate, "acme", "1", "pro").await, 200, "five, of which two are used");
    }
    assert_eq!(of(&gate, "acme", "1", "pro").await, 429);
    assert_eq!(of(&gate, "acme", "4", "free").await, 429, "five of two");
    // The plan named before, by a caller that is still in memory.
    assert_eq!(of(&gate, "acme", "1", "pro").await, 429);
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.record().plan.as_deref(), Some("pro"));

    let calls = store.calls();
    for _ in 0..50 {
        assert_eq!(of(&gate, "acme", "1", "pro").await, 429);
    }
    assert!(store.calls() - calls <= 3, "the same plan costs no call: {}", store.calls() - calls);
}

#[tokio::test]
async fn a_plan_that_the_file_lacks_is_the_default_plan() {
    let (gate, _clock, _store) = open().await;
    assert_eq!(of(&gate, "acme", "1", "gold").await, 200);
    assert_eq!(of(&gate, "acme", "2", "gold").await, 200);
    assert_eq!(of(&gate, "acme", "3", "gold").await, 429, "two of the default plan");
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.record().plan.as_deref(), Some("gold"), "kept for a file that has it");
}

#[tokio::test]
async fn a_name_that_no_plan_can_have_is_the_default_plan_of_a_new_and_a_known_tenant() {
    let long = "x".repeat(65);
    for name in [&*long, "", "a\u{1}b"] {
        let (gate, clock, store) = open().await;
        let status = async |org: &'static str, id: &'static str, plan: &str| {
            let caller = Caller::new(org).user(id).plan(plan);
            let layer = GateLayer::new(&gate).caller(move |_| Some(caller.clone()));
            let inner = tower::service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
            });
            let request = Request::get("/search").body(Empty::<Bytes>::new()).unwrap();
            layer.layer(inner).oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(status("new", "1", name).await, 200, "{name:?}: vouched for");
        assert_eq!(status("new", "2", name).await, 200, "{name:?}");
        assert_eq!(status("new", "3", name).await, 429, "{name:?}: two of the default plan");
        assert_eq!(status("known", "1", "pro").await, 200);
        assert_eq!(status("known", "1", "pro").await, 200);
        assert_eq!(status("known", "2", name).await, 429, "{name:?}: two of the default plan");
        let known = gate.directory().find("known").await.unwrap().unwrap();
        assert_eq!(known.record().plan, None, "{name:?}");
        let calls = store.calls();
        for _ in 0..50 {
            assert_eq!(status("known", "2", name).await, 429, "{name:?}");
        }
        let calls = store.calls() - calls;
        assert!(calls <= 3, "{name:?}: the same name costs no call: {calls}");
        clock.advance(Duration::from_secs(61));
        assert_eq!(status("known", "1", "pro").await, 200, "{name:?}: five, of which two are used");
    }
}

#[tokio::test]
async fn without_a_plan_the_directory_decides() {
    let (gate, _clock, _store) = open().await;
    assert_eq!(of(&gate, "acme", "1", "").await, 401, "unknown to the directory");
    assert_eq!(of(&gate, "acme", "1", "pro").await, 200, "vouched for, at once");
    assert_eq!(of(&gate, "acme", "1", "").await, 200, "known from now on, at once");
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.record().plan.as_deref(), Some("pro"), "kept");
    for id in ["~anonymous", "", "a\u{1}b"] {
        assert_eq!(of(&gate, id, "1", "pro").await, 401, "{id:?} is no tenant's id");
    }
}

#[tokio::test]
async fn what_an_operator_assigns_gives_way_to_what_the_host_says() {
    let (gate, _clock, _store) = open().await;
    assert_eq!(of(&gate, "acme", "1", "pro").await, 200);
    gate.directory().tenant("acme").plan("free").note("by hand").save().await.unwrap();
    assert_eq!(of(&gate, "acme", "1", "pro").await, 200);
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.record().plan.as_deref(), Some("pro"));
}

#[tokio::test]
async fn callers_that_name_one_plan_and_then_another_are_written_ten_times() {
    let (gate, clock, _store) = open().await;
    let changes = async || {
        let acme = gate.directory().find("acme").await.unwrap().unwrap();
        let history = acme.history().await.unwrap();
        let edits = history.iter().flat_map(|entry| &entry.edits);
        edits.filter(|edit| matches!(edit, Edit::Plan(_))).count()
    };
    for _ in 0..20 {
        of(&gate, "acme", "1", "free").await;
        of(&gate, "acme", "2", "pro").await;
    }
    assert_eq!(changes().await, 11, "one at first sight");
    clock.advance(Duration::from_secs(61));
    for _ in 0..20 {
        of(&gate, "acme", "1", "free").await;
        of(&gate, "acme", "2", "pro").await;
    }
    assert_eq!(changes().await, 12, "one a minute");
}

#[tokio::test]
async fn while_the_directory_is_away_a_known_caller_stays_on_the_plan_it_had() {
    let (gate, clock, store) = open().await;
    assert_eq!(of(&gate, "acme", "1", "free").await, 200);
    store.outage(true);
    assert_eq!(of(&gate, "acme", "1", "pro").await, 429, "one a user: the plan it had");
    assert_eq!(of(&gate, "globex", "1", "pro").await, 503);
    store.outage(false);
    clock.advance(Duration::from_secs(31));
    assert_eq!(of(&gate, "acme", "1", "pro").await, 200);
    assert_eq!(of(&gate, "globex", "1", "pro").await, 200);
}

/// The status of a request with these verified claims.
async fn claimed(gate: &Gate, claims: &[(&str, &str)]) -> u16 {
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let mut request = Request::get("/search").body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(claims.iter().copied().collect::<Claims>());
    GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_verified_claim_names_the_plan() {
    let service = SERVICE.replace("claim = \"org\"", "claim = \"org\"\nplan-claim = \"tier\"");
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(Memory::new());
    let gate = builder.clock(ManualClock::at_unix_ms(START_MS)).open().await.unwrap();
    assert_eq!(
        claimed(&gate, &[("org", "acme")]).await,
        401,
        "named by nothing that vouches for it"
    );
    // Unknown callers are remembered for a moment: another tenant.
    let on = async |tier| claimed(&gate, &[("org", "globex"), ("tier", tier)]).await;
    assert_eq!(on("free").await, 200, "made on first sight");
    assert_eq!(on("free").await, 429, "one a user, and no user is named");
    for _ in 0..4 {
        assert_eq!(on("pro").await, 200, "what was used stays used, of five");
    }
    assert_eq!(on("pro").await, 429);
    let globex = gate.directory().find("globex").await.unwrap().unwrap();
    assert_eq!(globex.record().plan.as_deref(), Some("pro"));
    assert_eq!(on("").await, 429, "an empty claim names none, and nothing changes");
    assert_eq!(claimed(&gate, &[("org", "globex")]).await, 429);
    let globex = gate.directory().find("globex").await.unwrap().unwrap();
    assert_eq!(globex.record().plan.as_deref(), Some("pro"));
}

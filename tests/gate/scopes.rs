//! Limits within a tenant: per key, user, address, and a name from the identification.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::identity::{Caller, Identify, Identity, RequestView};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::testing::{self, Plans, START_MS};
use tallygate::{Gate, GateBuilder, ManualClock};
use tower::{Layer, ServiceExt};

/// Trusts every header; a test chooses the caller.
struct ByHeaders;

impl Identify for ByHeaders {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let text = |name| view.header(name).and_then(|v| std::str::from_utf8(v).ok());
        let mut caller = Caller::new(text("x-tenant").unwrap_or("acme"));
        caller = text("x-key").into_iter().fold(caller, Caller::key);
        caller = text("x-user").into_iter().fold(caller, Caller::user);
        caller = text("x-project").into_iter().fold(caller, |c, value| c.scope("project", value));
        Identity::Tenant(caller)
    }
}

async fn gate(plans: &str) -> (Gate, ManualClock, Plans) {
    let clock = ManualClock::at_unix_ms(START_MS);
    let plans = Plans::new(plans);
    let builder = plans.read_by(testing::builder("").identify(ByHeaders));
    (builder.clock(clock.clone()).open().await.unwrap(), clock, plans)
}

/// The same, with a service file that sets `no-scope` for callers without a value.
async fn gate_where(no_scope: &str, plans: &str) -> Result<Gate, tallygate::Error> {
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"org\"\n[flush]\nmode = \"fast\"\n\
         [identity]\nunknown = \"create\"\nno-scope = {no_scope:?}\n"
    );
    let builder = GateBuilder::from_text(&service).plans(plans).identify(ByHeaders);
    builder.open().await
}

fn plans(rate: &str) -> String {
    format!("default-plan = \"free\"\n[plan.free]\nrate.default = {rate:?}\n")
}

/// How many of ten requests are admitted, for a caller with this header and address.
async fn admitted(gate: &Gate, header: (&str, &str), peer: &str) -> usize {
    admitted_from(gate, header, Some(peer)).await
}

async fn admitted_from(gate: &Gate, header: (&str, &str), peer: Option<&str>) -> usize {
    let mut admitted = 0;
    for _ in 0..10 {
        let mut request = Request::get("/search").body(Empty::<Bytes>::new()).unwrap();
        let name: http::HeaderName = header.0.parse().unwrap();
        request.headers_mut().insert(name, header.1.parse().unwrap());
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(format!("{peer}:1").parse().unwrap()));
        }
        let inner = tower::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        let response = GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap();
        admitted += usize::from(response.status() == 200);
    }
    admitted
}

#[tokio::test]
async fn a_rate_by_key_user_or_name_holds_for_each_value_of_its_own() {
    for (scope, header) in [("key", "x-key"), ("user", "x-user"), ("project", "x-project")] {
        let (gate, clock, _plans) = gate(&plans(&format!("3/min per {scope}"))).await;
        assert_eq!(admitted(&gate, (header, "one"), "192.0.2.1").await, 3, "{scope}");
        assert_eq!(admitted(&gate, (header, "two"), "192.0.2.1").await, 3, "{scope}");
        assert_eq!(admitted(&gate, (header, "one"), "192.0.2.2").await, 0, "{scope}");
        // Callers without a value for the scope share the limit.
        assert_eq!(admitted(&gate, ("x-other", "one"), "192.0.2.1").await, 3, "{scope}");
        assert_eq!(admitted(&gate, ("x-other", "two"), "192.0.2.2").await, 0, "{scope}");
        clock.advance(Duration::from_secs(20));
        assert_eq!(admitted(&gate, (header, "one"), "192.0.2.1").await, 1, "{scope}");
    }
}

#[tokio::test]
async fn a_quota_by_user_holds_for_all_without_a_user_together() {
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"4/day per user\"\n";
    let gate = gate_where("tenant", plans).await.unwrap();
    assert_eq!(admitted(&gate, ("x-key", "one"), "192.0.2.1").await, 4);
    assert_eq!(admitted(&gate, ("x-key", "two"), "192.0.2.1").await, 0);
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 4);
    // Another tenant has its own.
    assert_eq!(admitted(&gate, ("x-tenant", "other"), "192.0.2.1").await, 4);
}

#[tokio::test]
async fn a_limit_by_address_holds_for_all_without_an_address_together() {
    for limit in ["rate.default = \"3/min per ip\"", "quota.requests = \"3/day per ip\""] {
        let plans = format!("default-plan = \"free\"\n[plan.free]\n{limit}\n");
        for (rule, without) in [("tenant", 3), ("refuse", 0), ("skip", 10)] {
            let gate = gate_where(rule, &plans).await.unwrap();
            let admitted = async |peer| admitted_from(&gate, ("x-user", "ann"), peer).await;
            assert_eq!(admitted(None).await, without, "{rule}: {limit}");
            assert_eq!(admitted(Some("192.0.2.1")).await, 3, "{rule}: {limit}");
        }
    }
}

#[tokio::test]
async fn callers_without_a_value_are_passed_over_or_refused_where_the_service_file_says_so() {
    for limit in ["rate.default = \"3/min per user\"", "quota.requests = \"3/day per user\""] {
        let plans = format!("default-plan = \"free\"\n[plan.free]\n{limit}\n");
        let gate = gate_where("skip", &plans).await.unwrap();
        assert_eq!(admitted(&gate, ("x-key", "one"), "192.0.2.1").await, 10, "{limit}");
        assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 3, "{limit}");
        let gate = gate_where("refuse", &plans).await.unwrap();
        assert_eq!(admitted(&gate, ("x-key", "one"), "192.0.2.1").await, 0, "{limit}");
        assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 3, "{limit}");
    }
}

#[tokio::test]
async fn a_scope_that_no_caller_can_have_does_not_open() {
    let plans = plans("1/s per client");
    let service = "[store]\nkind = \"memory\"\n[identify]\n";
    let service = service.replace("[identify]", "[[identify]]\nclaim = \"org\"");
    let error = GateBuilder::from_text(&service).plans(&plans).open().await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("no caller has a `client`"), "{error}");
    assert!(error.contains("Caller::scope(\"client\""), "{error}");
    // Code may supply it.
    gate_where("tenant", &plans).await.unwrap();
}

#[tokio::test]
async fn a_rate_by_address_holds_for_each_address_within_its_tenant() {
    let (gate, _clock, _plans) = gate(&plans("3/min per ip")).await;
    assert_eq!(admitted(&gate, ("x-user", "one"), "192.0.2.1").await, 3);
    assert_eq!(admitted(&gate, ("x-user", "two"), "192.0.2.1").await, 0);
    assert_eq!(admitted(&gate, ("x-user", "two"), "192.0.2.2").await, 3);
    assert_eq!(admitted(&gate, ("x-tenant", "other"), "192.0.2.1").await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_not_full_is_not_forgotten() {
    let (gate, clock, _plans) = gate(&plans("10/h per user")).await;
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 10);
    for minutes in [11, 21, 31] {
        clock.advance(Duration::from_secs(60 * 10 + 1));
        // Paused time, as long as sweeps take.
        tokio::time::sleep(Duration::from_secs(300)).await;
        let again = admitted(&gate, ("x-user", "ann"), "192.0.2.1").await;
        assert!((1..=2).contains(&again), "one in six minutes; {again} after {minutes}");
    }
}

#[tokio::test]
async fn a_changed_rate_gives_nobody_a_new_burst() {
    let (gate, clock, file) = gate(&plans("5/h per user")).await;
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 5);
    file.set(&plans("8/h per user"));
    assert!(gate.reload().await.unwrap());
    // Five of eight are gone now.
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 3);
    assert_eq!(admitted(&gate, ("x-user", "bob"), "192.0.2.1").await, 8);
    file.set(&plans("5/h per user"));
    assert!(gate.reload().await.unwrap());
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 0, "eight of five are gone");
    clock.advance(Duration::from_secs(3_600 * 3 / 5));
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 0);
    clock.advance(Duration::from_secs(3_600 / 5));
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 1);
}

#[tokio::test]
async fn what_another_rate_refuses_costs_nothing_of_a_users() {
    let rates = "rate.default = [\"3/h per user\", \"2/min\"]";
    let plans = format!("default-plan = \"free\"\n[plan.free]\n{rates}\n");
    let (gate, clock, _plans) = gate(&plans).await;
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 2);
    clock.advance(Duration::from_secs(60));
    assert_eq!(admitted(&gate, ("x-user", "ann"), "192.0.2.1").await, 1, "the third of three");
}

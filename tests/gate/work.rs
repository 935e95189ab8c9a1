//! Work that is no HTTP request: on whose behalf it is, and what it comes to.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use tallygate::identity::{Caller, Identify, Identity, RequestView};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::testing::{self, START_MS};
use tallygate::{Admitted, Ask, Gate, GateBuilder, ManualClock, TenantHandle};
use tower::{Layer, ServiceExt};

/// Limits by every scope: rates for all, for one route and for those without their own; quotas.
const PLANS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [route.scan]
    match = "POST /scan"
    cost  = { requests = 2, pages = 3 }
    [route.chat]
    match = "POST /chat"
    [route.export]
    match = "POST /export"
    needs = "exports"
    [plan.free]
    rate.default = "6/min per key"
    rate.all = ["9/min per user", "12/min per ip"]
    rate.scan = "2/min burst 3"
    quota.requests = ["40/hour per user", "11/hour per project", "150/day"]
    quota.pages = ["20/hour per key", "30/hour per ip"]
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

/// Names of callers' own headers, and who a caller is by them.
const HEADERS: [&str; 3] = ["x-key", "x-user", "x-project"];

struct ByHeaders;

impl Identify for ByHeaders {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let text = |name| view.header(name).and_then(|v| std::str::from_utf8(v).ok());
        let mut caller = Caller::new("acme");
        caller = text("x-key").into_iter().fold(caller, Caller::key);
        caller = text("x-user").into_iter().fold(caller, Caller::user);
        caller = text("x-project").into_iter().fold(caller, |c, value| c.scope("project", value));
        Identity::Tenant(caller)
    }
}

/// One thing that a caller does, and how long nothing happens after it.
#[derive(Clone, Debug)]
struct Done {
    op: &'static str,
    /// As [`HEADERS`].
    caller: [Option<&'static str>; 3],
    address: Option<IpAddr>,
    ends_well: bool,
    pause_s: u64,
}

fn done() -> impl Strategy<Value = Done> {
    let name = || prop::option::of(prop::sample::select(vec!["one", "two"]));
    let address = prop::option::of(prop::sample::select(vec!["192.0.2.1", "2001:db8::1"]));
    let op = prop::sample::select(vec!["scan", "chat", "chat", "chat", "export", "else"]);
    let caller = [name(), name(), name()];
    (op, caller, address, prop::bool::weighted(0.9), prop::sample::select(vec![0, 0, 0, 7, 700]))
        .prop_filter("it is on some caller's behalf", |(_, caller, address, ..)| {
            address.is_some() || caller.iter().any(Option::is_some)
        })
        .prop_map(|(op, caller, address, ends_well, pause_s)| {
            let address = address.map(|text| text.parse().unwrap());
            Done { op, caller, address, ends_well, pause_s }
        })
}

async fn gate(no_scope: &str) -> (Gate, ManualClock) {
    let service = format!(
        "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[identity]\n\
         unknown = \"create\"\nno-scope = {no_scope:?}\n"
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let builder = GateBuilder::from_text(&service).plans(PLANS).identify(ByHeaders);
    (builder.clock(clock.clone()).open().await.unwrap(), clock)
}

/// The refusal of a request, as its status and body.
async fn by_request(gate: &Gate, done: &Done) -> Option<(u16, Vec<u8>)> {
    let mut request = Request::post(format!("/{}", done.op)).body(Empty::<Bytes>::new()).unwrap();
    for (name, value) in HEADERS.into_iter().zip(done.caller) {
        value.map(|value| request.headers_mut().insert(name, value.parse().unwrap()));
    }
    let peer = done.address.map(|ip| Peer(SocketAddr::new(ip, 1)));
    peer.map(|peer| request.extensions_mut().insert(peer));
    let status = if done.ends_well { 200 } else { 500 };
    let inner = tower::service_fn(|_| async move {
        let answer = Response::builder().status(status).body(Empty::<Bytes>::new());
        Ok::<_, Infallible>(answer.unwrap())
    });
    let response = GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap();
    let answered = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (answered != status).then(|| (answered, body.to_vec()))
}

/// The same for work on behalf of the same caller.
async fn by_work(gate: &Gate, acme: &TenantHandle, done: &Done) -> Option<(u16, Vec<u8>)> {
    let [key, user, project] = done.caller;
    let mut ask = Ask::new(acme, done.op);
    if done.op == "else" {
        ask = ask.cost("requests", 1); // as a request on no route
    }
    ask = key.into_iter().fold(ask, Ask::key);
    ask = user.into_iter().fold(ask, Ask::user);
    ask = project.into_iter().fold(ask, |ask, value| ask.scope("project", value));
    ask = done.address.into_iter().fold(ask, Ask::address);
    match gate.admit(ask).await {
        Ok(permit) if done.ends_well => permit.settle(),
        Ok(permit) => drop(permit),
        Err(refusal) => {
            assert_eq!(refusal.key.as_deref(), key);
            assert_eq!(refusal.user.as_deref(), user);
            let reply = gate.refusal_reply(&refusal);
            return Some((reply.status, reply.body.to_vec()));
        }
    }
    None
}

async fn used(gate: &Gate) -> Vec<(u64, u64)> {
    let report = gate.usage_report(&testing::identified(gate, "acme").await).await.unwrap();
    report.meters.iter().map(|meter| (meter.used.whole(), meter.over.whole())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn work_on_a_callers_behalf_is_decided_as_its_request_is(
        all in prop::collection::vec(done(), 1..120),
        no_scope in prop::sample::select(vec!["tenant", "refuse", "skip"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((one, at_one), (other, at_other)) = (gate(no_scope).await, gate(no_scope).await);
            let acme = other.tenant("acme").await.unwrap();
            for done in &all {
                let asked = by_request(&one, done).await;
                let worked = by_work(&other, &acme, done).await;
                let text = |it: Option<(u16, Vec<u8>)>| {
                    it.map(|(status, body)| (status, String::from_utf8(body).unwrap()))
                };
                assert_eq!(text(asked), text(worked), "{done:?}");
                at_one.advance(Duration::from_secs(done.pause_s));
                at_other.advance(Duration::from_secs(done.pause_s));
            }
            assert_eq!(used(&one).await, used(&other).await);
        });
    }
}

#[tokio::test]
async fn work_of_no_caller_is_under_no_limit_within_the_tenant() {
    for no_scope in ["tenant", "refuse", "skip"] {
        let (gate, _clock) = gate(no_scope).await;
        let acme = gate.tenant("acme").await.unwrap();
        for _ in 0..100 {
            gate.admit(Ask::new(&acme, "chat")).await.unwrap().settle();
        }
    }
}

#[tokio::test]
async fn work_and_requests_of_a_caller_draw_on_one_limit() {
    let (gate, _clock) = gate("skip").await;
    let acme = gate.tenant("acme").await.unwrap();
    let (caller, address) = ([Some("one"), None, None], None);
    let done = Done { op: "chat", caller, address, ends_well: true, pause_s: 0 };
    for _ in 0..3 {
        assert_eq!(by_request(&gate, &done).await, None);
        assert_eq!(by_work(&gate, &acme, &done).await, None);
    }
    assert_eq!(by_request(&gate, &done).await.map(|(status, _)| status), Some(429));
    assert_eq!(by_work(&gate, &acme, &done).await.map(|(status, _)| status), Some(429));
}

/// A cost and a reported meter, both parts of a sum; a plan on which failed work is free, as it is
/// by default, and one on which it is not.
const TRUTHS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.tokens]
    count = "reported"
    [meter.credits]
    sum = { pages = "2", tokens = "2" }
    [plan.free]
    concurrency = 1
    quota.pages = "1000/day"
    quota.tokens = "1000/day"
    quota.credits = "2000/day"
    [plan.strict]
    extends = "free"
    charge-on = ["2xx", "4xx", "5xx"]
"#;

/// Used units of a meter, those that are set aside, and its late use that nothing paid.
async fn standing(gate: &Gate, tenant: &str, meter: &str) -> (u64, u64, u64) {
    let report = gate.usage_report(&testing::identified(gate, tenant).await).await.unwrap();
    let meter = report.meters.into_iter().find(|of| &*of.name == meter).unwrap();
    let debt = meter.limits.first().map_or(0, |limit| limit.debt.whole());
    (meter.used.whole(), meter.held.whole(), debt)
}

#[tokio::test]
async fn the_true_amount_replaces_the_estimate() {
    for meter in ["pages", "tokens"] {
        let all = [(1_000, 812), (100, 812), (812, 812), (500, 0), (0, 700), (900, 1_200)];
        for (estimate, truth) in all {
            let (gate, _clock) = testing::gate(TRUTHS);
            let acme = gate.tenant("acme").await.unwrap();
            let ask = |n| Ask::new(&acme, "work").cost(meter, n);
            gate.admit(ask(estimate)).await.unwrap().settle_with(meter, truth);
            let owed = u64::saturating_sub(truth, 1_000);
            let said = format!("{meter}: {estimate}, really {truth}");
            assert_eq!(standing(&gate, "acme", meter).await, (truth, 0, owed), "{said}");
            let credits = (2 * truth, 0, 2 * owed);
            assert_eq!(standing(&gate, "acme", "credits").await, credits, "{said}");
            let left = u64::saturating_sub(1_000, truth);
            assert!(gate.admit(ask(left + 1)).await.is_err(), "{said}");
            if owed == 0 {
                gate.admit(ask(left)).await.expect(&said).settle();
            }
        }
    }
}

#[tokio::test]
async fn what_was_reported_meanwhile_is_part_of_the_true_amount() {
    let (gate, _clock) = testing::gate(TRUTHS);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = || Ask::new(&acme, "work").cost("tokens", 100).cost("pages", 5);
    let mut expected = 0;
    for (reported, truth) in [(60, 80), (60, 140), (120, 80)] {
        let permit = gate.admit(ask()).await.unwrap();
        permit.usage().add("tokens", reported);
        permit.settle_with("tokens", truth);
        expected += u64::max(reported, truth); // what was used is
        assert_eq!(standing(&gate, "acme", "tokens").await, (expected, 0, 0));
    }
    assert_eq!(standing(&gate, "acme", "pages").await, (15, 0, 0), "a cost as it was asked");

    // Without a number at the end it is what was reported, else the estimate.
    for (reported, used) in [(30, 30), (130, 130), (0, 100)] {
        let permit = gate.admit(ask()).await.unwrap();
        permit.usage().add("tokens", reported);
        permit.settle();
        expected += used;
        assert_eq!(standing(&gate, "acme", "tokens").await, (expected, 0, 0));
    }
}

#[tokio::test]
async fn work_takes_units_before_it_spends_them() {
    let (gate, _clock) = testing::gate(TRUTHS);
    let acme = gate.tenant("acme").await.unwrap();
    let permit = gate.admit(Ask::new(&acme, "work").cost("tokens", 100)).await.unwrap();
    let usage = permit.usage();
    assert_eq!((&**usage.tenant(), &*usage.plan().name), ("acme", "free"));
    usage.take("tokens", 600).await.unwrap();
    assert_eq!(standing(&gate, "acme", "tokens").await, (0, 600, 0));
    assert!(usage.take("tokens", 401).await.is_err());
    usage.add("tokens", 550);
    assert_eq!(standing(&gate, "acme", "tokens").await, (550, 50, 0));
    permit.settle();
    assert_eq!(standing(&gate, "acme", "tokens").await, (550, 0, 0));
    usage.add("tokens", 7);
    assert_eq!(standing(&gate, "acme", "tokens").await, (557, 0, 0), "late, and counted");
    assert_eq!(acme.in_flight(), Some(0), "the work is over, though the handle is kept");
}

#[tokio::test]
async fn a_dropped_permit_is_failed_work() {
    for (plan, charged) in [("free", false), ("strict", true)] {
        let (gate, _clock) = testing::gate(TRUTHS);
        gate.directory().tenant("acme").plan(plan).note("test").save().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let ask = || Ask::new(&acme, "work").cost("tokens", 100).cost("pages", 5);
        drop(gate.admit(ask()).await.unwrap());
        let (tokens, pages) = if charged { (100, 5) } else { (0, 0) };
        assert_eq!(standing(&gate, "acme", "tokens").await, (tokens, 0, 0), "{plan}");
        assert_eq!(standing(&gate, "acme", "pages").await, (pages, 0, 0), "{plan}");

        // A task that is aborted, and one that panics, have reported what they have.
        for reported in [30, 40] {
            let permit = gate.admit(ask()).await.unwrap();
            let task = tokio::spawn(async move {
                permit.usage().add("tokens", reported);
                assert_eq!(reported, 30, "this one fails");
                std::future::pending::<()>().await;
                permit.settle();
            });
            tokio::task::yield_now().await;
            task.abort();
            task.await.unwrap_err();
        }
        assert_eq!(standing(&gate, "acme", "tokens").await, (tokens + 70, 0, 0), "{plan}");
        assert_eq!(standing(&gate, "acme", "pages").await, (3 * pages, 0, 0), "{plan}");
        assert_eq!(acme.in_flight(), Some(0));
    }
}

/// Its route's requests have bodies, 64 KB of which are held in advance; it has none.
#[tokio::test]
async fn work_on_a_route_holds_nothing_for_bodies() {
    const PLANS: &str = r#"
        default-plan = "free"
        [meter.uploaded]
        count = "request-bytes"
        [meter.served]
        count = "response-bytes"
        [route.convert]
        match = "POST /convert"
        cost  = { requests = 2 }
        [route.status]
        match = "GET /status"
        free  = true
        [plan.free]
        quota.requests = "100/day"
        quota.uploaded = "100KB/day"
        quota.served   = "100KB/day"
    "#;
    let (gate, _clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let by_route = || Ask::new(&acme, "convert");
    let mut open = Vec::new();
    for ask in [by_route(), by_route(), by_route().cost("requests", 3), Ask::new(&acme, "status")] {
        open.push(gate.admit(ask).await.unwrap());
        for meter in ["uploaded", "served"] {
            assert_eq!(standing(&gate, "acme", meter).await, (0, 0, 0));
        }
    }
    // What the job itself moves, it says.
    open[0].usage().take("served", 100_000).await.unwrap();
    open[0].usage().add("served", 100_000);
    assert!(open[1].usage().take("served", 1).await.is_err());
    open.into_iter().for_each(tallygate::Permit::settle);
    assert_eq!(standing(&gate, "acme", "requests").await.0, 2 + 2 + 3);
    assert_eq!(standing(&gate, "acme", "uploaded").await.0, 0);
    assert_eq!(standing(&gate, "acme", "served").await.0, 100_000);
}

/// A worker beside an API whose secrets it does not have, and whose scopes come of its code.
#[tokio::test]
async fn a_worker_opens_the_service_file_of_the_api() {
    const SERVICE: &str = r#"
        [store]
        kind = "memory"
        [[identify]]
        api-key = ["authorization"]
        pepper  = [{ id = "1", env = "TALLYGATE_NOT_SET_HERE" }]
        [[identify]]
        [identify.jwt]
        issuer   = "https://id.example"
        audience = "api"
        tenant   = "org"
        secret   = { env = "TALLYGATE_NOT_SET_HERE" }
        [ingest]
        token = { env = "TALLYGATE_NOT_SET_HERE" }
    "#;
    const PLANS: &str = r#"
        default-plan = "free"
        [meter.pages]
        [plan.free]
        quota.pages = "2/day per project"
        rate.all    = "100/s per ip"
    "#;
    let builder = || GateBuilder::from_text(SERVICE).plans(PLANS);
    for plans in [PLANS, "default-plan = \"free\"\n[plan.free]\n"] {
        let error = builder().plans(plans).open().await.unwrap_err();
        assert!(error.to_string().contains("GateBuilder::work_only"), "{error}");
    }

    let gate = builder().work_only().open().await.unwrap();
    gate.directory().tenant("acme").save().await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |project: &str| Ask::new(&acme, "scan").cost("pages", 2).scope("project", project);
    for (project, fits) in [("7", true), ("8", true), ("7", false)] {
        let admitted = gate.admit(ask(project)).await.map(tallygate::Permit::settle);
        assert_eq!(admitted.is_ok(), fits, "{project}");
    }
    let handler = tower::service_fn(async |_: Request<Empty<Bytes>>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let request = Request::get("/scan").header("authorization", "Bearer key");
    let request = request.body(Empty::new()).unwrap();
    let answer = GateLayer::new(&gate).layer(handler).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 401, "a request has no caller here");
    gate.close().await.unwrap();
}

/// What a request leaves to do is of its caller: the same limits as for work that names them all.
#[tokio::test]
async fn what_a_request_leaves_to_do_is_on_behalf_of_its_caller() {
    for (limited, named) in [("pages", true), ("pages", false), ("requests", true)] {
        let (gate, _clock) = gate("tenant").await;
        let acme = gate.tenant("acme").await.unwrap();
        let handler = tower::service_fn(async |request: Request<Empty<Bytes>>| {
            let admitted = request.extensions().get::<Admitted>().unwrap();
            assert_eq!(admitted.user().as_deref(), Some("ann"));
            assert_eq!(admitted.key().as_deref(), Some("k1"));
            let answer = Response::builder().extension(admitted.ask("work"));
            Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
        });
        let mut request = Request::post("/chat").body(Empty::<Bytes>::new()).unwrap();
        for (name, value) in HEADERS.into_iter().zip(["k1", "ann", "7"]) {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let address: IpAddr = [10, 0, 0, 1].into();
        request.extensions_mut().insert(Peer(SocketAddr::new(address, 1)));
        let answer = GateLayer::new(&gate).layer(handler).oneshot(request).await.unwrap();
        let left = answer.extensions().get::<Ask>().unwrap().clone();
        let told = Ask::new(&acme, "work").key("k1").user("ann").scope("project", "7");
        let asks = [left, told.address(address)];
        let first = asks[usize::from(named)].clone().cost(limited, 10);
        gate.admit(first).await.unwrap().settle();
        // 20 pages an hour for the key, and 11 requests for the project, one of which was made.
        let [left, told] =
            asks.map(|ask| ask.cost(limited, if limited == "pages" { 11 } else { 1 }));
        let by_left = gate.admit(left.clone()).await.unwrap_err();
        let by_told = gate.admit(told).await.unwrap_err();
        assert_eq!(gate.refusal_problem(&by_left), gate.refusal_problem(&by_told));
        assert_eq!((by_left.user.as_deref(), by_left.key.as_deref()), (Some("ann"), Some("k1")));
        // Another project, user and key of the same address.
        let other = left.key("k2").user("bob").scope("project", "8");
        gate.admit(other).await.unwrap().settle();
    }
}

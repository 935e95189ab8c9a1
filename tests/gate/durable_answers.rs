//! In mode `durable`, answers come once their cost is recorded. So does their end, whether bytes
//! were counted, usage was reported, or the request is charged only at its end. The inner body is
//! not polled again meanwhile.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tallygate::middleware::GateLayer;
use tallygate::store::{Memory, Store};
use tallygate::testing::Faulty;
use tallygate::{Admitted, GateBuilder, Usage};
use test_support::gates::service;
use test_support::stores::Shared;
use tower::{Layer, ServiceExt, service_fn};

/// Response bytes are charged.
const BYTES: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [plan.free]
    quota.egress = "1MB/day"
"#;

/// The request is charged, unless the client disconnects.
const WHOLE: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "100/day"
    charge-on = ["2xx"]
"#;

/// Tokens that the handler reports are charged.
const TOKENS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "100"
    [plan.free]
    quota.tokens = "1M/day"
"#;

/// So are reports on a meter that no request is expected to report.
const COSTS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    [plan.free]
    quota.tokens = "1M/day"
"#;

/// The end releases the hold, and records nothing.
const IN_FLIGHT: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "100/day"
    concurrency = 3
"#;

/// Frames of four bytes, each of which may report tokens. Panics if polled after its end, as a body
/// may.
struct Frames {
    left: u32,
    states_its_length: bool,
    has_ended: bool,
    reports: Option<Usage>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(!self.has_ended, "asked after its end");
        self.has_ended = self.left == 0;
        let next = self.left.checked_sub(1);
        self.left = next.unwrap_or(0);
        if let Some(usage) = self.reports.as_ref().filter(|_| !self.has_ended) {
            usage.add("tokens", 7);
        }
        Poll::Ready(next.map(|_| Ok(Frame::data(Bytes::from_static(b"four")))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.states_its_length {
            true => SizeHint::with_exact(u64::from(self.left) * 4),
            false => SizeHint::default(),
        }
    }
}

async fn gated(plans: &str) -> (GateLayer, Faulty) {
    gated_by(plans, Memory::new()).await
}

async fn gated_by(plans: &str, store: impl Store) -> (GateLayer, Faulty) {
    let store = Faulty::scripted(store, []);
    let builder = GateBuilder::from_text(&service("durable")).plans(plans).store(store.clone());
    let gate = builder.open().await.unwrap();
    let layer = GateLayer::new(&gate).peer_from(|_| Some(IpAddr::from([127, 0, 0, 1])));
    (layer, store)
}

fn request() -> Request<Empty<Bytes>> {
    asked("acme", "/")
}

fn asked(tenant: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header("x-tenant", tenant).body(Empty::new()).unwrap()
}

/// Progress of a body of three frames while the store is away.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// This many frames before it waits, and this many once the store is back.
    Frames(u32, u32),
    /// All frames, and the end.
    Everything,
}

async fn while_the_store_is_away(plans: &str, states_its_length: bool) -> Came {
    let (layer, store) = gated(plans).await;
    let reports = plans.contains("tokens");
    let handler = service_fn(async |request: Request<Empty<Bytes>>| {
        let reports = reports.then(|| request.extensions().get::<Admitted>().unwrap().usage());
        let body = Frames { left: 3, states_its_length, has_ended: false, reports };
        Ok::<_, Infallible>(Response::new(body))
    });
    let mut body = layer.layer(handler).oneshot(request()).await.unwrap().into_body();

    store.outage(true);
    let (mut before, mut after) = (0, 0);
    let patience = Duration::from_millis(100);
    while let Ok(frame) = tokio::time::timeout(patience, body.frame()).await {
        let Some(frame) = frame else { return Came::Everything };
        frame.unwrap();
        before += 1;
    }
    store.outage(false);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
        after += 1;
    }
    Came::Frames(before, after)
}

#[tokio::test]
async fn the_last_frame_waits_for_the_record_where_the_length_is_known() {
    for plans in [BYTES, WHOLE, TOKENS, COSTS] {
        assert_eq!(while_the_store_is_away(plans, true).await, Came::Frames(2, 1), "{plans}");
    }
}

#[tokio::test]
async fn the_end_waits_for_the_record_where_nothing_told_of_it_before() {
    for plans in [BYTES, WHOLE, TOKENS, COSTS] {
        assert_eq!(while_the_store_is_away(plans, false).await, Came::Frames(3, 0), "{plans}");
    }
}

#[tokio::test]
async fn an_end_that_records_nothing_is_not_waited_for() {
    for states_its_length in [true, false] {
        assert_eq!(while_the_store_is_away(IN_FLIGHT, states_its_length).await, Came::Everything);
    }
}

#[tokio::test]
async fn an_error_of_the_handler_waits_for_the_record_of_what_it_cost() {
    let plans = format!("{BYTES}\n    charge-on = [\"5xx\"]");
    let (layer, store) = gated(&plans).await;
    let away = store.clone();
    let handler = service_fn(move |_: Request<Empty<Bytes>>| {
        away.outage(true);
        std::future::ready(Err::<Response<Empty<Bytes>>, _>(std::io::Error::other("broken")))
    });
    let mut answer = std::pin::pin!(layer.layer(handler).oneshot(request()));
    let patience = Duration::from_millis(100);
    let early = tokio::time::timeout(patience, answer.as_mut()).await;
    assert!(early.is_err(), "a layer outside makes an answer of it");
    store.outage(false);
    assert_eq!(answer.await.unwrap_err().to_string(), "broken");
}

/// Requests that cost nothing, each for a different reason.
const COSTLESS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [route.me]
    match = "GET /me"
    free = true
    [route.unused]
    match = "GET /unused"
    cost = { requests = 0 }
    [plan.free]
    quota.requests = "100/day"
    quota.tokens = "1M/day"
    charge-on = ["2xx"]
"#;

#[tokio::test]
async fn what_costs_nothing_is_answered_while_what_costs_waits_for_its_record() {
    let (layer, store) = gated(COSTLESS).await;
    let handler = service_fn(async |request: Request<Empty<Bytes>>| {
        if request.uri().query() == Some("reports") {
            request.extensions().get::<Admitted>().unwrap().usage().add("tokens", 7);
        }
        let status = if request.uri().path() == "/missing" { 404 } else { 200 };
        let body = Frames { left: 1, states_its_length: true, has_ended: false, reports: None };
        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
    });
    let service = layer.layer(handler);
    let answer = async |tenant, path| {
        let response = service.clone().oneshot(asked(tenant, path)).await.unwrap();
        response.into_body().collect().await.unwrap()
    };
    for tenant in ["acme", "eve"] {
        answer(tenant, "/").await; // both have units to serve from
    }
    store.outage(true);
    let patience = Duration::from_millis(100);
    let mut waits = std::pin::pin!(answer("acme", "/"));
    let early = tokio::time::timeout(patience, waits.as_mut()).await;
    assert!(early.is_err(), "what it cost is not on record");
    for (tenant, path) in
        ["acme", "eve"].into_iter().flat_map(|it| ["/me", "/unused", "/missing"].map(|p| (it, p)))
    {
        let soon = tokio::time::timeout(patience, answer(tenant, path)).await;
        assert!(soon.is_ok(), "{path} of {tenant} waits for what another cost");
    }
    for path in ["/me?reports", "/unused?reports", "/missing?reports"] {
        let early = tokio::time::timeout(patience, answer("eve", path)).await;
        assert!(early.is_err(), "{path}: what it reported is not on record");
    }
    store.outage(false);
    waits.await;
}

#[tokio::test]
async fn what_costs_nothing_but_a_call_of_a_strict_rate_is_answered_at_once() {
    let rate = "rate.default = { limit = \"100/min\", strict = true }";
    let (layer, store) =
        gated_by(&format!("{COSTLESS}\n    {rate}\n"), Shared(Memory::new())).await;
    let handler = service_fn(async |request: Request<Empty<Bytes>>| {
        let status = if request.uri().path() == "/missing" { 404 } else { 200 };
        let body = Frames { left: 1, states_its_length: true, has_ended: false, reports: None };
        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
    });
    let service = layer.layer(handler);
    let answer = async |path| {
        let response = service.clone().oneshot(asked("acme", path)).await.unwrap();
        response.into_body().collect().await.unwrap()
    };
    answer("/").await; // there are units to serve from
    store.outage(true);
    let patience = Duration::from_millis(100);
    let mut waits = std::pin::pin!(answer("/"));
    let early = tokio::time::timeout(patience, &mut waits).await;
    assert!(early.is_err(), "what it cost is not on record");
    for path in ["/missing", "/unused"] {
        let soon = tokio::time::timeout(patience, answer(path)).await;
        assert!(soon.is_ok(), "{path} waits for no record");
    }
}

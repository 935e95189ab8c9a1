//! Allocations of an admitted request beyond the inner service: exact numbers, so that a single
//! additional one is noticed.
//!
//! Counted on the request's thread only; allocations of the gate's own tasks do not belong to a
//! request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tallygate::middleware::GateLayer;
use tallygate::testing::{START_MS, leases_at_rest};
use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate::{Gate, GateBuilder, ManualClock};
use test_support::gates;
use tower_layer::Layer;
use tower_service::Service;

const PLANS: &str = r#"
    default-plan = "team"
    [plan.team]
    rate.default   = "1M/s"
    quota.requests = "1000M/month"
"#;

/// A service that allocates nothing.
#[derive(Clone)]
struct Bare;

struct Found(Option<Bytes>);

impl Service<Request<Found>> for Bare {
    type Response = Response<Found>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Found>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Found>) -> Self::Future {
        let found = Found(Some(Bytes::from_static(b"found")));
        std::future::ready(Ok(Response::new(found)))
    }
}

impl Body for Found {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

async fn gate(style: HeaderStyle) -> Gate {
    let wire = WireOptions { style, ..WireOptions::default() };
    let service = gates::service("fast") + "every = \"5s\"\n";
    let gate = GateBuilder::from_text(&service).plans(PLANS).wire(wire);
    gate.open().await.unwrap()
}

fn request(has_extensions: bool) -> Request<Found> {
    let mut request =
        Request::get("/v1/search").header("x-tenant", "acme").body(Found(None)).unwrap();
    if has_extensions {
        request.extensions_mut().insert(7_u8);
    }
    request
}

/// Allocations of one request from the layer to the end of its body, after many before it.
async fn allocations(gate: &Gate, layer: GateLayer, has_extensions: bool) -> u64 {
    allocations_of(gate, layer, || request(has_extensions)).await
}

async fn allocations_of(
    gate: &Gate,
    layer: GateLayer,
    request: impl Fn() -> Request<Found>,
) -> u64 {
    let layer = layer.peer_from(|_| Some([127, 0, 0, 1].into()));
    let mut service = layer.layer(Bare);
    for _ in 0..300 {
        let response = service.call(request()).await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::task::yield_now().await; // the renewer renews the lease
    }
    let mut least = u64::MAX;
    // A flush may come between: the sheet is passed to it once, in a list that may grow.
    for _ in 0..3 {
        gate.flush_now().await.unwrap(); // its ceilings are raised
        leases_at_rest(gate).await;
        let request = request();
        let counted = allocation_counter::measure(|| {
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(cx) else {
                panic!("an admitted request does not wait");
            };
            let mut body = pin!(response.into_body());
            while !body.is_end_stream() {
                assert!(body.as_mut().poll_frame(cx).is_ready());
            }
        });
        least = least.min(counted.count_total);
    }
    least
}

#[tokio::test]
async fn an_admitted_request_allocates_nothing_without_headers_and_extractors() {
    let gate = gate(HeaderStyle::Off).await;
    let layer = GateLayer::new(&gate).without_extensions();
    assert_eq!(allocations(&gate, layer, true).await, 0);
}

#[tokio::test]
async fn a_handle_for_extractors_is_one_allocation_and_the_map_of_extensions() {
    let gate = gate(HeaderStyle::Off).await;
    assert_eq!(allocations(&gate, GateLayer::new(&gate), true).await, 1);
    assert_eq!(allocations(&gate, GateLayer::new(&gate), false).await, 3);
}

#[tokio::test]
async fn headers_are_one_allocation_and_the_growth_of_the_header_map() {
    let gate = gate(HeaderStyle::Draft11).await;
    let layer = GateLayer::new(&gate).without_extensions();
    assert_eq!(allocations(&gate, layer, true).await, 1 + growth_of_the_header_map());
}

/// Allocations of two headers in an empty header map, measured rather than assumed.
fn growth_of_the_header_map() -> u64 {
    let growth = allocation_counter::measure(|| {
        let mut map = http::HeaderMap::new();
        for name in ["ratelimit", "ratelimit-policy"] {
            let value = http::HeaderValue::from_static("a");
            map.insert(http::HeaderName::from_static(name), value);
        }
    });
    growth.count_total
}

/// The example's own plans and identification: limits by key beside the tenant's, a budget of bytes
/// taken while the body streams, a limit on concurrent requests. The clock moves, so that no rate
/// is reached.
#[tokio::test]
async fn the_plans_of_the_example_allocate_as_little() {
    let dir = tempfile::tempdir().unwrap();
    let pepper = dir.path().join("pepper");
    std::fs::write(&pepper, "no secret in a test, but 32 bytes").unwrap();
    let service = format!(
        r#"
        [store]
        kind = "memory"
        [[identify]]
        api-key = ["authorization", "x-api-key"]
        pepper = [{{ id = "1", file = {pepper:?} }}]
        [flush]
        mode = "journal"
        journal-path = {journal:?}
        "#,
        journal = dir.path().join("journal"),
    );
    let plans = include_str!("../../examples/axum-api/plans.toml");
    for (style, extractors, most) in [
        (HeaderStyle::Off, false, 0),
        (HeaderStyle::Off, true, 1),
        (HeaderStyle::Draft11, false, 1),
    ] {
        let wire = WireOptions { style, ..WireOptions::default() };
        let clock = ManualClock::at_unix_ms(START_MS);
        let gate = GateBuilder::from_text(&service).plans(plans).wire(wire).clock(clock.clone());
        let gate = gate.open().await.unwrap();
        let acme = gate.directory().tenant("acme").plan("team").save().await.unwrap();
        let key = format!("Bearer {}", acme.new_key("ci").await.unwrap().expose());
        let request = || {
            clock.advance(Duration::from_millis(100));
            let request = Request::get("/v1/search?q=a").header("authorization", &key);
            let mut request = request.body(Found(None)).unwrap();
            request.extensions_mut().insert(7_u8);
            request
        };
        let layer = GateLayer::new(&gate);
        let layer = if extractors { layer } else { layer.without_extensions() };
        let growth = if style == HeaderStyle::Off { 0 } else { growth_of_the_header_map() };
        assert_eq!(
            allocations_of(&gate, layer, request).await,
            most + growth,
            "{style:?} {extractors}"
        );
        gate.close().await.unwrap();
    }
}

//! The gate's allocations in this program, beyond what axum itself does for any layer. Counted on
//! the request's thread, to the end of its body.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate::{GateBuilder, ManualClock};
use tallygate_axum::GateLayer;
use tower::Service;
use tower::util::MapResponseLayer;

/// 2026-03-17 12:00 UTC.
const NOON_MS: i64 = 1_773_748_800_000;

#[tokio::test]
async fn the_gate_allocates_in_this_program_what_it_says() {
    let bare = least(bare(), &|| request("nobody", &ManualClock::at_unix_ms(NOON_MS))).await;
    for (style, extractors, most) in [
        (HeaderStyle::Off, false, 0),
        (HeaderStyle::Off, true, 1 + growth_of_the_extensions()),
        (HeaderStyle::Draft11, false, 1 + growth_of_the_header_map()),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let wire = WireOptions { style, ..WireOptions::default() };
        let clock = ManualClock::at_unix_ms(NOON_MS);
        let builder = GateBuilder::from_text(&service_file(dir.path()))
            .plans(include_str!("../plans.toml"))
            .wire(wire)
            .clock(clock.clone());
        let gate = builder.open().await.expect("the plans of the example");
        let acme = gate.directory().tenant("acme").plan("team").save().await.expect("a tenant");
        let key = acme.new_key("ci").await.expect("a key").expose().to_owned();
        let layer = GateLayer::new(&gate);
        let layer = if extractors { layer } else { layer.without_extensions() };
        let own = least(crate::routes().layer(layer), &|| request(&key, &clock)).await;
        assert_eq!(own - bare, most, "{style:?}, extractors: {extractors}");
        gate.close().await.expect("everything counted is written");
    }
}

/// The same routes behind a layer that has a field and does nothing: axum boxes every such layer,
/// and the response that it returns.
fn bare() -> Router {
    let field = Arc::new(());
    let same = move |response: Response| {
        let _ = &field;
        response.map(|body| BodyExt::map_err(body, |error| error))
    };
    crate::routes().layer(MapResponseLayer::new(same))
}

fn service_file(dir: &std::path::Path) -> String {
    let pepper = dir.join("pepper");
    std::fs::write(&pepper, "no secret in a test, but 32 bytes").expect("a file");
    format!(
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
        journal = dir.join("journal"),
    )
}

/// A request for a streamed, metered response. Advances the clock, so that no rate is reached.
fn request(key: &str, clock: &ManualClock) -> Request<Body> {
    clock.advance(Duration::from_millis(200));
    let request =
        Request::get("/v1/stream?chunks=3").header("authorization", format!("Bearer {key}"));
    request.body(Body::empty()).expect("a request")
}

/// Allocations of one request after many others: the minimum of several, because a lease may be
/// renewed or a flush begin during any of them.
async fn least(mut app: Router, request: &dyn Fn() -> Request<Body>) -> u64 {
    for _ in 0..300 {
        let response = app.call(request()).await.expect("no error but a response");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("its end");
        assert_eq!(body.to_bytes().len(), 3_000);
        tokio::task::yield_now().await; // leases are renewed
    }
    let mut least = u64::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let (mut ended, request) = (false, request());
        let counted = allocation_counter::measure(|| ended = runs_to_its_end(&mut app, request));
        if ended {
            least = least.min(counted.count_total);
        }
    }
    assert_ne!(least, u64::MAX, "most requests do not wait for a lease");
    least
}

/// Returns false if the request waits for a lease.
fn runs_to_its_end(app: &mut Router, request: Request<Body>) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(app.call(request)).poll(cx) else { return false };
    let mut body = pin!(response.into_body());
    loop {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(frame)) => assert!(frame.is_ok(), "a line"),
            Poll::Ready(None) => return true,
            Poll::Pending => return false,
        }
    }
}

/// Allocations of one more entry in the extensions map: axum has filled it with three of its own.
fn growth_of_the_extensions() -> u64 {
    let mut map = Extensions::new();
    map.insert(0_u8);
    map.insert(0_u16);
    map.insert(0_u32);
    let counted = allocation_counter::measure(|| {
        map.insert(0_u64);
    });
    counted.count_total - 1 // the extension itself
}

/// Allocations of two headers in an empty header map, measured rather than assumed.
fn growth_of_the_header_map() -> u64 {
    let growth = allocation_counter::measure(|| {
        let mut map = HeaderMap::new();
        for name in ["ratelimit", "ratelimit-policy"] {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }
    });
    growth.count_total
}

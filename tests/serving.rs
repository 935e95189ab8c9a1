//! The end of a body in mode `durable`: it comes when what it cost is recorded, and the body within
//! is not asked again meanwhile.

#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tollgate::GateBuilder;
use tollgate::middleware::TollgateLayer;
use tollgate::store::Memory;
use tollgate::testing::Faulty;
use tower::{Layer, ServiceExt, service_fn};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [plan.free]
    quota.egress = "1MB/day"
"#;

const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    header = "x-tenant"
    [identity]
    unknown = "create"
    [proxy]
    trust = ["127.0.0.0/8"]
    [flush]
    mode = "durable"
"#;

/// Frames of four bytes; asked once more after its end, it panics, as a body may.
struct Frames {
    left: u32,
    states_its_length: bool,
    has_ended: bool,
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
        Poll::Ready(next.map(|_| Ok(Frame::data(Bytes::from_static(b"four")))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.states_its_length {
            true => SizeHint::with_exact(u64::from(self.left) * 4),
            false => SizeHint::default(),
        }
    }
}

/// Reads what comes of a body of three frames while the store is away: how many frames come
/// before it waits, and how many once the store is back.
async fn frames_before_and_after(states_its_length: bool) -> (u32, u32) {
    let store = Faulty::scripted(Memory::new(), []);
    let builder = GateBuilder::from_text(SERVICE).plans(PLANS).store(store.clone());
    let gate = builder.open().await.unwrap();
    let layer = TollgateLayer::new(&gate).peer_from(|_| Some(IpAddr::from([127, 0, 0, 1])));
    let service = layer.layer(service_fn(async |_: Request<Empty<Bytes>>| {
        let body = Frames { left: 3, states_its_length, has_ended: false };
        Ok::<_, Infallible>(Response::new(body))
    }));
    let request = Request::get("/").header("x-tenant", "acme").body(Empty::new()).unwrap();
    let mut body = service.oneshot(request).await.unwrap().into_body();

    store.outage(true);
    let (mut before, mut after) = (0, 0);
    let patience = Duration::from_millis(100);
    while let Ok(frame) = tokio::time::timeout(patience, body.frame()).await {
        frame.expect("the end waits for the store").unwrap();
        before += 1;
    }
    store.outage(false);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
        after += 1;
    }
    (before, after)
}

#[tokio::test]
async fn the_last_frame_waits_for_the_record_where_the_length_is_known() {
    assert_eq!(frames_before_and_after(true).await, (2, 1));
}

#[tokio::test]
async fn the_end_waits_for_the_record_where_nothing_told_of_it_before() {
    assert_eq!(frames_before_and_after(false).await, (3, 0));
}

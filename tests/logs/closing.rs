//! Work that is still open when the gate closes: waited for, settled, or named in the log.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::{Ask, Gate, Permit, Usage, testing};
use test_support::gates::meter;
use tokio::sync::mpsc;
use tower::{Layer, ServiceExt};

use crate::floods::Log;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [meter.traffic]
    count = "response-bytes"
    hold  = "100B"
    [route.watch]
    match = "GET /watch"
    [plan.free]
    quota.jobs    = "100/day"
    quota.traffic = "1000B/day"
"#;

/// A body of chunks that come one after the other.
struct Chunks(mpsc::UnboundedReceiver<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

async fn admit(gate: &Gate, jobs: u64) -> Result<Permit, Box<tallygate::Refusal>> {
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "job").cost("jobs", jobs)).await.map_err(Box::new)
}

#[test]
fn a_permit_that_is_settled_while_the_gate_closes_is_recorded() {
    let log = Log::default();
    log.over(async {
        let store = Memory::new();
        let (gate, _clock) = testing::gate_with(PLANS, store.clone());
        let done = admit(&gate, 30).await.unwrap();
        let dropped = admit(&gate, 20).await.unwrap();
        let closing = tokio::spawn(async move { gate.close().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.settle();
        dropped.cancel();
        closing.await.unwrap().unwrap();
        let (next, _clock) = testing::gate_with(PLANS, store);
        assert_eq!(meter(&next, "jobs").await.0, 30);
        assert!(admit(&next, 70).await.is_ok(), "what was not used went back");
    });
    assert!(!log.has("still open") && !log.has("not recorded"), "{:?}", log.0);
}

#[test]
fn work_that_never_ends_is_named_with_its_units_and_keeps_no_gate_from_closing() {
    let log = Log::default();
    log.over(async {
        let (gate, clock) = testing::gate(PLANS);
        clock.advance(Duration::from_secs(10)); // a line is written once a second by each process
        let (one, other) = (admit(&gate, 30).await.unwrap(), admit(&gate, 12).await.unwrap());
        let begun = tokio::time::Instant::now();
        gate.close().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(log.has("requests=2 units=42"), "{:?}", log.0);
        assert_eq!(log.count("not recorded"), 0);
        one.settle();
        drop(other);
        assert_eq!(log.count("usage after the gate was closed is not recorded"), 1);
        assert!(log.has("tenant=\"acme\""), "{:?}", log.0);
    });
}

#[test]
fn a_body_that_is_being_sent_is_settled_with_what_has_passed() {
    let log = Log::default();
    log.over(async {
        let store = Memory::new();
        let (gate, _clock) = testing::gate_with(PLANS, store.clone());
        let (sender, chunks) = mpsc::unbounded_channel();
        let body = std::sync::Mutex::new(Some(Chunks(chunks)));
        let inner = tower::service_fn(|_| {
            let body = body.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let request = Request::get("/watch").header("x-tenant", "acme");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
        let mut body = response.into_body();
        sender.send(Bytes::from_static(&[0; 40])).unwrap();
        body.frame().await.unwrap().unwrap();
        gate.close().await.unwrap();
        assert!(log.has("requests=1"), "{:?}", log.0);
        assert!(!log.has("still open"), "it holds nothing: {:?}", log.0);
        let (next, _clock) = testing::gate_with(PLANS, store);
        assert_eq!(meter(&next, "traffic").await.0, 40);
        let acme = next.tenant("acme").await.unwrap();
        let rest = Ask::new(&acme, "job").cost("traffic", 960);
        assert!(next.admit(rest).await.is_ok(), "what it held is free again");
        drop((sender, body));
    });
}

#[test]
fn usage_reported_by_a_connection_that_outlives_the_gate_is_logged() {
    let log = Log::default();
    log.over(async {
        let (gate, _clock) = testing::gate(PLANS);
        let kept = std::sync::Mutex::new(None);
        let inner = tower::service_fn(|request: Request<Empty<Bytes>>| {
            let admitted = request.extensions().get::<tallygate::Admitted>().unwrap();
            let usage: Usage = admitted.usage();
            *kept.lock().unwrap() = Some(usage);
            async {
                Ok::<_, Infallible>(Response::builder().status(101).body(String::new()).unwrap())
            }
        });
        let request = Request::get("/live").header("x-tenant", "acme");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answered = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
        let usage = kept.lock().unwrap().take().unwrap();
        usage.add("jobs", 3);
        gate.close().await.unwrap();
        assert!(!log.has("not recorded"), "{:?}", log.0);
        usage.add("jobs", 5);
        assert_eq!(log.count("usage after the gate was closed is not recorded"), 1);
        drop(answered);
    });
}

#[test]
fn a_gate_that_ends_without_being_closed_is_named() {
    let log = Log::default();
    log.over(async {
        let (gate, _clock) = testing::gate(PLANS);
        admit(&gate, 1).await.unwrap().settle();
        gate.close().await.unwrap();
        drop(gate);
        tokio::task::yield_now().await;
        assert_eq!(log.count("without `close`"), 0, "{:?}", log.0);

        // Its start failed, at a mistyped meter say.
        let (gate, _clock) = testing::gate(PLANS);
        drop(gate);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.count("without `close`"), 0, "{:?}", log.0);

        let (gate, _clock) = testing::gate(PLANS);
        admit(&gate, 1).await.unwrap().settle();
        drop(gate);
        let mut tries = 0;
        while log.count("without `close`") == 0 && tries < 1_000 {
            tokio::task::yield_now().await; // until its tasks have let go of it
            tries += 1;
        }
        assert_eq!(log.count("without `close`"), 1, "{:?}", log.0);
    });
}

//! Rates of a meter whose number is learned late: charged over any edge, and for as long as the
//! request runs.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tallygate::middleware::{CountReads, GateLayer, ReadBody};
use tallygate::store::Memory;
use tallygate::testing::{self, OpenRequest, Plans};
use tallygate::{Gate, Outcome};
use test_support::clocks::Paused;
use test_support::requests::Call;
use test_support::stores::Shared;
use tower::{Layer, ServiceExt};

const CHAT: Call<2> = Call::new("POST", "/chat", [("x-tenant", "acme"), ("x-user", "ann")]);

async fn open(gate: &Gate, call: &Call<'_, 2>) -> Option<OpenRequest> {
    OpenRequest::admit(gate, call).await.ok()
}

fn end(request: OpenRequest) {
    request.head(200);
    request.end(Outcome::Complete { status: 200 });
}

/// Of so many requests, one after the other: how many are admitted.
async fn admitted(gate: &Gate, call: &Call<'_, 2>, most: u64) -> u64 {
    let mut n = 0;
    for _ in 0..most {
        if let Some(request) = open(gate, call).await {
            end(request);
            n += 1;
        }
    }
    n
}

struct World {
    plans: Plans,
    store: Memory,
    clock: Paused,
}

impl World {
    fn new(plans: &str) -> Self {
        let clock = Paused::now();
        Self { plans: Plans::new(plans), store: Memory::new(), clock }
    }

    async fn alone(&self) -> Gate {
        let builder = self.plans.read_by(testing::builder("")).store(self.store.clone());
        let gate = builder.clock(self.clock).open().await.unwrap();
        gate.directory().tenant("acme").save().await.unwrap();
        gate
    }

    async fn sharing(&self) -> Gate {
        let builder = self.plans.read_by(testing::builder("")).store(Shared(self.store.clone()));
        let gate = builder.clock(self.clock).open().await.unwrap();
        gate.directory().tenant("acme").save().await.unwrap();
        gate
    }
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn tokens(rate: &str, more: &str) -> String {
    format!(
        "default-plan = \"free\"\n[meter.tokens]\ncount = \"reported\"\nhold = \"10\"\n\
         [plan.free]\nrate.default = {rate}\n{more}\n"
    )
}

/// 600 tokens are ten minutes of this rate: whatever happened while the request ran.
#[tokio::test(start_paused = true)]
async fn a_rate_is_charged_for_what_is_reported_late_over_any_edge() {
    let rate = "\"60 tokens/min burst 60\"";
    let mut found = Vec::new();
    for edge in ["none", "hour", "file", "tenant", "node", "slot"] {
        let plans = match edge {
            "slot" => tokens("{ limit = \"60 tokens/s burst 60\", strict = true }", ""),
            _ => tokens(rate, "quota.requests = \"1000/hour\""),
        };
        let world = World::new(&plans);
        let gate = if edge == "none" { world.alone().await } else { world.sharing().await };
        let request = open(&gate, &CHAT).await.unwrap();
        let mut second = None;
        match edge {
            "hour" => sleep(3600).await,
            "file" => {
                world.plans.set(&tokens(rate, "quota.requests = \"2000/hour\""));
                gate.reload().await.unwrap();
            }
            "tenant" => {
                gate.directory().tenant("acme").plan("free").note("hello").save().await.unwrap();
            }
            "node" => {
                second = Some(world.sharing().await);
                sleep(20).await;
            }
            "slot" => sleep(6).await,
            _ => {}
        }
        request.usage().add("tokens", 6_000);
        end(request);
        found.push((edge, admitted(&gate, &CHAT, 100).await));
        drop(second);
    }
    println!("{found:?}");
    assert!(found.iter().all(|(_, n)| *n == 0), "{found:?}");
}

/// And the other way round: what a request holds of a rate and does not use goes back.
#[tokio::test(start_paused = true)]
async fn what_is_held_of_a_rate_goes_back_over_an_edit() {
    let plans = |n: u64| {
        let plans = tokens("\"10k tokens/h burst 10k\"", &format!("quota.requests = \"{n}/day\""));
        plans.replace("hold = \"10\"", "hold = \"1000\"")
    };
    let world = World::new(&plans(1_000));
    let gate = world.alone().await;
    let mut held = Vec::new();
    while let Some(request) = open(&gate, &CHAT).await {
        held.push(request);
    }
    assert_eq!(held.len(), 10);
    world.plans.set(&plans(2_000));
    gate.reload().await.unwrap();
    assert!(open(&gate, &CHAT).await.is_none());
    for request in held {
        request.usage().add("tokens", 1);
        end(request);
    }
    assert!(open(&gate, &CHAT).await.is_some(), "9,990 of 10,000 are there");
}

/// A stream that lasts longer than its user's bucket is kept in memory.
#[tokio::test(start_paused = true)]
async fn a_users_rate_is_charged_by_a_stream_of_half_an_hour() {
    let world = World::new(&tokens("\"60 tokens/min burst 60 per user\"", ""));
    let gate = world.alone().await;
    let request = open(&gate, &CHAT).await.unwrap();
    sleep(1_400).await;
    request.usage().add("tokens", 6_000);
    end(request);
    assert_eq!(admitted(&gate, &CHAT, 100).await, 0);
}

/// Frames of so many bytes, one a second.
struct Slow(u64, usize, Option<Pin<Box<tokio::time::Sleep>>>);

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let second = || Box::pin(tokio::time::sleep(Duration::from_secs(1)));
        ready!(self.2.get_or_insert_with(second).as_mut().poll(cx));
        (self.0, self.2) = (self.0 - 1, None);
        let bytes = Bytes::from(vec![b'x'; self.1]);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// What a task reads after the response has ended is paid late: by the rate as well.
#[tokio::test(start_paused = true)]
async fn bytes_that_are_read_after_the_end_are_charged_to_their_rate() {
    let world = World::new(
        "default-plan = \"free\"\n[meter.in]\ncount = \"request-bytes\"\nhold = \"1KB\"\n\
         [plan.free]\nrate.default = \"60KB in/min burst 60KB\"\n",
    );
    let gate = world.alone().await;
    let send = async |frames: u64| {
        let (bodies, mut left) = tokio::sync::mpsc::unbounded_channel();
        let inner = tower::service_fn(move |request: Request<ReadBody<Slow>>| {
            let bodies = bodies.clone();
            async move {
                bodies.send(Box::pin(request.into_body())).unwrap();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
            }
        });
        let request = Request::post("/up").header("x-tenant", "acme");
        let request = request.header("content-length", frames * 50_000);
        let service = GateLayer::new(&gate).counting_reads().layer(CountReads(inner));
        let response =
            service.oneshot(request.body(Slow(frames, 50_000, None)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        if let Some(mut body) = left.recv().await {
            while body.frame().await.is_some() {}
        }
        status
    };
    assert_eq!(send(12).await, 200); // 600 KB in 12 s
    assert_eq!(send(1).await, 429, "ten minutes of the rate have been read");
}

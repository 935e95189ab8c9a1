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
use tallygate::decision::LimitKind;
use tallygate::directory::Grant;
use tallygate::middleware::{CountReads, GateLayer, ReadBody};
use tallygate::store::Memory;
use tallygate::testing::{self, OpenRequest, Plans};
use tallygate::{Ask, Gate, Outcome};
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

/// A piece of work that takes `each` tokens a second and uses them: how often it may within so many
/// seconds, and the waits that refusals name.
async fn takes(gate: &Gate, ask: Ask, each: u64, seconds: u64) -> (u64, Vec<u64>) {
    let permit = gate.admit(ask).await.unwrap();
    let usage = permit.usage();
    let (mut n, mut waits) = (0, Vec::new());
    for _ in 0..seconds {
        match usage.take("tokens", each).await {
            Ok(()) => {
                usage.add("tokens", each);
                n += 1;
            }
            Err(refusal) => {
                assert_eq!(refusal.limit.as_ref().map(|limit| limit.kind), Some(LimitKind::Rate));
                waits.push(refusal.retry_after.unwrap().as_secs());
            }
        }
        sleep(1).await;
    }
    permit.settle();
    (n, waits)
}

/// A connection that lasts takes no more of a rate than requests one after the other would.
#[tokio::test(start_paused = true)]
async fn what_a_handler_takes_is_asked_of_the_meters_rates() {
    let strict = "{ limit = \"60 tokens/min burst 60\", strict = true }";
    for rate in ["\"60 tokens/min burst 60\"", "\"60 tokens/min per user\"", strict] {
        for edge in ["none", "file"] {
            let world = World::new(&tokens(rate, ""));
            let gate = if rate == strict { world.sharing().await } else { world.alone().await };
            let acme = gate.tenant("acme").await.unwrap();
            let ask = || Ask::new(&acme, "job").user("ann");
            let (n, waits) = takes(&gate, ask(), 10, 30).await;
            // The burst, and what 30 s refill; a strict rate's next minute begins meanwhile.
            let most = if rate == strict { 12 } else { 9 };
            let of_burst = if rate == strict { 12 } else { 7 };
            assert!((6..=most).contains(&n), "{rate}: {n} times 10 in 30 s");
            assert!(waits.iter().all(|wait| (1..=60).contains(wait)), "{waits:?}");
            if edge == "file" {
                world.plans.set(&tokens(rate, "quota.requests = \"2000/hour\""));
                gate.reload().await.unwrap();
            }
            sleep(180).await;
            let (n, _) = takes(&gate, ask(), 10, 10).await;
            assert!(
                (6..=of_burst).contains(&n),
                "{rate}: the bucket is full again, and {n} were taken"
            );
            gate.close().await.unwrap();
        }
    }
}

/// Once asked for, it is not charged again when it is reported; what is reported beyond it is.
#[tokio::test(start_paused = true)]
async fn a_rate_is_charged_once_for_what_is_taken_and_then_reported() {
    let world = World::new(&tokens("\"60 tokens/h burst 60\"", ""));
    let gate = world.alone().await;
    let acme = gate.tenant("acme").await.unwrap();
    let permit = gate.admit(Ask::new(&acme, "job")).await.unwrap();
    let usage = permit.usage();
    usage.take("tokens", 20).await.unwrap();
    usage.add("tokens", 20);
    usage.take("tokens", 30).await.unwrap();
    usage.add("tokens", 35); // 55 of 60
    permit.settle();
    let permit = gate.admit(Ask::new(&acme, "job").cost("tokens", 5)).await.unwrap();
    assert!(permit.usage().take("tokens", 6).await.is_err(), "5 held, and none beside them");
    permit.cancel(); // and they go back
    assert!(gate.admit(Ask::new(&acme, "job").cost("tokens", 6)).await.is_err());
    gate.admit(Ask::new(&acme, "job").cost("tokens", 5)).await.unwrap().settle();
}

/// What is refused by a quota takes nothing of the rate, and the other way round.
#[tokio::test(start_paused = true)]
async fn a_take_that_is_refused_takes_nothing() {
    let world = World::new(&tokens("\"60 tokens/h burst 60\"", "quota.tokens = \"70/day\""));
    let gate = world.alone().await;
    let acme = gate.tenant("acme").await.unwrap();
    let permit = gate.admit(Ask::new(&acme, "job")).await.unwrap();
    let usage = permit.usage();
    let refused = async |n| usage.take("tokens", n).await.unwrap_err().limit.unwrap().kind;
    for _ in 0..3 {
        assert_eq!(refused(71).await, LimitKind::Quota);
        assert_eq!(testing::held(&acme), 0);
    }
    usage.take("tokens", 50).await.unwrap();
    for _ in 0..3 {
        assert_eq!(refused(11).await, LimitKind::Rate);
        assert_eq!(testing::held(&acme), 50);
    }
    usage.take("tokens", 10).await.unwrap();
    permit.settle();
}

/// A take beyond the burst could never fit: it asks for a full bucket, and its use is charged.
#[tokio::test(start_paused = true)]
async fn a_take_beyond_the_burst_waits_for_a_full_bucket() {
    let world = World::new(&tokens("\"60 tokens/min burst 60\"", ""));
    let gate = world.alone().await;
    let acme = gate.tenant("acme").await.unwrap();
    let permit = gate.admit(Ask::new(&acme, "job")).await.unwrap();
    let usage = permit.usage();
    usage.take("tokens", 200).await.unwrap();
    usage.add("tokens", 200);
    assert!(usage.take("tokens", 1).await.is_err());
    sleep(139).await;
    assert!(usage.take("tokens", 1).await.is_err(), "140 s of the rate are owed");
    sleep(3).await;
    usage.take("tokens", 1).await.unwrap();
    let refusal = usage.take("tokens", 200).await.unwrap_err();
    assert!(refusal.retry_after.unwrap() <= Duration::from_secs(60), "{refusal:?}");
    permit.settle();
}

/// A body is no handler: bytes that pass are charged, and a rate cuts no stream.
#[tokio::test(start_paused = true)]
async fn a_rate_cuts_no_response_body() {
    let world = World::new(
        "default-plan = \"free\"\n[meter.out]\ncount = \"response-bytes\"\nhold = \"1KB\"\n\
         cut = true\n[plan.free]\nrate.default = \"60KB out/min burst 60KB\"\n",
    );
    let gate = world.alone().await;
    let inner = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Slow(12, 50_000, None)))
    });
    let request = Request::get("/down").header("x-tenant", "acme").body(Full::default()).unwrap();
    let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 600_000);
    assert!(open(&gate, &CHAT).await.is_none(), "ten minutes of the rate have passed");
}

/// The slot of a strict rate is no payer: a cost that is split between a quota and a grant uses
/// both, whether its rate is strict or not.
#[tokio::test(start_paused = true)]
async fn a_split_cost_uses_all_its_payers_under_a_strict_rate() {
    for strict in [false, true] {
        let rate = format!("{{ limit = \"600 tokens/min burst 600\", strict = {strict} }}");
        let world = World::new(&tokens(&rate, "quota.tokens = \"20/day\""));
        let gate = world.sharing().await;
        let grant = Grant::new("g1", "tokens", 20);
        gate.directory().tenant("acme").grant(grant).save().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let permit = gate.admit(Ask::new(&acme, "job").cost("tokens", 25)).await.unwrap();
        permit.usage().take("tokens", 35).await.unwrap();
        permit.settle_with("tokens", 35);
        assert_eq!(testing::held(&acme), 0);
        let ask = |n| Ask::new(&acme, "job").cost("tokens", n);
        assert!(gate.admit(ask(6)).await.is_err(), "5 are left, strict: {strict}");
        gate.admit(ask(5)).await.unwrap().settle();
        gate.close().await.unwrap();
    }
}

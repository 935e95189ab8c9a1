//! Requests through the layer, each settled exactly once by the table in docs/http.md: for any
//! handler, any way of stating a body's end, and any moment of a disconnect.
//!
//! The expectation is implemented a second time, naively ([`Expected`]), from what the handler and
//! the client have seen themselves.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use tallygate::middleware::{GateBody, GateLayer};
use tallygate::{Admitted, Gate, GateBuilder, ManualClock, Usage, testing};
use test_support::gates::{Acme, service};
use tower::{Layer, Service};

/// A plan file and a mode.
#[derive(Clone, Debug)]
struct Setting {
    charge_on: Vec<&'static str>,
    counts_bytes: bool,
    counts_tokens: bool,
    limits_in_flight: bool,
    is_durable: bool,
}

/// The hold of each request on a meter of bytes.
const HOLD_BYTES: u64 = 10;

/// One request: the behaviour of its handler and its client.
#[derive(Clone, Debug)]
struct Case {
    is_head: bool,
    handler: Handler,
    /// The client disconnects after this many polls of the response.
    polls: Option<u32>,
    /// And after this many frames.
    frames: Option<usize>,
}

#[derive(Clone, Debug)]
enum Handler {
    PanicsWhenCalled,
    /// After this many pending polls, and with this many tokens.
    Runs(u32, u64, Comes),
}

#[derive(Clone, Debug)]
enum Comes {
    Panic,
    Error,
    Answer(Answer),
}

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    parts: Vec<Part>,
    length: Length,
    /// `is_end_stream` reveals the last part.
    tells_end: bool,
    end: End,
}

/// One frame: pending this often before it, with this many bytes and tokens.
#[derive(Clone, Copy, Debug)]
struct Part {
    pending: u32,
    bytes: usize,
    tokens: u64,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Unknown,
    /// The body reports it.
    Known,
    /// A header states it, off by this much.
    Stated(i64),
}

/// What follows the last part.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    None,
    Error,
    Panic,
    /// Nothing, forever.
    Nothing,
}

impl Answer {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes as u64).sum()
    }

    /// The body's length as the server sees it.
    fn length(&self) -> Option<u64> {
        match self.length {
            Length::Unknown => None,
            Length::Known => Some(self.bytes()),
            Length::Stated(by) => Some(self.bytes().saturating_add_signed(by)),
        }
    }

    fn has_no_body(&self) -> bool {
        let ends_at_once = self.tells_end && self.parts.is_empty() && self.end == End::None;
        matches!(self.status, 204 | 304) || ends_at_once || self.length() == Some(0)
    }
}

/// What a handler has done, by its own account.
#[derive(Debug, Default)]
struct Seen {
    was_called: AtomicBool,
    /// It has answered, failed or panicked.
    has_come: AtomicBool,
    tokens: AtomicU64,
    hangs: AtomicBool,
}

impl Seen {
    fn report(&self, usage: Option<&Usage>, tokens: u64) {
        if let Some(usage) = usage {
            usage.add("tokens", tokens);
            self.tokens.fetch_add(tokens, Relaxed);
        }
    }
}

struct Parts {
    left: VecDeque<Part>,
    answer: Answer,
    usage: Option<Usage>,
    seen: Arc<Seen>,
    has_ended: bool,
}

impl Body for Parts {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        assert!(!self.has_ended, "asked after its end");
        let Some(part) = self.left.front_mut() else {
            self.has_ended = self.answer.end != End::Nothing;
            return match self.answer.end {
                End::None => Poll::Ready(None),
                End::Error => Poll::Ready(Some(Err(std::io::Error::other("as bodies do")))),
                End::Panic => panic!("as bodies do"),
                End::Nothing => {
                    self.seen.hangs.store(true, Relaxed);
                    Poll::Pending
                }
            };
        };
        if part.pending > 0 {
            part.pending -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let part = *part;
        self.left.pop_front();
        self.seen.report(self.usage.as_ref(), part.tokens);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; part.bytes])))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.tells_end && self.left.is_empty() && self.answer.end == End::None
    }

    fn size_hint(&self) -> SizeHint {
        match self.answer.length {
            Length::Known => SizeHint::with_exact(self.left.iter().map(|p| p.bytes as u64).sum()),
            _ => SizeHint::default(),
        }
    }
}

/// The service: acts as its case says.
#[derive(Clone)]
struct Acts {
    handler: Handler,
    seen: Arc<Seen>,
}

type Acting = Pin<Box<dyn Future<Output = Result<Response<Parts>, &'static str>> + Send>>;

impl Service<Request<Empty<Bytes>>> for Acts {
    type Response = Response<Parts>;
    type Error = &'static str;
    type Future = Acting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Acting {
        self.seen.was_called.store(true, Relaxed);
        let usage = request.extensions().get::<Admitted>().map(Admitted::usage);
        let Handler::Runs(pending, tokens, comes) = self.handler.clone() else {
            self.seen.has_come.store(true, Relaxed);
            panic!("as handlers do");
        };
        let seen = self.seen.clone();
        Box::pin(async move {
            seen.report(usage.as_ref(), tokens);
            for _ in 0..pending {
                tokio::task::yield_now().await;
            }
            seen.has_come.store(true, Relaxed);
            match comes {
                Comes::Panic => panic!("as handlers do"),
                Comes::Error => Err("as handlers do"),
                Comes::Answer(answer) => Ok(respond(answer, usage, seen)),
            }
        })
    }
}

fn respond(answer: Answer, usage: Option<Usage>, seen: Arc<Seen>) -> Response<Parts> {
    let mut response = Response::builder().status(answer.status);
    if let (Length::Stated(_), Some(length)) = (answer.length, answer.length()) {
        response = response.header(header::CONTENT_LENGTH, length);
    }
    let left = answer.parts.iter().copied().collect();
    response.body(Parts { left, answer, usage, seen, has_ended: false }).unwrap()
}

/// The client's result.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Got {
    /// No response.
    Nothing,
    /// A response, whose body ended as servers see it.
    All,
    /// A response, and then the client disconnected, or the body failed.
    Some,
    /// A response whose body panicked.
    Panic,
}

/// The client, behind a server that behaves like hyper. Returns its result, and the bytes received.
async fn ask(layer: &GateLayer, case: &Case, seen: &Arc<Seen>) -> (Got, u64) {
    let mut service = layer.layer(Acts { handler: case.handler.clone(), seen: seen.clone() });
    let method = if case.is_head { "HEAD" } else { "GET" };
    let request = Request::builder().method(method).uri("/a").body(Empty::new()).unwrap();
    let Ok(future) = catch_unwind(AssertUnwindSafe(|| service.call(request))) else {
        return (Got::Nothing, 0);
    };
    let mut future = Box::pin(future);
    let mut polls = 0;
    let response = poll_fn(|cx| {
        if case.polls == Some(polls) {
            return Poll::Ready(None);
        }
        polls += 1;
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            // The panic is caught further out, and the remains dropped later.
            Err(_) => Poll::Ready(None),
            Ok(Poll::Ready(answer)) => Poll::Ready(answer.ok()),
            Ok(Poll::Pending) if case.polls == Some(polls) => Poll::Ready(None),
            Ok(Poll::Pending) => Poll::Pending,
        }
    });
    let response = response.await;
    drop(future);
    match (response, &case.handler) {
        (Some(response), Handler::Runs(_, _, Comes::Answer(answer))) => {
            let has_body = !case.is_head && !matches!(answer.status, 204 | 304);
            read(response.into_body(), has_body, answer.length(), case.frames, seen).await
        }
        _ => (Got::Nothing, 0),
    }
}

async fn read(
    body: GateBody<Parts>,
    has_body: bool,
    length: Option<u64>,
    most: Option<usize>,
    seen: &Seen,
) -> (Got, u64) {
    let (mut body, mut bytes, mut frames) = (Some(Box::pin(body)), 0, 0);
    loop {
        let has_ended = body.as_ref().is_some_and(|body| body.is_end_stream());
        if !has_body || has_ended || length.is_some_and(|length| bytes >= length) {
            return (Got::All, bytes);
        }
        if most == Some(frames) {
            return (Got::Some, bytes);
        }
        // If it panics, that drops the body.
        let polled = poll_fn(|cx| {
            let mut own = body.take().unwrap();
            let polled = catch_unwind(AssertUnwindSafe(move || {
                let polled = own.as_mut().poll_frame(cx);
                (polled, own)
            }));
            match polled {
                Err(_) => Poll::Ready(Err(Got::Panic)),
                Ok((polled, own)) => {
                    body = Some(own);
                    match polled {
                        Poll::Pending if seen.hangs.load(Relaxed) => Poll::Ready(Err(Got::Some)),
                        polled => polled.map(Ok),
                    }
                }
            }
        });
        match polled.await {
            Err(got) => return (got, bytes),
            Ok(None) => return (Got::All, bytes),
            Ok(Some(Err(_))) => return (Got::Some, bytes),
            Ok(Some(Ok(frame))) => {
                frames += 1;
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        }
    }
}

/// The expected total counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    requests: u64,
    bytes: u64,
    tokens: u64,
}

impl Expected {
    fn add(&mut self, setting: &Setting, case: &Case, seen: &Seen, got: Got, bytes: u64) {
        let ahead = ahead(setting, case, seen);
        let (got, bytes) = ahead.map_or((got, bytes), |bytes| (Got::All, bytes));
        self.count(setting, case, seen, got, bytes);
    }

    /// The alternative count, if any: when a complete body needs more than its hold, the client may
    /// have disconnected while units were leased, before a byte had passed.
    fn or_nothing(mut self, setting: &Setting, case: &Case, seen: &Seen, got: Got) -> Option<Self> {
        let may_wait = ahead(setting, case, seen).is_some_and(|bytes| bytes > HOLD_BYTES);
        (got == Got::Nothing && setting.counts_bytes && may_wait).then(|| {
            self.count(setting, case, seen, got, 0);
            self
        })
    }

    fn count(&mut self, setting: &Setting, case: &Case, seen: &Seen, got: Got, bytes: u64) {
        self.requests += u64::from(is_charged(setting, case, seen, got));
        self.tokens += seen.tokens.load(Relaxed);
        self.bytes += if setting.counts_bytes { bytes } else { 0 };
    }
}

/// In mode `durable` a body that is complete with its head is sent with it: one whose first part
/// says that it is the last, or is all that the length states.
fn ahead(setting: &Setting, case: &Case, seen: &Seen) -> Option<u64> {
    let Handler::Runs(_, _, Comes::Answer(answer)) = &case.handler else { return None };
    let (part, rest) = answer.parts.split_first()?;
    let is_polled = setting.is_durable && seen.has_come.load(Relaxed) && !case.is_head;
    let bytes = part.bytes as u64;
    let is_all = rest.is_empty() && answer.tells_end && answer.end == End::None
        || answer.length().is_some_and(|length| length <= bytes);
    let is_ahead = is_polled && !answer.has_no_body() && part.pending == 0 && is_all;
    is_ahead.then_some(bytes)
}

/// The table in docs/http.md.
fn is_charged(setting: &Setting, case: &Case, seen: &Seen, got: Got) -> bool {
    let is_in = |word: &str| setting.charge_on.contains(&word);
    let of_status = |status: u16| is_in(&format!("{}xx", status / 100));
    if !seen.was_called.load(Relaxed) {
        return false; // it waited to be admitted
    }
    let answer = match &case.handler {
        _ if !seen.has_come.load(Relaxed) => return is_in("aborted"),
        Handler::Runs(_, _, Comes::Answer(answer)) => answer,
        _ => return of_status(500),
    };
    if case.is_head || answer.has_no_body() || got == Got::All || !of_status(answer.status) {
        return of_status(answer.status);
    }
    // Its first poll may come with the head, which is then never sent.
    let panics_at_once = answer.parts.is_empty() && answer.end == End::Panic;
    match got {
        Got::Nothing if setting.is_durable && panics_at_once => is_in("aborted") || of_status(500),
        // Charged with the head, if a disconnect is.
        Got::Panic => is_in("aborted") || of_status(500),
        _ => is_in("aborted"),
    }
}

async fn gate(setting: &Setting) -> Gate {
    let mode = if setting.is_durable { "durable" } else { "fast" };
    let mut plans = "default-plan = \"free\"\n".to_owned();
    let mut free = format!("[plan.free]\ncharge-on = {:?}\n", setting.charge_on);
    free += "quota.requests = \"1M/day\"\n";
    if setting.counts_bytes {
        let hold = format!("hold = \"{HOLD_BYTES}B\"\n");
        plans += &format!("[meter.egress]\ncount = \"response-bytes\"\n{hold}");
        free += "quota.egress = \"1GB/day\"\n";
    }
    if setting.counts_tokens {
        plans += "[meter.tokens]\ncount = \"reported\"\nhold = \"5\"\n";
        free += "quota.tokens = \"1M/day\"\n";
    }
    if setting.limits_in_flight {
        free += "concurrency = 3\n";
    }
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let builder = GateBuilder::from_text(&service(mode)).plans(&(plans + &free)).identify(Acme);
    let gate = builder.clock(clock).open().await.unwrap();
    gate.directory().tenant("acme").save().await.unwrap();
    gate
}

/// Number of occurrences of each way to end.
type Ways = RefCell<BTreeMap<&'static str, u32>>;

/// Runs the requests one after the other, and checks the books after each.
async fn run(setting: &Setting, cases: &[Case], ways: &Ways) -> Result<(), TestCaseError> {
    let gate = gate(setting).await;
    let layer = GateLayer::new(&gate);
    let layer = if setting.counts_tokens { layer } else { layer.without_extensions() };
    let tenant = gate.tenant("acme").await.unwrap();
    let mut expected = Expected::default();
    for case in cases {
        let seen = Arc::new(Seen::default());
        let (got, bytes) = ask(&layer, case, &seen).await;
        *ways.borrow_mut().entry(way(case, &seen, got)).or_default() += 1;
        let other = expected.clone().or_nothing(setting, case, &seen, got);
        expected.add(setting, case, &seen, got, bytes);
        prop_assert_eq!(testing::held(&tenant), 0, "{:?}", case);
        prop_assert!(tenant.in_flight().is_none_or(|n| n == 0), "{:?}", case);
        // Recorded, and out of the pools.
        let (used, drawn) = counted(&gate).await;
        expected = other.filter(|other| used == *other).unwrap_or(expected);
        prop_assert_eq!(&used, &expected, "{:?}, which got {:?}", case, got);
        prop_assert_eq!(&drawn, &expected, "{:?}, which got {:?}", case, got);
    }
    gate.close().await.unwrap();
    Ok(())
}

async fn counted(gate: &Gate) -> (Expected, Expected) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = |name: &str| report.meters.iter().find(|meter| &*meter.name == name);
    let used = |name| meter(name).map_or(0, |meter| meter.used.whole());
    let drawn = |name| meter(name).map_or(0, |meter| meter.limits[0].used.whole());
    let all = |of: &dyn Fn(&'static str) -> u64| Expected {
        requests: of("requests"),
        bytes: of("egress"),
        tokens: of("tokens"),
    };
    (all(&used), all(&drawn))
}

fn setting() -> impl Strategy<Value = Setting> {
    let words = vec!["2xx", "3xx", "4xx", "5xx", "aborted"];
    let charge_on = prop_oneof![
        Just(vec!["1xx", "2xx", "3xx", "4xx", "aborted"]),
        Just(vec!["2xx"]),
        subsequence(words, 1..=5),
    ];
    (charge_on, any::<(bool, bool, bool, bool)>()).prop_map(|(charge_on, of)| {
        let (counts_bytes, counts_tokens, limits_in_flight, is_durable) = of;
        Setting { charge_on, counts_bytes, counts_tokens, limits_in_flight, is_durable }
    })
}

fn case() -> impl Strategy<Value = Case> {
    let part = (0u32..2, 0usize..30, 0u64..4);
    let part = part.prop_map(|(pending, bytes, tokens)| Part { pending, bytes, tokens });
    let length = prop_oneof![
        Just(Length::Unknown),
        Just(Length::Known),
        Just(Length::Stated(0)),
        (-30i64..30).prop_map(Length::Stated),
    ];
    let end =
        prop_oneof![1 => Just(End::None), 1 => select(vec![End::Error, End::Panic, End::Nothing])];
    let status = select(vec![200, 200, 201, 204, 302, 304, 404, 500, 503]);
    let answer = (status, prop::collection::vec(part, 0..5), length, any::<bool>(), end).prop_map(
        |(status, parts, length, tells_end, end)| Answer { status, parts, length, tells_end, end },
    );
    let comes = prop_oneof![
        8 => answer.prop_map(Comes::Answer),
        1 => Just(Comes::Panic),
        1 => Just(Comes::Error),
    ];
    let handler = prop_oneof![
        12 => (0u32..3, 0u64..4, comes).prop_map(|(n, tokens, it)| Handler::Runs(n, tokens, it)),
        1 => Just(Handler::PanicsWhenCalled),
    ];
    let polls = prop_oneof![2 => Just(None), 1 => (0u32..6).prop_map(Some)];
    let frames = prop_oneof![2 => Just(None), 1 => (0usize..5).prop_map(Some)];
    (prop::bool::weighted(0.1), handler, polls, frames)
        .prop_map(|(is_head, handler, polls, frames)| Case { is_head, handler, polls, frames })
}

/// Silences deliberate panics, and no others.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<&str>();
            if !text.is_some_and(|text| text.ends_with("do")) {
                loud(info);
            }
        }));
    });
}

/// The way a request ended, so that none is left untested by chance.
fn way(case: &Case, seen: &Seen, got: Got) -> &'static str {
    match (&case.handler, got) {
        _ if !seen.was_called.load(Relaxed) => "left while it waited to be admitted",
        _ if !seen.has_come.load(Relaxed) => "left before there was a response",
        (Handler::PanicsWhenCalled, _) => "the call panicked",
        (Handler::Runs(_, _, Comes::Panic), _) => "the handler panicked",
        (Handler::Runs(_, _, Comes::Error), _) => "the handler failed",
        (_, Got::Nothing) => "left while the head waited for its record",
        (_, Got::All) => "complete",
        (_, Got::Some) => "left in the body",
        (_, Got::Panic) => "the body panicked",
    }
}

#[test]
fn a_request_is_settled_once_however_it_ends() {
    quiet();
    let ways = RefCell::new(BTreeMap::new());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let settings = (setting(), prop::collection::vec(case(), 1..12));
    let settled = TestRunner::new(config).run(&settings, |(setting, cases)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&setting, &cases, &ways))
    });
    settled.unwrap();
    let ways = ways.into_inner();
    assert_eq!(ways.len(), 9, "{ways:?}");
}

/// The part that its hold does not cover may have to be leased: by then the second request's client
/// is gone.
#[test]
fn who_leaves_while_a_whole_body_waits_for_units_is_charged_for_all_or_nothing() {
    let answer = |parts: &[usize], length, polls| {
        let part = |bytes: &usize| Part { pending: 0, bytes: *bytes, tokens: 0 };
        let parts = parts.iter().map(part).collect();
        let answer = Answer { status: 200, parts, length, tells_end: false, end: End::None };
        let handler = Handler::Runs(0, 0, Comes::Answer(answer));
        Case { is_head: false, handler, polls, frames: None }
    };
    for charge_on in [vec!["2xx", "aborted"], vec!["2xx"]] {
        let setting = Setting {
            charge_on,
            counts_bytes: true,
            counts_tokens: false,
            limits_in_flight: false,
            is_durable: true,
        };
        let cases =
            [answer(&[23, 20, 9], Length::Unknown, None), answer(&[29], Length::Known, Some(1))];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&setting, &cases, &Ways::default())).unwrap();
    }
}

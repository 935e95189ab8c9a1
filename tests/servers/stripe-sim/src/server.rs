//! The server: connections, keys, locks, the rate limit, and faults between a call and its answer.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answer::{Answer, Refusal};
use crate::faults::FaultKind;
use crate::settings::Settings;
use crate::webhook::Delivery;
use crate::world::{Call, World};
use crate::{admin, bodies, clock, form};

/// Limit on a body, in bytes.
const MAX_BODY: usize = 8 << 20;

/// Limit on the calls and deliveries kept for inspection; older ones are dropped.
const KEPT: usize = 200_000;

/// How often due changes are checked while no call comes.
const TICK: Duration = Duration::from_millis(100);

/// A call with its answer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Answered {
    /// `POST /v1/billing/meter_events`.
    pub call: String,
    /// Its parameters.
    pub params: Value,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// When it arrived, in Unix seconds of the simulator.
    pub at: i64,
    /// The status sent; `None` if the answer was lost, or the call cut off before.
    pub status: Option<u16>,
    /// Whether it took effect, or was refused by its own checks.
    pub applied: bool,
}

/// State shared by all connections.
#[derive(Debug)]
pub(crate) struct Shared {
    world: Mutex<World>,
    /// Locks held by calls in progress.
    held: Mutex<HashSet<String>>,
    pace: Mutex<VecDeque<Instant>>,
    calls: Mutex<VecDeque<Answered>>,
    deliveries: Mutex<VecDeque<Delivery>>,
    wake: Notify,
}

/// How a call ends on the wire.
enum End {
    Answer(Answer),
    /// Closed without an answer.
    Close,
    /// Closed in the middle of the answer.
    Half(Answer),
    /// Open, without an answer.
    Never,
    /// Byte by byte, this far apart.
    Drip(Answer, Duration),
    /// Followed by this many blanks.
    Flood(Answer, u64),
}

/// A connection that ends without an answer.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed by the script")
    }
}

impl std::error::Error for Closed {}

pub(crate) type Body = BoxBody<Bytes, Closed>;

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            world: Mutex::new(World::new(settings)),
            held: Mutex::default(),
            pace: Mutex::default(),
            calls: Mutex::default(),
            deliveries: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Reads or changes the world.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&mut world);
        if !world.outgoing.is_empty() {
            self.wake.notify_one();
        }
        seen
    }

    pub(crate) fn next_event(&self) -> Option<(String, Value)> {
        self.with(|world| world.outgoing.pop_front())
    }

    pub(crate) async fn events_wait(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn delivered(&self, delivery: Delivery) {
        keep(&self.deliveries, delivery);
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let kept = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    pub(crate) fn calls(&self) -> Vec<Answered> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Whether one more call in this second is within the rate limit.
    fn in_pace(&self) -> bool {
        let Some(limit) = self.with(|world| world.settings.calls_per_s) else { return true };
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while pace.front().is_some_and(|at| now - *at >= Duration::from_secs(1)) {
            pace.pop_front();
        }
        let within = pace.len() < limit as usize;
        if within {
            pace.push_back(now);
        }
        within
    }

    /// Applies the script's fault, takes the locks, and makes the call.
    async fn answer(&self, call: &Call) -> End {
        let name = format!("{} {}", call.method, call.path);
        let fault = self.with(|world| world.script.meet(&name));
        let mut effect = true;
        match &fault {
            Some(FaultKind::Cut) => {
                self.keep_call(call, None, false);
                return End::Close;
            }
            Some(FaultKind::Status { applied, .. } | FaultKind::Hang { applied }) => {
                effect = *applied;
            }
            Some(FaultKind::Delay { ms }) => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
            }
            Some(FaultKind::Reject { code }) => {
                self.with(|world| world.reject_next = Some(code.clone()));
            }
            _ => {}
        }
        let scripted = match &fault {
            Some(FaultKind::Status { code, should_retry, retry_after, .. }) => {
                Some(Refusal::scripted(*code, *should_retry, *retry_after).into())
            }
            _ => None,
        };
        let answer = if effect {
            self.make(call, scripted.as_ref()).await
        } else {
            scripted.unwrap_or_else(|| Answer::ok(Value::Null))
        };
        let applied = effect && (answer.status < 400 || scripted_failed(&fault));
        match fault {
            Some(FaultKind::Lose) => {
                self.keep_call(call, None, applied);
                End::Close
            }
            Some(FaultKind::Truncate) => {
                self.keep_call(call, None, applied);
                End::Half(answer)
            }
            Some(FaultKind::Hang { .. }) => {
                self.keep_call(call, None, applied);
                End::Never
            }
            Some(FaultKind::Drip { ms }) => {
                self.keep_call(call, None, applied);
                End::Drip(answer, Duration::from_millis(ms))
            }
            Some(FaultKind::Flood { bytes }) => {
                self.keep_call(call, None, applied);
                End::Flood(answer, bytes)
            }
            _ => {
                self.keep_call(call, Some(answer.status), applied);
                End::Answer(answer)
            }
        }
    }

    /// Makes the call under its idempotency key and its lock. `instead` is answered, and
    /// remembered, in place of the result.
    async fn make(&self, call: &Call, instead: Option<&Answer>) -> Answer {
        if !self.in_pace() {
            return Refusal::too_fast().into();
        }
        if let Some(known) = self.with(|world| world.begin(call)) {
            return known;
        }
        let lock = World::lock_of(call);
        if let Some(lock) = &lock
            && !self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(lock.clone())
        {
            let answer = Answer::from(Refusal::locked());
            self.with(|world| world.end(call, &answer));
            return answer;
        }
        let latency = self.with(|world| world.settings.latency_ms);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        let answer = self.with(|world| {
            let answer = world.call(call);
            let answer = instead.cloned().unwrap_or(answer);
            world.end(call, &answer);
            answer
        });
        if let Some(lock) = &lock {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(lock);
        }
        answer
    }

    fn keep_call(&self, call: &Call, status: Option<u16>, applied: bool) {
        let answered = Answered {
            call: format!("{} {}", call.method, call.path),
            params: Value::Object(call.params.clone()),
            idempotency_key: call.idempotency_key.clone(),
            at: self.with(|world| world.now()),
            status,
            applied,
        };
        keep(&self.calls, answered);
    }
}

fn scripted_failed(fault: &Option<FaultKind>) -> bool {
    matches!(fault, Some(FaultKind::Status { applied: true, .. }))
}

fn keep<T>(kept: &Mutex<VecDeque<T>>, one: T) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(one);
}

/// Serves forever; when dropped, closes every connection.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(crate::webhook::deliver(shared.clone()));
    tasks.spawn(tick(shared.clone()));
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(TICK).await;
            continue;
        };
        // Without it a small answer may wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { handle(&shared, request).await }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A connection closed by a fault is an error here, as intended.
            let _ = served.await;
        });
    }
}

async fn tick(shared: Arc<Shared>) {
    loop {
        shared.with(World::turn);
        tokio::time::sleep(TICK).await;
    }
}

async fn handle(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Closed)?.to_bytes();
    let path = head.uri.path().to_owned();
    if let Some(admin) = path.strip_prefix("/_sim/") {
        let (status, answer) = admin::answer(shared, head.method.as_str(), admin, &body).await;
        return Ok(json_response(status, &answer));
    }
    if let Some(refusal) = unauthorized(shared, &head.headers) {
        return Ok(stripe_response(shared, &head.headers, refusal.into()));
    }
    let mut params = form::parse(head.uri.query().unwrap_or_default().as_bytes());
    params.extend(form::parse(&body));
    let header = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let call = Call {
        method: head.method.as_str().to_owned(),
        path,
        params,
        idempotency_key: header("idempotency-key"),
        account: header("stripe-account"),
        version: header("stripe-version"),
    };
    // A call that has begun is completed even if its client hangs up.
    let answering = {
        let shared = shared.clone();
        async move { shared.answer(&call).await }
    };
    match tokio::spawn(answering).await.unwrap_or(End::Close) {
        End::Close => Err(Closed),
        End::Answer(answer) => Ok(stripe_response(shared, &head.headers, answer)),
        End::Half(answer) => Ok(bodies::half(stripe_response(shared, &head.headers, answer)).await),
        End::Never => std::future::pending().await,
        End::Drip(answer, apart) => {
            Ok(bodies::drip(stripe_response(shared, &head.headers, answer), apart).await)
        }
        End::Flood(answer, bytes) => {
            Ok(bodies::flood(stripe_response(shared, &head.headers, answer), bytes).await)
        }
    }
}

fn unauthorized(shared: &Shared, headers: &HeaderMap) -> Option<Refusal> {
    let Some(key) = key_of(headers) else {
        return Some(Refusal::unauthorized("You did not provide an API key."));
    };
    let (only, live) = shared.with(|world| (world.settings.key.clone(), world.settings.livemode));
    let mode = if live { "live_" } else { "test_" };
    let secret = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"));
    let taken =
        secret.is_some_and(|rest| rest.starts_with(mode)) && only.is_none_or(|only| key == only);
    // The key is not echoed, because Stripe echoes only its end.
    (!taken).then(|| Refusal::unauthorized("Invalid API Key provided."))
}

/// The key, as a bearer token or, as in Stripe's own examples, the user name of Basic.
fn key_of(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("authorization")?.to_str().ok()?;
    if let Some(key) = header.strip_prefix("Bearer ") {
        return Some(key.to_owned());
    }
    let pair = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split(':').next().map(str::to_owned)
}

fn stripe_response(shared: &Shared, asked: &HeaderMap, answer: Answer) -> Response<Body> {
    let now = shared.with(|world| world.now());
    let mut response = json_response(answer.status, &answer.body);
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put("date", clock::http_date(now));
    put("request-id", format!("req_sim{now}"));
    if let Some(again) = answer.should_retry {
        put("stripe-should-retry", again.to_string());
    }
    if let Some(seconds) = answer.retry_after {
        put("retry-after", seconds.to_string());
    }
    for name in ["idempotency-key", "stripe-version"] {
        if let Some(value) = asked.get(name).and_then(|value| value.to_str().ok()) {
            put(name, value.to_owned());
        }
    }
    response
}

fn json_response(status: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body.map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

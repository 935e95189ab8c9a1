//! The trace: 500 steps, the same for the same seed, and the plans that they run into.

use std::fmt;
use std::time::Duration;

use crate::api::CHUNK;

/// Steps of a trace.
pub const STEPS: usize = 500;

/// The seed of the trace that is run. Any would do; this one has every refusal in it.
pub const SEED: u64 = 0x7011_6a7e;

/// The plans of the gate.
pub const PLANS: &str = r#"
    default-plan = "free"

    [meter.egress]
    count = "response-bytes"
    hold = "300B"
    cut = true
    [meter.ingress]
    count = "request-bytes"
    hold = "1B"
    [meter.tokens]
    count = "reported"
    hold = "2"
    [meter.gems]

    [route.search]
    match = "GET /v1/search"
    [route.exports]
    match = "POST /v1/exports"
    cost = { requests = 5 }
    needs = "exports"
    [route.gem]
    match = "POST /v1/gem"
    cost = { gems = 1 }
    [route.spend]
    match = "POST /v1/spend"
    cost = { tokens = 0 }
    [route.sealed]
    match = "GET /sealed"
    needs-permission = "unseal"
    [route.open]
    match = "GET /healthz"
    auth = "none"

    [plan.free]
    concurrency = 100
    rate.default = "4/s burst 12"
    rate.search = "5/min"
    quota.requests = "60/hour"
    quota.egress = "8KB/hour"
    quota.ingress = "200B/hour"
    quota.tokens = "30/hour"
    quota.gems = "3"
    [plan.pro]
    extends = "free"
    rate.default = "40/s burst 100"
    quota.requests = ["400/hour", { limit = "500/day", over = "allow", stop = "5000" }]
    quota.ingress = "1KB/hour"
    feature.exports = true
    [plan.narrow]
    extends = "pro"
    concurrency = 1
    [plan.trial]
    extends = "free"
    expires = "1d"
    [plan.film]
    extends = "free"
    quota.egress = "700B/hour"
"#;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// Path and query, as they are sent.
    pub target: String,
    /// The tenant that the caller says it is.
    pub tenant: Option<&'static str>,
    /// The body.
    pub body: Body,
}

impl Request {
    /// Where it comes from, if a page of another origin asks: some tenants have a web application.
    pub fn origin(&self) -> Option<&'static str> {
        matches!(self.tenant, Some("solo" | "late")).then_some("https://app.example")
    }

    /// What its caller may do, in `x-permission`: those of some tenants read what is sealed.
    pub fn permission(&self) -> Option<&'static str> {
        matches!(self.tenant, Some("solo")).then_some("read unseal")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = self.tenant.unwrap_or("nobody");
        write!(f, "{} {} as {tenant}, {:?}", self.method, self.target, self.body)
    }
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// None, and no header that says so.
    None,
    /// So many bytes, announced.
    Sized(usize),
    /// So many bytes in chunks, unannounced.
    Chunked(usize),
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub enum Act {
    /// A request, and its answer read to its end.
    Send(Request),
    /// The client goes away when it has read so many bytes of the body.
    Cut(Request, usize),
    /// The second request is sent while the first is being streamed; then the client of the first
    /// goes away.
    During(Request, usize, Request),
    /// A request while the store does not answer.
    Outage(Request),
}

/// One step of the trace.
#[derive(Clone, Debug)]
pub struct Step {
    /// How far the clock moves before it.
    pub wait: Duration,
    /// What happens.
    pub act: Act,
}

/// Tenants with the plans they are on: made before the trace begins. `late` has not paid, `gone` is
/// suspended.
pub const TENANTS: [(&str, &str); 7] = [
    ("acme", "pro"),
    ("solo", "free"),
    ("narrow", "narrow"),
    ("new", "trial"),
    ("film", "film"),
    ("late", "pro"),
    ("gone", "pro"),
];

/// The trace.
pub fn trace(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    (0..STEPS).map(|nth| step(&mut dice, nth)).collect()
}

fn step(dice: &mut Dice, nth: usize) -> Step {
    // Most steps follow each other within moments; now and then an hour ends, and once a day.
    let wait = match nth {
        350 => Duration::from_secs(26 * 3_600),
        _ => match dice.below(40) {
            0 => Duration::from_secs(1_800 + dice.below(3_600)),
            1..3 => Duration::from_secs(dice.below(20)),
            _ => Duration::from_millis(dice.below(300)),
        },
    };
    let chunks = 1 + dice.below(9) as usize;
    let act = match dice.below(50) {
        0..3 => Act::Cut(streamed(dice.tenant(), chunks), chunks * CHUNK),
        3..6 => {
            let held = streamed("narrow", chunks);
            Act::During(held, chunks * CHUNK, get(Some("narrow"), "/v1/search"))
        }
        6 => Act::Outage(get(Some(STRANGERS[nth % STRANGERS.len()]), "/v1/search")),
        _ => Act::Send(request(dice)),
    };
    Step { wait, act }
}

/// Callers that nobody has seen before they call in an outage.
const STRANGERS: [&str; 4] = ["stranger-1", "stranger-2", "stranger-3", "stranger-4"];

fn request(dice: &mut Dice) -> Request {
    let tenant = Some(dice.tenant());
    match dice.below(24) {
        0..5 => get(tenant, &format!("/v1/search?q={}", dice.below(100))),
        5 => get(tenant, ["/v1/%73earch", "/%761/search", "/v1/s%65arch?q=1"][dice.index(3)]),
        6 => get(tenant, ["/v1%2Fsearch", "/v1/%zz", "/v1//search", "/nowhere"][dice.index(4)]),
        7..9 => post(tenant, "/v1/exports", Body::None),
        9 => post(tenant, "/v1/gem", Body::None),
        10 => get(None, "/v1/search"),
        11 => get(None, "/healthz"),
        12 => Request { method: "HEAD", ..get(tenant, "/v1/search") },
        13 => get(tenant, "/v1/empty"),
        14..16 => post(tenant, "/v1/upload", Body::Sized(1 + dice.index(60))),
        16 => post(tenant, "/v1/upload", Body::Chunked(1 + dice.index(60))),
        17 => {
            let status = [400, 404, 409, 418, 422, 500, 503][dice.index(7)];
            get(tenant, &format!("/v1/error?status={status}"))
        }
        18 => get(tenant, "/v1/panic"),
        19 => get(tenant, &format!("/v1/stumble?chunks={}", dice.below(4))),
        20..22 => {
            let (take, add) = (dice.below(20), dice.below(20));
            post(tenant, &format!("/v1/spend?take={take}&add={add}"), Body::None)
        }
        _ => get(tenant, &format!("/v1/stream?chunks={}", dice.below(12))),
    }
}

fn get(tenant: Option<&'static str>, target: &str) -> Request {
    Request { method: "GET", target: target.to_owned(), tenant, body: Body::None }
}

fn post(tenant: Option<&'static str>, target: &str, body: Body) -> Request {
    Request { method: "POST", target: target.to_owned(), tenant, body }
}

/// A stream that says nothing more after so many chunks, and does not end.
fn streamed(tenant: &'static str, chunks: usize) -> Request {
    get(Some(tenant), &format!("/v1/wait?chunks={chunks}"))
}

/// splitmix64: numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn index(&mut self, most: usize) -> usize {
        self.below(most as u64) as usize
    }

    fn tenant(&mut self) -> &'static str {
        // Two of three requests are of the two that get far.
        match self.index(13) {
            0..5 => "acme",
            5..8 => "solo",
            n => TENANTS[2 + (n - 8) % 5].0,
        }
    }
}

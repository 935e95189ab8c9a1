//! The remainder in limit headers: what the next request could use, of included units and grants
//! together. It is as of now if the handler has waited, and as of the admission if it was ready at
//! once, which saves a reading of the clock. Time is manual.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::{Clock, GateBuilder, ManualClock, Now, testing};
use tower::{Layer, Service, service_fn};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    rate.default = "10/min burst 10"
"#;

/// A clock that counts how often it is read.
#[derive(Clone)]
struct Counted(ManualClock, Arc<AtomicUsize>);

impl Clock for Counted {
    fn now(&self) -> Now {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.now()
    }
}

impl Counted {
    fn readings(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

/// The `RateLimit` of a request whose handler takes 30 seconds, and the number of clock readings.
/// The tenant has made three requests before.
async fn told(waits: bool, extensions: bool) -> (String, usize) {
    let clock = Counted(ManualClock::at_unix_ms(testing::START_MS), Arc::default());
    let gate = testing::builder(PLANS).clock(clock.clone()).open().await.unwrap();
    let layer = GateLayer::new(&gate);
    let layer = if extensions { layer } else { layer.without_extensions() };
    let time = clock.0.clone();
    let mut service = layer.layer(service_fn(move |request: Request<Empty<Bytes>>| {
        let time = time.clone();
        async move {
            if waits {
                tokio::task::yield_now().await;
            }
            if request.uri() == "/slow" {
                time.advance(Duration::from_secs(30));
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let request = |to: &str| Request::get(to).header("x-tenant", "acme").body(Empty::new());
    for _ in 0..3 {
        service.call(request("/").unwrap()).await.unwrap();
    }
    clock.readings();
    let response = service.call(request("/slow").unwrap()).await.unwrap();
    let readings = clock.readings();
    (response.headers()["ratelimit"].to_str().unwrap().to_owned(), readings)
}

#[tokio::test]
async fn after_a_wait_the_headers_tell_what_is_left_now() {
    for extensions in [false, true] {
        // Four of ten are gone, and five come in half a minute. The number of clock readings means
        // nothing here: other tasks read it during the wait.
        assert_eq!(told(true, extensions).await.0, "\"default\";r=10;t=0");
    }
}

#[tokio::test]
async fn a_handler_that_was_ready_at_once_costs_no_second_look_at_the_clock() {
    for extensions in [false, true] {
        assert_eq!(told(false, extensions).await, ("\"default\";r=6;t=24".to_owned(), 1));
    }
}

/// The `r` of the headers of a request whose handler reports this many tokens.
async fn left_after(gate: &tallygate::Gate, tokens: u64) -> String {
    let service = service_fn(move |request: Request<Empty<Bytes>>| {
        let usage = request.extensions().get::<tallygate::Admitted>().unwrap().usage();
        async move {
            if tokens > 0 {
                usage.add("tokens", tokens);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let request = Request::get("/").header("x-tenant", "acme").body(Empty::new()).unwrap();
    let response = GateLayer::new(gate).layer(service).call(request).await.unwrap();
    let said = response.headers()["ratelimit"].to_str().unwrap();
    said.split(';').find(|part| part.starts_with("r=")).unwrap().to_owned()
}

#[tokio::test]
async fn what_is_left_is_what_the_next_request_could_use() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold  = "50"
        [plan.free]
        quota.tokens = "500/day"
        "#,
    );
    // Its own hold of 50 is not used.
    assert_eq!(left_after(&gate, 0).await, "r=500");
    assert_eq!(left_after(&gate, 10).await, "r=490");
    let pack = tallygate::directory::Grant::new("pack", "tokens", 300);
    gate.directory().tenant("acme").grant(pack).save().await.unwrap();
    assert_eq!(left_after(&gate, 0).await, "r=790", "included and granted together");
    assert_eq!(left_after(&gate, 510).await, "r=280");
    assert_eq!(left_after(&gate, 0).await, "r=280", "nothing is included any more");
    assert_eq!(left_after(&gate, 280).await, "r=0");
}

#[tokio::test]
async fn what_a_request_holds_of_a_sum_is_left_until_it_is_used() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold  = "20"
        [meter.credits]
        parts = 10
        sum = { tokens = "1/10", requests = "1" }
        [plan.free]
        quota.credits = "40/day"
        "#,
    );
    // A call is a credit, and the 2 that it holds for 20 tokens are not used.
    assert_eq!(left_after(&gate, 0).await, "r=39");
    assert_eq!(left_after(&gate, 10).await, "r=37", "another call, and 10 tokens");
    assert_eq!(left_after(&gate, 20).await, "r=34", "all that it held");
    for left in (2..34).rev() {
        assert_eq!(left_after(&gate, 0).await, format!("r={left}"));
    }
}

/// Units that are given once have one name, before and after they are used up, whether a plan gives
/// them or a grant, in the headers, in the refusal and in `GET /usage`.
#[tokio::test]
async fn one_time_units_have_one_name_everywhere() {
    let plans = |given: &str| {
        format!(
            "default-plan = \"free\"\n[meter.credits]\n[route.render]\nmatch = \"POST /render\"\n\
             cost = {{ credits = 10 }}\n[plan.free]\nquota.credits = \"{given}\"\n"
        )
    };
    for (given, grants, left) in [("30", 0, 30), ("prepaid", 1, 30), ("30", 1, 60)] {
        let (gate, _clock) = testing::gate(&plans(given));
        for n in 0..grants {
            let grant = tallygate::directory::Grant::new(format!("g{n}"), "credits", 30);
            gate.directory().tenant("acme").grant(grant).save().await.unwrap();
        }
        let service = service_fn(|_: Request<Empty<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        for left in (0..left).step_by(10).rev().map(Some).chain([None]) {
            let request =
                Request::post("/render").header("x-tenant", "acme").body(Empty::new()).unwrap();
            let reply = GateLayer::new(&gate).layer(service).call(request).await.unwrap();
            assert_eq!(reply.status(), if left.is_some() { 200 } else { 402 }, "{given}");
            let told = format!("\"credits/once\";r={}", left.unwrap_or(0));
            assert_eq!(reply.headers()["ratelimit"], told, "{given}");
            if left.is_none() {
                let body = reply.into_body().collect().await.unwrap().to_bytes();
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(problem["limit"]["name"], "credits/once", "{given}");
                assert_eq!(problem["violated-policies"][0], "credits/once", "{given}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_left_of_prepaid_units_is_told() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.credits]
        count = "reported"
        hold  = "5"
        [plan.free]
        quota.credits = "prepaid"
    "#,
    );
    let told = async |used: u64| {
        let service = service_fn(move |request: Request<Empty<Bytes>>| {
            let usage = request.extensions().get::<tallygate::Admitted>().unwrap().usage();
            usage.add("credits", used);
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        });
        let request = Request::get("/").header("x-tenant", "acme").body(Empty::new()).unwrap();
        let response = GateLayer::new(&gate).layer(service).call(request).await.unwrap();
        let line = |name| response.headers()[name].to_str().unwrap().to_owned();
        (response.status().as_u16(), line("ratelimit"), line("ratelimit-policy"))
    };
    let of = |status, left, granted| {
        let policy = format!("\"credits/once\";q={granted};tallygate-unit=\"credits\"");
        (status, format!("\"credits/once\";r={left}"), policy)
    };
    assert_eq!(told(0).await, of(402, 0, 0));
    let bought = |id, units| tallygate::directory::Grant::new(id, "credits", units);
    let soon = testing::time_at(testing::START_MS + 60_000);
    let edit = gate.directory().tenant("acme").grant(bought("first", 700).expires(soon));
    edit.grant(bought("second", 300)).save().await.unwrap();
    assert_eq!(told(0).await, of(200, 1000, 1000), "its own hold is left to it");
    assert_eq!(told(400).await, of(200, 600, 1000));
    assert_eq!(told(400).await, of(200, 200, 1000));
    clock.advance(Duration::from_secs(60));
    assert_eq!(told(1).await, of(200, 199, 300), "the first has expired");
    assert_eq!(told(400).await, of(200, 0, 300));
    assert_eq!(told(0).await, of(402, 0, 300));
}

/// The limit headers of an answer under two limits, the quota nearly used up, by the service file.
async fn headers_by_file(style: &str) -> Vec<(String, String)> {
    let service = format!(
        "[store]\nkind = \"memory\"\n[identity]\nunknown = \"create\"\n[proxy]\n\
         trust = [\"127.0.0.0/8\"]\n[[identify]]\nheader = \"x-tenant\"\n[http]\n\
         limit-headers = \"{style}\""
    );
    let plans = "default-plan = \"free\"\n[plan.free]\nrate.default = \"10/min burst 10\"\n\
                 quota.requests = \"3/day\"";
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = GateBuilder::from_text(&service).plans(plans).clock(clock);
    let gate = gate.open().await.unwrap();
    let service = service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut service = GateLayer::new(&gate).layer(service);
    let mut last = None;
    for _ in 0..2 {
        let mut request = Request::get("/").header("x-tenant", "acme").body(Empty::new()).unwrap();
        request.extensions_mut().insert(Peer(([127, 0, 0, 1], 80).into()));
        last = Some(service.call(request).await.unwrap());
    }
    let headers = last.unwrap();
    let pairs = headers.headers().iter();
    pairs.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn the_service_file_says_which_limits_answers_name() {
    let of = |pairs: &[(&str, &str)]| -> Vec<_> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let seconds = headers_by_file("delta").await.pop().unwrap().1;
    let both = format!("\"default\";r=8;t=12, \"requests/day\";r=1;t={seconds}");
    let policy = "\"default\";q=10;w=60, \"requests/day\";q=3;w=86400";
    let all = of(&[("ratelimit-policy", policy), ("ratelimit", &both)]);
    assert_eq!(headers_by_file("all").await, all);
    let one = format!("\"requests/day\";r=1;t={seconds}");
    let policy = "\"requests/day\";q=3;w=86400";
    let nearest = of(&[("ratelimit-policy", policy), ("ratelimit", &one)]);
    assert_eq!(headers_by_file("nearest").await, nearest);
    let delta = of(&[
        ("x-ratelimit-limit", "3"),
        ("x-ratelimit-remaining", "1"),
        ("x-ratelimit-reset", &seconds),
    ]);
    assert_eq!(headers_by_file("delta").await, delta);
    assert_eq!(headers_by_file("off").await, of(&[]));
}

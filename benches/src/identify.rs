//! Who is calling: known callers beside a map look-up by the same text, and first requests.

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, BenchmarkId, Criterion};
use dashmap::DashMap;
use http::Request;
use ring::hmac;
use tallygate::adapter::{IdentifyStep, Waited};
use tallygate::middleware::HttpView;
use tallygate::wire::HeaderStyle;
use tallygate::{Clock, Gate, Now, SystemClock, testing};
use tokio::runtime::Runtime;

use crate::setup;

pub fn run(c: &mut Criterion, rt: &Runtime, round: usize) {
    let gate = setup::gate(rt, HeaderStyle::Off);
    let ways = ways(rt, &gate);
    let clock = SystemClock::new();

    let mut group = c.benchmark_group("identify");
    for (what, header, value) in ways {
        let map: DashMap<String, Arc<u64>> = (0..10_000)
            .map(|i| (setup::name(i), Arc::new(0)))
            .chain([(value.clone(), Arc::new(1))])
            .collect();
        let request = setup::request(header, &value);
        group.bench_function(BenchmarkId::new(format!("map-{what}"), round), |b| {
            b.iter(|| map.get(black_box(value.as_str())).map(|found| found.clone()));
        });
        ask(rt, &gate, &request);
        let mut now = clock.now();
        group.bench_function(BenchmarkId::new(format!("tallygate-{what}"), round), |b| {
            b.iter(|| known(rt, &gate, black_box(&request), &mut now, &clock));
        });
        group.bench_function(BenchmarkId::new(format!("tallygate-{what}-first"), round), |b| {
            let forget = || testing::forget_callers(&gate);
            let first = |()| ask(rt, &gate, &request);
            b.iter_batched(forget, first, BatchSize::PerIteration);
        });
    }
    group.finish();
    rt.block_on(gate.close()).expect("everything counted is written");
}

/// Step 1 in this way, once a call.
pub fn once(rt: &Runtime, way: &str) -> Box<dyn FnMut()> {
    let gate = setup::gate(rt, HeaderStyle::Off);
    let ways = ways(rt, &gate);
    let (_, header, value) = ways.into_iter().find(|(name, ..)| *name == way).expect("a way");
    let (request, now) = (setup::request(header, &value), SystemClock::new().now());
    ask(rt, &gate, &request);
    Box::new(move || {
        let is_known = testing::is_identified(&gate, &view(black_box(&request)), now);
        assert_eq!(is_known, Some(true), "a caller in memory");
    })
}

/// Each way to be known, with its header and a value of it.
fn ways(rt: &Runtime, gate: &Gate) -> [(&'static str, &'static str, String); 3] {
    let key = rt.block_on(async {
        let acme = gate.directory().tenant(&setup::name(0)).save().await.expect("a tenant");
        acme.new_key("bench").await.expect("a key").expose().to_owned()
    });
    [
        ("header", "x-tenant", setup::name(0)),
        ("api-key", "x-api-key", key),
        ("jwt", "authorization", format!("Bearer {}", token())),
    ]
}

/// Step 1 for a caller in memory. What is in memory grows old: then it is looked up again.
#[inline]
fn known<B>(rt: &Runtime, gate: &Gate, request: &Request<B>, now: &mut Now, clock: &SystemClock) {
    while testing::is_identified(gate, &view(request), *now) != Some(true) {
        ask(rt, gate, request);
        *now = clock.now();
    }
}

fn view<B>(request: &Request<B>) -> HttpView<'_> {
    let peer = Some(setup::PEER.ip());
    HttpView::new(request.method(), request.uri(), request.headers(), peer)
}

/// Identifies a caller from the directory.
fn ask<B>(rt: &Runtime, gate: &Gate, request: &Request<B>) {
    let mut waited = Waited::default();
    loop {
        match gate.identify_request(&view(request), waited) {
            IdentifyStep::Done(_) => return,
            IdentifyStep::Wait(pending) => waited = rt.block_on(pending),
            IdentifyStep::Refused(refusal) => panic!("refused: {:?}", refusal.reason),
        }
    }
}

fn token() -> String {
    let claims = serde_json::json!({
        "iss": "bench", "aud": "api", "org": setup::name(0), "exp": 4_102_444_800_u64,
    });
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(br#"{"alg":"HS256"}"#), part(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, setup::SECRET.as_bytes());
    format!("{signed}.{}", part(hmac::sign(&key, signed.as_bytes()).as_ref()))
}

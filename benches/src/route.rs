//! A route of an axum router, by credential: bare, behind our layer, and as a route of
//! tollgate-axum's.

use axum::Router;
use axum::routing::post;
use criterion::{BatchSize, BenchmarkId, Criterion};
use http::{Method, Request};
use tallygate::wire::HeaderStyle;
use tallygate_axum::GateLayer;
use tokio::runtime::Runtime;
use tollgate_axum::TollgateConnection;

use crate::layer::driven;
use crate::setup::{self, Nothing};
use crate::tollgate::{self, Route};

/// Requests between pauses in which the peer's writer of usage catches up: its queue is bounded,
/// and full it refuses.
const BETWEEN_PAUSES: usize = 16_384;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

pub fn run(c: &mut Criterion, rt: &Runtime, round: usize) {
    let _within = rt.enter();
    let gates = [HeaderStyle::Off, HeaderStyle::Draft11]
        .map(|style| setup::gate_by(rt, &setup::by_key(), setup::PLANS, style));
    let by_key = gates.each_ref().map(|gate| {
        let key = rt.block_on(async {
            let acme = gate.directory().tenant("acme").save().await.expect("a tenant");
            acme.new_key("bench").await.expect("a key").expose().to_owned()
        });
        posted(setup::request("x-api-key", &key))
    });
    let [silent, with_headers] = gates.each_ref().map(|gate| bare().layer(GateLayer::new(gate)));
    let peer = Route::start(rt);
    let connection = TollgateConnection::default();
    let with_bearer = tollgate::request(&connection);

    let mut sent = 0;
    let mut bench = |what: &str, router: Router, request: &Request<Nothing>| {
        let mut service = driven(router);
        let mut next = || {
            sent += 1;
            if sent % BETWEEN_PAUSES == 0 {
                std::thread::sleep(PAUSE);
            }
            request.clone()
        };
        (0..100_000).for_each(|_| service(next()));
        let mut group = c.benchmark_group("route");
        group.bench_function(BenchmarkId::new(what, round), |b| {
            b.iter_batched(&mut next, &mut service, BatchSize::NumIterations(32));
        });
        group.finish();
    };
    bench("bare", bare(), &by_key[0]);
    bench("tallygate", silent, &by_key[0]);
    bench("tallygate-headers", with_headers, &by_key[1]);
    bench("tollgate-axum", peer.router.clone(), &with_bearer);
    peer.stop(rt);
    for gate in gates {
        rt.block_on(gate.close()).expect("everything counted is written");
    }
}

fn bare() -> Router {
    Router::new().route("/v1/search", post(async || "found"))
}

fn posted(mut request: Request<Nothing>) -> Request<Nothing> {
    *request.method_mut() = Method::POST;
    request
}

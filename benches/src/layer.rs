//! The whole layer around a service that does nothing, request in to body out.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use criterion::{BatchSize, BenchmarkId, Criterion};
use http::{Request, Response};
use http_body::Body as _;
use tallygate::middleware::GateLayer;
use tallygate::wire::HeaderStyle;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

use crate::setup::{self, Nothing};

pub fn run(c: &mut Criterion, rt: &Runtime, round: usize) {
    let _within = rt.enter();
    let named = |plans, style| setup::gate_by(rt, setup::BY_HEADER, plans, style);
    let silent = named(setup::PLANS, HeaderStyle::Off);
    let telling = named(setup::PLANS, HeaderStyle::Draft11);
    let one_rate = named(setup::ONE_RATE, HeaderStyle::Draft11);
    let keyed = setup::gate_by(rt, &setup::by_key(), setup::PLANS, HeaderStyle::Draft11);
    let key = rt.block_on(async {
        let acme = keyed.directory().tenant("acme").save().await;
        let key = acme.expect("a tenant").new_key("bench").await;
        key.expect("a key").expose().to_owned()
    });
    let by_header = setup::request("x-tenant", &setup::name(0));
    let by_key = setup::request("x-api-key", &key);

    let mut bench =
        |what: &str, service: &mut dyn FnMut(Request<Nothing>), request: &Request<Nothing>| {
            (0..200_000).for_each(|_| service(request.clone()));
            let mut group = c.benchmark_group("layer");
            group.bench_function(BenchmarkId::new(what, round), |b| {
                b.iter_batched(|| request.clone(), &mut *service, BatchSize::NumIterations(32));
            });
            group.finish();
        };
    let bare = service_fn(bare);
    bench("bare", &mut driven(bare), &by_header);
    let layer = GovernorLayer::<_, _, Body>::new(governor().finish().expect("a quota"));
    bench("tower-governor", &mut driven(layer.layer(bare)), &by_header);
    let layer = GateLayer::new(&silent).without_extensions();
    bench("tallygate", &mut driven(layer.layer(bare)), &by_header);
    let telling_governor =
        || GovernorLayer::<_, _, Body>::new(governor().use_headers().finish().expect("a quota"));
    let layer = telling_governor();
    bench("tower-governor-headers", &mut driven(layer.layer(bare)), &by_header);
    // One holds a caller to one limit: two for as many as ours, though they tell of the last only.
    let (outer, inner) = (telling_governor(), telling_governor());
    let two = outer.layer(inner.layer(bare));
    bench("two-tower-governors-headers", &mut driven(two), &by_header);
    let layer = GateLayer::new(&telling).without_extensions();
    bench("tallygate-headers", &mut driven(layer.layer(bare)), &by_header);
    let layer = GateLayer::new(&one_rate).without_extensions();
    bench("tallygate-headers-one-rate", &mut driven(layer.layer(bare)), &by_header);
    let layer = GateLayer::new(&keyed).without_extensions();
    bench("tallygate-headers-api-key", &mut driven(layer.layer(bare)), &by_key);
    let layer = GateLayer::new(&telling);
    bench("tallygate-headers-extractors", &mut driven(layer.layer(bare)), &by_header);
    for gate in [silent, telling, one_rate, keyed] {
        rt.block_on(gate.close()).expect("everything counted is written");
    }
}

async fn bare(_: Request<Nothing>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("found")))
}

/// Sends a request and reads the response to its end, by polling: there is no executor whose cost
/// would stand in every figure.
fn driven<S, R>(mut service: S) -> impl FnMut(Request<Nothing>)
where
    S: Service<Request<Nothing>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body,
{
    move |request| {
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(service.poll_ready(cx).is_ready());
        let mut answer = pin!(service.call(request));
        let response = loop {
            // A wait for a lease is answered by the runtime's other thread.
            if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
                break response;
            }
        };
        assert!(response.status().is_success());
        let mut body = pin!(response.into_body());
        while !body.is_end_stream() {
            assert!(body.as_mut().poll_frame(cx).is_ready());
        }
    }
}

fn governor() -> GovernorConfigBuilder<ByTenant, governor::middleware::NoOpMiddleware> {
    let mut builder = GovernorConfigBuilder::default();
    let mut builder = builder.key_extractor(ByTenant);
    let nanos = 1_000_000_000 / u64::from(setup::PER_SECOND);
    builder.per_nanosecond(nanos).burst_size(NonZeroU32::new(setup::BURST).expect("not 0").get());
    builder
}

/// tower_governor by the same header.
#[derive(Clone)]
struct ByTenant;

impl KeyExtractor for ByTenant {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let tenant = request.headers().get("x-tenant").and_then(|v| v.to_str().ok());
        tenant.map(str::to_owned).ok_or(GovernorError::UnableToExtractKey)
    }
}

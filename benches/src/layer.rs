//! The whole layer around a service that does nothing, request in to body out.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum_governor::GovernorLayer as AxumGovernorLayer;
use criterion::{BatchSize, BenchmarkId, Criterion};
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use http::{HeaderName, Request, Response};
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
    bench("tower-governor", &mut driven(governed().layer(bare)), &by_header);
    let layer = GateLayer::new(&silent).without_extensions();
    bench("tallygate", &mut driven(layer.layer(bare)), &by_header);
    let layer = AxumGovernorLayer::new(axum_governor());
    bench("axum-governor-headers", &mut driven(layer.layer(bare)), &by_header);
    let layer = governed_with_headers();
    bench("tower-governor-headers", &mut driven(layer.layer(bare)), &by_header);
    // One holds a caller to one limit: two for as many as ours, though they tell of the last only.
    let (outer, inner) = (governed_with_headers(), governed_with_headers());
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

pub async fn bare(_: Request<Nothing>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("found")))
}

/// Sends a request and reads the response to its end, by polling: there is no executor whose cost
/// would stand in every figure.
pub fn driven<S, R>(mut service: S) -> impl FnMut(Request<Nothing>)
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

/// tower_governor's layer.
pub fn governed() -> GovernorLayer<ByTenant, NoOpMiddleware, Body> {
    GovernorLayer::new(governor().finish().expect("a quota"))
}

/// The same with its limit headers.
pub fn governed_with_headers() -> GovernorLayer<ByTenant, StateInformationMiddleware, Body> {
    GovernorLayer::new(governor().use_headers().finish().expect("a quota"))
}

fn governor() -> GovernorConfigBuilder<ByTenant, NoOpMiddleware> {
    let mut builder = GovernorConfigBuilder::default();
    let mut builder = builder.key_extractor(ByTenant);
    let nanos = 1_000_000_000 / u64::from(setup::PER_SECOND);
    builder.per_nanosecond(nanos).burst_size(NonZeroU32::new(setup::BURST).expect("not 0").get());
    builder
}

/// axum-governor by the same header: it has no way to send none.
fn axum_governor() -> axum_governor::GovernorConfig<String> {
    static TENANT: HeaderName = HeaderName::from_static("x-tenant");
    let of = |n| NonZeroU32::new(n).expect("not 0");
    let quota = axum_governor::Quota::requests_per_second(of(setup::PER_SECOND));
    axum_governor::GovernorConfigBuilder::default()
        .with_extractor(axum_governor::Header(&TENANT))
        .quota_default(quota.burst(of(setup::BURST)))
        .finish()
        .expect("a quota")
}

/// tower_governor by the same header.
#[derive(Clone)]
pub struct ByTenant;

impl KeyExtractor for ByTenant {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let tenant = request.headers().get("x-tenant").and_then(|v| v.to_str().ok());
        tenant.map(str::to_owned).ok_or(GovernorError::UnableToExtractKey)
    }
}

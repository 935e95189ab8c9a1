//! What a tonic client reads of a refusal, from a tonic server behind the tower layer, over
//! loopback.

#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a test that panics has failed, and says where; the error is tonic's"
)]

use std::pin::Pin;
use std::time::Duration;

use tallygate::directory::PaymentState;
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty};
use tallygate::wire::GrpcStatus;
use tallygate::{Admitted, Gate};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "1"
    [route.check]
    match = "POST /grpc.health.v1.Health/Check"
    cost = { requests = 2, tokens = 0 }
    [route.watch]
    match = "POST /grpc.health.v1.Health/Watch"
    needs = "watch"
    [plan.free]
    rate.check = "2/min"
    quota.tokens = "10/day"
    [plan.pro]
    concurrency = 1
    quota.requests = "5/day"
    quota.tokens = "10/day"
    feature.watch = true
"#;

/// A service that takes as many tokens as the name it is asked about has letters.
struct Checked;

#[tonic::async_trait]
impl Health for Checked {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        let tokens = request.get_ref().service.len() as u64;
        usage.take("tokens", tokens).await.map_err(|refusal| {
            let GrpcStatus { code, message, details } = GrpcStatus::of(&refusal);
            Status::with_details(code.into(), message, details.into())
        })?;
        usage.add("tokens", tokens);
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = HealthCheckResponse { status: ServingStatus::Serving.into() };
        let rest = tokio_stream::pending();
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(rest))))
    }
}

/// Names the caller, if there is one.
#[derive(Clone)]
struct As(Option<&'static str>);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = self.0 {
            request.metadata_mut().insert("x-tenant", MetadataValue::from_static(tenant));
        }
        Ok(request)
    }
}

/// A server in front of this gate, and a channel to it.
async fn serve(gate: &Gate) -> Channel {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(GateLayer::new(gate))
        .add_service(HealthServer::new(Checked))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

fn client(
    channel: &Channel,
    tenant: Option<&'static str>,
) -> HealthClient<InterceptedService<Channel, As>> {
    HealthClient::with_interceptor(channel.clone(), As(tenant))
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_spent_rate_is_resource_exhausted_with_the_wait_and_the_limit() {
    let (gate, clock) = testing::gate(PLANS);
    let mut acme = client(&serve(&gate).await, Some("acme"));
    for _ in 0..2 {
        acme.check(about("")).await.unwrap();
    }
    let refused = acme.check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "Rate limit `check` exceeded (plan free). Retry in 30 s.");
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_secs(30));
    let failure = refused.get_details_quota_failure().unwrap();
    assert_eq!(failure.violations.len(), 1);
    assert_eq!(failure.violations[0].subject, "plan:free");
    assert_eq!(failure.violations[0].description, refused.message());
    let limits = refused.metadata().get("ratelimit-policy").unwrap();
    assert_eq!(limits, "\"check\";q=2;w=60");

    clock.advance(wait);
    acme.check(about("")).await.unwrap();
}

#[tokio::test]
async fn a_spent_quota_names_its_metric_and_its_value() {
    let (gate, _clock) = testing::gate(PLANS);
    gate.directory().tenant("acme").plan("pro").note("test").save().await.unwrap();
    let mut acme = client(&serve(&gate).await, Some("acme"));
    for _ in 0..2 {
        acme.check(about("")).await.unwrap();
    }
    let refused = acme.check(about("")).await.unwrap_err();
    let failure = refused.get_details_quota_failure().unwrap().violations.remove(0);
    assert_eq!(failure.quota_metric, "requests");
    assert_eq!(failure.quota_id, "requests/day");
    assert_eq!(failure.quota_value, 5);
    assert_eq!(failure.quota_dimensions["plan"], "pro");
}

#[tokio::test]
async fn nobody_is_unauthenticated() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut nobody = client(&serve(&gate).await, None);
    let refused = nobody.check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.get_details_retry_info().is_none());
}

#[tokio::test]
async fn a_missing_feature_is_permission_denied_and_names_it() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut acme = client(&serve(&gate).await, Some("acme"));
    let refused = acme.watch(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((&*info.reason, &*info.domain), ("FEATURE_NOT_IN_PLAN", "tallygate"));
    assert_eq!(info.metadata["feature"], "watch");
    assert_eq!(info.metadata["plan"], "free");
    assert!(refused.get_details_retry_info().is_none());
}

#[tokio::test]
async fn what_waiting_does_not_cure_is_a_failed_precondition() {
    let (gate, _clock) = testing::gate(PLANS);
    let late = gate.directory().tenant("late").payment(PaymentState::Unpaid).note("test");
    late.save().await.unwrap();
    let refused = client(&serve(&gate).await, Some("late")).check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "UNPAID");
    assert!(refused.get_details_retry_info().is_none());
}

/// No client of gRPC can state a length: the status says what the operator can do, and doing so
/// helps.
#[tokio::test]
async fn metered_request_bytes_refuse_a_call_unless_its_route_leaves_them_out() {
    let metered = PLANS.replacen(
        "[meter.tokens]",
        "[meter.ingress]\ncount = \"request-bytes\"\n[meter.tokens]",
        1,
    );
    let (gate, _clock) = testing::gate(&metered);
    let refused = client(&serve(&gate).await, Some("acme")).check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(!refused.message().contains("Content-Length"), "{}", refused.message());
    assert!(refused.message().contains("`cost = { METER = 0 }`"), "{}", refused.message());
    assert_eq!(refused.get_details_error_info().unwrap().reason, "LENGTH_REQUIRED");

    let exempt = metered.replacen("tokens = 0 }", "tokens = 0, ingress = 0 }", 1);
    let (gate, _clock) = testing::gate(&exempt);
    client(&serve(&gate).await, Some("acme")).check(about("")).await.unwrap();
}

#[tokio::test]
async fn a_gate_that_cannot_decide_is_unavailable_for_a_while() {
    let store = Faulty::scripted(Memory::new(), []);
    let (gate, _clock) = testing::gate_with(PLANS, store.clone());
    store.outage(true);
    let refused = client(&serve(&gate).await, Some("acme")).check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_secs(1));
}

#[tokio::test]
async fn a_handler_passes_on_what_it_could_not_take() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut acme = client(&serve(&gate).await, Some("acme"));
    acme.check(about("seven..")).await.unwrap();
    let refused = acme.check(about("four")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_quota_failure().is_some());
    let who = testing::identified(&gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let tokens = report.meters.iter().find(|meter| &*meter.name == "tokens").unwrap();
    assert_eq!((tokens.used.whole(), tokens.held.whole()), (7, 0));
}

#[tokio::test]
async fn a_stream_is_in_flight_until_its_client_gives_it_up() {
    let (gate, _clock) = testing::gate(PLANS);
    gate.directory().tenant("acme").plan("pro").note("test").save().await.unwrap();
    let mut acme = client(&serve(&gate).await, Some("acme"));
    let mut stream = acme.watch(about("")).await.unwrap().into_inner();
    assert!(stream.next().await.unwrap().is_ok());
    let refused = acme.check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(stream);
    let tenant = gate.tenant("acme").await.unwrap();
    let given_up = async {
        while tenant.in_flight() != Some(0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), given_up).await.unwrap();
    acme.check(about("")).await.unwrap();
}

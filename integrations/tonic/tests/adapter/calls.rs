//! What a method knows of its call, and what a client reads where it may not go on.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tallygate::{Ask, Gate, testing};
use tallygate_tonic::{GatedRequest, layer, status};
use test_support::gates::meter;
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
    [meter.jobs]
    [route.check]
    match = "POST /grpc.health.v1.Health/Check"
    [route.watch]
    match = "POST /grpc.health.v1.Health/Watch"
    [plan.free]
    concurrency = 2
    quota.tokens = "10/day"
    quota.jobs = "1/day"
    [plan.pro]
    extends = "free"
    feature.search = true
"#;

/// A service whose methods are told by the name that they are asked about what to do.
struct Told(Gate);

pub(crate) fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Told {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let usage = request.usage()?;
        match &*request.get_ref().service {
            "search" => request.admitted()?.plan().require("search").map_err(status)?,
            "job" => {
                let tenant = self.0.tenant(usage.tenant()).await;
                let tenant = tenant.map_err(|error| Status::internal(error.to_string()))?;
                let job = Ask::new(&tenant, "job").cost("jobs", 1);
                self.0.admit(job).await.map_err(status)?.settle();
            }
            name => {
                usage.take("tokens", name.len() as u64).await.map_err(status)?;
                usage.add("tokens", name.len() as u64);
            }
        }
        Ok(Response::new(serving()))
    }

    /// A message for each of three tokens at a time, as long as there are any.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let usage = request.usage()?;
        let messages = tokio_stream::iter(0..).then(move |_: u32| {
            let usage = usage.clone();
            async move {
                usage.take("tokens", 3).await.map_err(status)?;
                usage.add("tokens", 3);
                Ok(serving())
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// Every call is of `acme`.
#[derive(Clone)]
pub(crate) struct Acme;

impl Interceptor for Acme {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-tenant", MetadataValue::from_static("acme"));
        Ok(request)
    }
}

pub(crate) type Client = HealthClient<InterceptedService<Channel, Acme>>;

pub(crate) async fn listening() -> (TcpListenerStream, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpListenerStream::new(listener), address)
}

pub(crate) async fn connected(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    HealthClient::with_interceptor(endpoint.connect().await.unwrap(), Acme)
}

/// A client of a server behind this gate.
async fn client(gate: &Gate) -> Client {
    let (incoming, address) = listening().await;
    let mut server = Server::builder().layer(layer(gate));
    let server = server.add_service(HealthServer::new(Told(gate.clone())));
    tokio::spawn(server.serve_with_incoming(incoming));
    connected(address).await
}

pub(crate) fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_method_takes_and_reports_what_it_uses() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut acme = client(&gate).await;
    acme.check(about("seven..")).await.unwrap();
    let refused = acme.check(about("four")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let failure = refused.get_details_quota_failure().unwrap().violations.remove(0);
    assert_eq!((&*failure.quota_id, failure.quota_value), ("tokens/day", 10));
    assert!(refused.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    acme.check(about("two")).await.unwrap();
    assert_eq!(meter(&gate, "tokens").await, (10, 0));
}

#[tokio::test]
async fn a_refusal_of_any_kind_is_a_status() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut acme = client(&gate).await;
    let refused = acme.check(about("search")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.get_details_error_info().unwrap().metadata["feature"], "search");
    gate.directory().tenant("acme").plan("pro").note("paid").save().await.unwrap();
    acme.check(about("search")).await.unwrap();

    acme.check(about("job")).await.unwrap();
    let refused = acme.check(about("job")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(meter(&gate, "jobs").await, (1, 0));
}

#[tokio::test]
async fn a_method_may_need_a_permission() {
    let needs = PLANS.replace("Health/Check\"", "Health/Check\"\nneeds-permission = \"check\"");
    let (gate, _clock) = testing::gate(&needs);
    let mut acme = client(&gate).await;
    let refused = acme.check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((&*info.reason, &*info.metadata["permission"]), ("PERMISSION_MISSING", "check"));
    let mut permitted = Request::new(about(""));
    permitted.metadata_mut().insert("x-permission", MetadataValue::from_static("check"));
    acme.check(permitted).await.unwrap();
}

#[tokio::test]
async fn a_stream_takes_as_it_goes_and_ends_with_the_refusal() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut acme = client(&gate).await;
    let mut stream = acme.watch(about("")).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(stream.next().await.unwrap().is_ok());
    }
    let refused = stream.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().is_some());
    assert!(stream.next().await.is_none());
    assert_eq!(meter(&gate, "tokens").await, (9, 0));
    acme.check(about("")).await.unwrap();
}

#[tokio::test]
async fn a_call_is_known_by_its_address() {
    let plans = PLANS.replace("concurrency = 2", "rate.all = \"2/min per ip\"");
    let service = "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[identity]\n\
                   unknown = \"create\"\nno-scope = \"refuse\"\n\
                   [[identify]]\nheader = \"x-tenant\"\n[proxy]\ntrust = [\"127.0.0.0/8\"]\n";
    let gate = tallygate::GateBuilder::from_text(service).plans(&plans).open().await.unwrap();
    let mut acme = client(&gate).await;
    for code in [Code::Ok, Code::Ok, Code::ResourceExhausted] {
        let answer = acme.check(about("")).await;
        let status = answer.map_or_else(|status| status, |_| Status::ok(""));
        assert_eq!(status.code(), code, "{status}");
    }
}

#[tokio::test]
async fn without_the_layer_a_method_says_what_is_missing() {
    let (gate, _clock) = testing::gate(PLANS);
    let (incoming, address) = listening().await;
    let server = Server::builder().add_service(HealthServer::new(Told(gate)));
    tokio::spawn(server.serve_with_incoming(incoming));
    let refused = connected(address).await.check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(refused.message().contains("tallygate_tonic::layer"), "{refused}");
}

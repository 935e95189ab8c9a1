//! Paths as no gRPC client writes them, to a tonic server behind the tower layer: whichever reaches
//! the handler costs what the handler costs.

use std::pin::Pin;
use std::task::{Context, Poll};

use tallygate::{Admitted, Gate, testing};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const PLANS: &str = r#"
    default-plan = "free"
    [route.check]
    match = "POST /grpc.health.v1.Health/Check"
    cost = { requests = 25 }
    [route.health]
    match = "POST /grpc.health.v1.Health/{method}"
    cost = { requests = 3 }
    [route.any]
    match = "POST /{service}/{method}"
    [route.open]
    match = "POST /open.v1.Open/{*rest}"
    auth = "none"
    [plan.free]
    charge-on = ["2xx", "4xx", "5xx"]
    quota.requests = "100k/day"
"#;

/// Says on which route it was called.
struct Said;

#[tonic::async_trait]
impl Health for Said {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let admitted = request.extensions().get::<Admitted>();
        let route = admitted.and_then(Admitted::route).map(|route| route.to_string());
        assert_eq!(route.as_deref(), Some("check"));
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::not_found("another method"))
    }
}

/// Sends every call of `acme` by this method to this path, as it is spelled.
#[derive(Clone)]
struct Spelled(Channel, http::Method, &'static str);

impl Service<http::Request<Body>> for Spelled {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        *request.method_mut() = self.1.clone();
        *request.uri_mut() = self.2.parse().unwrap();
        request.headers_mut().insert("x-tenant", http::HeaderValue::from_static("acme"));
        Box::pin(self.0.call(request))
    }
}

async fn used(gate: &Gate) -> u64 {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    report.meters.iter().find(|meter| &*meter.name == "requests").unwrap().used.whole()
}

/// A server in front of this gate, and a channel to it.
async fn serve(gate: &Gate) -> Channel {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(tallygate_tonic::layer(gate))
        .add_service(HealthServer::new(Said))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// Calls the method at this path, and says how that went.
async fn call(channel: &Channel, method: http::Method, path: &'static str) -> Code {
    let mut client = HealthClient::new(Spelled(channel.clone(), method, path));
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn a_call_by_any_method_of_http_is_on_the_route_of_its_post() {
    let (gate, _clock) = testing::gate(PLANS);
    let channel = serve(&gate).await;
    for method in [http::Method::PUT, http::Method::GET, http::Method::DELETE] {
        let before = used(&gate).await;
        let code = call(&channel, method.clone(), "/grpc.health.v1.Health/Check").await;
        assert_eq!((code, used(&gate).await - before), (Code::Ok, 25), "{method}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_method_reaches_its_handler_at_another_price() {
    let (gate, _clock) = testing::gate(PLANS);
    let channel = serve(&gate).await;
    let asked = [
        ("/grpc.health.v1.Health/Check", Code::Ok, 25),
        ("/grpc.health.v1.Health/Check?a=/", Code::Ok, 25),
        ("/grpc.health.v1.Health/Watch", Code::NotFound, 3),
        ("//Check", Code::Unimplemented, 1),
        ("//grpc.health.v1.Health/Check", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health//Check", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health/Check/", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health/./Check", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health/%43heck", Code::Unimplemented, 25),
        ("/grpc%2Ehealth.v1.Health/Check", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health%2FCheck", Code::Unimplemented, 25),
        ("/grpc.health.v1.Health/CHECK", Code::Unimplemented, 3),
        ("/grpc.health.v1.Health/Check;v=1", Code::Unimplemented, 3),
        ("/open.v1.Open/../grpc.health.v1.Health/Check", Code::Unimplemented, 25),
    ];
    for (path, code, cost) in asked {
        let before = used(&gate).await;
        assert_eq!(call(&channel, http::Method::POST, path).await, code, "{path}");
        assert_eq!(used(&gate).await - before, cost, "{path}");
    }
}

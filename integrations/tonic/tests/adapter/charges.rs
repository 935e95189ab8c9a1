//! What a call costs by the status that its method ends it with.

use std::pin::Pin;

use tallygate::{Gate, GateBuilder, testing};
use tallygate_tonic::layer;
use test_support::gates::{ByHeader, meter, service};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::calls::{Client, about, connected, listening, serving};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "100/day"
"#;

/// A service that ends each call as the name it is asked about says: "ok", or a code. With a `,` in
/// front, a stream sends a message first.
struct Ending;

fn ended(name: &str) -> Result<HealthCheckResponse, Status> {
    match name {
        "ok" => Ok(serving()),
        code => Err(Status::new(code.parse::<i32>().unwrap().into(), "as asked")),
    }
}

#[tonic::async_trait]
impl Health for Ending {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        ended(&request.get_ref().service).map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let messages: Vec<_> = match request.get_ref().service.split_once(',') {
            Some((_, "")) => {
                let first = tokio_stream::once(Ok(serving()));
                return Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))));
            }
            Some((_, end)) => vec![Ok(serving()), ended(end)],
            None => vec![ended(&request.get_ref().service)],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }
}

async fn client(gate: &Gate) -> Client {
    let (incoming, address) = listening().await;
    let server = Server::builder().layer(layer(gate)).add_service(HealthServer::new(Ending));
    tokio::spawn(server.serve_with_incoming(incoming));
    connected(address).await
}

async fn requests(gate: &Gate) -> u64 {
    meter(gate, "requests").await.0
}

/// The code that a stream ends with.
async fn watched(acme: &mut Client, name: &str) -> Code {
    let mut stream = match acme.watch(about(name)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.code(),
    };
    while let Some(message) = stream.next().await {
        if let Err(status) = message {
            return status.code();
        }
    }
    Code::Ok
}

/// As over HTTP, where a plan charges 4xx and not 5xx unless it says otherwise.
async fn charges_by_status(gate: &Gate) {
    let mut acme = client(gate).await;
    let charged = ["ok", "1", "3", "5", "6", "7", "8", "9", "10", "11", "16"];
    let free = ["2", "4", "12", "13", "14", "15", "99"];
    for name in charged.into_iter().chain(free) {
        let is_charged = charged.contains(&name);
        let code: i32 = name.parse().unwrap_or(0);
        let before = requests(gate).await;
        let answer = acme.check(about(name)).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code.into());
        assert_eq!(requests(gate).await - before, u64::from(is_charged), "unary, {name}");
        for name in [name.to_owned(), format!(",{name}")] {
            let before = requests(gate).await;
            assert_eq!(watched(&mut acme, &name).await, code.into());
            assert_eq!(requests(gate).await - before, u64::from(is_charged), "stream, {name}");
        }
    }
}

#[tokio::test]
async fn a_call_is_charged_by_the_status_it_ends_with() {
    let (gate, _clock) = testing::gate(PLANS);
    charges_by_status(&gate).await;
}

#[tokio::test]
async fn a_recorded_call_is_charged_by_the_status_it_ends_with() {
    let gate = GateBuilder::from_text(&service("durable")).plans(PLANS).identify(ByHeader);
    let gate = gate.open().await.unwrap();
    charges_by_status(&gate).await;
}

#[tokio::test]
async fn a_plan_may_charge_successes_alone() {
    let plans = format!("{PLANS}charge-on = [\"2xx\"]\n");
    let (gate, _clock) = testing::gate(&plans);
    let mut acme = client(&gate).await;
    acme.check(about("3")).await.unwrap_err();
    assert_eq!(watched(&mut acme, ",5").await, Code::NotFound);
    assert_eq!(requests(&gate).await, 0);
    acme.check(about("ok")).await.unwrap();
    assert_eq!(watched(&mut acme, ",ok").await, Code::Ok);
    assert_eq!(requests(&gate).await, 2);
}

/// Nothing says how it would have ended: it is charged as any request whose client leaves.
#[tokio::test]
async fn a_stream_that_its_client_gives_up_is_aborted() {
    for (charge_on, charged) in [("[\"2xx\", \"aborted\"]", 1), ("[\"2xx\"]", 0)] {
        let plans = format!("{PLANS}charge-on = {charge_on}\nconcurrency = 5\n");
        let (gate, _clock) = testing::gate(&plans);
        let mut acme = client(&gate).await;
        let mut stream = acme.watch(about(",")).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap();
        assert_eq!(requests(&gate).await, 0, "while it runs");
        drop(stream);
        let tenant = gate.tenant("acme").await.unwrap();
        while tenant.in_flight() != Some(0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(requests(&gate).await, charged);
    }
}

//! A small server to be killed. `crash-server SERVICE-FILE` opens a gate, serves on a free loopback
//! port, prints it, and drains on SIGTERM. The tests beside it do the rest. With
//! `store.kind = "dynamodb"`, several processes share the table at `AWS_ENDPOINT_URL_DYNAMODB`. Its
//! clock is `CRASH_CLOCK_AHEAD` seconds ahead, where that is set.
//!
//! `POST /work` costs one request and reports [`TOKENS`]; `GET /usage` is the tenant's own report,
//! from the store and from usage that this process has not written yet.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tallygate::adapter::{IdentifyStep, Waited};
use tallygate::middleware::{GateLayer, HttpView};
use tallygate::{Admitted, Clock, Gate, Now, SystemClock};

/// Tokens reported by each request.
const TOKENS: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service_file = std::env::args().nth(1).ok_or("which service file?")?;
    let mut builder = Gate::builder(&service_file);
    if let Some(table) = builder.dynamodb_table()? {
        builder = builder.store(crash_server::table(&table)?);
    }
    if let Some(seconds) = std::env::var("CRASH_CLOCK_AHEAD").ok().and_then(|it| it.parse().ok()) {
        builder = builder.clock(Ahead(SystemClock::new(), Duration::from_secs(seconds)));
    }
    let gate = builder.open().await?;
    let layer = GateLayer::new(&gate)
        .peer_from(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    let app = Router::new()
        .route("/work", post(work))
        .layer(layer)
        .route("/usage", get(usage).with_state(gate.clone()));
    crash_server::serve(app).await?;
    gate.close().await?;
    Ok(())
}

/// The machine's clock, so far ahead.
struct Ahead(SystemClock, Duration);

impl Clock for Ahead {
    fn now(&self) -> Now {
        self.0.now().after(self.1)
    }
}

async fn work(Extension(admitted): Extension<Admitted>) -> &'static str {
    admitted.usage().add("tokens", TOKENS);
    "done"
}

async fn usage(State(gate): State<Gate>, request: Request) -> Result<Response, StatusCode> {
    let (parts, _) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let view = HttpView::of_parts(&parts, peer.map(|peer| peer.0.ip()));
    let mut waited = Waited::default();
    let who = loop {
        match gate.identify_request(&view, waited) {
            IdentifyStep::Done(who) => break who,
            IdentifyStep::Refused(_) => return Err(StatusCode::UNAUTHORIZED),
            IdentifyStep::Wait(pending) => waited = pending.await,
        }
    };
    let reply = gate.usage_reply(&who, None).await;
    let response = Response::builder().status(reply.status);
    let response = response.body(Body::from(reply.body));
    response.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

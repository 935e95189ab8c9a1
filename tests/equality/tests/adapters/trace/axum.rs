//! axum's router, served by axum over a socket.

use std::net::{SocketAddr, TcpStream};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use equality::answer::Answer;
use equality::api::{self, Api, Failed, Said};
use equality::client;
use equality::front::Front;
use equality::trace::Request;
use tallygate::Gate;
use tallygate_axum::{GateLayer, Refused, Usage, usage_router};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

/// See the [module](self).
pub(crate) struct Axum {
    address: SocketAddr,
    server: AbortHandle,
}

impl Axum {
    pub(crate) fn new(gate: &Gate, runtime: &Runtime) -> Self {
        Self::serve(app(gate), runtime)
    }

    /// A host with a route of its own, the gate's beside it, and none for the rest.
    pub(crate) fn routed(gate: &Gate, runtime: &Runtime) -> Self {
        let app = Router::new().route("/v1/search", get(handle)).layer(GateLayer::new(gate));
        Self::serve(app.with_state(Api::new(gate)).merge(usage_router(gate)), runtime)
    }

    fn serve(app: Router, runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let server = runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, server: server.abort_handle() }
    }
}

/// The router, whoever serves it.
pub(crate) fn app(gate: &Gate) -> Router {
    let app = Router::new().fallback(handle).layer(GateLayer::new(gate));
    app.with_state(Api::new(gate))
}

impl Front for Axum {
    type Open = TcpStream;

    fn send(&mut self, request: &Request) -> Answer {
        client::send(self.address, request)
    }

    fn open(&mut self, request: &Request, bytes: usize) -> (Answer, TcpStream) {
        client::open(self.address, request, bytes)
    }
}

impl Drop for Axum {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn handle(
    State(api): State<Api>,
    usage: Option<Usage>,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Refused> {
    let usage = usage.map(|usage| (*usage).clone());
    let typed = [(header::CONTENT_TYPE, api::TEXT)];
    Ok(match api.respond(&uri.to_string(), body.len(), usage).await {
        Ok(Said::Text(204, _)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Said::Text(status, text)) | Err(Failed::Error(status, text)) => {
            (StatusCode::from_u16(status).unwrap(), typed, text).into_response()
        }
        Ok(Said::Stream(chunks)) => (typed, Body::from_stream(chunks)).into_response(),
        Err(Failed::Refused(refusal)) => return Err((*refusal).into()),
    })
}

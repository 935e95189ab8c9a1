//! tallygate for tonic: the layer, what it knows of a call, and refusals as gRPC statuses.
//!
//! ```
//! use tallygate_tonic::tallygate::Gate;
//! use tallygate_tonic::{GatedRequest, layer, status};
//! use tonic::transport::{Server, server::Router};
//! use tonic::{Request, Response, Status};
//! # use tonic_health::pb::health_server::{Health, HealthServer};
//! # use tonic_health::pb::{HealthCheckRequest as Ask, HealthCheckResponse as Answer};
//! # struct Chat;
//! # #[tonic::async_trait]
//! # impl Health for Chat {
//! #     type WatchStream = tokio_stream::Empty<Result<Answer, Status>>;
//! #     async fn check(&self, it: Request<Ask>) -> Result<Response<Answer>, Status> {
//! #         chat(it).await
//! #     }
//! #     async fn watch(&self, _: Request<Ask>) -> Result<Response<Self::WatchStream>, Status> {
//! #         Err(Status::unimplemented(""))
//! #     }
//! # }
//! # type ChatServer = HealthServer<Chat>;
//!
//! fn server(gate: &Gate) -> Router<impl Clone> {
//!     Server::builder().layer(layer(gate)).add_service(ChatServer::new(Chat))
//! }
//!
//! async fn chat(request: Request<Ask>) -> Result<Response<Answer>, Status> {
//!     let usage = request.usage()?;
//!     usage.take("tokens", 500).await.map_err(status)?; // before they are spent
//!     usage.add("tokens", 412);                         // the true number; the rest goes back
//!     Ok(Response::new(Answer::default()))
//! }
//! ```
//!
//! A method is a route of the plan file: `match = "POST /package.Service/Method"`. The layer
//! refuses calls with a status of its own ([`status`] says which); a stream is in flight
//! (`concurrency`) until it ends, or its client gives it up.
//!
//! Whatever is no call, such as a job that a call begins, asks with
//! [`Gate::admit`](tallygate::Gate::admit). All deciding and counting is done in `tallygate`.

use std::task::{Context, Poll};

use http::Request as HttpRequest;
use tallygate::middleware::{AnyMethod, GateLayer, Peer};
use tallygate::wire::GrpcStatus;
use tallygate::{Admitted, Gate, Refusal, Usage};
use tonic::{Request, Status};
use tower_layer::{Layer, Stack};
use tower_service::Service;

/// The core, in the version that this adapter works with.
pub use tallygate;

/// The layer for a tonic server: the gate's, behind [`PeerLayer`]. For a gate's layer with options,
/// such as [`GateLayer::caller`], stack the two yourself.
pub fn layer(gate: &Gate) -> Stack<GateLayer, PeerLayer> {
    Stack::new(GateLayer::new(gate), PeerLayer)
}

/// Says where a call comes from, as tonic's server knows it, for limits `per ip` and trusted
/// proxies: without it they have no address. And it says that tonic serves a call by any method of
/// HTTP, so that a `PUT` is on the route of the `POST` that clients send. It belongs around the
/// gate's layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerLayer;

/// The service that [`PeerLayer`] makes.
#[derive(Clone, Debug)]
pub struct PeerService<S>(S);

impl<S> Layer<S> for PeerLayer {
    type Service = PeerService<S>;

    fn layer(&self, inner: S) -> PeerService<S> {
        PeerService(inner)
    }
}

impl<S: Service<HttpRequest<B>>, B> Service<HttpRequest<B>> for PeerService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: HttpRequest<B>) -> S::Future {
        // Only tonic's own request looks under all the names that its features have for a peer.
        let mut seen = Request::new(());
        std::mem::swap(seen.extensions_mut(), request.extensions_mut());
        let peer = seen.remote_addr();
        std::mem::swap(seen.extensions_mut(), request.extensions_mut());
        peer.map(|peer| request.extensions_mut().insert(Peer(peer)));
        request.extensions_mut().insert(AnyMethod);
        self.0.call(request)
    }
}

/// What the layer knows of a call, for its method.
#[allow(clippy::result_large_err, reason = "the error is tonic's")]
pub trait GatedRequest {
    /// The admitted call: its tenant, plan, features and limits.
    ///
    /// # Errors
    ///
    /// `INTERNAL`, with a sentence that says why, for a call that no gate has admitted: the server
    /// lacks the layer, or the plan file gives the route `auth = "none"`.
    fn admitted(&self) -> Result<&Admitted, Status>;

    /// The handle that reports and takes units for this call. It may be moved into the stream that
    /// answers.
    ///
    /// # Errors
    ///
    /// As [`admitted`](Self::admitted).
    fn usage(&self) -> Result<Usage, Status> {
        Ok(self.admitted()?.usage())
    }
}

impl<T> GatedRequest for Request<T> {
    fn admitted(&self) -> Result<&Admitted, Status> {
        const NONE: &str = "no gate has admitted this call: the server needs \
            `.layer(tallygate_tonic::layer(&gate))`, and its route no `auth = \"none\"`";
        self.extensions().get().ok_or_else(|| Status::internal(NONE))
    }
}

/// A refusal as the status that the layer itself would send: `RESOURCE_EXHAUSTED` with the time to
/// wait (`RetryInfo`) where a limit refused, `PERMISSION_DENIED` without the feature or while
/// suspended, `FAILED_PRECONDITION` where paying helps, `UNAVAILABLE` while usage cannot be
/// checked. For a refusal of [`Usage::take`], [`Plan::require`](tallygate::Plan::require) or
/// [`Gate::admit`]: `.map_err(status)?`.
pub fn status(refusal: Refusal) -> Status {
    let GrpcStatus { code, message, details } = GrpcStatus::of(&refusal);
    Status::with_details(code.into(), message, details.into())
}

/// The examples of the README compile, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

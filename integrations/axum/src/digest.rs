//! Bodies of requests that count once: read once the gate has let them in and before their key is
//! claimed, so that another body under the same idempotency key is another request.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum_core::response::IntoResponse;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tallygate::identity::BodyDigest;
use tallygate::serving::{AskedAhead, Reading};
use tallygate::{Gate, Waited};
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::GateLayer;
use crate::routes::response;

/// Most bytes of a body that is read ahead, unless [`DigestBodies::at_most`] says otherwise: as
/// much as axum's own extractors read.
const AT_MOST: usize = 2 * 1024 * 1024;

/// Reads the bodies of requests that bring an idempotency key to a route with `once-by`: the same
/// key with another body is then refused with 409. Without it method, path and query alone tell
/// requests apart. Other requests pass untouched.
///
/// It belongs next to the gate's layer, **outside** of it: in axum, in the `.layer(..)` after it.
/// What tells who is calling belongs outside of both.
///
/// ```
/// use axum::Router;
/// use axum::routing::post;
/// use tallygate::Gate;
/// use tallygate_axum::{DigestBodies, GateLayer};
///
/// fn app(gate: &Gate) -> Router {
///     Router::new()
///         .route("/v1/pay", post(async || "paid"))
///         .layer(GateLayer::new(gate))
///         .layer(DigestBodies::new(gate))
/// }
/// ```
///
/// The gate is asked first: a body is read only of a request that is let in, which is in flight
/// meanwhile (`concurrency`) and pays as without a key if it does not come to its end. A body is
/// held in memory, at most 2 MiB of it ([`at_most`](Self::at_most)): a longer one is answered with
/// 413, and charged by that. Trailers are dropped.
#[derive(Clone, Debug)]
pub struct DigestBodies {
    gate: Gate,
    layer: GateLayer,
    at_most: usize,
}

/// A service behind [`DigestBodies`].
#[derive(Clone, Debug)]
pub struct Digested<S> {
    inner: S,
    by: DigestBodies,
}

impl DigestBodies {
    /// For the routes of this gate's plan file.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), layer: GateLayer::new(gate), at_most: AT_MOST }
    }

    /// Reads at most so many bytes of a body; a longer one is answered with 413.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// The request with what the gate has said of it, or the answer to it.
    async fn decided(&self, mut request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
        let mut waited = Waited::default();
        let mut reading = loop {
            let view = self.layer.view(&request);
            let ahead = self.gate.ask_ahead(&view, self.at_most, waited);
            match ahead {
                AskedAhead::Untouched => return Ok(request),
                AskedAhead::Refused(decided) => {
                    request.extensions_mut().insert(decided);
                    return Ok(request);
                }
                AskedAhead::Wait(pending) => waited = pending.await,
                AskedAhead::Read(reading) => break reading,
            }
        };
        let (mut parts, body) = request.into_parts();
        match read(body, &mut reading, self.at_most).await {
            Read::Whole => {}
            Read::TooLong => return Err(response(reading.too_long(&self.gate).await)),
            // Its client has gone, and hears no answer.
            Read::BrokenOff => return Err(response(self.gate.body_too_long_reply(self.at_most))),
        }
        let body = reading.take_body();
        parts.extensions.insert(BodyDigest::of(&body));
        let mut request = Request::from_parts(parts, Body::from(body));
        let claim = reading.claim(&self.gate, &self.layer.view(&request));
        let decided = claim.await;
        request.extensions_mut().insert(decided);
        Ok(request)
    }
}

/// What came of reading a body.
enum Read {
    Whole,
    TooLong,
    BrokenOff,
}

async fn read(mut body: Body, into: &mut Reading, at_most: usize) -> Read {
    if body.size_hint().lower() > at_most as u64 {
        return Read::TooLong;
    }
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) if !into.push(&data) => return Read::TooLong,
            Ok(_) => {}
            Err(_) => return Read::BrokenOff,
        }
    }
    Read::Whole
}

impl<S> Layer<S> for DigestBodies {
    type Service = Digested<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Digested { inner, by: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Digested<S>
where
    S: Service<Request<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = DigestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.by.gate.counts_once(&self.by.layer.view(&request)) {
            return DigestFuture { kind: Kind::Untouched { inner: self.inner.call(request) } };
        }
        // The service that was made ready is the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let by = self.by.clone();
        let asking = Box::pin(async move {
            match by.decided(request).await {
                Ok(request) => inner.call(request).await.map(IntoResponse::into_response),
                Err(refused) => Ok(refused),
            }
        });
        DigestFuture { kind: Kind::Asking { asking } }
    }
}

pin_project! {
    /// The response on its way, of a request whose body is read ahead or not.
    pub struct DigestFuture<F> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Untouched { #[pin] inner: F },
        Asking { asking: Asking },
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<F, R> Future for DigestFuture<F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Untouched { inner } => {
                inner.poll(cx).map(|answer| answer.map(IntoResponse::into_response))
            }
            KindProj::Asking { asking } => asking.as_mut().poll(cx),
        }
    }
}

impl<F> std::fmt::Debug for DigestFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestFuture").finish_non_exhaustive()
    }
}

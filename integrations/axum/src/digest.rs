//! Digests of request bodies on idempotent routes. The body is read after the gate has admitted the
//! request and before its key is claimed, so that another request with the same idempotency key is
//! recognized by its body and refused.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum_core::response::IntoResponse;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tallygate::Gate;
use tallygate::adapter::Waited;
use tallygate::adapter::{AskedAhead, Reading};
use tallygate::identity::{BodyDigest, Caller};
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::GateLayer;
use crate::routes::response;

/// Limit on a body that is read ahead, in bytes, unless [`DigestBodies::at_most`] changes it: the
/// same as axum's own extractors.
const AT_MOST: usize = 2 * 1024 * 1024;

/// Reads the body of requests that carry an idempotency key on a route with `once-by`, so that the
/// same key with another body is refused with 409. Without it, only method, path and query
/// distinguish requests. Other requests pass untouched.
///
/// Put it next to the gate's layer, **outside** of it: in axum, in the `.layer(..)` after it.
/// Authentication layers belong outside of both.
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
/// The gate decides first: only the body of an admitted request is read. The request counts as in
/// flight meanwhile (`concurrency`), and is charged as if it had no key if its body does not arrive
/// complete. The body is held in memory, up to 2 MiB ([`at_most`](Self::at_most)); a longer one is
/// answered with 413 and charged by that status. Trailers are dropped.
#[derive(Clone, Debug)]
pub struct DigestBodies {
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
    /// Reads bodies on the routes with `once-by` in this gate's plan file.
    pub fn new(gate: &Gate) -> Self {
        Self { layer: GateLayer::new(gate), at_most: AT_MOST }
    }

    /// Reads at most this many bytes of a body, instead of 2 MiB; a longer one is answered with
    /// 413.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// Sets how the caller is found, as [`GateLayer::caller`] does: this layer asks the gate first.
    #[must_use]
    pub fn caller(
        self,
        find: impl Fn(&http::Extensions) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self { layer: self.layer.caller(find), ..self }
    }

    /// The request with the gate's decision attached, or the response to send instead.
    async fn decided(&self, mut request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
        self.layer.name_caller(&mut request);
        let mut waited = Waited::default();
        let mut reading = loop {
            let view = self.layer.view(&request);
            let ahead = self.layer.gate().ask_ahead(&view, self.at_most, waited);
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
            Read::TooLong => return Err(response(reading.too_long(self.layer.gate()).await)),
            // The client has disconnected and will not see this response.
            Read::BrokenOff => {
                return Err(response(self.layer.gate().body_too_long_reply(self.at_most)));
            }
        }
        let body = reading.take_body();
        parts.extensions.insert(BodyDigest::of(&body));
        let mut request = Request::from_parts(parts, Body::from(body));
        let claim = reading.claim(self.layer.gate(), &self.layer.view(&request));
        let decided = claim.await;
        request.extensions_mut().insert(decided);
        Ok(request)
    }
}

/// Outcome of reading a body.
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
        if !self.by.layer.gate().counts_once(&self.by.layer.view(&request)) {
            return DigestFuture { kind: Kind::Untouched { inner: self.inner.call(request) } };
        }
        // The service that was polled ready must be the one called.
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
    /// Response future of a request, whether or not its body is read ahead.
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

//! Bodies of requests that count once: read before the gate is asked, so that another body under
//! the same idempotency key is another request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody, to_bytes};
use axum_core::response::IntoResponse;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tollgate::Gate;
use tollgate::identity::BodyDigest;
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::TollgateLayer;
use crate::routes::response;

/// Most bytes of a body that is read ahead, unless [`DigestBodies::at_most`] says otherwise: as
/// much as axum's own extractors read.
const AT_MOST: usize = 2 * 1024 * 1024;

/// Reads the bodies of requests that bring an idempotency key to a route with `once-by`, and leaves
/// their digest for the gate: the same key with another body is then refused with 409. Without it
/// method, path and query alone tell requests apart. Other requests pass untouched.
///
/// It belongs **outside** of the gate's layer: in axum, in a later `.layer(..)`.
///
/// ```
/// use axum::Router;
/// use axum::routing::post;
/// use tollgate::Gate;
/// use tollgate_axum::{DigestBodies, TollgateLayer};
///
/// fn app(gate: &Gate) -> Router {
///     Router::new()
///         .route("/v1/pay", post(async || "paid"))
///         .layer(TollgateLayer::new(gate))
///         .layer(DigestBodies::new(gate))
/// }
/// ```
///
/// A body is held in memory, at most 2 MiB of it ([`at_most`](Self::at_most)): a longer one is
/// refused with 413. Trailers are dropped. A body that is being read does not count as in flight
/// yet.
#[derive(Clone, Debug)]
pub struct DigestBodies {
    gate: Gate,
    layer: TollgateLayer,
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
        Self { gate: gate.clone(), layer: TollgateLayer::new(gate), at_most: AT_MOST }
    }

    /// Reads at most so many bytes of a body; a longer one is refused with 413.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// The request with the digest of its body, or the answer to it.
    async fn digest(&self, request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let too_long = |hint: u64| hint > self.at_most as u64;
        let body = match too_long(body.size_hint().lower()) {
            true => None,
            // Too long, or broken off, where nobody hears the answer.
            false => to_bytes(body, self.at_most).await.ok(),
        };
        let Some(body) = body else {
            return Err(response(self.gate.body_too_long_reply(self.at_most)));
        };
        parts.extensions.insert(BodyDigest::of(&body));
        Ok(Request::from_parts(parts, Body::from(body)))
    }
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
        if !self.by.layer.counts_once(&request) {
            return DigestFuture { kind: Kind::Untouched { inner: self.inner.call(request) } };
        }
        // The service that was made ready is the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let by = self.by.clone();
        let reading = Box::pin(async move {
            match by.digest(request).await {
                Ok(request) => inner.call(request).await.map(IntoResponse::into_response),
                Err(refused) => Ok(refused),
            }
        });
        DigestFuture { kind: Kind::Reading { reading } }
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
        Reading { reading: Reading },
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

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
            KindProj::Reading { reading } => reading.as_mut().poll(cx),
        }
    }
}

impl<F> std::fmt::Debug for DigestFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestFuture").finish_non_exhaustive()
    }
}

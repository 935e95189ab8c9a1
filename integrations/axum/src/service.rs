//! The service that the layer builds: the core's tower service, with axum's own body type. A body
//! that the gate no longer counts passes through without another box.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tallygate::middleware::{self, GateBody, ReadBody};
use tower_service::Service;

/// A service behind a gate. Made by [`GateLayer`](crate::GateLayer).
// tower's `MapResponse` would have to name the body type, which the layer does not know.
#[derive(Clone, Debug)]
pub struct GateService<S>(pub(crate) middleware::GateService<Counted<S>>);

/// The inner service. Wraps request bodies to count the bytes read, where the gate counts them.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S>(pub(crate) S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> S::Future {
        let request = ReadBody::of(request);
        self.0.call(request.map(|body| body.untouched().unwrap_or_else(Body::new)))
    }
}

pin_project! {
    /// Response future: [`tallygate::middleware::ResponseFuture`] with axum's own body.
    pub struct ResponseFuture<S, R>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        inner: middleware::ResponseFuture<Counted<S>, Body, R>,
    }
}

impl<S, B, R> Service<Request<B>> for GateService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture { inner: self.0.call(request.map(Body::new)) }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(cx));
        Poll::Ready(response.map(|response| response.map(body)))
    }
}

/// `Body::new` recognizes a `Body` and boxes everything else.
fn body<R>(body: GateBody<R>) -> Body
where
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    body.untouched().map_or_else(Body::new, Body::new)
}

impl<S, R> std::fmt::Debug for ResponseFuture<S, R>
where
    S: Service<Request<Body>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

//! The tower service: asks the gate, then calls the inner service or answers in its place.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::{BoxError, GateBody};
use super::future::ResponseFuture;
use super::shared::LayerShared;

/// A service behind a gate. Made by [`GateLayer`](super::GateLayer).
#[derive(Clone, Debug)]
pub struct GateService<S> {
    inner: S,
    shared: Arc<LayerShared>,
}

impl<S> GateService<S> {
    pub(super) fn new(inner: S, shared: Arc<LayerShared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for GateService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<GateBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::ask(&mut self.inner, request, &self.shared)
    }
}

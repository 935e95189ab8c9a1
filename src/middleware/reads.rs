//! Request bodies whose bytes are counted as they are read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::serving::BytesRead;

/// The inner service of a layer that counts the bytes read ([`GateLayer::counting_reads`]): passes
/// on counting bodies. It must be next to the layer, so that no body is read uncounted.
///
/// [`GateLayer::counting_reads`]: super::GateLayer::counting_reads
#[derive(Clone, Debug)]
pub struct CountReads<S>(pub S);

pin_project! {
    /// Request body. Counts its bytes as they are read, where the gate counts them.
    #[derive(Debug)]
    pub struct ReadBody<B> {
        #[pin]
        body: B,
        read: Option<BytesRead>,
    }
}

impl<S, B> Service<Request<B>> for CountReads<S>
where
    S: Service<Request<ReadBody<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> S::Future {
        self.0.call(ReadBody::of(request))
    }
}

impl<B> ReadBody<B> {
    /// A request admitted by the layer, with a counting body.
    pub fn of(mut request: Request<B>) -> Request<Self> {
        let read = request.extensions_mut().remove::<BytesRead>();
        request.map(|body| Self { body, read })
    }

    /// The original body, if nothing in it is counted.
    ///
    /// # Errors
    ///
    /// This body, otherwise.
    pub fn untouched(self) -> Result<B, Self> {
        if self.read.is_none() { Ok(self.body) } else { Err(self) }
    }
}

impl<B: Body> Body for ReadBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(read), Some(Ok(frame))) = (this.read, &frame) {
            read.add(frame.data_ref().map_or(0, Buf::remaining));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

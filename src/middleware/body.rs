//! Response body: passes frames on as [`Counting`] allows. `is_end_stream` also counts as its end,
//! because hyper drops a finished body without polling it to `None`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::headers;
use crate::gate::Pending;
use crate::serving::{Ahead, Counting, Upgraded};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// Response body behind the gate: frames are counted before they are sent, and the end of the
    /// body settles the request.
    pub struct GateBody<R> {
        #[pin]
        kind: BodyKind<R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum BodyKind<R> {
        /// A refusal.
        Full { bytes: Option<Bytes> },
        /// Nothing to count or settle.
        Plain { #[pin] inner: R },
        /// The response switches the connection to another protocol.
        Upgraded { #[pin] inner: R, _place: Upgraded },
        Counted {
            #[pin]
            inner: InnerBody<R>,
            // A frame waiting for room, for the record of the end, or for its head. Boxed: a frame
            // is large, and few wait.
            held: Option<Box<HeldBack>>,
            count: Counting,
        },
    }
}

pin_project! {
    /// The service's own body: in place, or boxed if it was polled before its head was sent.
    #[project = InnerProj]
    enum InnerBody<R> {
        Here { #[pin] body: R },
        Apart { body: Pin<Box<R>> },
    }
}

/// Taken out of a body and not passed on yet.
enum HeldBack {
    /// Not counted.
    Waiting(Frame<Bytes>),
    /// Counted before its head was sent.
    Counted(Frame<Bytes>),
    /// The body failed before its head was sent.
    Failed(BoxError),
    /// The body ended before its head was sent.
    Ended,
}

impl<R> GateBody<R> {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: BodyKind::Full { bytes: Some(bytes).filter(|b| !b.is_empty()) } }
    }

    pub(super) fn plain(inner: R) -> Self {
        Self { kind: BodyKind::Plain { inner } }
    }

    pub(super) fn upgraded(inner: R, place: Upgraded) -> Self {
        Self { kind: BodyKind::Upgraded { inner, _place: place } }
    }

    /// The service's own body, if the gate has nothing to count in it and nothing to settle at its
    /// end.
    ///
    /// # Errors
    ///
    /// This body, otherwise.
    #[expect(clippy::result_large_err, reason = "what is not taken apart is given back whole")]
    pub fn untouched(self) -> Result<R, Self> {
        match self.kind {
            BodyKind::Plain { inner } => Ok(inner),
            kind => Err(Self { kind }),
        }
    }

    pub(super) fn counted(inner: R, count: Counting) -> Self {
        Self {
            kind: BodyKind::Counted { inner: InnerBody::Here { body: inner }, held: None, count },
        }
    }
}

impl<R> GateBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// A body whose head waits for a record: the part that is ready is counted now, so that head
    /// and body go out in one write. Also returns what else the head must wait for.
    pub(super) fn counted_ahead(
        inner: R,
        mut count: Counting,
        cx: &mut Context<'_>,
    ) -> (Self, Option<Pending>) {
        let mut body = Box::pin(inner);
        let (mut held, mut wait) = (None, None);
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => {}
            Poll::Ready(None) => held = Some(HeldBack::Ended),
            Poll::Ready(Some(Err(error))) => held = Some(HeldBack::Failed(error.into())),
            Poll::Ready(Some(Ok(frame))) => {
                let is_last = are_trailers(&frame, &mut count) || body.is_end_stream();
                held = Some(match count.take_ahead(data_len(&frame), is_last) {
                    Ahead::Counted(pending) => {
                        wait = pending;
                        HeldBack::Counted(frame)
                    }
                    Ahead::Later => HeldBack::Waiting(frame),
                });
            }
        }
        let (inner, held) = (InnerBody::Apart { body }, held.map(Box::new));
        (Self { kind: BodyKind::Counted { inner, held, count } }, wait)
    }
}

impl<R: Body<Data = Bytes>> InnerBody<R> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Here { body } => body.is_end_stream(),
            Self::Apart { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Here { body } => body.size_hint(),
            Self::Apart { body } => body.size_hint(),
        }
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project() {
            InnerProj::Here { body } => body.poll_frame(cx),
            InnerProj::Apart { body } => body.as_mut().poll_frame(cx),
        }
    }
}

impl<R> Body for GateBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Full { bytes } => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            KindProj::Plain { inner } | KindProj::Upgraded { inner, .. } => {
                inner.poll_frame(cx).map_err(Into::into)
            }
            KindProj::Counted { inner, held, count } => poll_counted(inner, held, count, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Full { bytes } => bytes.is_none(),
            BodyKind::Plain { inner } | BodyKind::Upgraded { inner, .. } => inner.is_end_stream(),
            BodyKind::Counted { inner, held, count } => {
                count.is_cut() || held.is_none() && inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Full { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            BodyKind::Plain { inner } | BodyKind::Upgraded { inner, .. } => inner.size_hint(),
            BodyKind::Counted { inner, held, .. } => {
                let waiting = held.as_ref().map_or(0, |held| match &**held {
                    HeldBack::Waiting(frame) | HeldBack::Counted(frame) => data_len(frame),
                    HeldBack::Failed(_) | HeldBack::Ended => 0,
                });
                let hint = inner.size_hint();
                let mut whole = SizeHint::new();
                if let Some(upper) = hint.upper() {
                    whole.set_upper(upper.saturating_add(waiting));
                }
                whole.set_lower(hint.lower().saturating_add(waiting));
                whole
            }
        }
    }
}

fn poll_counted<R>(
    mut inner: Pin<&mut InnerBody<R>>,
    held: &mut Option<Box<HeldBack>>,
    count: &mut Counting,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    if count.is_cut() {
        return Poll::Ready(None);
    }
    let frame = match held.take().map(|held| *held) {
        Some(HeldBack::Waiting(frame)) => frame,
        Some(HeldBack::Counted(frame)) => return Poll::Ready(Some(Ok(frame))),
        Some(HeldBack::Failed(error)) => {
            count.abort();
            return Poll::Ready(Some(Err(error)));
        }
        Some(HeldBack::Ended) => {
            *held = Some(Box::new(HeldBack::Ended)); // if polled again, it does not poll the body
            ready!(count.poll_end(cx));
            return Poll::Ready(None);
        }
        None if count.is_ending() => {
            ready!(count.poll_end(cx));
            return Poll::Ready(None);
        }
        None => match inner.as_mut().poll_frame(cx) {
            Poll::Pending => {
                count.goes_on();
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                count.abort();
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => {
                ready!(count.poll_end(cx));
                return Poll::Ready(None);
            }
        },
    };
    let is_last = are_trailers(&frame, count) || inner.is_end_stream();
    match count.poll_pass(cx, data_len(&frame), is_last) {
        Poll::Ready(Ok(())) => Poll::Ready(Some(Ok(frame))),
        Poll::Ready(Err(cut)) => Poll::Ready(Some(Err(cut.into()))),
        Poll::Pending => {
            *held = Some(Box::new(HeldBack::Waiting(frame)));
            Poll::Pending
        }
    }
}

/// Whether these are the trailers, which nothing follows, whatever the body says: servers drop a
/// body once they are sent. They state the status of a gRPC call.
fn are_trailers(frame: &Frame<Bytes>, count: &mut Counting) -> bool {
    let Some(trailers) = frame.trailers_ref() else { return false };
    count.state_status(|| headers::grpc_status(trailers).as_u16());
    true
}

fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl<R> std::fmt::Debug for GateBody<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateBody").finish_non_exhaustive()
    }
}

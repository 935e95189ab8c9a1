//! The body of a response: passes frames on as [`Counting`] lets them. Its end is also what it says
//! by `is_end_stream`: hyper drops a finished body without polling it to `None`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::serving::{Counting, Upgraded};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// The body of a response behind the gate: what it passes on is counted before it passes, and
    /// its end settles the request.
    pub struct GateBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<R> {
        /// A refusal.
        Full { bytes: Option<Bytes> },
        /// Nothing to count or settle.
        Plain { #[pin] inner: R },
        /// Of a response that makes the connection another protocol's.
        Upgraded { #[pin] inner: R, _place: Upgraded },
        Counted {
            #[pin]
            inner: R,
            // A frame that waits for room, or for the record of the end: few do, and a frame is
            // large.
            waiting: Option<Box<Frame<Bytes>>>,
            count: Counting,
        },
    }
}

impl<R> GateBody<R> {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full { bytes: Some(bytes).filter(|b| !b.is_empty()) } }
    }

    pub(super) fn plain(inner: R) -> Self {
        Self { kind: Kind::Plain { inner } }
    }

    pub(super) fn upgraded(inner: R, place: Upgraded) -> Self {
        Self { kind: Kind::Upgraded { inner, _place: place } }
    }

    /// The service's own body, where the gate has nothing to count of it and nothing to settle at
    /// its end.
    ///
    /// # Errors
    ///
    /// This body, where it has.
    pub fn untouched(self) -> Result<R, Self> {
        match self.kind {
            Kind::Plain { inner } => Ok(inner),
            kind => Err(Self { kind }),
        }
    }

    pub(super) fn counted(inner: R, count: Counting) -> Self {
        Self { kind: Kind::Counted { inner, waiting: None, count } }
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
            KindProj::Counted { inner, waiting, count } => poll_counted(inner, waiting, count, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full { bytes } => bytes.is_none(),
            Kind::Plain { inner } | Kind::Upgraded { inner, .. } => inner.is_end_stream(),
            Kind::Counted { inner, waiting, count } => {
                count.is_cut() || waiting.is_none() && inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Kind::Plain { inner } | Kind::Upgraded { inner, .. } => inner.size_hint(),
            Kind::Counted { inner, waiting, .. } => {
                let waiting = waiting.as_ref().map_or(0, |frame| data_len(frame));
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
    mut inner: Pin<&mut R>,
    waiting: &mut Option<Box<Frame<Bytes>>>,
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
    let frame = match waiting.take() {
        Some(frame) => *frame,
        None if count.is_ending() => {
            ready!(count.poll_end(cx));
            return Poll::Ready(None);
        }
        None => match ready!(inner.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                count.abort();
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                ready!(count.poll_end(cx));
                return Poll::Ready(None);
            }
        },
    };
    match count.poll_pass(cx, data_len(&frame), inner.is_end_stream()) {
        Poll::Ready(Ok(())) => Poll::Ready(Some(Ok(frame))),
        Poll::Ready(Err(cut)) => Poll::Ready(Some(Err(cut.into()))),
        Poll::Pending => {
            *waiting = Some(Box::new(frame));
            Poll::Pending
        }
    }
}

fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl<R> std::fmt::Debug for GateBody<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateBody").finish_non_exhaustive()
    }
}

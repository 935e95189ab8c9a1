//! The body of a response: passes frames on, counts bytes before they pass where they are counted,
//! and settles the request when it ends.
//!
//! A body has ended when it says so, when it says `is_end_stream`, or when all that its
//! `Content-Length` promised has passed: hyper drops a finished body without polling it to `None`.
//! Any other drop is a client that went away.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::held::Held;
use crate::Outcome;
use crate::admission::policy::ByteMeter;
use crate::gate::{Gate, Pending, Took, Waited};
use crate::usage::Mode;

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
        Counted {
            #[pin]
            inner: R,
            count: Count,
        },
    }
}

/// What a counted body knows.
struct Count {
    held: Option<Held>,
    gate: Gate,
    status: u16,
    meter: Option<ByteMeter>,
    /// Bytes still to come, where the length is known.
    rest: Option<u64>,
    /// A frame that waits for room, or for the record of the end.
    frame: Option<Frame<Bytes>>,
    wait: Option<Wait>,
    cut: bool,
}

enum Wait {
    Room(Pending),
    Record(Pending),
}

/// The body ended early because no units remain (`cut = true` on the meter): an error, so that the
/// client does not take the part for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut: the quota for it is used up")]
pub struct StreamCut;

impl<R> GateBody<R> {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full { bytes: Some(bytes).filter(|b| !b.is_empty()) } }
    }

    pub(super) fn plain(inner: R) -> Self {
        Self { kind: Kind::Plain { inner } }
    }

    pub(super) fn counted(inner: R, mut held: Held, gate: Gate, status: u16) -> Self
    where
        R: Body,
    {
        let count = Count {
            meter: held.byte_meter(),
            held: Some(held),
            gate,
            status,
            rest: inner.size_hint().exact(),
            frame: None,
            wait: None,
            cut: false,
        };
        Self { kind: Kind::Counted { inner, count } }
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
            KindProj::Plain { inner } => inner.poll_frame(cx).map_err(Into::into),
            KindProj::Counted { inner, count } => poll_counted(inner, count, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full { bytes } => bytes.is_none(),
            Kind::Plain { inner } => inner.is_end_stream(),
            Kind::Counted { inner, count } => {
                count.cut || count.frame.is_none() && inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Kind::Plain { inner } => inner.size_hint(),
            Kind::Counted { inner, count } => {
                let waiting = count.frame.as_ref().and_then(Frame::data_ref);
                let waiting = waiting.map_or(0, |b| b.len() as u64);
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
    count: &mut Count,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let mut waited = Waited::default();
    loop {
        match &mut count.wait {
            Some(Wait::Record(pending)) => {
                ready!(pending.as_mut().poll(cx));
                count.wait = None;
                return Poll::Ready(count.frame.take().map(Ok));
            }
            Some(Wait::Room(pending)) => {
                waited = ready!(pending.as_mut().poll(cx));
                count.wait = None;
            }
            None => {}
        }
        if count.cut {
            return Poll::Ready(None);
        }
        let frame = match count.frame.take() {
            Some(frame) => frame,
            None => match ready!(inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    count.end(Outcome::Aborted);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    count.end(Outcome::Complete { status: count.status });
                    match count.record() {
                        true => continue,
                        false => return Poll::Ready(None),
                    }
                }
            },
        };
        match count.pass(&frame, &waited) {
            Passed::Yes => {}
            Passed::Wait(pending) => {
                count.frame = Some(frame);
                count.wait = Some(Wait::Room(pending));
                continue;
            }
            Passed::Cut => {
                count.cut = true;
                count.end(Outcome::Complete { status: count.status });
                return Poll::Ready(Some(Err(StreamCut.into())));
            }
        }
        if count.rest == Some(0) || inner.is_end_stream() {
            count.end(Outcome::Complete { status: count.status });
            if count.record() {
                count.frame = Some(frame);
                continue;
            }
        }
        return Poll::Ready(Some(Ok(frame)));
    }
}

enum Passed {
    Yes,
    Wait(Pending),
    Cut,
}

impl Count {
    /// Takes room for a frame and counts it.
    fn pass(&mut self, frame: &Frame<Bytes>, waited: &Waited) -> Passed {
        let n = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let (Some(meter), Some(held)) = (self.meter, &mut self.held) {
            match held.make_room(&self.gate, meter, n, waited) {
                Took::Done => {}
                Took::Wait(pending) => return Passed::Wait(pending),
                Took::Refused(_) if meter.cut => return Passed::Cut,
                // Served, and recorded as over.
                Took::Refused(_) => {}
            }
            held.pass(meter, n);
        }
        self.rest = self.rest.map(|rest| rest.saturating_sub(n));
        Passed::Yes
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(held) = self.held.take() {
            held.end(outcome);
        }
    }

    /// Whether the last frame waits for the record of what the body cost.
    fn record(&mut self) -> bool {
        let waits = self.meter.take().is_some() && self.gate.inner.config.mode == Mode::Durable;
        if waits {
            self.wait = Some(Wait::Record(self.gate.recorded()));
        }
        waits
    }
}

impl<R> std::fmt::Debug for GateBody<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateBody").finish_non_exhaustive()
    }
}

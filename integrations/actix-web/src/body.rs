//! Response body of a gated request: releases chunks as [`Counting`] allows, and settles the
//! request when it ends, or when it is dropped because the client disconnected.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;
use tallygate::adapter::Pending;
use tallygate::adapter::{Ahead, Counting, Upgraded};

pin_project! {
    /// Response body behind the gate: chunks are counted before they are sent, and the end of the
    /// body settles the request.
    #[derive(Debug)]
    pub struct GateBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<B> {
        // A refusal, or a complete body that was counted before its head was sent.
        Full { bytes: Bytes },
        // A complete body whose bytes wait for room.
        Whole { bytes: Option<Bytes>, size: u64, count: Counting },
        // Nothing to count or settle.
        Plain { #[pin] inner: B },
        // The connection itself, in flight for as long as it lasts.
        Upgraded { #[pin] inner: B, _place: Upgraded },
        Counted {
            #[pin]
            inner: B,
            // A chunk waiting for room, or for the record of the end.
            chunk: Option<Bytes>,
            count: Counting,
        },
    }
}

impl<B> GateBody<B> {
    pub(crate) fn full(bytes: Vec<u8>) -> Self {
        Self { kind: Kind::Full { bytes: bytes.into() } }
    }

    /// A body whose end has to be waited for. A complete body is counted now, so that head and body
    /// go out in one write. Also returns what else the head must wait for.
    pub(crate) fn counted_ahead(inner: B, mut count: Counting) -> (Self, Option<Pending>)
    where
        B: MessageBody,
    {
        let bytes = match inner.try_into_bytes() {
            Ok(bytes) => bytes,
            Err(inner) => return (Self::counted(inner, count), None),
        };
        let size = bytes.len() as u64;
        match count.take_ahead(size, true) {
            Ahead::Counted(wait) => (Self { kind: Kind::Full { bytes } }, wait),
            Ahead::Later => (Self { kind: Kind::Whole { bytes: Some(bytes), size, count } }, None),
        }
    }

    pub(crate) fn plain(inner: B) -> Self {
        Self { kind: Kind::Plain { inner } }
    }

    pub(crate) fn upgraded(inner: B, place: Upgraded) -> Self {
        Self { kind: Kind::Upgraded { inner, _place: place } }
    }

    pub(crate) fn counted(inner: B, count: Counting) -> Self {
        Self { kind: Kind::Counted { inner, chunk: None, count } }
    }
}

impl<B: MessageBody> MessageBody for GateBody<B> {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        match &self.kind {
            Kind::Full { bytes } => BodySize::Sized(bytes.len() as u64),
            Kind::Whole { size, .. } => BodySize::Sized(*size),
            Kind::Plain { inner } | Kind::Upgraded { inner, .. } | Kind::Counted { inner, .. } => {
                inner.size()
            }
        }
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.project().kind.project() {
            KindProj::Full { bytes } => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            KindProj::Whole { bytes, size, count } => {
                if bytes.is_none() {
                    return Poll::Ready(None);
                }
                let passed = ready!(count.poll_pass(cx, *size, true));
                let bytes = bytes.take();
                Poll::Ready(match passed {
                    Ok(()) => bytes.map(Ok),
                    Err(cut) => Some(Err(cut.into())),
                })
            }
            KindProj::Plain { inner } | KindProj::Upgraded { inner, .. } => {
                inner.poll_next(cx).map(|next| next.map(|chunk| chunk.map_err(Into::into)))
            }
            KindProj::Counted { inner, chunk, count } => poll_counted(inner, chunk, count, cx),
        }
    }
}

fn poll_counted<B: MessageBody>(
    inner: Pin<&mut B>,
    waiting: &mut Option<Bytes>,
    count: &mut Counting,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, Box<dyn Error>>>> {
    if count.is_cut() {
        return Poll::Ready(None);
    }
    if waiting.is_none() && count.is_ending() {
        ready!(count.poll_end(cx));
        return Poll::Ready(None);
    }
    if waiting.is_none() {
        match inner.poll_next(cx) {
            Poll::Pending => {
                count.goes_on();
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(chunk))) => *waiting = Some(chunk),
            Poll::Ready(Some(Err(error))) => {
                count.abort();
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => {
                ready!(count.poll_end(cx));
                return Poll::Ready(None);
            }
        }
    }
    let n = waiting.as_ref().map_or(0, |chunk| chunk.len() as u64);
    // actix-web reveals the last chunk only through the body's size, which `count` tracks.
    let passed = ready!(count.poll_pass(cx, n, false));
    let chunk = waiting.take();
    Poll::Ready(match passed {
        Ok(()) => chunk.map(Ok),
        Err(cut) => Some(Err(cut.into())),
    })
}

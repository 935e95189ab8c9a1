//! Faulty response bodies: half of them, slowly, or seemingly endless.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Bytes, Frame};
use hyper::header::HeaderValue;
use tokio::time::Interval;

use crate::server::{Body, Closed};

/// The blanks of one frame.
static BLANKS: [u8; 64 * 1024] = [b' '; 64 * 1024];

/// The answer's head, half of its body, and then an abrupt end.
pub(crate) async fn half(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let whole = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    head.headers.insert("content-length", HeaderValue::from(whole.len()));
    Response::from_parts(head, Half(Some(whole.slice(..whole.len() / 2))).boxed())
}

/// A body that breaks off after its one frame.
struct Half(Option<Bytes>);

impl hyper::body::Body for Half {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(Closed)))
    }
}

/// The answer, one byte at a time.
pub(crate) async fn drip(response: Response<Body>, apart: Duration) -> Response<Body> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let beat = tokio::time::interval(apart.max(Duration::from_millis(1)));
    Response::from_parts(head, Drip { left: whole, beat }.boxed())
}

/// The answer, followed by blanks, which do not change its JSON.
pub(crate) async fn flood(response: Response<Body>, bytes: u64) -> Response<Body> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(head, Flood { first: Some(whole), left: bytes }.boxed())
}

struct Drip {
    left: Bytes,
    beat: Interval,
}

impl hyper::body::Body for Drip {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.beat.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(1)))))
    }
}

struct Flood {
    first: Option<Bytes>,
    left: u64,
}

impl hyper::body::Body for Flood {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let some = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLANKS.len());
        self.left -= some as u64;
        let frame = Bytes::from_static(&BLANKS[..some]);
        Poll::Ready((some > 0).then(|| Ok(Frame::data(frame))))
    }
}

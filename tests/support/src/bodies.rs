//! Bodies of requests and responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Frames of one size, which are there at once.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    left: usize,
    size: usize,
    stated: Option<u64>,
}

impl Frames {
    /// So many of this many bytes; how many in all is not stated.
    pub const fn of(left: usize, size: usize) -> Self {
        Self { left, size, stated: None }
    }

    /// How many bytes are left.
    pub const fn bytes(&self) -> usize {
        self.left * self.size
    }

    /// The same with a stated length.
    pub const fn stating(self, length: u64) -> Self {
        Self { stated: Some(length), ..self }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        Poll::Ready(left.map(|_| Ok(Frame::data(vec![b'x'; self.size].into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.stated.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

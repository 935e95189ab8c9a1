//! What is behind the gate: behaviour that a path asks for, without a framework. Each front calls
//! [`Api::respond`] from a handler of its own kind.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tallygate::{Gate, Refusal, Usage, testing};
use tokio_stream::Stream;

/// Bytes of one chunk.
pub const CHUNK: usize = 100;

/// The content type of everything that the handler says.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Api {
    gate: Gate,
}

/// What the handler says.
#[derive(Debug)]
pub enum Said {
    /// A text of known length.
    Text(u16, String),
    /// A stream, with status 200.
    Stream(Chunks),
}

/// What the handler's error says.
#[derive(Debug)]
pub enum Failed {
    /// What the gate refused while the handler ran.
    Refused(Box<Refusal>),
    /// An error with a status of its own.
    Error(u16, String),
}

/// What happens after the last chunk.
#[derive(Clone, Copy, Debug)]
enum Then {
    End,
    Wait,
    Panic,
}

/// A stream of chunks. It is pending before each, so that a server has written one before it asks
/// for the next: how much of a stream has left when it breaks is then the same everywhere. And
/// leases are at rest by then.
pub struct Chunks {
    gate: Gate,
    left: usize,
    then: Then,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Api {
    /// Behind this gate.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }

    /// Answers one request. The path as it was sent says what is wanted; `received` is the length
    /// of the body that came.
    ///
    /// # Errors
    ///
    /// As the path asks for, and what `usage.take` refused.
    pub async fn respond(
        &self,
        target: &str,
        received: usize,
        usage: Option<Usage>,
    ) -> Result<Said, Failed> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let stream = |then| {
            let left = number("chunks").unwrap_or(1) as usize;
            Ok(Said::Stream(Chunks { gate: self.gate.clone(), left, then, pause: None }))
        };
        match &*decoded(path) {
            "/v1/search" => Ok(Said::Text(200, "found".to_owned())),
            "/v1/exports" => Ok(Said::Text(202, "started".to_owned())),
            "/v1/gem" => Ok(Said::Text(200, "a gem".to_owned())),
            "/v1/empty" => Ok(Said::Text(204, String::new())),
            "/v1/upload" => Ok(Said::Text(200, format!("{received} bytes"))),
            "/v1/error" => {
                let status = u16::try_from(number("status").unwrap_or(500)).unwrap();
                Err(Failed::Error(status, format!("it broke with {status}")))
            }
            "/v1/panic" => panic!("on purpose"),
            "/v1/stream" => stream(Then::End),
            "/v1/wait" => stream(Then::Wait),
            "/v1/stumble" => stream(Then::Panic),
            "/v1/spend" => {
                let usage = usage.expect("the route identifies its caller");
                let (take, add) = (number("take").unwrap_or(0), number("add").unwrap_or(0));
                let taken = usage.take("tokens", take).await;
                taken.map_err(|refusal| Failed::Refused(Box::new(refusal)))?;
                usage.add("tokens", add);
                Ok(Said::Text(200, format!("took {take}, used {add}")))
            }
            "/healthz" => Ok(Said::Text(200, format!("somebody: {}", usage.is_some()))),
            other => Ok(Said::Text(404, format!("nothing at {other}"))),
        }
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let gate = self.gate.clone();
        let pause = self.pause.get_or_insert_with(|| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                testing::leases_at_rest(&gate).await;
            })
        });
        ready!(pause.as_mut().poll(cx));
        match (self.left.checked_sub(1), self.then) {
            (Some(left), _) => {
                (self.left, self.pause) = (left, None);
                Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; CHUNK]))))
            }
            (None, Then::End) => Poll::Ready(None),
            // Nothing comes any more, and no end either.
            (None, Then::Wait) => {
                self.pause = Some(Box::pin(std::future::pending()));
                Poll::Pending
            }
            (None, Then::Panic) => panic!("on purpose, in mid-stream"),
        }
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A path without its percent-encoding.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[2..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

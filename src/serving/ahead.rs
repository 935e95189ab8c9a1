//! Requests whose body is read before their idempotency key is claimed. They are decided first, as
//! any other: a body is held in memory for callers that are let in alone, who are in flight
//! meanwhile and pay for what they have sent, whether or not it comes to its end.
//!
//! The layer that reads stands outside of the gate's, and leaves what came of it ([`Decided`])
//! among the request's extensions: there the gate's layer takes it for the answer.

use std::any::Any;
use std::future::{Future, ready};
use std::pin::Pin;

use super::Serving;
use crate::admission::reads::BytesRead;
use crate::gate::{Answer, Gate, Pending, Running, Step, Waited};
use crate::identity::{Decided, RequestView};
use crate::telemetry::Check;
use crate::wire::Reply;

/// What came of asking about a request whose body may have to be read for its digest.
pub enum AskedAhead {
    /// It does not count once, or is not the gate's at all: it goes on as it is.
    Untouched,
    /// It goes on with this among its extensions, and its body unread.
    Refused(Decided),
    /// Wait for this, then ask again.
    Wait(Pending),
    /// It is let in, and its body is to be read.
    Read(Reading),
}

/// A request that is let in, while its body is read. Dropped before its end, its client went away.
#[derive(Debug)]
pub struct Reading {
    running: Running,
    counted: Option<BytesRead>,
    body: Vec<u8>,
    at_most: usize,
}

impl Gate {
    /// Decides about a request before its body is read for its digest, at most so many bytes of it.
    /// For adapters, outside of the one that serves the request.
    pub fn ask_ahead(&self, view: &dyn RequestView, at_most: usize, waited: Waited) -> AskedAhead {
        if !self.counts_once(view) || view.decided().is_some() {
            return AskedAhead::Untouched;
        }
        let check = Check::begin();
        let step = self.check(&check, view, waited, Some(at_most as u64));
        check.came_to(|| "waits"); // the layer within tells of the answer
        match step {
            Step::Wait(pending) => AskedAhead::Wait(pending),
            Step::Done(Answer::Pass) => AskedAhead::Untouched,
            Step::Done(Answer::Admit(running)) => {
                let counted = running.reads();
                AskedAhead::Read(Reading { running, counted, body: Vec::new(), at_most })
            }
            Step::Done(refused) => AskedAhead::Refused(decided(Some(Box::new(refused)))),
        }
    }
}

impl Reading {
    /// A chunk was read. False: the body is too long.
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        if let Some(counted) = &self.counted {
            counted.add(chunk.len());
        }
        let fits = self.body.len() + chunk.len() <= self.at_most;
        if fits {
            self.body.extend_from_slice(chunk);
        }
        fits
    }

    /// The body, once it has come to its end.
    pub fn take_body(&mut self) -> Vec<u8> {
        // From here on it is in hand, and is charged by its length.
        self.counted = None;
        self.running.hold.read = None;
        self.running.hold.length = Some(self.body.len() as u64);
        std::mem::take(&mut self.body)
    }

    /// Claims the key of the request, whose digest `view` has by now
    /// ([`RequestView::body_digest`]).
    pub fn claim(
        self,
        gate: &Gate,
        view: &dyn RequestView,
    ) -> Pin<Box<dyn Future<Output = Decided> + Send>> {
        let of = &self.running.hold.of;
        let route = of.route.map(|id| &of.sheet.catalog.routes.as_slice()[usize::from(id.0)]);
        match gate.once_key(route, view) {
            None => Box::pin(ready(decided(Some(Box::new(Answer::Admit(self.running)))))),
            Some(once) => {
                let claim = gate.claim(self.running.hold, once);
                Box::pin(async move { decided(claim.await.answer) })
            }
        }
    }

    /// The body is longer than what is read of it: the answer. It is an answer like a handler's,
    /// charged by its status.
    pub async fn too_long(self, gate: &Gate) -> Reply {
        let at_most = self.at_most;
        if let Some(recorded) = Serving::own(self.running).answer(gate, 413) {
            recorded.await;
        }
        gate.body_too_long_reply(at_most)
    }
}

fn decided(answer: Option<Box<Answer>>) -> Decided {
    Decided::of(answer.map(|answer| answer as Box<dyn Any + Send>))
}

impl std::fmt::Debug for AskedAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Untouched => "Untouched",
            Self::Refused(_) => "Refused",
            Self::Wait(_) => "Wait",
            Self::Read(_) => "Read",
        })
    }
}

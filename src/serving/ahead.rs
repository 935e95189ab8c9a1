//! Requests whose body is read before their idempotency key is claimed. They are decided first,
//! like any other request: bodies are held in memory only for admitted callers, who count as in
//! flight meanwhile and pay for what they have sent, whether or not the body arrives complete.
//!
//! The layer that reads the body is outside the gate's, and stores the outcome ([`Decided`]) in the
//! request's extensions, where the gate's layer takes it as the decision.

use std::any::Any;
use std::future::{Future, ready};
use std::pin::Pin;

use super::Serving;
use crate::admission::reads::BytesRead;
use crate::gate::{Answer, Gate, Pending, Running, Step, Unlogged, Waited};
use crate::identity::{Decided, RequestView};
use crate::telemetry::CheckSpan;
use crate::wire::Reply;

/// The outcome of [`Gate::ask_ahead`]: a decision on a request, before its body is read for a
/// digest.
pub enum AskedAhead {
    /// Not idempotent, or not gated at all: pass it on unchanged.
    Untouched,
    /// Pass it on with this in its extensions, and its body unread.
    Refused(Decided),
    /// Await this, then call [`Gate::ask_ahead`] again with its result.
    Wait(Pending),
    /// Admitted: read its body.
    Read(Reading),
}

/// An admitted request while its body is read. Dropping it early means that the client
/// disconnected.
#[derive(Debug)]
pub struct Reading {
    running: Running,
    /// The record of its admission.
    unlogged: Unlogged,
    counted: Option<BytesRead>,
    body: Vec<u8>,
    at_most: usize,
}

impl Gate {
    /// Decides about a request before up to `at_most` bytes of its body are read for its digest.
    /// For adapters, in a layer outside of the one that serves the request.
    pub fn ask_ahead(&self, view: &dyn RequestView, at_most: usize, waited: Waited) -> AskedAhead {
        if !self.counts_once(view) || view.decided().is_some() {
            return AskedAhead::Untouched;
        }
        let check = CheckSpan::begin();
        let step = self.check(&check, view, waited, Some(at_most as u64));
        check.came_to(|| "waits"); // the inner layer reports the decision
        match step {
            Step::Wait(pending) => AskedAhead::Wait(pending),
            Step::Done(Answer::Pass) => AskedAhead::Untouched,
            Step::Done(Answer::Admit(mut running)) => {
                let counted = running.reads();
                let unlogged = Unlogged::new(self, running.hold.unlogged.take());
                AskedAhead::Read(Reading { running, unlogged, counted, body: Vec::new(), at_most })
            }
            Step::Done(refused) => AskedAhead::Refused(decided(Some(Box::new(refused)))),
        }
    }
}

impl Reading {
    /// Adds a chunk of the body. Returns false if the body is too long.
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

    /// Takes the body, once complete.
    pub fn take_body(&mut self) -> Vec<u8> {
        // From now on the body is in memory and is charged by its length.
        self.counted = None;
        self.running.hold.read = None;
        self.running.hold.length = Some(self.body.len() as u64);
        std::mem::take(&mut self.body)
    }

    /// Claims the request's idempotency key; by now `view` has the digest
    /// ([`RequestView::body_digest`]).
    pub fn claim(
        mut self,
        gate: &Gate,
        view: &dyn RequestView,
    ) -> Pin<Box<dyn Future<Output = Decided> + Send>> {
        let of = &self.running.hold.of;
        let route = of.route.map(|id| &of.sheet.catalog.routes.as_slice()[usize::from(id.0)]);
        match gate.once_key(route, view) {
            None => Box::pin(ready(decided(Some(Box::new(Answer::Admit(self.running)))))),
            Some(once) => {
                self.running.hold.unlogged = self.unlogged.take();
                let claim = gate.claim(self.running.hold, once);
                Box::pin(async move { decided(claim.await.answer) })
            }
        }
    }

    /// The reply to a body longer than the limit, charged by its status like a handler's response.
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

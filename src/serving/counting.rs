//! The body of a response behind the gate: its bytes are counted before they pass, where they are
//! counted, and its end settles the request.
//!
//! A body has ended when it says so, or when all that its `Content-Length` promised has passed:
//! servers drop a finished body without polling it once more. Any other drop is a client that went
//! away.

use std::task::{Context, Poll, ready};

use super::{Owed, Serving};
use crate::decision::Outcome;
use crate::decision::{Reason, Refusal};
use crate::gate::{Gate, Pending, Took, Waited};
use crate::policy::ByteMeter;

/// What a counted body knows. The body itself, and the chunk that waits, are the adapter's.
pub struct Counting {
    serving: Option<Serving>,
    /// Only where something may have to be waited for: one reference less to count for the rest.
    gate: Option<Gate>,
    status: u16,
    meter: Option<ByteMeter>,
    /// Bytes still to come, where the length is known.
    rest: Option<u64>,
    wait: Option<Wait>,
    /// The server has had its turn before a cut.
    flushed: bool,
    cut: bool,
    /// What the end has left to be waited for.
    owed: Owed,
    /// Its end may have to be waited for.
    ends_late: bool,
}

enum Wait {
    Room(Pending),
    Record(Pending),
}

/// The body ended early because no units remain (`cut = true` on the meter), or because its tenant
/// was suspended: an error, so that the client does not take the part for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut: the quota for it is used up, or its tenant is suspended")]
pub struct StreamCut;

impl Counting {
    pub(super) fn new(
        serving: Serving,
        gate: Option<Gate>,
        status: u16,
        meter: Option<ByteMeter>,
        rest: Option<u64>,
        ends_late: bool,
    ) -> Self {
        Self {
            ends_late,
            serving: Some(serving),
            gate,
            status,
            meter,
            rest,
            wait: None,
            flushed: false,
            cut: false,
            owed: Owed::default(),
        }
    }

    /// Takes room for a chunk of `n` bytes and counts it: at `Ready(Ok(()))` it passes. `is_last`
    /// says that the body knows of no more; then its end is settled, and where answers wait for
    /// it recorded, before the chunk goes. After `Pending` the same chunk is asked for again.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        n: u64,
        is_last: bool,
    ) -> Poll<Result<(), StreamCut>> {
        let mut waited = Waited::default();
        loop {
            match &mut self.wait {
                Some(Wait::Record(pending)) => {
                    ready!(pending.as_mut().poll(cx));
                    self.wait = None;
                    return Poll::Ready(Ok(()));
                }
                Some(Wait::Room(pending)) => {
                    waited = ready!(pending.as_mut().poll(cx));
                    self.wait = None;
                }
                None => {}
            }
            match self.pass(n, &waited) {
                Passed::Yes => {}
                Passed::Wait(pending) => {
                    self.wait = Some(Wait::Room(pending));
                    continue;
                }
                Passed::Cut(_) if !self.flushed => {
                    // Servers drop what they have not written yet when a body fails: they get a
                    // turn first, so that what was counted arrives.
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Passed::Cut(why) => {
                    if let (Some(serving), Some(gate)) = (&mut self.serving, &self.gate) {
                        serving.count_cut(gate, &why);
                    }
                    self.cut = true;
                    self.end(Outcome::Complete { status: self.status });
                    return Poll::Ready(Err(StreamCut));
                }
            }
            if is_last || self.rest == Some(0) {
                self.end(Outcome::Complete { status: self.status });
                if self.waits_for_record() {
                    continue;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Whether its end may have to be waited for: then what is ready of it goes with its head
    /// ([`take_ahead`](Self::take_ahead)).
    pub fn ends_late(&self) -> bool {
        self.ends_late
    }

    /// Counts a chunk that is ready before the head is sent, if it is all of the body: then both go
    /// in one write and wait for one record. Counted, it passes without another question, and what
    /// the head waits for besides is told.
    pub fn take_ahead(&mut self, n: u64, is_last: bool) -> Ahead {
        if !is_last && self.rest.is_none_or(|rest| rest > n) {
            return Ahead::Later;
        }
        match self.pass(n, &Waited::default()) {
            Passed::Yes => {}
            // The same chunk is asked for again when the body is polled.
            Passed::Wait(_) | Passed::Cut(_) => return Ahead::Later,
        }
        self.end(Outcome::Complete { status: self.status });
        self.waits_for_record();
        Ahead::Counted(match self.wait.take() {
            Some(Wait::Record(pending)) => Some(pending),
            Some(Wait::Room(_)) | None => None,
        })
    }

    /// The body has come to its end: settled, and in mode `durable` recorded, at `Ready`.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.wait, Some(Wait::Record(_))) {
            self.end(Outcome::Complete { status: self.status });
            self.waits_for_record();
        }
        if let Some(Wait::Record(pending)) = &mut self.wait {
            ready!(pending.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }

    /// Whether [`poll_end`](Self::poll_end) is pending: to be asked again, instead of the body,
    /// which has ended.
    pub fn is_ending(&self) -> bool {
        self.serving.is_none() && matches!(self.wait, Some(Wait::Record(_)))
    }

    /// The body has failed: what passed so far is what the client got.
    pub fn abort(&mut self) {
        self.end(Outcome::Aborted);
    }

    /// Whether the gate has cut it: nothing comes any more.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Takes room for `n` bytes and counts them.
    fn pass(&mut self, n: u64, waited: &Waited) -> Passed {
        let parts = (self.meter, &mut self.serving, &self.gate);
        if let (Some(meter), Some(serving), Some(gate)) = parts {
            match serving.make_room(gate, meter, n, waited) {
                Took::Done => {}
                Took::Wait(pending) => return Passed::Wait(pending),
                // An operator's word: no meter serves it on.
                Took::Refused(why) if meter.cut || why.reason == Reason::Suspended => {
                    return Passed::Cut(why);
                }
                // Served, and recorded as over.
                Took::Refused(_) => {}
            }
            serving.pass(meter, n);
        }
        self.rest = self.rest.map(|rest| rest.saturating_sub(n));
        Passed::Yes
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(mut serving) = self.serving.take() {
            self.owed = serving.end_in_place(outcome);
        }
    }

    /// Begins to wait for the record of what the body cost, where the answer is worth it.
    fn waits_for_record(&mut self) -> bool {
        let owed = std::mem::take(&mut self.owed);
        let wait = self.gate.as_ref().and_then(|gate| gate.answer_waits(owed));
        self.wait = wait.map(Wait::Record);
        self.wait.is_some()
    }
}

/// What came of a chunk that was ready before the head was sent.
pub enum Ahead {
    /// It is counted, and the request has ended. The head is to wait for this besides.
    Counted(Option<Pending>),
    /// It is not: it has to be asked for with the body.
    Later,
}

enum Passed {
    Yes,
    Wait(Pending),
    Cut(Box<Refusal>),
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Counted(_) => "Counted",
            Self::Later => "Later",
        })
    }
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("status", &self.status).finish_non_exhaustive()
    }
}

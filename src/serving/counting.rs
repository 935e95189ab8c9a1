//! Response body behind the gate: its bytes are counted before they are sent, where bytes are
//! metered, and its end settles the request.
//!
//! A body has ended when it says so, or when as many bytes as its `Content-Length` promised have
//! passed: servers drop a finished body without polling it again. Any other drop means that the
//! client disconnected.

use std::task::{Context, Poll, ready};

use super::{Owed, Serving};
use crate::decision::Outcome;
use crate::decision::{Reason, Refusal};
use crate::gate::{Gate, Pending, Took, Waited};
use crate::policy::ByteMeter;

/// Accounting state of a response body. The adapter keeps the body and the waiting chunk.
/// [`Serving::into_body`](super::Serving::into_body) returns it: call
/// [`poll_pass`](Self::poll_pass) before each chunk, and [`poll_end`](Self::poll_end) at the end.
pub struct Counting {
    serving: Option<Serving>,
    /// Only where a wait is possible: saves other bodies a reference count.
    gate: Option<Gate>,
    /// `None` until its trailers say it.
    status: Option<u16>,
    meter: Option<ByteMeter>,
    /// Bytes remaining, if the length is known.
    rest: Option<u64>,
    wait: Option<PassWait>,
    /// The server has had a chance to write before a cut.
    flushed: bool,
    cut: bool,
    /// What the end of the body has to wait for.
    owed: Owed,
    /// The end may have to be waited for.
    ends_late: bool,
    /// The body has lasted, and is registered with the gate.
    lasts: bool,
}

/// The status of a body that ends without the trailers which should state it: its client takes the
/// call as failed.
const UNSTATED: u16 = 500;

/// The status of a body that the gate cuts before its trailers: no failure of its handler.
const CUT: u16 = 200;

enum PassWait {
    Room(Pending),
    Record(Pending),
}

/// The body ended early because no units remain (`cut = true` on the meter), or because its tenant
/// was suspended: an error, so that the client does not mistake the part for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut: the quota for it is used up, or its tenant is suspended")]
pub struct StreamCut;

impl Counting {
    pub(super) fn new(
        serving: Serving,
        gate: Option<Gate>,
        status: Option<u16>,
        meter: Option<ByteMeter>,
        rest: Option<u64>,
        ends_late: bool,
    ) -> Self {
        Self {
            ends_late,
            lasts: false,
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

    /// Reserves room for a chunk of `n` bytes and counts it: at `Ready(Ok(()))` the chunk may be
    /// sent. `is_last` means that the body knows of no more; its end is then settled, and where
    /// answers wait for it recorded, before the chunk goes. After `Pending`, ask for the same chunk
    /// again.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        n: u64,
        is_last: bool,
    ) -> Poll<Result<(), StreamCut>> {
        if !is_last && self.rest != Some(n) {
            self.goes_on();
        }
        let mut waited = Waited::default();
        loop {
            match &mut self.wait {
                Some(PassWait::Record(pending)) => {
                    ready!(pending.as_mut().poll(cx));
                    self.wait = None;
                    return Poll::Ready(Ok(()));
                }
                Some(PassWait::Room(pending)) => {
                    waited = ready!(pending.as_mut().poll(cx));
                    self.wait = None;
                }
                None => {}
            }
            match self.pass(n, &waited) {
                Passed::Yes => {}
                Passed::Wait(pending) => {
                    self.wait = Some(PassWait::Room(pending));
                    continue;
                }
                Passed::Cut(_) if !self.flushed => {
                    // Servers drop unwritten data when a body fails: they get a turn first, so that
                    // what was counted arrives.
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Passed::Cut(why) => {
                    if let (Some(serving), Some(gate)) = (&mut self.serving, &self.gate) {
                        serving.count_cut(gate, &why);
                    }
                    self.cut = true;
                    self.end(Outcome::Complete { status: self.status.unwrap_or(CUT) });
                    return Poll::Ready(Err(StreamCut));
                }
            }
            if is_last || self.rest == Some(0) {
                self.end_complete();
                if self.waits_for_record() {
                    continue;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Whether the end of the body may have to wait for a record. If so, pass the part that is
    /// ready to [`take_ahead`](Self::take_ahead) before the head is sent.
    pub fn ends_late(&self) -> bool {
        self.ends_late
    }

    /// Counts a chunk that is ready before the head is sent, if it is the complete body: then both
    /// go out in one write and wait for one record. Once counted, it is sent without another call;
    /// the result says what else the head waits for.
    pub fn take_ahead(&mut self, n: u64, is_last: bool) -> Ahead {
        if !is_last && self.rest.is_none_or(|rest| rest > n) {
            return Ahead::Later;
        }
        match self.pass(n, &Waited::default()) {
            Passed::Yes => {}
            // The same chunk is tried again when the body is polled.
            Passed::Wait(_) | Passed::Cut(_) => return Ahead::Later,
        }
        self.end_complete();
        self.waits_for_record();
        Ahead::Counted(match self.wait.take() {
            Some(PassWait::Record(pending)) => Some(pending),
            Some(PassWait::Room(_)) | None => None,
        })
    }

    /// Ends the body: at `Ready` it is settled, and in mode `durable` recorded.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.wait, Some(PassWait::Record(_))) {
            self.end_complete();
            self.waits_for_record();
        }
        if let Some(PassWait::Record(pending)) = &mut self.wait {
            ready!(pending.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }

    /// Whether [`poll_end`](Self::poll_end) is pending: then poll that again instead of the body,
    /// which has ended.
    pub fn is_ending(&self) -> bool {
        self.serving.is_none() && matches!(self.wait, Some(PassWait::Record(_)))
    }

    /// Notes that the body goes on: it waits for its next chunk, or has more of them. From the
    /// first call on, the request is settled as aborted if the gate is closed meanwhile.
    #[inline]
    pub fn goes_on(&mut self) {
        if !self.lasts {
            self.lasts = true;
            self.register();
        }
    }

    #[cold]
    fn register(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        if let Some(gate) = self.gate.as_ref().or(serving.gate()).cloned() {
            serving.register(&gate);
        }
    }

    /// Ends the request as aborted, because the body failed. The bytes that have passed stay
    /// counted.
    pub fn abort(&mut self) {
        self.end(Outcome::Aborted);
    }

    /// Whether the gate has cut the body: nothing more is sent.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Reserves room for `n` bytes and counts them.
    fn pass(&mut self, n: u64, waited: &Waited) -> Passed {
        let parts = (self.meter, &mut self.serving, &self.gate);
        if let (Some(meter), Some(serving), Some(gate)) = parts {
            match serving.make_room(gate, meter, n, waited) {
                Took::Done => {}
                Took::Wait(pending) => return Passed::Wait(pending),
                // A suspension ends the body whatever the meter's settings.
                Took::Refused(why) if meter.cut || why.reason == Reason::Suspended => {
                    return Passed::Cut(why);
                }
                // Sent all the same, and recorded as overage.
                Took::Refused(_) => {}
            }
            serving.pass(meter, n);
        }
        self.rest = self.rest.map(|rest| rest.saturating_sub(n));
        Passed::Yes
    }

    /// Notes the status that the trailers state, where the head left it to them.
    #[cfg(feature = "tower")]
    pub(crate) fn state_status(&mut self, stated: impl FnOnce() -> u16) {
        if self.status.is_none() {
            self.status = Some(stated());
        }
    }

    fn end_complete(&mut self) {
        self.end(Outcome::Complete { status: self.status.unwrap_or(UNSTATED) });
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(mut serving) = self.serving.take() {
            self.owed = serving.end_in_place(outcome);
        }
    }

    /// Starts waiting for the record of what the body cost, if this answer has to.
    fn waits_for_record(&mut self) -> bool {
        let owed = std::mem::take(&mut self.owed);
        let wait = self.gate.as_ref().and_then(|gate| gate.answer_waits(owed));
        self.wait = wait.map(PassWait::Record);
        self.wait.is_some()
    }
}

/// Result of counting a chunk before its head is sent.
pub enum Ahead {
    /// Counted, and the request has ended. The head also waits for this.
    Counted(Option<Pending>),
    /// Not counted: it has to be polled with the body.
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

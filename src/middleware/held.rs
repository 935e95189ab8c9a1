//! What a request holds while it is served, and its end, whichever way it comes.

use std::sync::MutexGuard;

use crate::Outcome;
use crate::admission::permit::Hold;
use crate::admission::policy::ByteMeter;
use crate::gate::{Admitted, Gate, Running, Took, Waited};

/// A hold, shared with the handler or not. Dropped before its end, it ends as aborted, or as failed
/// where a panic drops it.
#[derive(Debug)]
pub(super) struct Held(Kind);

#[derive(Debug)]
enum Kind {
    Own(Running),
    Shared(Admitted),
    Ended,
}

impl Held {
    pub(super) fn own(running: Running) -> Self {
        Self(Kind::Own(running))
    }

    pub(super) fn shared(admitted: Admitted) -> Self {
        Self(Kind::Shared(admitted))
    }

    /// Decides the costs as far as the head tells: a status that is not charged never is, and one
    /// that is charged is so now, unless going away would be forgiven.
    pub(super) fn head(&mut self, status: u16) {
        self.with(|hold| {
            let now = hold.now();
            let charged = hold.is_charged(Outcome::Complete { status });
            if !charged || hold.is_charged(Outcome::Aborted) {
                hold.charge(charged, now);
            }
        });
    }

    /// Ends the request.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.end_in_place(outcome);
    }

    /// The meter of response bytes, if they are counted.
    pub(super) fn byte_meter(&mut self) -> Option<ByteMeter> {
        self.with(|hold| hold.of.rules().counts_response).flatten()
    }

    /// Takes room for `n` more bytes, before they pass.
    pub(super) fn make_room(
        &mut self,
        gate: &Gate,
        meter: ByteMeter,
        n: u64,
        waited: &Waited,
    ) -> Took {
        let took = self.with(|hold| {
            let held = hold.held(meter.counter);
            if held >= n {
                return Took::Done;
            }
            let asks = &hold.of.rules().meters;
            let Some(ask) = asks.iter().position(|ask| ask.meter == meter.meter) else {
                return Took::Done;
            };
            gate.draw(hold, ask, (n - held).max(meter.chunk), waited)
        });
        took.unwrap_or(Took::Done)
    }

    /// Counts bytes that pass now.
    pub(super) fn pass(&mut self, meter: ByteMeter, n: u64) {
        self.with(|hold| {
            let now = hold.now();
            hold.report(meter.counter, n, now);
        });
    }

    /// Looks at the hold.
    pub(super) fn with<T>(&mut self, look: impl FnOnce(&mut Hold) -> T) -> Option<T> {
        let mut guard: MutexGuard<'_, Hold>;
        let hold = match &mut self.0 {
            Kind::Own(running) => &mut running.hold,
            Kind::Shared(admitted) => {
                guard = admitted.hold();
                &mut *guard
            }
            Kind::Ended => return None,
        };
        Some(look(hold))
    }

    fn end_in_place(&mut self, outcome: Outcome) {
        self.with(|hold| {
            let now = hold.now();
            hold.end(outcome, now);
        });
        self.0 = Kind::Ended;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let ended = if std::thread::panicking() { Outcome::Failed } else { Outcome::Aborted };
        self.end_in_place(ended);
    }
}

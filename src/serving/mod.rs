//! Serving of an admitted request: the steps common to all adapters, whatever framework's types
//! they write into. The tower layer and the actix-web middleware are thin wrappers over it.
//!
//! [`Serving`] lists the steps in order.
//!
//! # Laws
//!
//! 1. A request is settled exactly once. If dropped before its end, it ends as aborted, or as
//!    failed if a panic drops it.
//! 2. Whatever the head determines is settled with the head: a body that is never polled changes
//!    nothing.
//! 3. Answered usage is recorded: in mode `durable`, and for a request with an idempotency key in
//!    every mode. Until then the head, or the last of the body, waits.
//! 4. Nothing here depends on a framework, `http` or sockets.

use std::borrow::Cow;
use std::sync::MutexGuard;
use std::task::Poll;

use crate::admission::permit::{BodyRest, Hold};
use crate::decision::Outcome;
use crate::decision::{Refusal, RefusedCall};
use crate::gate::{Admitted, Gate, Pending, Running, Took, Waited};
use crate::ledger::Mode;
use crate::policy::ByteMeter;
use crate::wire::{self, Call, HeaderStyle, LimitHeader, Reply};

mod ahead;
mod counting;

pub use crate::admission::reads::BytesRead;
pub use crate::identity::{Decided, stated_length};
pub use ahead::{AskedAhead, Reading};
pub use counting::{Ahead, Counting, StreamCut};

/// An admitted request with its holds, optionally shared with its handler. An adapter takes these
/// steps, in order:
///
/// 1. Make it with [`own`](Self::own) or [`share`](Self::share) from the request that
///    [`Gate::admit_request`] admitted.
/// 2. Put [`guard`](Self::guard) around each poll of the handler: it registers the request with
///    [`Gate::close`] at its first wait. If the handler fails, call [`answer`](Self::answer) with
///    500.
/// 3. At the head of the response call [`limit_headers`](Self::limit_headers), then
///    [`into_body`](Self::into_body), which returns what the head must wait for. If the handler
///    returned a refusal, call [`complete`](Self::complete) and then [`answer`](Self::answer)
///    instead; if the response switches protocols, [`upgrade`](Self::upgrade). If the head waits,
///    pass the part of the body that is ready by then to [`Counting::take_ahead`].
/// 4. Call [`Counting`] with each chunk before it passes, and at the end of the body.
#[derive(Debug)]
pub struct Serving(ServingKind);

/// A response whose head is settled. [`Serving::into_body`] returns it.
pub struct Head {
    /// Counts the body; `None` if there is no body, or nothing in it left to count.
    pub body: Option<Counting>,
    /// What the head must wait for before it is sent.
    pub wait: Option<Pending>,
}

/// A request whose connection was switched to another protocol. The request stays in flight until
/// this value and the handler's handles ([`Usage`](crate::Usage), [`Admitted`]) are dropped.
/// [`Serving::upgrade`] returns it.
#[derive(Debug)]
pub struct Upgraded {
    _place: Serving,
    /// No other handle exists, and the number of requests in flight is limited.
    is_alone: bool,
}

/// Whether a response switches the connection to another protocol: 101, or 2xx to `CONNECT`.
pub fn is_upgrade(status: u16, is_connect: bool) -> bool {
    status == 101 || is_connect && (200..300).contains(&status)
}

/// One wait for both, one after the other; `None` if there is neither.
pub fn wait_for_both(one: Option<Pending>, other: Option<Pending>) -> Option<Pending> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Box::pin(async move {
            one.await;
            other.await
        })),
        (one, other) => one.or(other),
    }
}

/// Resolves once the claim on a request's key is settled, and says whether that used anything.
type ClaimSettled = tokio::sync::oneshot::Receiver<bool>;

/// What remains to be waited for after a request.
#[derive(Debug, Default)]
struct Owed {
    settling: Option<ClaimSettled>,
    /// It has usage that no answer has waited for.
    has_used: bool,
}

impl Owed {
    #[inline]
    fn by(hold: &mut Hold) -> Self {
        Self { settling: hold.settling(), has_used: hold.take_used() }
    }

    fn and(self, more: Self) -> Self {
        let settling = more.settling.or(self.settling);
        Self { settling, has_used: self.has_used | more.has_used }
    }
}

#[derive(Debug)]
enum ServingKind {
    Own(Running),
    Shared(Admitted),
    /// Not shared with the handler, but registered with the gate.
    Noted(Admitted),
    Ended,
}

impl Serving {
    /// Serves a request without handles for its handler: no extractors, no allocation.
    pub fn own(running: Running) -> Self {
        Self(ServingKind::Own(running))
    }

    /// Serves a request with handles for its handler: put the [`Admitted`] where its extractors
    /// look, such as the request's extensions.
    pub fn share(gate: &Gate, running: Running) -> (Self, Admitted) {
        let admitted = Admitted::new(gate.clone(), running);
        (Self(ServingKind::Shared(admitted.clone())), admitted)
    }

    /// Polls the handler. If it panics, the request ends as failed at once: an outer layer may
    /// catch the panic and drop the rest later, when the cause is no longer known.
    pub fn guard<T>(
        serving: &mut Option<Self>,
        gate: &Gate,
        poll: impl FnOnce() -> Poll<T>,
    ) -> Poll<T> {
        let guard = FailOnPanic(serving);
        let polled = poll();
        if let (Poll::Pending, Some(serving)) = (&polled, &mut *guard.0) {
            serving.waits(gate);
        }
        drop(guard);
        polled
    }

    /// Called when the handler waits. Registers the request with the gate the first time, so that
    /// it is settled if the gate is closed meanwhile.
    fn waits(&mut self, gate: &Gate) {
        if self.with(|hold| std::mem::replace(&mut hold.has_waited, true)) == Some(false) {
            self.register(gate);
        }
    }

    /// Registers the request with the gate, if it is not.
    fn register(&mut self, gate: &Gate) {
        if self.with(|hold| hold.noted.is_some()) != Some(false) {
            return;
        }
        self.0 = match std::mem::replace(&mut self.0, ServingKind::Ended) {
            ServingKind::Own(running) => ServingKind::Noted(Admitted::new(gate.clone(), running)),
            kind => kind,
        };
        if let ServingKind::Shared(request) | ServingKind::Noted(request) = &self.0 {
            let noted = gate.inner.teardown.in_hand.note(request);
            request.hold().noted = noted;
        }
    }

    /// Unregisters the request: it has ended.
    #[inline]
    fn strike(&mut self) {
        if let ServingKind::Shared(request) | ServingKind::Noted(request) = &self.0
            && let Some(at) = { request.hold().noted.take() }
        {
            request.gate().inner.teardown.in_hand.strike(request, at);
        }
    }

    /// Completes a refusal that the handler returns, such as one for a feature that the plan lacks:
    /// adds tenant, user and key, and the request as [`Gate::describe`] returned it.
    pub fn complete(&mut self, refusal: &mut Refusal, call: Option<Box<RefusedCall>>) {
        refusal.call = refusal.call.take().or(call);
        self.with(|hold| {
            refusal.tenant.get_or_insert_with(|| hold.of.sheet.tenant.id.clone());
            hold.of.sheet.name_in(refusal);
        });
    }

    /// Ends the request without a response.
    pub fn end(mut self, outcome: Outcome) {
        self.end_in_place(outcome);
    }

    /// Ends the request with a response of this status that is not the handler's. If it returns a
    /// wait, await that before sending the response.
    pub fn answer(mut self, gate: &Gate, status: u16) -> Option<Pending> {
        gate.answer_waits(self.end_in_place(Outcome::Complete { status }))
    }

    /// Writes the limit headers of the response: lower-case names, legal values. Nothing for a
    /// route that is `free`, or where the gate sends none.
    ///
    /// They show what is left now. A handler that was ready at its first poll has not waited, so
    /// the time of admission serves as now: an earlier time makes the remainder smaller and the
    /// wait longer, never the reverse, so a handler that blocked its thread does no harm.
    pub fn limit_headers(&mut self, gate: &Gate, mut write: impl FnMut(LimitHeader<'_>)) {
        let inner = &gate.inner;
        let (style, warnings) = (inner.settings.wire.style, inner.settings.wire.warnings);
        if style == HeaderStyle::Off && warnings.is_none() {
            return;
        }
        self.with(|hold| {
            let now = if hold.has_waited { inner.clock.now() } else { hold.taken_at };
            if hold.of.rules().free {
                return;
            }
            if let Some(name) = warnings {
                let past = wire::soft_warnings(&inner.limit_states(hold, now));
                past.into_iter().for_each(|value| write(LimitHeader::Other(name, value)));
            }
            if matches!(style, HeaderStyle::Draft11 | HeaderStyle::Nearest) {
                wire::in_line(|line| {
                    let policy = |policy: &_| write(LimitHeader::Policy(policy));
                    match style {
                        HeaderStyle::Nearest => inner.write_nearest(hold, now, line, policy),
                        _ => inner.write_limits(hold, now, line, policy),
                    }
                    if !line.is_empty() {
                        write(LimitHeader::RateLimit(line));
                    }
                });
            } else {
                let states = inner.limit_states(hold, now);
                let mut pairs = Vec::new();
                wire::limit_headers(&states, style, Call::at(now.wall_ms), &mut pairs);
                for (name, value) in pairs {
                    write(LimitHeader::Other(name, value));
                }
            }
        });
    }

    /// Settles what the head determines: a status that is free of charge never costs anything, and
    /// a chargeable one is charged now, unless a disconnect would be forgiven. The body settles the
    /// rest: [`Head::body`] is `None` if nothing is left to settle, or there is no body
    /// (`is_empty`: HEAD, 204, 304, no bytes), because the request has then ended.
    ///
    /// `length` finds the exact length of the body, from the body or from the header that is sent;
    /// it is called only if something is left to the body.
    pub fn into_body(
        mut self,
        gate: &Gate,
        status: u16,
        is_empty: bool,
        length: impl FnOnce() -> Option<u64>,
    ) -> Head {
        let outcome = Outcome::Complete { status };
        let may_report = !is_empty && self.is_shared() && gate.is_durable();
        // A single access: a shared hold is behind a lock.
        let looked = self.with(|hold| {
            let rest = hold.settle_head(outcome, is_empty);
            (rest.or_else(|| may_report.then_some(FOR_REPORTS)), Owed::by(hold))
        });
        let (rest, owed) = looked.unwrap_or_default();
        let Some(rest) = rest else {
            self.strike();
            self.0 = ServingKind::Ended;
            return Head { body: None, wait: gate.answer_waits(owed) };
        };
        let length = length();
        if length == Some(0) {
            // Servers do not poll such a body.
            let owed = owed.and(self.end_in_place(outcome));
            return Head { body: None, wait: gate.answer_waits(owed) };
        }
        let body = self.left_to_body(gate, Some(status), rest, length);
        Head { body: Some(body), wait: gate.answer_waits(owed) }
    }

    /// The same for a body whose trailers state the status, as gRPC's do: the head settles nothing,
    /// and the body nothing before its trailers, however long it says it is.
    #[cfg(feature = "tower")]
    pub(crate) fn into_trailed_body(mut self, gate: &Gate) -> Head {
        let looked = self.with(|hold| (hold.leave_to_body(), Owed::by(hold)));
        let Some((rest, owed)) = looked else { return Head { body: None, wait: None } };
        let body = self.left_to_body(gate, None, rest, None);
        Head { body: Some(body), wait: gate.answer_waits(owed) }
    }

    fn left_to_body(
        self,
        gate: &Gate,
        status: Option<u16>,
        BodyRest { counted, is_keyed }: BodyRest,
        length: Option<u64>,
    ) -> Counting {
        // A body that takes its time stays registered, or is registered by it.
        let ends_late = is_keyed || gate.is_durable();
        let kept = (ends_late || counted.is_some()).then(|| gate.clone());
        Counting::new(self, kept, status, counted, length, ends_late)
    }

    /// Handles a response that switches protocols ([`is_upgrade`]): its status decides the cost and
    /// what is held goes back, but the request stays in flight. If the adapter has a value that
    /// lives as long as the connection, it keeps the [`Upgraded`] there.
    pub fn upgrade(mut self, gate: &Gate, status: u16) -> (Upgraded, Option<Pending>) {
        self.strike();
        let looked = self.with(|hold| {
            let now = hold.now();
            hold.upgrade(Outcome::Complete { status }, now);
            (Owed::by(hold), hold.counts_in_flight())
        });
        let (owed, is_limited) = looked.unwrap_or_default();
        let is_shared = matches!(&self.0, ServingKind::Shared(admitted) if admitted.is_shared());
        let upgraded = Upgraded { _place: self, is_alone: is_limited && !is_shared };
        (upgraded, gate.answer_waits(owed))
    }

    /// Reserves room for `n` more bytes before they pass.
    fn make_room(&mut self, gate: &Gate, meter: ByteMeter, n: u64, waited: &Waited) -> Took {
        let took = self.with(|hold| {
            let held = hold.held_of(meter.counter);
            if held >= n {
                return Took::Done;
            }
            let asks = &hold.of.rules().meters;
            let Some(ask) = asks.find(|ask| ask.meter == meter.meter) else {
                return Took::Done;
            };
            let need = n - held;
            match gate.draw(hold, ask, need.max(meter.chunk), waited) {
                // Fewer units than a chunk may remain.
                Took::Refused(_) if need < meter.chunk => gate.draw(hold, ask, need, waited),
                took => took,
            }
        });
        took.unwrap_or(Took::Done)
    }

    /// Counts a body that is cut by this refusal.
    fn count_cut(&mut self, gate: &Gate, why: &Refusal) {
        self.with(|hold| gate.inner.count_cut(hold.latest_of(), why));
    }

    /// Counts bytes that pass now.
    fn pass(&mut self, meter: ByteMeter, n: u64) {
        self.with(|hold| {
            let now = hold.now();
            hold.report_in_turn(meter.counter, n, now);
        });
    }

    fn is_shared(&self) -> bool {
        matches!(self.0, ServingKind::Shared(_))
    }

    /// The gate, where the request has it.
    fn gate(&self) -> Option<&Gate> {
        match &self.0 {
            ServingKind::Shared(admitted) | ServingKind::Noted(admitted) => Some(admitted.gate()),
            ServingKind::Own(_) | ServingKind::Ended => None,
        }
    }

    /// Accesses the hold.
    fn with<T>(&mut self, look: impl FnOnce(&mut Hold) -> T) -> Option<T> {
        let mut guard: MutexGuard<'_, Hold>;
        let hold = match &mut self.0 {
            ServingKind::Own(running) => &mut running.hold,
            ServingKind::Shared(admitted) | ServingKind::Noted(admitted) => {
                guard = admitted.hold();
                &mut *guard
            }
            ServingKind::Ended => return None,
        };
        Some(look(hold))
    }

    fn end_in_place(&mut self, outcome: Outcome) -> Owed {
        self.strike();
        let owed = self.with(|hold| {
            let now = hold.now();
            hold.end(outcome, now);
            Owed::by(hold)
        });
        self.0 = ServingKind::Ended;
        owed.unwrap_or_default()
    }
}

/// The body's share where the head left nothing, in mode `durable`: its handler may report while it
/// streams, on a meter that the route does not expect, and its end waits for that report.
const FOR_REPORTS: BodyRest = BodyRest { counted: None, is_keyed: false };

impl Serving {
    #[cold]
    fn end_by_drop(&mut self) {
        let ended = if std::thread::panicking() { Outcome::Failed } else { Outcome::Aborted };
        self.end_in_place(ended);
    }
}

impl Drop for Serving {
    // Inlined: nearly always the request has ended, and there is nothing to do.
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.0, ServingKind::Ended) {
            self.end_by_drop();
        }
    }
}

impl Upgraded {
    /// Whether the plan limits requests in flight and the handler has kept no handle: then the
    /// connection stops counting as in flight once this is dropped.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }
}

impl Gate {
    /// What an answer waits for: in mode `durable` the record of the request's own usage, if any,
    /// and the claim on its key. Records of other requests do not matter.
    #[inline]
    fn answer_waits(&self, owed: Owed) -> Option<Pending> {
        match owed.settling {
            None if owed.has_used && self.is_durable() => Some(self.recorded()),
            None => None,
            Some(settled) => Some(self.settled(settled, owed.has_used)),
        }
    }

    #[cold]
    fn settled(&self, claim: ClaimSettled, has_used: bool) -> Pending {
        let (gate, is_durable) = (self.clone(), self.is_durable());
        Box::pin(async move {
            // An error means that the gate is closed: nothing more will be settled.
            let has_used = has_used | claim.await.unwrap_or_default();
            if is_durable && has_used { gate.recorded().await } else { Waited::default() }
        })
    }

    fn is_durable(&self) -> bool {
        self.inner.settings.mode == Mode::Durable
    }

    /// The additional `Access-Control-Expose-Headers` line for a response to a cross-origin page (a
    /// request with `Origin`); `None` if nothing is missing. `told` are the lines that the response
    /// already has. For adapters.
    pub fn expose_headers(&self, told: &[&[u8]]) -> Option<Cow<'static, str>> {
        let style = self.inner.settings.wire.style;
        (style != HeaderStyle::Off).then(|| wire::expose(told, style)).flatten()
    }

    /// Adds that line to a refusal, which may have no other of these headers than `Retry-After`.
    pub fn expose_refusal(&self, reply: &mut Reply) {
        const NAME: &str = "access-control-expose-headers";
        let told = reply.headers.iter().filter(|(name, _)| *name == NAME);
        let told: Vec<_> = told.map(|(_, line)| line.as_bytes()).collect();
        let names = wire::expose(&told, self.inner.settings.wire.style);
        reply.headers.extend(names.map(|names| (NAME, names.into_owned())));
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("body", &self.body).finish_non_exhaustive()
    }
}

/// See [`Serving::guard`].
struct FailOnPanic<'a>(&'a mut Option<Serving>);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(serving) = self.0.take()
        {
            serving.end(Outcome::Failed);
        }
    }
}

//! What an admitted request holds until its end, and how that end is counted.
//!
//! # Laws
//!
//! 1. A [`Hold`] is settled exactly once: by its owner, or by its drop.
//! 2. What was used moves from the hold to the lease's total and to the use row as soon as it is
//!    known, draw by draw; what is left of the hold at the end goes back to where it came from.
//! 3. A number learned after the end, or beyond the hold, is drawn from the lease as far as it
//!    reaches and is a debt beyond that. It is never dropped.

use std::sync::Arc;

use smallvec::SmallVec;

use super::decide::{self, CALLS, From, Taken, TakenList};
use super::hub::Hub;
use super::policy::{Known, RoutePolicy};
use super::tenant::Sheet;
use crate::catalog::RouteId;
use crate::clock::Now;

/// Counters of one request for what is reported or streamed. The catalog allows as many such meters.
pub(crate) const COUNTERS: usize = 8;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response was sent to its end.
    Complete {
        /// Its status.
        status: u16,
    },
    /// The client went away, or the request was dropped before there was a response.
    Aborted,
    /// The handler panicked or returned an error.
    Failed,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) hub: Arc<Hub>,
    pub(crate) sheet: Arc<Sheet>,
    pub(crate) route: Option<RouteId>,
    pub(crate) taken: TakenList,
    pub(crate) taken_at: Now,
    /// Length of the request body, where its bytes are counted.
    pub(crate) length: u64,
    /// What was reported or passed so far.
    counters: [u64; COUNTERS],
    /// What of each meter ask has been recorded so far.
    recorded: SmallVec<[u64; 4]>,
    draws: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Runs; its costs are not decided.
    Open,
    /// Costs are recorded; numbers may still come.
    Charged,
    /// Over; numbers that still come are late.
    Over,
}

impl Hold {
    pub(crate) fn new(
        hub: Arc<Hub>,
        sheet: Arc<Sheet>,
        route: Option<RouteId>,
        taken: TakenList,
        taken_at: Now,
        length: Option<u64>,
    ) -> Self {
        Self {
            hub,
            sheet,
            route,
            taken,
            taken_at,
            length: length.unwrap_or(0),
            counters: [0; COUNTERS],
            recorded: SmallVec::new(),
            draws: 0,
            state: State::Open,
        }
    }

    pub(crate) fn route_policy(&self) -> &RoutePolicy {
        self.sheet.policy.route(self.route)
    }

    /// Adds to a counter and records it at once: what is known is counted even if the process dies
    /// before the request ends.
    pub(crate) fn report(&mut self, counter: u8, n: u64, now: Now) {
        if let Some(counter) = self.counters.get_mut(usize::from(counter)) {
            *counter = counter.saturating_add(n);
            self.record(now);
        }
    }

    /// What is held and not yet used of this ask.
    pub(crate) fn held(&self, ask: u8) -> u64 {
        let mut draws = SmallVec::<[(u8, u64); 4]>::new();
        for took in self.taken.iter().filter(|t| t.ask == ask && t.is_units()) {
            if !draws.iter().any(|(draw, _)| *draw == took.draw) {
                draws.push((took.draw, took.n));
            }
        }
        draws.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// The number of the next draw.
    pub(crate) fn next_draw(&mut self) -> u8 {
        self.draws = self.draws.saturating_add(1);
        self.draws
    }

    /// Decides the costs by how the request went, so far as that is known: at the response's head.
    pub(crate) fn charge(&mut self, charged: bool, now: Now) {
        if self.state == State::Open {
            self.state = State::Charged;
            if !charged {
                self.forgive(now);
            }
            self.record(now);
        }
    }

    /// Ends the request: costs are decided if they were not, the rest of the hold goes back.
    pub(crate) fn end(&mut self, outcome: Outcome, now: Now) {
        if self.state == State::Over {
            return;
        }
        self.charge(self.is_charged(outcome), now);
        self.state = State::Over;
        self.release_rest(now);
        decide::leave(&self.sheet);
    }

    /// Whether `charge-on` charges this outcome.
    pub(crate) fn is_charged(&self, outcome: Outcome) -> bool {
        let charge_on = self.route_policy().charge_on;
        let class = |status: u16| usize::from(status / 100).clamp(1, 5) - 1;
        match outcome {
            Outcome::Complete { status } => charge_on.class[class(status)],
            Outcome::Failed => charge_on.class[4],
            Outcome::Aborted => charge_on.aborted,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Gives the costs back: they are not charged.
    fn forgive(&mut self, now: Now) {
        let sheet = self.sheet.clone();
        let route = sheet.policy.route(self.route);
        let (taken_at, mut i) = (self.taken_at, 0);
        while i < self.taken.len() {
            let took = &self.taken[i];
            let known = route.meters.get(usize::from(took.ask)).map(|ask| &ask.known);
            if matches!(known, Some(Known::Cost | Known::Length)) && took.is_units() {
                decide::give_back(&sheet, took, took.n, taken_at, now);
                self.taken.swap_remove(i);
            } else {
                i += 1;
            }
        }
        // What is not charged counts as nothing: the counters of costs stay at zero.
        self.recorded.resize(route.meters.len(), 0);
        for (ask, recorded) in route.meters.iter().zip(&mut self.recorded) {
            if matches!(ask.known, Known::Cost | Known::Length) {
                *recorded = FORGIVEN;
            }
        }
    }

    /// Moves what became known since the last time from the hold to totals and row.
    fn record(&mut self, now: Now) {
        let sheet = self.sheet.clone();
        let route = sheet.policy.route(self.route);
        self.recorded.resize(route.meters.len(), 0);
        let mut news = false;
        for (i, ask) in route.meters.iter().enumerate() {
            if self.recorded[i] == FORGIVEN {
                continue;
            }
            let more = self.actual(route, i).saturating_sub(self.recorded[i]);
            if more > 0 {
                self.recorded[i] += more;
                sheet.row.add(ask.meter, more);
                self.use_up(route, u8::try_from(i).unwrap_or(CALLS - 1), more, now);
                news = true;
            }
        }
        if news {
            self.hub.soil_sheet(&self.sheet);
        }
    }

    /// The true number of a meter ask, as far as it is known.
    fn actual(&self, route: &RoutePolicy, i: usize) -> u64 {
        let ask = &route.meters[i];
        let decided = self.state != State::Open && self.recorded[i] != FORGIVEN;
        match &ask.known {
            Known::Cost if decided => ask.n,
            Known::Length if decided => self.length,
            Known::Cost | Known::Length => 0,
            Known::Reported(counter) => self.counters[usize::from(*counter)],
            Known::Sum(parts) => parts.iter().fold(0u64, |sum, (part, weight)| {
                let part = self.actual(route, usize::from(*part));
                sum.saturating_add(part.saturating_mul(*weight))
            }),
        }
    }

    /// Settles `n` atoms of an ask against its draws in order; what they do not cover is late.
    fn use_up(&mut self, route: &RoutePolicy, ask: u8, n: u64, now: Now) {
        let mut rest = n;
        while rest > 0 {
            let open = self.taken.iter().filter(|t| t.ask == ask && t.n > 0 && t.is_units());
            let Some((draw, held)) = open.map(|t| (t.draw, t.n)).min() else { break };
            let part = rest.min(held);
            for took in &mut self.taken {
                if took.ask == ask && took.draw == draw && took.is_units() {
                    decide::settle(&self.hub, &self.sheet, took, part);
                    took.n -= part;
                }
            }
            rest -= part;
        }
        self.pay_buckets(ask, n, now);
        if rest > 0 {
            self.settle_late(route, ask, rest);
        }
    }

    /// A metered rate has taken the hold; use within it is paid for, use beyond it is charged.
    fn pay_buckets(&mut self, ask: u8, n: u64, now: Now) {
        for took in self.taken.iter_mut().filter(|t| t.ask == ask && !t.is_units()) {
            let covered = took.n.min(n);
            took.n -= covered;
            let beyond = n - covered;
            if beyond == 0 {
                continue;
            }
            match &took.from {
                From::Bucket(rate) => {
                    if let (rate, Some(bucket)) = decide::bucket_of(&self.sheet, *rate) {
                        rate.rule.charge(bucket, beyond, now.mono_ns);
                    }
                }
                From::ScopedBucket(rate, used) => {
                    let rule = &self.sheet.policy.rates[usize::from(*rate)].rule;
                    rule.charge(&used.bucket, beyond, now.mono_ns);
                }
                From::Pool(_) | From::ScopedPool(_) => {}
            }
        }
    }

    /// Use that no hold covers: each quota it belongs to pays from what is left, then owes.
    fn settle_late(&mut self, route: &RoutePolicy, ask: u8, n: u64) {
        let Some(meter) = route.meters.get(usize::from(ask)) else { return };
        let mut scoped = SmallVec::<[Arc<super::lease::Lease>; 2]>::new();
        for took in self.taken.iter().filter(|t| t.ask == ask) {
            if let From::ScopedPool(lease) = &took.from {
                if !scoped.iter().any(|known| Arc::ptr_eq(known, lease)) {
                    scoped.push(lease.clone());
                }
            }
        }
        for lease in scoped {
            lease.settle_late(n);
            self.hub.soil_lease(&lease);
            self.hub.wake(&lease);
        }
        let policy = &self.sheet.policy;
        let quotas = meter.quotas.iter().map(|q| &policy.quotas[usize::from(*q)]);
        let tenant_wide = quotas.filter(|q| q.tenant_wide).filter_map(|q| q.over.or(q.included));
        let once = meter.grants.last().copied().filter(|_| meter.once_only);
        for pool in tenant_wide.chain(once) {
            let lease = decide::lease_of(&self.sheet, pool);
            lease.settle_late(n);
            self.hub.wake(lease);
        }
    }

    /// What is left of the hold goes back.
    fn release_rest(&mut self, now: Now) {
        for took in &mut self.taken {
            // A call that was made stays counted by its rate, whatever became of it.
            if took.ask != CALLS {
                decide::give_back(&self.sheet, took, took.n, self.taken_at, now);
            }
            took.n = 0;
        }
    }
}

/// Marks an ask whose cost is not charged. No request uses so much.
const FORGIVEN: u64 = u64::MAX;

impl Taken {
    /// Units of a pool, as opposed to room in a bucket.
    fn is_units(&self) -> bool {
        matches!(self.from, From::Pool(_) | From::ScopedPool(_))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let now = self.hub.clock.now();
        if self.state != State::Over {
            let outcome =
                if std::thread::panicking() { Outcome::Failed } else { Outcome::Aborted };
            self.end(outcome, now);
        }
        // Draws made after the end, by a job that outlived the response.
        self.release_rest(now);
    }
}

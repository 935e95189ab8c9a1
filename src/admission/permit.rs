//! Holds of admitted requests, and how their end is counted.
//!
//! # Laws
//!
//! 1. A [`Hold`] is settled exactly once: by its owner, or by its drop.
//! 2. Use moves from the hold to the lease's total and to the use row as soon as it is known, draw
//!    by draw; the rest of the hold goes back to its source at the end.
//! 3. What a plain request took (see `PlainAsk`) is known from its route, and is in no list until
//!    something happens that is not plain.
//! 4. A request with an idempotency key keeps all it holds until its claim is settled; see `keyed`.
//! 5. A request is in flight from its admission to its end or, if its connection is upgraded to
//!    another protocol, until its last handle is dropped.
//! 6. A number learned after the end, or beyond the hold, is drawn from the lease as far as that
//!    reaches and is a debt beyond it. It is never dropped.

use crate::admission::context::HoldContext;
use crate::admission::decide::{self, AdmittedBy};
use crate::admission::reads::BytesRead;
use crate::catalog::MeterId;
use crate::clock::Now;
use crate::decision::Outcome;
use crate::decision_log::Unwritten;
use crate::payers::purse;
use crate::policy::taken::{DrawnFrom, PARTS, PaysFor, Taken};
use crate::policy::{AmountSource, AskIndex, ByteMeter, CounterIndex, MeterAsk, QuotaIndex};
use crate::table::Index;
use crate::telemetry;

mod going_on;
mod keyed;
mod listed;
mod plain;
mod refunds;
mod reserve;
#[cfg(any(test, feature = "testing"))]
mod seen;
mod spare;
mod state;
mod truth;
mod use_up;

pub(crate) use listed::LazyList;
use plain::Plain;
use refunds::{count_due, count_held};
pub(crate) use spare::{HoldBox, Spares};
use state::{FORGIVEN, HoldState};
use use_up::{Knowledge, count, held_for, use_up};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) of: HoldContext,
    pub(crate) list: LazyList,
    pub(crate) taken_at: Now,
    /// Length of the request body, where it is stated.
    pub(crate) length: Option<u64>,
    /// Counts the bytes read of that body, if they are metered.
    pub(crate) read: Option<BytesRead>,
    state: HoldState,
    plain: Plain,
    /// It has used something since an answer last waited for the record of its use.
    has_used: bool,
    /// Its handler had to wait: time has passed since it was taken.
    pub(crate) has_waited: bool,
    /// Its entry in the gate's list while its handler is running.
    pub(crate) noted: Option<NotedAt>,
    /// It has ended as a request and goes on as a connection of another protocol: it stays in
    /// flight until it is dropped.
    is_upgraded: bool,
    /// It has a place of the process's capacity.
    has_place: bool,
    /// The record of its admission, until that is final and logged.
    pub(crate) unlogged: Option<Unwritten>,
}

/// The length that is asked for a body without a stated end, which may have no byte: so that it is
/// refused where a quota of bytes is used up. It is charged by what is read of it.
pub(crate) const OPEN_ENDED: u64 = 1;

/// Its position in the list of requests with running handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedAt(pub(crate) u32);

/// The part of a request that is left for the response body to settle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyRest {
    /// Its bytes count as these units.
    pub(crate) counted: Option<ByteMeter>,
    /// The request is to be counted once.
    pub(crate) is_keyed: bool,
}

impl Hold {
    /// A hold of nothing, to be filled by a decision.
    #[inline]
    pub(crate) fn new(of: HoldContext, taken_at: Now, length: Option<u64>) -> Self {
        let (list, state, plain) = (LazyList::default(), HoldState::New, Plain::Not);
        let (has_used, has_waited, is_upgraded) = (false, false, false);
        let (noted, read, has_place) = (None, None, false);
        Self {
            of,
            list,
            taken_at,
            length,
            read,
            state,
            plain,
            has_used,
            has_waited,
            noted,
            is_upgraded,
            has_place,
            unlogged: None,
        }
    }

    /// Takes a place of the process's capacity, where that is limited; false: there is none.
    #[inline]
    pub(crate) fn take_place(&mut self) -> bool {
        match self.of.hub().capacity.get() {
            Some(capacity) if !self.of.rules().free => {
                self.has_place = capacity.enter(self.of.sheet.policy.plan.pays);
                self.has_place
            }
            _ => true,
        }
    }

    /// The same for one that is let in regardless.
    pub(crate) fn take_place_anyway(&mut self) {
        if !self.take_place()
            && let Some(capacity) = self.of.hub().capacity.get()
        {
            capacity.enter_anyway();
            self.has_place = true;
        }
    }

    /// Gives its place back.
    #[inline]
    pub(crate) fn leave_place(&mut self) {
        if std::mem::take(&mut self.has_place)
            && let Some(capacity) = self.of.hub().capacity.get()
        {
            capacity.leave();
        }
    }

    /// No longer in flight.
    #[inline]
    fn leave(&mut self) {
        decide::leave(&self.of.sheet, self.of.rules());
        self.leave_place();
    }

    /// Admits the request, holding what was drawn.
    #[inline]
    pub(crate) fn open(&mut self, drawn: AdmittedBy) {
        self.state = HoldState::Open;
        if drawn == AdmittedBy::Plain {
            self.plain = Plain::Held;
        }
    }

    /// The time, if ending or charging depends on it: only a metered bucket refills meanwhile. For
    /// everything else the time it was taken will do, and the clock is not read.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        if self.plain != Plain::Not {
            return self.taken_at;
        }
        let in_time = |took: &Taken| took.pays != PaysFor::Call && !took.is_units();
        if self.taken().iter().any(in_time) { self.of.hub().clock.now() } else { self.taken_at }
    }

    /// Adds to a counter and records it at once: it counts even if the process dies before the
    /// request ends.
    pub(crate) fn report(&mut self, counter: CounterIndex, n: u64, now: Now) {
        self.write_down();
        let known = AmountSource::Reported(counter);
        if let Some(ask) = self.of.rules().meters.find(|ask| ask.known == known) {
            self.use_reserve(ask, n);
        }
        if let Some(counter) = self.list.open().counters.get_mut(counter.number()) {
            *counter = counter.saturating_add(n);
            self.record(now);
        }
    }

    /// Uses the costs stated for reported meters: no other number will come.
    pub(crate) fn use_stated(&mut self, now: Now) {
        if self.state != HoldState::Open {
            return;
        }
        let asks = self.of.rules().meters.pairs();
        let stated = asks.filter(|(_, ask)| ask.stated && ask.n > 0);
        let stated = stated.filter_map(|(i, ask)| match ask.known {
            AmountSource::Reported(counter) if self.is_learned(i, counter) => None, // it has come
            AmountSource::Reported(counter) => Some((counter, ask.n)),
            AmountSource::Cost | AmountSource::Length | AmountSource::Sum(_) => None,
        });
        let stated: smallvec::SmallVec<[(CounterIndex, u64); 4]> = stated.collect();
        for (counter, n) in stated {
            self.report(counter, n, now);
        }
    }

    /// Counts atoms of a meter that this route has no hold or counter for: each quota pays late.
    pub(crate) fn report_cost(&mut self, meter: MeterId, n: u64) {
        if self.keeps_for_claim(meter, n) {
            return;
        }
        self.has_used |= n > 0;
        self.of.sheet.count_used(meter, n);
        self.of.late_use().pay(meter, n);
        self.of.sheet.mark_dirty();
    }

    /// Units it holds, included in this quota or paid by grants, for numbers still to be reported.
    pub(crate) fn set_aside(&self, quota: QuotaIndex) -> u64 {
        let policy = &self.of.sheet.policy;
        let rule = &policy.quotas[quota];
        if self.plain != Plain::Not {
            return self.plain_set_aside(rule.included);
        }
        let pays = |took: &&Taken| match &took.from {
            DrawnFrom::Pool(pool) if Some(*pool) == rule.included => true,
            DrawnFrom::Pool(pool) => {
                let payers = policy.payers(rule.quota.meter).filter(|_| rule.tenant_wide);
                payers.is_some_and(|payers| payers.grants.contains(pool))
            }
            DrawnFrom::ScopedPool(pool, _) => Some(*pool) == rule.included,
            DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..) => false,
        };
        self.aside(|ask| ask.quotas.contains(&quota), pays)
    }

    /// Units it holds of the grants of a meter that has no quota, for numbers still to be reported.
    pub(crate) fn granted_aside(&self, meter: MeterId) -> u64 {
        let pays = |took: &&Taken| self.of.sheet.policy.grants(&took.from);
        self.aside(|ask| ask.once_only && ask.meter == meter, pays)
    }

    fn aside(
        &self,
        is_of: impl Fn(&MeterAsk) -> bool,
        pays: impl Fn(&&Taken) -> bool + Copy,
    ) -> u64 {
        let of_ask = |(i, ask): (AskIndex, &MeterAsk)| {
            let held = self.taken().iter().filter(|took| took.is_of(i)).filter(pays);
            let held = held.fold(0, |sum: u64, took| sum.saturating_add(took.n));
            match ask.known {
                AmountSource::Reported(_) => held,
                // Without what is a cost of its parts.
                AmountSource::Sum(_) => held.min(self.reserved(i)),
                AmountSource::Cost | AmountSource::Length => 0,
            }
        };
        let asks = self.of.rules().meters.pairs().filter(|(_, ask)| is_of(ask));
        asks.map(of_ask).fold(0, u64::saturating_add)
    }

    /// How far the bytes read so far exceed what it holds under this quota: paid at the end.
    pub(crate) fn read_beyond(&self, quota: QuotaIndex) -> u64 {
        self.beyond(|ask| ask.quotas.contains(&quota))
    }

    /// The same of the grants of a meter that has no quota.
    pub(crate) fn read_beyond_granted(&self, meter: MeterId) -> u64 {
        self.beyond(|ask| ask.once_only && ask.meter == meter)
    }

    fn beyond(&self, is_of: impl Fn(&MeterAsk) -> bool) -> u64 {
        let Some(read) = self.read.as_ref().map(BytesRead::total) else { return 0 };
        let rules = self.of.rules();
        let asks = rules.meters.pairs().filter(|(_, ask)| is_of(ask));
        let beyond =
            asks.map(|(i, ask)| ask.of_length(rules, read).saturating_sub(self.held_for(i)));
        beyond.max().unwrap_or(0)
    }

    /// Units it holds for an ask.
    fn held_for(&self, ask: AskIndex) -> u64 {
        held_for(&self.of.sheet.policy, self.taken(), ask)
    }

    /// The number of the next draw. Earlier draws that are used up are dropped, so that a stream of
    /// any length holds few; the first stays, since it names the limits that late use belongs to.
    pub(crate) fn next_draw(&mut self) -> u64 {
        self.write_down();
        let listed = self.list.open();
        listed.taken.retain(|took| took.draw == 0 || took.n > 0 || !took.is_units());
        listed.draws = listed.draws.saturating_add(1 << PARTS);
        listed.draws
    }

    /// The draws in the list.
    fn taken(&self) -> &[Taken] {
        self.list.get().map_or(&[], |listed| &listed.taken)
    }

    /// Decides the costs by the outcome, as far as it is known: at the response's head.
    #[inline]
    pub(crate) fn charge(&mut self, charged: bool, now: Now) {
        if self.state != HoldState::Open {
            return;
        }
        self.state = HoldState::Charged;
        if self.plain == Plain::Held {
            self.charge_plain(charged);
            return;
        }
        if !charged {
            self.forgive(now);
        }
        self.charge_keyed(charged, now);
        self.record(now);
    }

    /// Ends the request: decides open costs, and gives back the rest of the hold.
    #[inline]
    pub(crate) fn end(&mut self, outcome: Outcome, now: Now) {
        if self.settle_all(outcome, now) {
            self.leave();
        }
    }

    /// The same for a request whose response upgrades its connection to another protocol: it stays
    /// in flight until it is dropped.
    pub(crate) fn upgrade(&mut self, outcome: Outcome, now: Now) {
        if self.length == Some(OPEN_ENDED)
            && let Some(read) = self.read.take()
        {
            // From here on the bytes are the other protocol's.
            self.length = Some(read.total());
        }
        self.is_upgraded |= self.settle_all(outcome, now);
    }

    /// Returns whether it was still running.
    #[inline]
    fn settle_all(&mut self, outcome: Outcome, now: Now) -> bool {
        if matches!(self.state, HoldState::Over | HoldState::New) {
            return false;
        }
        if self.state == HoldState::Open {
            let charged = self.of.rules().charges(outcome);
            self.charge(charged, now);
        }
        // Most requests: nothing goes back, and nothing else is to be settled.
        if self.is_spent() {
            self.state = HoldState::Over;
            return true;
        }
        self.end_reads(now);
        self.state = HoldState::Over;
        self.end_keyed(now);
        self.release_rest(now);
        true
    }

    /// Charges what was read of the body since the head. Anything read from now on is late.
    fn end_reads(&mut self, now: Now) {
        let Some(read) = self.read.take() else { return };
        let charged = read.total();
        self.length = Some(charged);
        self.record(now);
        if self.is_replay() {
            return;
        }
        let recorded = self.list.get().map(|listed| &listed.recorded);
        let is_charged =
            |i: AskIndex| recorded.and_then(|recorded| recorded.get(i)) != Some(&FORGIVEN);
        let asks = self.of.rules().meters.pairs();
        let late = asks.filter(|(i, ask)| ask.known == AmountSource::Length && is_charged(*i));
        read.go_on(charged, &self.of, late.map(|(_, ask)| ask.meter).collect());
    }

    /// Whether the number of requests in flight is limited where this one was admitted.
    pub(crate) fn counts_in_flight(&self) -> bool {
        self.has_place || self.of.rules().in_flight.is_some()
    }

    /// Settles what the head of a response decides: an outcome that is not charged never is, and
    /// one that is charged is charged now, unless an abort would be forgiven. Returns what is left
    /// for the body (`None`: nothing, the request has ended). `is_empty`: there is no body.
    #[inline]
    pub(crate) fn settle_head(&mut self, outcome: Outcome, is_empty: bool) -> Option<BodyRest> {
        let rules = self.of.rules();
        let (charged, counted) = (rules.charges(outcome), rules.counts_response);
        let is_sure = !charged || rules.charges(Outcome::Aborted);
        let now = self.now();
        if is_sure {
            self.charge(charged, now);
        }
        if counted.is_none() && self.is_spent() {
            self.state = HoldState::Over;
            return None;
        }
        if is_empty {
            self.end(outcome, now);
            return None;
        }
        Some(BodyRest { counted, is_keyed: self.is_keyed() })
    }

    /// Settles nothing at a head that does not say how the request ends.
    #[cfg(feature = "tower")]
    pub(crate) fn leave_to_body(&self) -> BodyRest {
        BodyRest { counted: self.of.rules().counts_response, is_keyed: self.is_keyed() }
    }

    /// Whether its end would change nothing: the costs are decided, no held units go back, and no
    /// meter of the route is reported, so that no number is expected either.
    #[inline]
    fn is_spent(&self) -> bool {
        self.state == HoldState::Charged
            && self.plain != Plain::Not
            && !self.has_place
            && self.of.rules().costs_alone
    }

    /// Gives the costs back uncharged.
    fn forgive(&mut self, now: Now) {
        let (rules, known, is_replay) = (self.of.rules(), self.known(), self.is_replay());
        let listed = self.list.open();
        listed.recorded.rows_mut().resize(rules.meters.len(), 0);
        let is_cost = |ask: AskIndex| {
            let ask = rules.meters.get(ask);
            ask.is_some_and(|a| matches!(a.known, AmountSource::Cost | AmountSource::Length))
        };
        if telemetry::IS_ON && !is_replay {
            count_due(&self.of.sheet, rules, listed, known);
        }
        for took in &mut listed.taken {
            if matches!(took.pays, PaysFor::Ask(ask) if is_cost(ask)) && took.is_units() {
                purse::give_back(&self.of.sheet, took, took.n, self.taken_at, now);
                took.n = 0;
            }
        }
        for i in rules.meters.indices().filter(|ask| is_cost(*ask)) {
            listed.recorded[i] = FORGIVEN;
        }
    }

    /// Moves what became known since the last call from the hold to totals and row.
    fn record(&mut self, now: Now) {
        if self.leaves_to_claim(now) {
            return;
        }
        let sheet = &self.of.sheet;
        let rules = self.of.rules();
        let known = self.known();
        let listed = self.list.open();
        listed.recorded.rows_mut().resize(rules.meters.len(), 0);
        let mut news = false;
        for (i, ask) in rules.meters.pairs() {
            let actual = known.actual(&listed.recorded, &listed.counters, rules, i);
            let recorded = &mut listed.recorded[i];
            if *recorded == FORGIVEN || actual <= *recorded {
                continue;
            }
            let more = actual - *recorded;
            *recorded = actual;
            count(sheet, &listed.taken, i, (ask.meter, more));
            use_up(&self.of, rules, &mut listed.taken, i, more, now);
            news = true;
        }
        if news {
            sheet.mark_dirty();
            self.has_used = true;
        }
    }

    /// Whether it has used anything since the last call: its answer waits for the record of that
    /// use, and of nothing else.
    #[inline]
    pub(crate) fn take_used(&mut self) -> bool {
        let later = self.list.get_mut().map_or(&mut [][..], |listed| &mut listed.going_on);
        let later = later.iter_mut().fold(false, |used, hold| hold.take_used() | used);
        std::mem::take(&mut self.has_used) | later
    }

    /// The inputs that decide how much of a cost is known.
    fn known(&self) -> Knowledge {
        let read = self.read.as_ref().map(BytesRead::total);
        let truth = self.list.get().and_then(|listed| listed.truth);
        Knowledge { state: self.state, length: read.or(self.length), truth }
    }

    /// Gives back the rest of the hold.
    #[inline]
    fn release_rest(&mut self, now: Now) {
        if self.plain != Plain::Not {
            self.release_plain();
            return;
        }
        count_held(&self.of.sheet, self.of.rules(), self.taken());
        self.release_listed(now);
    }

    /// The same of what is in the list, without a word to the metric.
    fn release_listed(&mut self, now: Now) {
        let Some(listed) = self.list.get_mut() else {
            return;
        };
        listed.going_on.clear(); // each gives back what it holds
        listed.reserves.rows_mut().clear();
        for took in &mut listed.taken {
            // A call that was made stays counted by its rate, whatever its outcome.
            if took.pays != PaysFor::Call {
                purse::give_back(&self.of.sheet, took, took.n, self.taken_at, now);
            } else if took.is_units() {
                // On no record: a slot leases everything it may serve.
                purse::settle(self.of.hub(), &self.of.sheet, took, took.n);
            }
            took.n = 0;
        }
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        match self.state {
            HoldState::New => self.leave_place(),
            HoldState::Over if !self.is_upgraded && self.taken().iter().all(|took| took.n == 0) => {
            }
            _ => self.end_by_drop(),
        }
    }
}

impl Hold {
    #[cold]
    fn end_by_drop(&mut self) {
        let now = self.now();
        if self.state != HoldState::Over {
            let outcome = if std::thread::panicking() { Outcome::Failed } else { Outcome::Aborted };
            self.end(outcome, now);
        }
        if self.is_upgraded {
            self.leave();
        }
        // Draws made after the end, by a job that outlived the response.
        if self.plain == Plain::Not {
            self.release_rest(now);
        }
    }
}

//! Permits of requests with an idempotency key.
//!
//! # Laws
//!
//! 1. Until its claim is settled such a request has used nothing: its reports are noted and stay
//!    held, because another request with the key may be the one that is charged.
//! 2. If the costs are known at the head of the response the claim is settled then, otherwise at
//!    the end. What was noted goes to the settling task together with what is held ([`Settling`]).
//! 3. Costs that are not charged (`charge-on`) leave the claim held, so that a retry is charged;
//!    what was reported is recorded as without a key.
//! 4. A replay uses no units, except those that its handler takes (`usage.take`) beyond what the
//!    claim says was used: they are drawn, and what it uses of them is recorded, as without a key.
//!    Its rates are paid like any others.
//! 5. What is learned after the claim was settled is a late cost, which the log has.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::Hold;
use super::refunds::count_held;
use super::state::{ByAsk, FORGIVEN, HoldState};
use super::use_up::{count, over_of, pay_rates, use_drawn, use_up};
use crate::admission::claim::{Charge, Claim, ClaimUse, KeyFound, Unsettled};
use crate::admission::claim_queue::ClaimQueue;
use crate::admission::context::HoldContext;
use crate::admission::decide::Drawn;
use crate::amount::Atoms;
use crate::catalog::MeterId;
use crate::clock::Now;
use crate::ids::Surrogate;
use crate::payers::purse;
use crate::policy::taken::{PaysFor, TakenList};
use crate::policy::{AmountSource, AskIndex};
use crate::sheets::use_row::RowAtoms;

/// How a keyed request is counted.
#[derive(Debug)]
pub(crate) enum Keyed {
    /// It tries to settle its claim at its end.
    Open(Box<OpenClaim>),
    /// Another was charged, which used so much.
    Replay(ByAsk),
    /// Its claim is being settled; who answers waits for this ([`Settling::end`]).
    Settling(Option<oneshot::Receiver<bool>>),
}

/// A claim that is not settled.
#[derive(Debug)]
pub(crate) struct OpenClaim {
    claim: Claim,
    /// The queue of claims to settle.
    queue: Arc<ClaimQueue>,
    /// Reports of meters that the route has no counter for.
    others: Vec<(MeterId, u64)>,
}

/// A claim waiting to be settled, with everything that depends on it. If it is dropped before the
/// outcome is known, the units stay used: they may have been charged.
#[derive(Debug)]
struct Settling {
    of: HoldContext,
    claim: Claim,
    taken: TakenList,
    /// Atoms used; then those of other meters.
    used: ByAsk,
    others: Vec<(MeterId, u64)>,
    now: Now,
    /// Notifies the response; `None` once the outcome is known.
    told: Option<oneshot::Sender<bool>>,
}

impl Hold {
    /// Marks this request as counted once, with the state found of its key.
    pub(crate) fn count_once(
        &mut self,
        claim: Claim,
        found: KeyFound,
        queue: &Arc<ClaimQueue>,
        now: Now,
    ) {
        self.write_down();
        let keyed = match found {
            KeyFound::Open => {
                let (queue, others) = (queue.clone(), Vec::new());
                Keyed::Open(Box::new(OpenClaim { claim, queue, others }))
            }
            KeyFound::Replay => {
                self.release_units(now);
                let meters = &self.of.sheet.catalog.meters;
                let asks = self.of.rules().meters.iter();
                let asks = asks.map(|ask| &meters[usize::from(ask.meter.0)]);
                let used: ByAsk =
                    asks.map(|meter| claim.used_of(&meter.name, meter.scale)).collect();
                self.reserve_only(&used);
                Keyed::Replay(used)
            }
            KeyFound::Spent | KeyFound::Conflict => return,
        };
        self.list.open().keyed = Some(keyed);
    }

    /// The claim that it tries to settle at its end.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn open_claim(&self) -> Option<&Claim> {
        match self.keyed()? {
            Keyed::Open(open) => Some(&open.claim),
            Keyed::Replay(_) | Keyed::Settling(_) => None,
        }
    }

    /// The result the response must wait for; returned once.
    pub(crate) fn settling(&mut self) -> Option<oneshot::Receiver<bool>> {
        match self.list.get_mut()?.keyed.as_mut()? {
            Keyed::Settling(told) => told.take(),
            Keyed::Open(_) | Keyed::Replay(_) => None,
        }
    }

    /// Whether it is to be counted once.
    pub(crate) fn is_keyed(&self) -> bool {
        self.keyed().is_some()
    }

    /// Whether what it asks for and reports uses no units.
    pub(crate) fn is_replay(&self) -> bool {
        matches!(self.keyed(), Some(Keyed::Replay(_)))
    }

    /// Holds `n` more of an ask. Units from the same limits as an earlier draw join it, so that a
    /// stream that uses nothing before its end has few draws. What a rate gives joins what it gave
    /// before: it pays for the use of an ask once.
    pub(crate) fn add_draw(&mut self, ask: AskIndex, n: u64, drawn: Drawn) {
        self.reserve(ask, n);
        let Drawn { units: taken, of_rates } = drawn;
        let held = &mut self.list.open().taken;
        for new in of_rates {
            match held.iter_mut().find(|old| old.is_from_same(&new)) {
                Some(old) => old.n = old.n.saturating_add(new.n),
                None => held.push(new),
            }
        }
        let is_open = matches!(self.keyed(), Some(Keyed::Open(_)));
        let held = &mut self.list.open().taken;
        let is_one = taken.windows(2).all(|two| two[0].draw == two[1].draw);
        let same = |draw: u64| {
            let of_draw = held.iter().filter(|old| old.draw == draw && old.is_units());
            let of_draw: SmallVec<[_; 4]> = of_draw.collect();
            of_draw.len() == taken.len()
                && of_draw.iter().zip(&taken).all(|(old, new)| old.is_from_same(new))
        };
        let draws: SmallVec<[u64; 4]> = held.iter().map(|old| old.draw).collect();
        match draws.into_iter().find(|draw| is_open && is_one && *draw > 0 && same(*draw)) {
            None => held.extend(taken),
            Some(draw) => {
                let old = held.iter_mut().filter(|old| old.draw == draw && old.is_units());
                for (old, new) in old.zip(&taken) {
                    old.n = old.n.saturating_add(new.n);
                }
            }
        }
    }

    fn keyed(&self) -> Option<&Keyed> {
        self.list.get()?.keyed.as_ref()
    }

    /// Keeps a cost of a meter without a counter for its claim, or drops it if it is not charged.
    pub(super) fn keeps_for_claim(&mut self, meter: MeterId, n: u64) -> bool {
        match self.list.get_mut().and_then(|listed| listed.keyed.as_mut()) {
            Some(Keyed::Open(open)) => match open.others.iter_mut().find(|(m, _)| *m == meter) {
                Some((_, sum)) => *sum = sum.saturating_add(n),
                None => open.others.push((meter, n)),
            },
            Some(Keyed::Replay(_)) => {}
            Some(Keyed::Settling(_)) | None => return false,
        }
        true
    }

    /// Whether what became known is not for the log. A replay pays its rates, and uses what its
    /// handler took.
    pub(super) fn leaves_to_claim(&mut self, now: Now) -> bool {
        match self.keyed() {
            Some(Keyed::Open(_)) => true,
            Some(Keyed::Replay(free)) => {
                let free = free.clone();
                let used = self.note_use(now);
                self.use_taken(&used, &free);
                true
            }
            Some(Keyed::Settling(_)) | None => false,
        }
    }

    /// Uses and records what a replay has drawn, once it has used more than is free. Its costs, and
    /// what it reports beyond what it has drawn, are free.
    fn use_taken(&mut self, used: &ByAsk, free: &ByAsk) {
        let sheet = &self.of.sheet;
        for (i, ask) in self.of.rules().meters.pairs() {
            let is_reported = matches!(ask.known, AmountSource::Reported(_) | AmountSource::Sum(_));
            if !is_reported || used[i] == 0 || self.list.open().recorded[i] <= free[i] {
                continue;
            }
            let n = self.held_for(i).min(used[i]);
            let taken = &mut self.list.open().taken;
            count(sheet, taken, i, (ask.meter, n));
            use_drawn(&self.of, taken, i, n);
            self.has_used |= n > 0;
            sheet.mark_dirty();
        }
    }

    /// The costs are decided.
    pub(super) fn charge_keyed(&mut self, charged: bool, now: Now) {
        if !matches!(self.keyed(), Some(Keyed::Open(_))) {
            return;
        }
        let is_known =
            |known: &AmountSource| matches!(known, AmountSource::Cost | AmountSource::Length);
        if !charged {
            self.leave_claim();
        } else if self.of.rules().meters.iter().all(|ask| is_known(&ask.known)) {
            self.end_keyed(now);
        }
    }

    /// Leaves the claim for a retry: from here on the request is like one without a key.
    fn leave_claim(&mut self) {
        let Some(Keyed::Open(open)) = self.list.open().keyed.take() else { return };
        for (meter, n) in open.others {
            self.report_cost(meter, n);
        }
    }

    /// Everything is known: hands the claim over to be settled.
    pub(super) fn end_keyed(&mut self, now: Now) {
        if !matches!(self.keyed(), Some(Keyed::Open(_))) {
            return;
        }
        let used = self.note_use(now);
        let listed = self.list.open();
        let (told, tells) = oneshot::channel();
        let settling = Some(Keyed::Settling(Some(tells)));
        let Some(Keyed::Open(open)) = std::mem::replace(&mut listed.keyed, settling) else {
            return;
        };
        let all = std::mem::take(&mut listed.taken);
        let policy = &self.of.sheet.policy;
        let (units, rates) = all.into_iter().partition(|took| !policy.is_of_rate(&took.from));
        listed.taken = rates;
        let OpenClaim { claim, queue, others } = *open;
        let of = self.of.clone();
        let told = Some(told);
        let settling = Settling { of, claim, taken: units, used, others, now, told };
        queue.push(Box::new(settling));
    }

    /// Use since the last call, by meter ask. Its rates have been paid.
    fn note_use(&mut self, now: Now) -> ByAsk {
        let rules = self.of.rules();
        let known = self.known();
        let listed = self.list.open();
        listed.recorded.rows_mut().resize(rules.meters.len(), 0);
        let one = |i: AskIndex| {
            let actual = known.actual(&listed.recorded, &listed.counters, rules, i);
            let recorded = &mut listed.recorded[i];
            let more = if *recorded == FORGIVEN { 0 } else { actual.saturating_sub(*recorded) };
            if more > 0 {
                *recorded = actual;
            }
            if more > 0 {
                pay_rates(&self.of, &mut listed.taken, i, more, now);
            }
            more
        };
        rules.meters.indices().map(one).collect()
    }

    fn release_units(&mut self, now: Now) {
        let policy = &self.of.sheet.policy;
        let taken = &mut self.list.open().taken;
        count_held(&self.of.sheet, self.of.rules(), taken);
        for took in taken {
            if !policy.is_of_rate(&took.from) {
                purse::give_back(&self.of.sheet, took, took.n, self.taken_at, now);
                took.n = 0;
            }
        }
    }

    /// Withdraws the admission: nothing is charged.
    pub(crate) fn refuse(mut self, now: Now) {
        self.write_down();
        self.state = HoldState::Over;
        self.release_listed(now); // refused, and so not refunded
        self.leave();
    }
}

impl Unsettled for Settling {
    fn claim(&self) -> &Claim {
        &self.claim
    }

    fn tenant(&self) -> Surrogate {
        self.of.sheet.tenant.surrogate
    }

    fn plan(&self) -> &Arc<str> {
        &self.of.sheet.policy.plan.name
    }

    fn usage(&self) -> ClaimUse {
        let sheet = &self.of.sheet;
        let row = &sheet.row;
        let asks = self.of.rules().meters.pairs().zip(&self.used);
        let asks = asks.map(|((i, ask), used)| {
            let over = over_of(sheet, &self.taken, i, *used);
            (ask.meter, RowAtoms { used: Atoms(*used), over: Atoms(over) })
        });
        // Use that no hold covers is drawn later, and what of it is beyond a quota recorded there.
        let late = |n: u64| RowAtoms { used: Atoms(n), over: Atoms::NONE };
        let others = self.others.iter().map(|(meter, n)| (*meter, late(*n)));
        let mut rows = Vec::new();
        for (meter, atoms) in asks.chain(others).filter(|(_, atoms)| atoms.used > Atoms::NONE) {
            if let Some(meter) = sheet.catalog.meters.get(usize::from(meter.0)) {
                rows.push((meter.name.clone(), meter.scale, atoms));
            }
        }
        let account = row.account.clone();
        ClaimUse { period_ms: row.period_ms, day: row.day, account, rows }
    }

    fn end(mut self: Box<Self>, charge: Charge) {
        let has_used = !matches!(charge, Charge::Nothing);
        match charge {
            Charge::Claim => self.use_units(),
            Charge::Nothing => self.give_back(),
            Charge::Log => {
                let sheet = &self.of.sheet;
                for ((i, ask), n) in self.of.rules().meters.pairs().zip(&self.used) {
                    count(sheet, &self.taken, i, (ask.meter, *n));
                }
                self.others.iter().for_each(|(meter, n)| sheet.count_used(*meter, *n));
                self.use_units();
            }
        }
        if let Some(told) = self.told.take() {
            let _ = told.send(has_used); // the client has gone
        }
    }
}

impl Settling {
    fn use_units(&mut self) {
        let rules = self.of.rules();
        for (i, n) in self.used.pairs().filter(|(_, n)| **n > 0) {
            use_up(&self.of, rules, &mut self.taken, i, *n, self.now);
        }
        for (meter, n) in &self.others {
            self.of.late_use().pay(*meter, *n);
        }
        self.give_back();
        self.of.sheet.mark_dirty();
    }

    fn give_back(&mut self) {
        count_held(&self.of.sheet, self.of.rules(), &self.taken);
        for took in &mut self.taken {
            debug_assert!(took.pays != PaysFor::Call, "a bucket");
            purse::give_back(&self.of.sheet, took, took.n, self.now, self.now);
            took.n = 0;
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.use_units();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::decision::Outcome;
    use crate::gate::{Admitted, Answer, Gate, Step, Waited};
    use crate::identity::RequestView;
    use crate::testing;

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold  = "100"
        [meter.words]
        count = "reported"
        [meter.pages]
        [route.chat]
        match   = "POST /chat"
        once-by = "idempotency-key"
        [plan.free]
        rate.default   = "10 tokens/min burst 1000"
        quota.requests = "10/day"
        quota.tokens   = "1000/day"
        quota.pages    = "50/day"
    "#;

    /// A request of acme with a key.
    struct Chat;

    impl RequestView for Chat {
        fn method(&self) -> &str {
            "POST"
        }

        fn path(&self) -> &str {
            "/chat"
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            match name {
                "x-tenant" => Some(b"acme"),
                "idempotency-key" => Some(b"k"),
                _ => None,
            }
        }

        fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
            self.header(name).into_iter().collect()
        }

        fn peer(&self) -> Option<IpAddr> {
            None
        }
    }

    async fn admit(gate: &Gate) -> Admitted {
        let mut waited = Waited::default();
        loop {
            match gate.admit_request(&Chat, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Admit(running)) => {
                    return Admitted::new(gate.clone(), running);
                }
                Step::Done(_) => panic!("refused"),
            }
        }
    }

    /// Requests, tokens and pages: on record outside claims, and counted by the limits.
    async fn used(gate: &Gate) -> ([u64; 3], [u64; 3]) {
        let who = testing::identified(gate, "acme").await;
        let report = gate.usage_report(&who).await.unwrap();
        let of = |name: &str| report.meters.iter().find(|meter| &*meter.name == name).unwrap();
        let meters = ["requests", "tokens", "pages"].map(of);
        (meters.map(|meter| meter.used.whole()), meters.map(|meter| meter.limits[0].used.whole()))
    }

    #[tokio::test]
    async fn a_request_with_a_key_has_used_what_it_reported_unless_another_is_charged() {
        let (none, all) = ([0; 3], [1, 140, 7]);
        for (charge, told, on_record, of_limits) in [
            (Some(Charge::Claim), Some(true), none, all),
            (Some(Charge::Log), Some(true), all, all),
            (Some(Charge::Nothing), Some(false), none, none),
            // The outcome never becomes known: this one may have been charged.
            (None, None, none, all),
        ] {
            let (gate, _clock) = testing::gate(PLANS);
            let admitted = admit(&gate).await;
            admitted.usage().add("tokens", 140);
            admitted.usage().add("pages", 7);
            let hears = {
                let mut hold = admitted.hold();
                let now = hold.now();
                hold.end(Outcome::Complete { status: 200 }, now);
                assert!(hold.taken().iter().all(|took| !took.is_units()), "what the claim needs");
                hold.settling().unwrap()
            };
            // Before the settling task has looked.
            let settling = gate.inner.recording.settler.queue().take().pop().unwrap();
            let rows: Vec<_> = settling.usage().rows;
            let rows: Vec<_> = rows.iter().map(|(meter, _, n)| (&**meter, n.used.0)).collect();
            assert_eq!(rows, [("requests", 1), ("tokens", 140), ("pages", 7)]);
            match charge {
                Some(charge) => settling.end(charge),
                None => drop(settling),
            }
            assert_eq!(hears.await.ok(), told, "{charge:?}");
            drop(admitted);
            assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0, "{charge:?}");
            assert_eq!(used(&gate).await, (on_record, of_limits), "{charge:?}");
        }
    }
}

//! The same history on a gate: its answers are compared with those of the book, and every number of
//! its report after looks and at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use tallygate::billing::audit::{Audit, Gap};
use tallygate::directory::{Grant as Given, PaymentState};
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::testing::{self, OpenRequest, Plans, START_MS, time_at};
use tallygate::{Gate, ManualClock, Outcome, Usage};

use crate::book::{Account, Book, Grant, Hold, Meter, Payment, Quota, Refused, Subscription};
use crate::calendar::{DAY, HOUR};
use crate::coverage::{self, Seen};
use crate::history::{Event, History, JOBS, METERS, SLOTS, Setting, TENANTS, TOKENS, USERS};
use crate::host::{Call, Shared, ask, name, open, reason, same};
use crate::known;
use crate::stripe::Stripe;

/// A difference between the book and the gate.
pub(crate) type Differs = String;

/// A gate, and the book that predicts it.
struct Run {
    setting: Setting,
    book: Book,
    store: Shared,
    plans: Plans,
    clock: ManualClock,
    gate: Gate,
    /// When its process began.
    opened: i64,
    slots: [Option<Slot>; SLOTS],
    /// Counts events of ingest and grants, for their ids.
    made: u64,
    stripe: Option<Stripe>,
    /// Features that had an effect.
    seen: Seen,
}

/// A running request, or one that has ended and left its handle.
struct Slot {
    request: Option<OpenRequest>,
    /// Its connection was upgraded to another protocol.
    is_upgraded: bool,
    usage: Usage,
    hold: Hold,
    chats: bool,
}

/// Runs one history on both.
pub(crate) fn run(history: &History) -> Result<Seen, Differs> {
    testing::seed_this_thread(Some(1));
    // Time advances only when all tasks wait, since nothing here takes any; calls to Stripe do.
    let is_alone = history.setting.sends_all.is_none();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(is_alone).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::begin(&history.setting).await;
        for (at, event) in history.events.iter().enumerate() {
            let stepped = run.step(event).await;
            run.rest().await;
            stepped.map_err(|differs| format!("event {at}, {event:?}: {differs}"))?;
        }
        run.end().await.map_err(|differs| format!("at the end: {differs}"))?;
        run.gate.close().await.map_err(|error| format!("closing: {error}"))?;
        run.seen.extend(coverage::of(history));
        Ok(run.seen)
    })
}

impl Run {
    async fn begin(setting: &Setting) -> Self {
        let tenant = || Account::new(0, START_MS, METERS.len());
        let tenants = (0..TENANTS).map(|_| tenant()).collect();
        let book = Book { plans: setting.plans.clone(), now: START_MS, tenants };
        let plans = Plans::new(&setting.file_of(&book.plans));
        let (store, clock) = (Shared::default(), ManualClock::at_unix_ms(START_MS));
        let mut stripe = match setting.sends_all {
            Some(_) => Some(Stripe::start().await),
            None => None,
        };
        let gate = open(&plans, &store, &clock, stripe.as_ref()).await;
        for tenant in 0..TENANTS {
            gate.directory().tenant(&name(tenant)).save().await.unwrap();
            if let Some(stripe) = &mut stripe {
                let customer = gate.ensure_customer(&name(tenant)).await.unwrap();
                stripe.customer(customer);
            }
        }
        let (setting, slots) = (setting.clone(), [const { None }; SLOTS]);
        let (opened, made, seen) = (START_MS, 0, Seen::new());
        Self { setting, book, store, plans, clock, gate, opened, slots, made, stripe, seen }
    }

    async fn step(&mut self, event: &Event) -> Result<(), Differs> {
        if event.changes_what_pays() {
            // Late use may wait for a record.
            self.gate.flush_now().await.unwrap();
            self.rest().await;
            self.settle_change(self.book.who_owes()).await?;
        }
        match *event {
            Event::Pass(ms) => {
                self.pass(ms).await;
                self.hear().await
            }
            Event::Work { tenant, jobs, tokens, done } => {
                self.work(tenant, jobs, tokens, done).await
            }
            Event::Begin { slot, tenant, user, chats } => {
                self.begin_request(slot, tenant, user, chats).await
            }
            Event::Take { slot, tokens } => self.take(slot, tokens).await,
            Event::Report { slot, tokens } => {
                if let Some(slot) = self.slots[slot].as_mut().filter(|slot| slot.is_chat_open()) {
                    slot.usage.add("tokens", tokens);
                    if self.book.held(&slot.hold, TOKENS) < tokens {
                        self.seen.insert("reported beyond the hold");
                    }
                    self.book.report(&mut slot.hold, TOKENS, tokens);
                }
                Ok(())
            }
            Event::End { slot, status } => {
                self.end_request(slot, status);
                Ok(())
            }
            Event::Upgrade { slot } => {
                if let Some(slot) = &mut self.slots[slot]
                    && let Some(request) = slot.request.take()
                {
                    self.seen.insert("upgraded");
                    slot.is_upgraded = true;
                    request.upgrade(101);
                    self.book.answer(&mut slot.hold, true);
                }
                Ok(())
            }
            Event::ReportLate { slot, tokens } => {
                if let Some(slot) = &mut self.slots[slot]
                    && !slot.is_open()
                    && slot.chats
                {
                    self.seen.insert("reported after the end");
                    slot.usage.add("tokens", tokens);
                    self.book.report(&mut slot.hold, TOKENS, tokens);
                }
                Ok(())
            }
            Event::Ingest { tenant, meter, units } => {
                self.seen.insert("ingest");
                self.made += 1;
                let id = format!("e{}", self.made);
                let event = UsageEvent::new(id, name(tenant), METERS[meter], units);
                let counted = self.gate.ingest().events(vec![event]).await;
                self.book.late(tenant, 0, meter, units);
                same("ingest", &counted, &vec![Ok(Counted::Now)])
            }
            Event::Grant { tenant, meter, units, lasts } => {
                self.give(tenant, meter, units, lasts).await
            }
            Event::Move { tenant, plan } => {
                self.seen.insert("plan change");
                let moves = self.gate.directory().tenant(&name(tenant)).plan(format!("p{plan}"));
                moves.save().await.unwrap();
                let owed = self.book.who_owes();
                self.book.assign(tenant, plan);
                self.settle_change(owed).await
            }
            Event::Suspend { tenant, suspended } => {
                let edit = self.gate.directory().tenant(&name(tenant)).note("-");
                let edit = if suspended { edit.suspend() } else { edit.resume() };
                edit.save().await.unwrap();
                self.book.tenants[tenant].suspended = suspended;
                self.seen.extend(suspended.then_some("suspended"));
                Ok(())
            }
            Event::Pay { tenant, state } => self.pay(tenant, state).await,
            Event::Subscribe { tenant, plan } => self.subscribe(tenant, plan).await,
            Event::Cancel { tenant } => self.cancel(tenant).await,
            Event::Edit { plan, meter, quota, by } => {
                self.edit(plan, meter, quota, |_, it| it.limit += by).await
            }
            Event::Lower { plan, meter, quota, by } => {
                self.seen.insert("limit lowered");
                let least = self.setting.least(meter);
                let lower = |at, it: &mut Quota| {
                    if at == plan {
                        it.limit = it.limit.saturating_sub(by).max(least);
                    }
                };
                self.edit(plan, meter, quota, lower).await
            }
            Event::Restart => self.restart().await,
            Event::Bill => self.bill().await,
            Event::Look { tenant } => self.look(tenant).await,
            // There is one node, and it shuts down cleanly.
            Event::Turn { .. } | Event::Crash { .. } => Ok(()),
        }
    }

    /// The operator sets a tenant's payment state.
    async fn pay(&mut self, tenant: usize, state: Payment) -> Result<(), Differs> {
        let (state, told) = match state {
            Payment::Good => (state, PaymentState::Good),
            Payment::PastDue(_) => (Payment::PastDue(self.book.now), PaymentState::PastDue),
            Payment::Unpaid => (state, PaymentState::Unpaid),
            Payment::Canceled => (state, PaymentState::Canceled),
        };
        self.seen.insert("payment state");
        let edit = self.gate.directory().tenant(&name(tenant));
        edit.payment_since(told, time_at(self.book.now)).save().await.unwrap();
        let owed = self.book.who_owes();
        self.book.pays(tenant, state);
        self.settle_change(owed).await
    }

    async fn subscribe(&mut self, tenant: usize, plan: usize) -> Result<(), Differs> {
        let Some(stripe) = &mut self.stripe else { return Ok(()) };
        self.seen.insert("subscription");
        let is_first = stripe.subscribe(tenant, plan);
        let anchor = stripe.sim.now() * 1_000;
        self.hear().await?;
        let owed = self.book.who_owes();
        let known = self.book.tenants[tenant].subscription.filter(|_| !is_first);
        let anchor = known.map_or(anchor, |known| known.anchor);
        self.book.subscribe(tenant, Subscription { plan, anchor });
        self.settle_change(owed).await
    }

    async fn cancel(&mut self, tenant: usize) -> Result<(), Differs> {
        let Some(stripe) = &mut self.stripe else { return Ok(()) };
        if !stripe.cancel(tenant) {
            return Ok(());
        }
        self.seen.insert("subscription canceled");
        let at = stripe.sim.now() * 1_000;
        self.hear().await?;
        let owed = self.book.who_owes();
        self.book.cancel(tenant, at);
        self.settle_change(owed).await
    }

    /// Takes in Stripe's new events. What the events of one second leave open the next decides.
    async fn hear(&mut self) -> Result<(), Differs> {
        let Some(stripe) = &mut self.stripe else { return Ok(()) };
        let events = stripe.events();
        let mut waits = stripe.deliver(&self.gate, events).await?;
        if !waits.is_empty() {
            self.pass(1_000).await;
            let Some(stripe) = &self.stripe else { return Ok(()) };
            waits = stripe.deliver(&self.gate, waits).await?;
        }
        match waits.first() {
            None => Ok(()),
            Some(event) => Err(format!("webhook: the gate says 503, of {event}")),
        }
    }

    /// Edits the plan file: changes a limit of one plan, and the same one in the others.
    async fn edit(
        &mut self,
        plan: usize,
        meter: Meter,
        quota: usize,
        change: impl Fn(usize, &mut Quota),
    ) -> Result<(), Differs> {
        let Some(of) = self.book.plans[plan].meters[meter].quotas.get(quota).cloned() else {
            return Ok(());
        };
        self.seen.insert("plan file edited");
        let owed = self.book.who_owes();
        for (at, plan) in self.book.plans.iter_mut().enumerate() {
            let quotas = plan.meters[meter].quotas.iter_mut();
            let same = |it: &&mut Quota| (it.every, it.per_user) == (of.every, of.per_user);
            quotas.filter(same).for_each(|it| change(at, it));
        }
        self.plans.set(&self.setting.file_of(&self.book.plans));
        self.gate.reload().await.unwrap();
        (0..TENANTS).for_each(|tenant| self.book.pay_debts(tenant));
        self.settle_change(owed).await
    }

    /// Background work finishes before the next event: here the store answers at once.
    async fn rest(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&mut self, ms: i64) {
        if !known::OUTLIVES_400_DAYS && self.book.now + ms > self.opened + 390 * DAY {
            return;
        }
        self.clock.advance(Duration::from_millis(ms.unsigned_abs()));
        self.book.pass(ms);
        if let Some(stripe) = &self.stripe {
            stripe.sim.advance(u32::try_from(ms / 1_000).unwrap());
        }
        // Does what a background flush would have done meanwhile.
        self.gate.flush_now().await.unwrap();
    }

    async fn work(
        &mut self,
        tenant: usize,
        jobs: u64,
        tokens: u64,
        done: bool,
    ) -> Result<(), Differs> {
        let handle = self.gate.tenant(&name(tenant)).await.unwrap();
        let said = self.gate.admit(ask(&handle, jobs, tokens)).await;
        self.seen.extend((jobs > 0 && tokens > 0).then_some("work of two meters"));
        let costs = [(JOBS, jobs), (TOKENS, tokens)];
        let mut costs: Vec<_> = costs.into_iter().filter(|(_, units)| *units > 0).collect();
        let told = said.as_ref().map(|_| ()).map_err(|refusal| reason(&refusal.reason));
        let first = self.book.clone().admit(tenant, 0, &costs, &[]).map(|_| ());
        if first != told {
            costs.reverse(); // which of two meters is named that both refuse is not said
        }
        let expected = self.book.admit(tenant, 0, &costs, &[]);
        let again = |book: &mut Book| book.admit(tenant, 0, &costs, &[]).is_ok();
        let expected = expected.map_err(|it| self.or_soon(it, &told, (tenant, None), again));
        same("answer", &told, &expected.as_ref().map(|_| ()).map_err(|it| *it))?;
        if let (Ok(permit), Ok(mut hold)) = (said, expected) {
            if done {
                permit.settle()
            } else {
                permit.cancel()
            }
            self.book.end(&mut hold, done);
        }
        Ok(())
    }

    async fn begin_request(
        &mut self,
        slot: usize,
        tenant: usize,
        user: u32,
        chats: bool,
    ) -> Result<(), Differs> {
        if self.slots[slot].as_ref().is_some_and(Slot::is_open) {
            return Ok(());
        }
        let path = if chats { "/chat" } else { "/work" };
        let call = Call { tenant: name(tenant), user: user.to_string(), path };
        let said = OpenRequest::admit(&self.gate, &call).await;
        let (costs, holds) = if chats {
            // Without a `hold` a trace of a unit is set aside, here a whole one.
            (vec![], vec![(TOKENS, self.setting.hold.unwrap_or(1))])
        } else {
            (vec![(JOBS, self.setting.cost)], vec![])
        };
        let expected = self.book.admit(tenant, user, &costs, &holds);
        let told = said.as_ref().map(|_| ()).map_err(|it| reason(&it.as_ref().unwrap().reason));
        let again = |book: &mut Book| book.admit(tenant, user, &costs, &holds).is_ok();
        let expected = expected.map_err(|it| self.or_soon(it, &told, (tenant, None), again));
        same("answer", &told, &expected.as_ref().map(|_| ()).map_err(|it| *it))?;
        if let (Ok(request), Ok(hold)) = (said, expected) {
            let usage = request.usage();
            self.slots[slot] =
                Some(Slot { request: Some(request), is_upgraded: false, usage, hold, chats });
        }
        Ok(())
    }

    fn end_request(&mut self, slot: usize, status: u16) {
        if let Some(slot) = &mut self.slots[slot]
            && let Some(request) = slot.request.take()
        {
            request.head(status);
            request.end(Outcome::Complete { status });
            self.book.end(&mut slot.hold, status < 500);
        }
        // The last handle on a connection is dropped.
        if let Some(mut slot) = self.slots[slot].take_if(|slot| slot.is_upgraded) {
            self.book.end(&mut slot.hold, true);
        }
    }

    async fn take(&mut self, at: usize, tokens: u64) -> Result<(), Differs> {
        let Some(slot) = self.slots[at].as_mut().filter(|slot| slot.is_chat_open()) else {
            return Ok(());
        };
        let plan = self.book.plan(slot.hold.tenant, TOKENS);
        let (is_given, has_narrow) =
            (plan.is_given(), plan.quotas.iter().any(|quota| quota.per_user));
        let is_limited = !plan.quotas.is_empty() || is_given;
        if !is_limited && !known::TAKES_WHAT_IS_UNLIMITED {
            return Ok(());
        }
        let said = slot.usage.take("tokens", tokens).await;
        let expected = self.book.take(&mut slot.hold, TOKENS, tokens);
        self.seen.insert("taken");
        // If a user's quota and a grant both lack units, either may be named.
        let either = is_given && has_narrow;
        let named = |it| if either && it == Refused::GrantUsedUp { Refused::Exhausted } else { it };
        let said = said.map_err(|refusal| reason(&refusal.reason));
        let (tenant, hold) = (slot.hold.tenant, slot.hold.clone());
        let again = |book: &mut Book| book.take(&mut hold.clone(), TOKENS, tokens).is_ok();
        let expected = expected.map_err(|it| self.or_soon(it, &said, (tenant, Some(at)), again));
        same("taken", &said.map_err(named), &expected.map_err(named))
    }

    /// Units given once that are used up only as long as other requests hold the rest are worth
    /// asking for soon. If they would not do for all that was asked, either may be said.
    fn or_soon(
        &self,
        refused: Refused,
        told: &Result<(), Refused>,
        (tenant, own): (usize, Option<usize>),
        again: impl FnOnce(&mut Book) -> bool,
    ) -> Refused {
        if refused != Refused::GrantUsedUp {
            return refused;
        }
        let mut without = self.book.clone();
        let mut are_held = false;
        for (_, slot) in self.slots.iter().enumerate().filter(|(at, _)| Some(*at) != own) {
            let Some(slot) = slot.as_ref().filter(|slot| slot.hold.tenant == tenant) else {
                continue;
            };
            are_held |= [JOBS, TOKENS].iter().any(|meter| without.held(&slot.hold, *meter) > 0);
            without.answer(&mut slot.hold.clone(), false);
        }
        match again(&mut without) || (are_held && *told == Err(Refused::Exhausted)) {
            true => Refused::Exhausted,
            false => Refused::GrantUsedUp,
        }
    }

    async fn give(
        &mut self,
        tenant: usize,
        meter: usize,
        units: u64,
        lasts: i64,
    ) -> Result<(), Differs> {
        if !self.book.limits(tenant, meter) {
            return Ok(());
        }
        self.made += 1;
        let (id, expires) = (format!("g{}", self.made), self.book.now + lasts);
        let grant = Given::new(id.clone(), METERS[meter], units).expires(time_at(expires));
        self.gate.directory().tenant(&name(tenant)).grant(grant).save().await.unwrap();
        self.seen.insert("grant");
        let owed = self.book.who_owes();
        self.book.grant(tenant, Grant { id, meter, given: units, drawn: 0, expires });
        self.settle_change(owed).await
    }

    async fn restart(&mut self) -> Result<(), Differs> {
        self.seen.insert("restart");
        // A drained shutdown: what still runs has ended before.
        for slot in 0..SLOTS {
            self.end_request(slot, 200);
            self.slots[slot] = None;
        }
        self.gate.close().await.map_err(|error| format!("closing: {error}"))?;
        self.gate = open(&self.plans, &self.store, &self.clock, self.stripe.as_ref()).await;
        self.opened = self.book.now;
        Ok(())
    }

    /// Has debtors look: what pays is decided by all changes since they were last seen.
    async fn settle_change(&mut self, owed: Vec<usize>) -> Result<(), Differs> {
        for tenant in owed.into_iter().filter(|_| !known::PAYS_BY_EACH_CHANGE) {
            // The next ask writes a changed limit, and reads what is owed.
            for (jobs, tokens) in [(1, 0), (0, 1)] {
                self.work(tenant, jobs, tokens, false).await?;
            }
            self.look(tenant).await?;
        }
        Ok(())
    }

    /// Looks at everything once more, and sends what is still owed.
    async fn end(&mut self) -> Result<(), Differs> {
        for tenant in 0..TENANTS {
            self.look(tenant).await.map_err(|differs| format!("tenant {tenant}: {differs}"))?;
        }
        // An entry may wait for a minute of its own.
        for _ in 0..3 {
            self.bill().await?;
            self.pass(HOUR).await;
        }
        let Some(stripe) = &self.stripe else {
            return Ok(());
        };
        for (tenant, customer) in stripe.customers.iter().enumerate() {
            for (meter, event) in METERS.iter().enumerate() {
                if self.book.sells_beyond_nothing(meter) && !known::BILLS_WHAT_COMES_BACK {
                    continue;
                }
                let totals = stripe.sim.totals();
                let of =
                    totals.iter().filter(|it| it.customer == *customer && it.event_name == *event);
                let billed: i64 = of.map(|it| it.total).sum();
                let owed = match self.setting.sends_all {
                    Some(true) if meter == TOKENS => self.book.used_ever(tenant, meter),
                    _ => self.book.owed(tenant, meter).into_values().sum(),
                };
                same(&format!("{event} billed to tenant {tenant}"), &billed, &(owed as i64))?;
            }
        }
        let audit = self.gate.audit().await.map_err(|error| error.to_string())?;
        if audit.is_clean() || self.carried_long_ago(&audit) {
            return Ok(());
        }
        Err(format!("the audit: {audit:?}"))
    }

    /// Whether the service counts more than is on record, after a time of which some is not.
    fn carried_long_ago(&self, audit: &Audit) -> bool {
        let counts_more =
            |gap: &Gap| matches!(gap, Gap::Counted { sent, counted } if *counted > *sent as i64);
        let lasted = self.book.now - START_MS;
        !known::AUDITS_OLD_CARRIES
            && lasted > 390 * DAY
            && audit.gaps().all(|(_, gap)| gap.is_passing() || counts_more(gap))
    }

    async fn bill(&mut self) -> Result<(), Differs> {
        if self.stripe.is_some() {
            self.gate.report_now().await.map_err(|error| format!("report: {error}"))?;
        }
        Ok(())
    }

    /// Compares every number that the tenant sees.
    async fn look(&mut self, tenant: usize) -> Result<(), Differs> {
        // As long as a reading of the log may be old.
        self.pass(2_000).await;
        // A grace may have ended: the next plan's units pay once the tenant is seen again.
        self.book.pay_debts(tenant);
        for user in USERS {
            self.look_as(tenant, user).await?;
        }
        Ok(())
    }

    async fn look_as(&self, tenant: usize, user: u32) -> Result<(), Differs> {
        let (id, of_user) = (name(tenant), user.to_string());
        let headers = [("x-tenant", &*id), ("x-user", &*of_user)];
        let who = testing::identified_by(&self.gate, &headers).await;
        let report = self.gate.usage_report(&who).await.map_err(|error| error.to_string())?;
        for (meter, word) in METERS.iter().enumerate() {
            let told = report.meters.iter().find(|it| *it.name == **word).unwrap();
            same(&format!("{word} used"), &told.used.whole(), &self.book.used(tenant, meter))?;
            if !self.book.sells_beyond_nothing(meter) || known::BILLS_WHAT_COMES_BACK {
                same(&format!("{word} over"), &told.over.whole(), &self.book.over(tenant, meter))?;
            }
            let told_of: BTreeMap<String, u64> = told
                .limits
                .iter()
                .map(|limit| (limit.id.to_string(), limit.used.whole()))
                .collect();
            let plan = self.book.plan(tenant, meter);
            let expected = plan.quotas.iter().map(|quota| {
                let drawn = self.book.drawn(tenant, user, meter, quota);
                let used = drawn.included + drawn.over + drawn.debt;
                let scope = if quota.per_user { "/user" } else { "" };
                (format!("{word}/{}{scope}", quota.every.word()), used)
            });
            if !self.book.sells_beyond_nothing(meter) || known::BILLS_WHAT_COMES_BACK {
                same(&format!("{word} limits"), &told_of, &expected.collect())?;
            }
            let told_of: BTreeMap<String, u64> = told
                .grants
                .iter()
                .filter(|grant| !grant.limit.is_zero()) // a prepaid meter without a grant
                .filter(|grant| grant.expires_at.is_none_or(|end| end > time_at(self.book.now)))
                .map(|grant| {
                    let own = &*grant.source == "grant";
                    (if own { grant.id.to_string() } else { "once".to_owned() }, grant.used.whole())
                })
                .collect();
            let live = self.book.tenants[tenant].grants.iter();
            let live = live.filter(|g| g.meter == meter && g.expires > self.book.now);
            let mut expected: BTreeMap<_, _> = live.map(|g| (g.id.clone(), g.drawn)).collect();
            if let Some(once) = plan.once {
                expected.insert("once".to_owned(), self.book.once(tenant, meter).min(once));
            }
            same(&format!("{word} grants"), &told_of, &expected)?;
        }
        Ok(())
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        self.request.is_some() || self.is_upgraded
    }

    fn is_chat_open(&self) -> bool {
        self.chats && self.is_open()
    }
}

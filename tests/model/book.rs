//! The book: what a tenant may use and owes, stated once and plainly. It follows the rules of
//! docs/plans.md one unit at a time, with no leases, no batches, no concurrency and none of the
//! crate's code.
//! Every unit of a meter is paid, in this order, by what its quotas include, by a grant (soonest
//! expiry first), by what lies beyond the limit (`over`), by a debt. A unit passes all quotas of
//! the tenant at once, and a grant pays in place of all of them. Quotas of a user hold besides.

use std::collections::{BTreeMap, VecDeque};

use crate::calendar::{DAY, Every};

/// Index of a meter in [`Plan::meters`].
pub(crate) type Meter = usize;

/// What happens beyond a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Deny,
    /// Let through up to this many units beyond the limit; `None`: without end.
    Allow(Option<u64>),
    /// The same, and owed.
    Bill(Option<u64>),
}

#[derive(Clone, Debug)]
pub(crate) struct Quota {
    pub(crate) limit: u64,
    pub(crate) every: Every,
    pub(crate) over: Over,
    /// For each user separately.
    pub(crate) per_user: bool,
}

/// A plan's terms for one meter.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeterPlan {
    pub(crate) quotas: Vec<Quota>,
    /// Units granted once; without a quota they are all that can be used.
    pub(crate) once: Option<u64>,
    /// Nothing is included: use is paid by grants alone.
    pub(crate) prepaid: bool,
}

/// A plan's terms, by meter.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) meters: Vec<MeterPlan>,
    /// Most requests at once.
    pub(crate) concurrency: Option<u64>,
}

impl Quota {
    /// Whether the `stop` leaves a unit more for both, what is included and what lies beyond.
    fn has_room(&self, drawn: Drawn) -> bool {
        match self.over {
            Over::Allow(Some(beyond)) | Over::Bill(Some(beyond)) => {
                drawn.included + drawn.over < self.limit + beyond
            }
            Over::Deny | Over::Allow(None) | Over::Bill(None) => true,
        }
    }
}

impl MeterPlan {
    /// Whether granted units are all there is, if there is no quota.
    pub(crate) fn is_given(&self) -> bool {
        self.once.is_some() || self.prepaid
    }
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A quota that resets by itself.
    Exhausted,
    /// Units given once are used up.
    GrantUsedUp,
    Suspended,
    /// A purchase has not been paid for.
    Unpaid,
    /// Too many requests at once.
    Concurrency,
    /// A reason the book never gives.
    Other,
}

/// A tenant's payment state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payment {
    Good,
    /// A payment failed at this time: the plan stays for [`GRACE`], and then the second plan
    /// applies.
    PastDue(i64),
    /// Nothing is admitted.
    Unpaid,
    /// The first plan is what is left.
    Canceled,
}

/// As in the `[billing]` table of each history's plan file.
pub(crate) const GRACE: i64 = 5 * DAY;

/// A subscription at Stripe: while it lives, its plan and its anchor are the tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) plan: usize,
    pub(crate) anchor: i64,
}

/// The payer of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payer {
    /// The included units of a quota, in its window.
    Included(WindowOf),
    /// The units beyond a quota; true: they are owed.
    Over(WindowOf, bool),
    Debt(WindowOf),
    /// A grant, by its index.
    Grant(usize),
    /// Units that the plan granted once.
    Once(Meter),
    /// A debt of a meter without a quota, until something is granted.
    Unpaid(Meter),
}

/// One window of one quota: meter, unit of time, user (0: the tenant's), begin.
pub(crate) type WindowOf = (Meter, Every, u32, i64);

/// Units drawn of a quota in one window, open holds included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) included: u64,
    pub(crate) over: u64,
    pub(crate) debt: u64,
}

/// Units given once.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) id: String,
    pub(crate) meter: Meter,
    pub(crate) given: u64,
    pub(crate) drawn: u64,
    pub(crate) expires: i64,
}

/// One unit.
#[derive(Clone, Debug)]
struct Unit {
    /// Its payers: several if several quotas apply.
    payers: Vec<Payer>,
    /// The billing period in which it was drawn: however it ends, it belongs there.
    period: i64,
}

/// Units a request holds and has not used.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) tenant: usize,
    pub(crate) user: u32,
    /// By meter, in the order they were drawn.
    units: BTreeMap<Meter, VecDeque<Unit>>,
    /// Of these: taken by its handler and not reported.
    promised: BTreeMap<Meter, u64>,
    /// Costs decided at the end: meter and units.
    costs: Vec<(Meter, u64)>,
    /// Whether it counts towards the limit on concurrent requests.
    is_counted: bool,
}

/// One tenant.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// As assigned by the operator, when no subscription decides.
    pub(crate) plan: usize,
    pub(crate) anchor: i64,
    pub(crate) payment: Payment,
    pub(crate) subscription: Option<Subscription>,
    /// Whether the operator ever assigned a plan.
    is_assigned: bool,
    /// A subscription has ended, and the operator has changed nothing since.
    has_ended: bool,
    /// When its last subscription ended; a billing period begins then.
    ended: i64,
    pub(crate) suspended: bool,
    pub(crate) grants: Vec<Grant>,
    /// Running requests, if the plan limits their number.
    running: u64,
    windows: BTreeMap<WindowOf, Drawn>,
    /// Drawn from the plans' one-time grants, by meter.
    once: Vec<u64>,
    /// Debts of meters without a quota.
    unpaid: Vec<u64>,
    /// Settled use by meter and billing period.
    used: BTreeMap<(Meter, i64), u64>,
    /// The part of it that is owed.
    owed: BTreeMap<(Meter, i64), u64>,
}

/// All tenants under one plan file.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) plans: Vec<Plan>,
    pub(crate) now: i64,
    pub(crate) tenants: Vec<Account>,
}

impl Account {
    pub(crate) fn new(plan: usize, anchor: i64, meters: usize) -> Self {
        Self {
            plan,
            anchor,
            payment: Payment::Good,
            subscription: None,
            is_assigned: false,
            has_ended: false,
            ended: i64::MIN,
            suspended: false,
            grants: Vec::new(),
            running: 0,
            windows: BTreeMap::new(),
            once: vec![0; meters],
            unpaid: vec![0; meters],
            used: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// All windows in which something was drawn.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (&WindowOf, &Drawn)> {
        self.windows.iter()
    }
}

impl Book {
    /// Admits a request with these costs and holds, or refuses it and draws nothing.
    pub(crate) fn admit(
        &mut self,
        tenant: usize,
        user: u32,
        costs: &[(Meter, u64)],
        holds: &[(Meter, u64)],
    ) -> Result<Hold, Refused> {
        if let Some(refused) = self.stands_refused(tenant) {
            return Err(refused);
        }
        let most = self.plans[self.plan_of(tenant)].concurrency;
        if most.is_some_and(|most| self.tenants[tenant].running >= most) {
            return Err(Refused::Concurrency);
        }
        let (units, promised) = (BTreeMap::new(), BTreeMap::new());
        let (costs_of, is_counted) = (costs.to_vec(), most.is_some());
        let mut hold = Hold { tenant, user, units, promised, costs: costs_of, is_counted };
        self.pay_debts(tenant);
        let before = self.tenants[tenant].clone();
        for &(meter, n) in costs.iter().chain(holds) {
            if let Err(refused) = self.set_aside(&mut hold, meter, n) {
                self.tenants[tenant] = before;
                return Err(refused);
            }
        }
        self.tenants[tenant].running += u64::from(is_counted);
        Ok(hold)
    }

    /// A handler takes `n` units, all or none: from what its request holds, then more.
    pub(crate) fn take(&mut self, hold: &mut Hold, meter: Meter, n: u64) -> Result<(), Refused> {
        let more = n.saturating_sub(self.free(hold, meter));
        self.set_aside(hold, meter, more)?;
        *hold.promised.entry(meter).or_default() += n;
        Ok(())
    }

    /// Units a request holds of a meter that its handler has not taken.
    pub(crate) fn free(&self, hold: &Hold, meter: Meter) -> u64 {
        let promised = hold.promised.get(&meter).copied().unwrap_or(0);
        self.held(hold, meter).saturating_sub(promised)
    }

    /// Sets `n` more units aside for a request, all or none.
    fn set_aside(&mut self, hold: &mut Hold, meter: Meter, n: u64) -> Result<(), Refused> {
        if let Some(refused) = self.stands_refused(hold.tenant) {
            return Err(refused);
        }
        self.pay_debts(hold.tenant);
        let before = self.tenants[hold.tenant].clone();
        let mut units = VecDeque::new();
        for _ in 0..n {
            match self.draw(hold.tenant, hold.user, meter, false) {
                Ok(unit) => units.push_back(unit),
                Err(refused) => {
                    self.tenants[hold.tenant] = before;
                    return Err(refused);
                }
            }
        }
        hold.units.entry(meter).or_default().append(&mut units);
        Ok(())
    }

    /// Units a request holds of a meter and has not used.
    pub(crate) fn held(&self, hold: &Hold, meter: Meter) -> u64 {
        hold.units.get(&meter).map_or(0, |units| units.len() as u64)
    }

    /// Reports units used by a request: its own hold pays first.
    pub(crate) fn report(&mut self, hold: &mut Hold, meter: Meter, n: u64) {
        let promised = hold.promised.entry(meter).or_default();
        *promised = promised.saturating_sub(n);
        for _ in 0..n {
            match hold.units.entry(meter).or_default().pop_front() {
                Some(unit) => self.settle(hold.tenant, meter, &unit),
                None => self.late(hold.tenant, hold.user, meter, 1),
            }
        }
    }

    /// Ends the request, or the last handle on a connection it was upgraded to.
    pub(crate) fn end(&mut self, hold: &mut Hold, charged: bool) {
        self.answer(hold, charged);
        self.tenants[hold.tenant].running -= u64::from(std::mem::take(&mut hold.is_counted));
    }

    /// Answers it: its costs are charged or forgiven, the rest of its hold goes back.
    pub(crate) fn answer(&mut self, hold: &mut Hold, charged: bool) {
        for (meter, n) in std::mem::take(&mut hold.costs) {
            if charged {
                self.report(hold, meter, n);
            }
        }
        hold.promised.clear();
        for unit in std::mem::take(&mut hold.units).into_values().flatten() {
            unit.payers.iter().for_each(|payer| *self.number(hold.tenant, *payer) -= 1);
        }
        self.pay_of_included(hold.tenant);
    }

    /// Use without a hold: reported late, or by another service. It cannot be refused, and is paid
    /// before older debts.
    pub(crate) fn late(&mut self, tenant: usize, user: u32, meter: Meter, n: u64) {
        for _ in 0..n {
            let unit = self.draw(tenant, user, meter, true).expect("late use is not refused");
            self.settle(tenant, meter, &unit);
        }
        self.pay_debts(tenant);
    }

    /// The operator assigns a plan.
    pub(crate) fn assign(&mut self, tenant: usize, plan: usize) {
        let account = &mut self.tenants[tenant];
        (account.plan, account.is_assigned, account.has_ended) = (plan, true, false);
        self.pay_debts(tenant);
    }

    /// The operator sets the tenant's payment state.
    pub(crate) fn pays(&mut self, tenant: usize, payment: Payment) {
        let account = &mut self.tenants[tenant];
        (account.payment, account.has_ended) = (payment, false);
        self.pay_debts(tenant);
    }

    /// A subscription decides from now on.
    pub(crate) fn subscribe(&mut self, tenant: usize, bought: Subscription) {
        self.tenants[tenant].subscription = Some(bought);
        self.pay_debts(tenant);
    }

    /// It ends at this time: the operator's plan and payment state apply again. Without either the
    /// tenant counts as canceled.
    pub(crate) fn cancel(&mut self, tenant: usize, at: i64) {
        let account = &mut self.tenants[tenant];
        // One of no duration divides nothing.
        if account.subscription.take().is_none_or(|bought| bought.anchor < at) {
            account.ended = at;
        }
        account.has_ended = !account.is_assigned && account.payment == Payment::Good;
        self.pay_debts(tenant);
    }

    pub(crate) fn grant(&mut self, tenant: usize, grant: Grant) {
        self.tenants[tenant].grants.push(grant);
        self.pay_debts(tenant);
    }

    /// Whether the tenant's plan limits this meter, so that a grant can be spent.
    pub(crate) fn limits(&self, tenant: usize, meter: Meter) -> bool {
        let plan = self.plan(tenant, meter);
        plan.is_given() || plan.quotas.iter().any(|quota| !quota.per_user)
    }

    /// Settled use in the current billing period.
    pub(crate) fn used(&self, tenant: usize, meter: Meter) -> u64 {
        let period = self.period(tenant);
        let account = &self.tenants[tenant];
        account.used.get(&(meter, period)).copied().unwrap_or(0)
    }

    /// Settled use of all periods.
    pub(crate) fn used_ever(&self, tenant: usize, meter: Meter) -> u64 {
        let used = self.tenants[tenant].used.iter();
        used.filter(|((of, _), _)| *of == meter).map(|(_, n)| n).sum()
    }

    /// Units owed, by the start of the billing period.
    pub(crate) fn owed(&self, tenant: usize, meter: Meter) -> BTreeMap<i64, u64> {
        let owed = self.tenants[tenant].owed.iter();
        owed.filter(|((of, _), _)| *of == meter).map(|((_, at), n)| (*at, *n)).collect()
    }

    /// Use beyond what is included, as reported to the tenant: that of the tenant-wide quota with
    /// most. If it is billed, this is what is owed in the billing period.
    pub(crate) fn over(&self, tenant: usize, meter: Meter) -> u64 {
        let account = &self.tenants[tenant];
        let owed = account.owed.get(&(meter, self.period(tenant))).copied().unwrap_or(0);
        let plan = self.plan(tenant, meter);
        let wide = plan.quotas.iter().filter(|quota| !quota.per_user).map(|quota| {
            let drawn = self.drawn(tenant, 0, meter, quota);
            let beyond = if matches!(quota.over, Over::Bill(_)) { owed } else { drawn.over };
            beyond + drawn.debt
        });
        let unpaid = if plan.is_given() { account.unpaid[meter] } else { 0 };
        wide.max().unwrap_or(unpaid).max(owed)
    }

    /// Whether a plan includes nothing of a meter and sells up to a `stop`.
    pub(crate) fn sells_beyond_nothing(&self, meter: Meter) -> bool {
        let mut quotas = self.plans.iter().flat_map(|plan| &plan.meters[meter].quotas);
        quotas.any(|quota| quota.limit == 0 && matches!(quota.over, Over::Bill(Some(_))))
    }

    /// Units drawn of a quota in the current window.
    pub(crate) fn drawn(&self, tenant: usize, user: u32, meter: Meter, quota: &Quota) -> Drawn {
        let of = self.window(tenant, user, meter, quota);
        self.drawn_in(tenant, of)
    }

    pub(crate) fn drawn_in(&self, tenant: usize, of: WindowOf) -> Drawn {
        self.tenants[tenant].windows.get(&of).copied().unwrap_or_default()
    }

    /// Units drawn from the one-time grants of the tenant's plans.
    pub(crate) fn once(&self, tenant: usize, meter: Meter) -> u64 {
        self.tenants[tenant].once[meter]
    }

    pub(crate) fn plan(&self, tenant: usize, meter: Meter) -> &MeterPlan {
        &self.plans[self.plan_of(tenant)].meters[meter]
    }

    /// The plan in force: the one bought, the one the operator assigned, or what is left without
    /// payment.
    fn plan_of(&self, tenant: usize) -> usize {
        let account = &self.tenants[tenant];
        match (account.subscription, account.payment) {
            (Some(bought), _) => bought.plan,
            (None, _) if account.has_ended => 0,
            (None, Payment::PastDue(since)) if self.now >= since + GRACE => 1,
            (None, Payment::Canceled) => 0,
            (None, _) => account.plan,
        }
    }

    /// The refusal of everything the tenant asks, if any.
    fn stands_refused(&self, tenant: usize) -> Option<Refused> {
        let account = &self.tenants[tenant];
        let decides = account.subscription.is_none() && !account.has_ended;
        let unpaid = decides && account.payment == Payment::Unpaid;
        let unpaid = unpaid.then_some(Refused::Unpaid);
        if account.suspended { Some(Refused::Suspended) } else { unpaid }
    }

    fn anchor(&self, tenant: usize) -> i64 {
        let account = &self.tenants[tenant];
        account.subscription.map_or(account.anchor, |bought| bought.anchor)
    }

    /// Start of the current billing period: that of the cycle, or the end of a subscription in it.
    fn period(&self, tenant: usize) -> i64 {
        let account = &self.tenants[tenant];
        let start = Every::Cycle.start(self.now, self.anchor(tenant));
        account.subscription.map_or(start.max(account.ended), |_| start)
    }

    /// Advances the time.
    pub(crate) fn pass(&mut self, ms: i64) {
        self.now += ms;
    }

    /// Whether a tenant owes anything, in any window.
    pub(crate) fn owes(&self, tenant: usize) -> bool {
        let mut windows = self.tenants[tenant].windows.values();
        windows.any(|drawn| drawn.debt > 0) || self.owes_unlimited(tenant)
    }

    pub(crate) fn who_owes(&self) -> Vec<usize> {
        (0..self.tenants.len()).filter(|tenant| self.owes(*tenant)).collect()
    }

    /// Whether anything is owed of units granted once.
    pub(crate) fn owes_unlimited(&self, tenant: usize) -> bool {
        self.tenants[tenant].unpaid.iter().any(|unpaid| *unpaid > 0)
    }

    /// Pays debts when the tenant is next seen: from what the quota includes again, then from
    /// grants, then from beyond.
    pub(crate) fn pay_debts(&mut self, tenant: usize) {
        self.pay_of_included(tenant);
        for meter in 0..self.tenants[tenant].once.len() {
            let quotas = self.plan(tenant, meter).quotas.clone();
            let wide: Vec<_> = quotas.iter().filter(|quota| !quota.per_user).collect();
            loop {
                let debt = |quota: &&Quota| self.drawn(tenant, 0, meter, quota).debt > 0;
                let of_quotas = wide.iter().any(debt);
                if !of_quotas && self.tenants[tenant].unpaid[meter] == 0 {
                    break;
                }
                let Some(payer) = self.granted(tenant, meter) else {
                    break;
                };
                *self.number(tenant, payer) += 1;
                if !of_quotas {
                    // From an earlier plan: use that these quotas never saw.
                    self.tenants[tenant].unpaid[meter] -= 1;
                    continue;
                }
                for quota in &wide {
                    let debt = Payer::Debt(self.window(tenant, 0, meter, quota));
                    let debt = self.number(tenant, debt);
                    *debt = debt.saturating_sub(1);
                }
            }
            while self.pays_beyond(tenant, meter, &wide) {}
        }
    }

    /// What a quota includes again pays at once: a raised limit, units given back.
    fn pay_of_included(&mut self, tenant: usize) {
        for meter in 0..self.tenants[tenant].once.len() {
            let quotas = self.plan(tenant, meter).quotas.clone();
            let windows: Vec<_> = self.tenants[tenant].windows.keys().copied().collect();
            for quota in &quotas {
                let start = self.window(tenant, 0, meter, quota).3;
                let is_of = |of: &&WindowOf| {
                    (of.0, of.1, of.2 > 0, of.3) == (meter, quota.every, quota.per_user, start)
                };
                for of in windows.iter().filter(is_of) {
                    let drawn = self.tenants[tenant].windows.entry(*of).or_default();
                    let part = quota.limit.saturating_sub(drawn.included).min(drawn.debt);
                    drawn.included += part;
                    drawn.debt -= part;
                }
            }
        }
    }

    /// Pays a unit of the largest debtors from beyond the quotas, if each has one.
    fn pays_beyond(&mut self, tenant: usize, meter: Meter, wide: &[&Quota]) -> bool {
        let debt = |quota: &&&Quota| self.drawn(tenant, 0, meter, quota).debt;
        let most = wide.iter().map(|quota| debt(&quota)).max().unwrap_or(0);
        let debtors: Vec<_> = wide.iter().filter(|quota| most > 0 && debt(quota) == most).collect();
        let is_there = |quota: &&&Quota| {
            let stop = match quota.over {
                Over::Deny => Some(0),
                Over::Allow(stop) | Over::Bill(stop) => stop,
            };
            let drawn = self.drawn(tenant, 0, meter, quota);
            stop.is_none_or(|stop| drawn.over < stop) && quota.has_room(drawn)
        };
        if debtors.is_empty() || !debtors.iter().all(is_there) {
            return false;
        }
        let mut is_billed = false;
        for quota in debtors {
            let of = self.window(tenant, 0, meter, quota);
            *self.number(tenant, Payer::Debt(of)) -= 1;
            *self.number(tenant, Payer::Over(of, false)) += 1;
            is_billed |= matches!(quota.over, Over::Bill(_));
        }
        let period = self.period(tenant);
        let owed = self.tenants[tenant].owed.entry((meter, period)).or_default();
        *owed += u64::from(is_billed);
        true
    }

    /// Draws one unit of a meter. Only late use may end in a debt.
    fn draw(
        &mut self,
        tenant: usize,
        user: u32,
        meter: Meter,
        late: bool,
    ) -> Result<Unit, Refused> {
        if !late {
            self.pay_debts(tenant);
        }
        let plan = self.plan(tenant, meter).clone();
        let (narrow, wide): (Vec<_>, Vec<_>) = plan.quotas.iter().partition(|it| it.per_user);
        let period = self.period(tenant);
        let mut unit = Vec::new();
        // Work without a caller, and use reported by another service, belongs to no user.
        for quota in narrow.into_iter().filter(|_| user > 0) {
            unit.push(self.quota_pays(tenant, user, meter, quota, late)?);
        }
        let included = |quota: &&Quota| self.includes(tenant, user, meter, quota);
        if !wide.is_empty() && wide.iter().all(included) {
            let all = wide.iter().map(|q| Payer::Included(self.window(tenant, user, meter, q)));
            unit.extend(all);
        } else if let Some(grant) = self.granted(tenant, meter) {
            unit.push(grant);
        } else if !wide.is_empty() {
            let pays = |quota: &&Quota| self.quota_pays(tenant, user, meter, quota, false);
            let each: Result<Vec<_>, _> = wide.iter().map(pays).collect();
            // A unit that one quota can only owe is sold by none: the others owe it too, unless
            // they include it.
            let owed = wide.iter().map(|quota| {
                let of = self.window(tenant, user, meter, quota);
                if included(quota) { Payer::Included(of) } else { Payer::Debt(of) }
            });
            unit.extend(if late { each.unwrap_or_else(|_| owed.collect()) } else { each? });
        } else if plan.is_given() {
            unit.push(if late { Payer::Unpaid(meter) } else { return Err(Refused::GrantUsedUp) });
        }
        unit.iter().for_each(|payer| *self.number(tenant, *payer) += 1);
        Ok(Unit { payers: unit, period })
    }

    /// One quota pays for one unit separately: included, beyond, or as a debt.
    fn quota_pays(
        &self,
        tenant: usize,
        user: u32,
        meter: Meter,
        quota: &Quota,
        late: bool,
    ) -> Result<Payer, Refused> {
        let of = self.window(tenant, user, meter, quota);
        let drawn = self.drawn(tenant, user, meter, quota);
        let (most, owed) = match quota.over {
            Over::Deny => (0, false),
            Over::Allow(stop) => (stop.unwrap_or(u64::MAX), false),
            Over::Bill(stop) => (stop.unwrap_or(u64::MAX), true),
        };
        match late {
            _ if self.includes(tenant, user, meter, quota) => Ok(Payer::Included(of)),
            _ if drawn.over < most && drawn.debt == 0 && quota.has_room(drawn) => {
                Ok(Payer::Over(of, owed))
            }
            true => Ok(Payer::Debt(of)),
            false => Err(Refused::Exhausted),
        }
    }

    fn includes(&self, tenant: usize, user: u32, meter: Meter, quota: &Quota) -> bool {
        let drawn = self.drawn(tenant, user, meter, quota);
        drawn.included < quota.limit && drawn.debt == 0 && quota.has_room(drawn)
    }

    /// The grant that pays next, if there is one. Where nothing is limited none is spent.
    fn granted(&self, tenant: usize, meter: Meter) -> Option<Payer> {
        if !self.limits(tenant, meter) {
            return None;
        }
        let account = &self.tenants[tenant];
        let is_left = |g: &Grant| g.meter == meter && g.expires > self.now && g.drawn < g.given;
        let live = account.grants.iter().enumerate().filter(|(_, grant)| is_left(grant));
        let grant = live.min_by_key(|(_, grant)| grant.expires).map(|(at, _)| Payer::Grant(at));
        let once = self.plan(tenant, meter).once.is_some_and(|n| account.once[meter] < n);
        grant.or(once.then_some(Payer::Once(meter)))
    }

    fn window(&self, tenant: usize, user: u32, meter: Meter, quota: &Quota) -> WindowOf {
        let start = quota.every.start(self.now, self.anchor(tenant));
        (meter, quota.every, if quota.per_user { user } else { 0 }, start)
    }

    fn number(&mut self, tenant: usize, payer: Payer) -> &mut u64 {
        let account = &mut self.tenants[tenant];
        match payer {
            Payer::Included(of) => &mut account.windows.entry(of).or_default().included,
            Payer::Over(of, _) => &mut account.windows.entry(of).or_default().over,
            Payer::Debt(of) => &mut account.windows.entry(of).or_default().debt,
            Payer::Once(meter) => &mut account.once[meter],
            Payer::Unpaid(meter) => &mut account.unpaid[meter],
            Payer::Grant(at) => &mut account.grants[at].drawn,
        }
    }

    /// Settles one unit with these payers: recorded in the billing period of its draw.
    fn settle(&mut self, tenant: usize, meter: Meter, unit: &Unit) {
        let (account, period) = (&mut self.tenants[tenant], unit.period);
        *account.used.entry((meter, period)).or_default() += 1;
        // Beyond two quotas it is one unit. A unit paid by a grant, or by nothing yet, is not owed.
        let over = |payer: &Payer| matches!(payer, Payer::Over(_, true));
        // A unit owed by one user alone has still been used by the tenant.
        let otherwise = |payer: &Payer| match payer {
            Payer::Debt((_, _, user, _)) => *user == 0,
            Payer::Grant(_) | Payer::Once(_) | Payer::Unpaid(_) => true,
            Payer::Included(_) | Payer::Over(..) => false,
        };
        if unit.payers.iter().any(over) && !unit.payers.iter().any(otherwise) {
            *account.owed.entry((meter, period)).or_default() += 1;
        }
    }
}

//! Bounds for several nodes, where one node is held to equality.
//!
//! Nodes have parts of a limit in hand, so one may refuse what another could still serve, and a
//! grant may pay while units that a quota includes lie elsewhere. What never happens: more is
//! admitted than the limits and grants together have; use is recorded twice, or is missing though
//! it was written; and of what all nodes have left at the end nothing is lost, except what died
//! with one of them.

use std::collections::BTreeMap;

use crate::book::{Account, Book, Hold, Meter, Over, Plan, Quota};
use crate::calendar::Every;
use crate::history::{METERS, TENANTS};
use crate::system::Differs;

/// Counts what the nodes did, and derives what they may do.
pub(crate) struct Bounds {
    /// The plans on sale now.
    pub(crate) plans: Vec<Plan>,
    /// All units in hand and used, by window: the book of a seller that refuses nothing.
    all: Book,
    /// Only those that were asked for before they were used.
    asked: Book,
    /// Units used before they were asked for, by window and the node that knows of them.
    late: BTreeMap<(usize, Window), u64>,
    /// The node of the next event.
    pub(crate) at: usize,
    /// Units given by grants: tenant, meter, amount, expiry.
    given: Vec<(usize, Meter, u64, i64)>,
    /// Units admitted beyond a limit, by window, as of the last admission.
    beyond: BTreeMap<Window, u64>,
    /// Used units whose record a crash may have lost, by tenant and meter.
    lost: Amounts,
    /// Units that died with nodes, at most: what their open requests held stays drawn until its
    /// window ends, and so do units that a node had in hand.
    stranded: Amounts,
    has_died: bool,
    /// The largest single ask.
    largest: Amounts,
    /// Tenants that have been on more than one plan.
    moved: [bool; TENANTS],
}

/// A window of a tenant-wide quota: tenant, meter, unit of time, start.
type Window = (usize, Meter, Every, i64);

/// Units by tenant and meter.
type Amounts = BTreeMap<(usize, Meter), u64>;

/// Units held by a request.
pub(crate) struct Held {
    pub(crate) all: Hold,
    asked: Hold,
    /// The node that admitted it.
    pub(crate) node: usize,
}

/// A fresh node's report on one meter, after all others have ended.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) used: u64,
    /// In all billing periods.
    pub(crate) used_ever: u64,
    pub(crate) over: u64,
    /// Drawn of each quota, in the order of the plan.
    pub(crate) limits: Vec<u64>,
    pub(crate) granted: u64,
}

impl Bounds {
    pub(crate) fn new(plans: &[Plan], now: i64) -> Self {
        let account = || Account::new(0, now, METERS.len());
        let tenants = || (0..TENANTS).map(|_| account()).collect();
        let free: Vec<_> = plans.iter().map(refuses_nothing).collect();
        let book = || Book { plans: free.clone(), now, tenants: tenants() };
        let (all, asked) = (book(), book());

        let (plans, moved) = (plans.to_vec(), [false; TENANTS]);
        Self {
            plans,
            all,
            asked,
            late: BTreeMap::new(),
            at: 0,
            given: Vec::new(),
            beyond: BTreeMap::new(),
            lost: BTreeMap::new(),
            stranded: BTreeMap::new(),
            has_died: false,
            largest: BTreeMap::new(),
            moved,
        }
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.all.pass(ms);
        self.asked.pass(ms);
    }

    pub(crate) fn now(&self) -> i64 {
        self.all.now
    }

    /// A node has admitted this request.
    pub(crate) fn admit(
        &mut self,
        tenant: usize,
        user: u32,
        costs: &[(Meter, u64)],
        holds: &[(Meter, u64)],
    ) -> Result<Held, Differs> {
        let refused = |_| format!("tenant {tenant} is suspended, and the gate says welcome");
        let all = self.all.admit(tenant, user, costs, holds).map_err(refused)?;
        let asked = self.asked.admit(tenant, user, costs, holds).map_err(refused)?;
        for (meter, _) in costs.iter().chain(holds).filter(|(_, n)| *n > 0) {
            self.is_within(tenant, user, *meter)?;
        }
        Ok(Held { all, asked, node: self.at })
    }

    /// A handler was given `n` units more.
    pub(crate) fn take(&mut self, held: &mut Held, meter: Meter, n: u64) -> Result<(), Differs> {
        let (tenant, user) = (held.all.tenant, held.all.user);
        let is_new = self.all.free(&held.all, meter) < n;
        let refused = |_| format!("tenant {tenant} is suspended, and the gate says take");
        self.at = held.node;
        self.all.take(&mut held.all, meter, n).map_err(refused)?;
        self.asked.take(&mut held.asked, meter, n).map_err(refused)?;
        if is_new { self.is_within(tenant, user, meter) } else { Ok(()) }
    }

    /// Units are asked for, perhaps in vain: a node may lease them all the same.
    pub(crate) fn was_asked(&mut self, tenant: usize, meter: Meter, n: u64) {
        let largest = self.largest.entry((tenant, meter)).or_default();
        *largest = n.max(*largest);
    }

    /// A node died. It may have had a lease of each pool in hand, which begins with eight asks.
    pub(crate) fn died(&mut self) {
        self.has_died = true;
        for (of, largest) in &self.largest {
            *self.stranded.entry(*of).or_default() += 8 * largest;
        }
    }

    pub(crate) fn report(&mut self, held: &mut Held, meter: Meter, n: u64) {
        self.was_asked(held.all.tenant, meter, n);
        let covered = n.min(self.all.held(&held.all, meter));
        self.was_late(held.node, held.all.tenant, meter, n - covered);
        self.all.report(&mut held.all, meter, n);
        let n = n.min(self.asked.held(&held.asked, meter));
        self.asked.report(&mut held.asked, meter, n);
    }

    /// Records late use at the node that knows the debt.
    fn was_late(&mut self, node: usize, tenant: usize, meter: Meter, n: u64) {
        for quota in self.sold(tenant, meter).iter().filter(|quota| !quota.per_user) {
            let window = self.window(tenant, meter, quota);
            *self.late.entry((node, window)).or_default() += n;
        }
    }

    /// A node that starts has nothing in hand, and finds all debts where it asks for something.
    pub(crate) fn begins(&mut self, node: usize) {
        self.late.retain(|(of, _), _| *of != node);
        let account = &self.all.tenants;
        let all = account.iter().enumerate().flat_map(|(tenant, account)| {
            let wide = account.windows().filter(|(of, _)| of.2 == 0);
            wide.map(move |(of, _)| (tenant, of.0, of.1, of.3))
        });
        for window in all.collect::<Vec<_>>() {
            let (tenant, meter, every, start) = window;
            let of = (meter, every, 0, start);
            let asked = self.asked.drawn_in(tenant, of).over;
            let late = self.all.drawn_in(tenant, of).over.saturating_sub(asked);
            // A debt is written within a flush interval, like its record.
            let lost = self.lost.get(&(tenant, meter)).copied().unwrap_or(0);
            let late = late.saturating_sub(lost);
            self.late.insert((node, window), late);
        }
    }

    fn window(&self, tenant: usize, meter: Meter, quota: &Quota) -> Window {
        let anchor = self.all.tenants[tenant].anchor;
        (tenant, meter, quota.every, quota.every.start(self.all.now, anchor))
    }

    pub(crate) fn end(&mut self, held: &mut Held, charged: bool) {
        self.all.end(&mut held.all, charged);
        self.asked.end(&mut held.asked, charged);
    }

    /// Its node died with it: what it held has no recorded use, and stays drawn.
    pub(crate) fn cut(&mut self, held: &mut Held) {
        for meter in 0..METERS.len() {
            let n = self.all.held(&held.all, meter);
            *self.stranded.entry((held.all.tenant, meter)).or_default() += n;
        }
        self.end(held, false);
    }

    pub(crate) fn late(&mut self, tenant: usize, meter: Meter, n: u64) {
        self.was_asked(tenant, meter, n);
        self.was_late(self.at, tenant, meter, n);
        self.all.late(tenant, 0, meter, n);
    }

    /// A node died with `n` used units not yet written.
    pub(crate) fn lost(&mut self, tenant: usize, meter: Meter, n: u64) {
        *self.lost.entry((tenant, meter)).or_default() += n;
    }

    pub(crate) fn grant(&mut self, tenant: usize, meter: Meter, n: u64, lasts: i64) {
        self.given.push((tenant, meter, n, self.now() + lasts));
    }

    /// Units of grants that ended before this.
    fn given(&self, tenant: usize, meter: Meter, before: i64) -> u64 {
        let of = |it: &&(usize, Meter, u64, i64)| (it.0, it.1) == (tenant, meter) && it.3 <= before;
        self.given.iter().filter(of).map(|(_, _, n, _)| n).sum()
    }

    /// Whether the tenant's plan limits this meter for the whole tenant.
    pub(crate) fn limits(&self, tenant: usize, meter: Meter) -> bool {
        self.sold(tenant, meter).iter().any(|quota| !quota.per_user)
    }

    pub(crate) fn suspend(&mut self, tenant: usize, suspended: bool) {
        self.all.tenants[tenant].suspended = suspended;
        self.asked.tenants[tenant].suspended = suspended;
    }

    pub(crate) fn move_to(&mut self, tenant: usize, plan: usize) {
        self.moved[tenant] |= self.all.tenants[tenant].plan != plan;
        self.all.tenants[tenant].plan = plan;
        self.asked.tenants[tenant].plan = plan;
    }

    /// The tenant's quotas of a meter. If units granted once are all there is, they count as units
    /// beyond a limit of 0.
    pub(crate) fn sold(&self, tenant: usize, meter: Meter) -> Vec<Quota> {
        quotas(&self.plans[self.all.tenants[tenant].plan], meter)
    }

    /// The most units that grants of any kind have.
    fn granted(&self, tenant: usize, meter: Meter) -> u64 {
        let once = self.plans.iter().filter_map(|plan| plan.meters[meter].once).max();
        once.unwrap_or(0) + self.given(tenant, meter, i64::MAX)
    }

    /// Checks that admitted units pass no hard limit, whichever nodes admitted them.
    fn is_within(&mut self, tenant: usize, user: u32, meter: Meter) -> Result<(), Differs> {
        for quota in self.sold(tenant, meter) {
            let Some(most) = hard(&quota).filter(|_| user > 0 || !quota.per_user) else {
                continue;
            };
            let grants = if quota.per_user { 0 } else { self.granted(tenant, meter) };
            let words = format!("{} of {most} in a {}", METERS[meter], quota.every.word());
            let asked = self.asked.drawn(tenant, user, meter, &quota).over;
            if asked > most + grants {
                return Err(format!("{words}, {grants} granted: the gate says {asked} asked for"));
            }
            // A user's debt ends with a process, a debt of units given once with a plan.
            if quota.per_user || !self.has_quotas(tenant, meter) {
                continue;
            }
            // Nothing is admitted while something is owed: late use that this node knows of counts.
            let this = self.window(tenant, meter, &quota);
            let all = asked + self.late.get(&(self.at, this)).copied().unwrap_or(0);
            self.beyond.insert(this, all.saturating_sub(most));
            let first = (tenant, meter, quota.every, i64::MIN);
            // A grant that has paid in a past window pays nothing in this one.
            let before = self.beyond.range(first..this);
            let before: u64 = before.map(|(of, n)| (*n).min(self.net_beyond(of, most))).sum();
            if all + before > most + grants {
                let all = format!("{all} are out, {before} granted before");
                return Err(format!("{words}, {grants} granted: the gate says {all}"));
            }
        }
        Ok(())
    }

    fn has_quotas(&self, tenant: usize, meter: Meter) -> bool {
        !self.plans[self.all.tenants[tenant].plan].meters[meter].quotas.is_empty()
    }

    fn net_beyond(&self, of: &Window, most: u64) -> u64 {
        let (tenant, meter, every, start) = *of;
        let drawn = self.all.drawn_in(tenant, (meter, every, 0, start));
        drawn.over.saturating_sub(most)
    }

    /// Units left of a meter, as a fresh node should find them.
    pub(crate) fn left(&self, tenant: usize, meter: Meter) -> Option<u64> {
        let quotas = self.sold(tenant, meter);
        let left = quotas.iter().filter(|quota| !quota.per_user).filter_map(|quota| {
            let most = hard(quota)? + self.granted(tenant, meter);
            Some(most.saturating_sub(self.all.drawn(tenant, 0, meter, quota).over))
        });
        left.min()
    }

    /// Checks a fresh node's final report on one meter against what was used. Returns how many
    /// units died with a node.
    pub(crate) fn holds(&self, tenant: usize, meter: Meter, told: &Told) -> Result<u64, Differs> {
        let at = |of: &Amounts| of.get(&(tenant, meter)).copied().unwrap_or(0);
        let (word, lost) = (METERS[meter], at(&self.lost));
        let (used, ever) = (self.all.used(tenant, meter), self.all.used_ever(tenant, meter));
        for (told, used) in [(told.used, used), (told.used_ever, ever)] {
            if told > used || told + lost < used {
                let lost = format!("{used} were used, {lost} may be lost");
                return Err(format!("{word} on record: the gate says {told}, {lost}"));
            }
        }
        let bills = |quota: &Quota| matches!(quota.over, Over::Bill(_));
        let sold = self.sold(tenant, meter);
        if told.over > ever && sold.iter().all(bills) {
            return Err(format!("{word} owed: the gate says {} of {ever} used", told.over));
        }
        let ([quota], [of_limit]) = (&*sold, &*told.limits) else {
            return Ok(0);
        };
        // In a window that has run from the start, under one plan, all units can be told apart.
        let this = self.window(tenant, meter, quota).3;
        let mut windows = self.all.tenants[tenant].windows().filter(|(of, _)| of.0 == meter);
        let is_one = windows.all(|(of, _)| of.3 == this) && !self.moved[tenant];
        if !is_one || quota.per_user || !self.has_quotas(tenant, meter) {
            return Ok(0);
        }
        let drawn = of_limit + told.granted;
        let out = self.all.drawn(tenant, 0, meter, quota).over;
        let stranded = match hard(quota) {
            _ if !self.has_died => 0,
            Some(_) => at(&self.stranded),
            // Without an end, what lies beyond is needed by no process, and stays with the dead
            // node.
            None => u64::MAX - out,
        };
        // A grant that has expired is no longer reported.
        let gone = self.given(tenant, meter, self.now());
        if drawn + lost + gone < out || drawn > out + stranded {
            let of = format!("{of_limit} of the limit and {} granted", told.granted);
            let out = format!("{out} were used, {lost} lost, {stranded} stranded");
            return Err(format!("{word} paid: the gate says {of}, {out}"));
        }
        let owed = of_limit.saturating_sub(quota.limit);
        if used == ever && (told.over + lost).saturating_add(stranded) < owed && bills(quota) {
            return Err(format!("{word} owed: the gate says {}, {owed} are beyond", told.over));
        }
        Ok(drawn.saturating_sub(out))
    }

    /// Raises a limit.
    pub(crate) fn raise(&mut self, meter: Meter, of: &Quota, by: u64) {
        for plan in &mut self.plans {
            let quotas = plan.meters[meter].quotas.iter_mut();
            let same = |it: &&mut Quota| (it.every, it.per_user) == (of.every, of.per_user);
            quotas.filter(same).for_each(|it| it.limit += by);
        }
    }
}

/// The most units that a quota lets through, grants aside; `None`: without end.
fn hard(quota: &Quota) -> Option<u64> {
    match quota.over {
        Over::Deny => Some(quota.limit),
        Over::Allow(stop) | Over::Bill(stop) => Some(quota.limit + stop?),
    }
}

fn quotas(plan: &Plan, meter: Meter) -> Vec<Quota> {
    let meter = &plan.meters[meter];
    let mut quotas = meter.quotas.clone();
    if quotas.is_empty() && meter.is_given() {
        quotas.push(Quota { limit: 0, every: Every::Ever, over: Over::Deny, per_user: false });
    }
    quotas
}

/// The same windows, all without end.
fn refuses_nothing(plan: &Plan) -> Plan {
    let mut free = plan.clone();
    // Each process counts its own.
    free.concurrency = None;
    for (at, meter) in free.meters.iter_mut().enumerate() {
        meter.quotas = quotas(plan, at);
        (meter.once, meter.prepaid) = (None, false);
        for quota in &mut meter.quotas {
            (quota.limit, quota.over) = (0, Over::Allow(None));
        }
    }
    free
}

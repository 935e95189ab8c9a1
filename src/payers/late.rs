//! Late use, covered by no hold: beyond what was set aside, or with nothing set aside for it. It is
//! paid like all use: by included units, by grants, by what `over` lets through. What then stays
//! unpaid is a debt of the quota that is short.
//!
//! # Laws
//!
//! 1. It never fails and is never lost: what cannot be paid from memory waits here, with the sheet
//!    it was used under, until the leases it needs have been asked.
//! 2. While it waits, and while a quota is in debt, no ask of its meter is admitted, nor under the
//!    following sheet (another plan, another number of nodes, the next window).
//! 3. A debt is paid by grants and from beyond the quota as soon as these have units, and by units
//!    of the quota that are released; or it ends with the window.
//! 4. A unit owed by several quotas is paid by one unit of a grant, which lowers all their debts at
//!    once. So nothing is paid while another payment to one of them is on its way.
//!
//! Quotas of narrower scope than the tenant pay for themselves: with what they include, then from
//! beyond, and late use waits for their leases as well. Units that neither has are a debt, too: of
//! that quota alone, and no grant pays it. While the store is away a quota is taken to include what
//! was last known of it.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::catalog::{MeterId, Over, Scope};
use crate::clock::Now;
use crate::decision::Reason;
use crate::payers::lanes::{self, Lanes, Through};
use crate::payers::narrow::{narrow_of, owe, owe_narrow, scope_of, settle_narrow};
use crate::payers::purse::{self, LimitRefused, NotDrawn, Purse};
use crate::policy::scoped::{KeptScopes, ScopesOf};
use crate::policy::taken::{DrawnFrom, Limit, PaysFor, Taken, TakenList};
use crate::policy::{Payers, PoolIndex, QuotaIndex, QuotaRule};
use crate::quota::lease::Lease;
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;
use crate::sheets::unpaid::{self, Paying, Unpaid, Use};

type Waiting = unpaid::WaitingUse<Sheet>;

/// Most callers whose late use waits under one sheet at once; that of others is owed at once, as
/// while the store is away, and nothing is lost. Each report goes over all of them, which so many
/// make a fraction of a millisecond; a store that does not answer is known to be away before.
pub(crate) const MAX_WAITING: usize = 4_096;

/// The caller and sheet that late use is charged to. Use of past windows has a sheet of its own.
#[derive(Clone, Copy)]
pub(crate) struct LateUse<'a> {
    pub(crate) sheet: &'a Arc<Sheet>,
    /// The caller's limits within the tenant.
    pub(crate) scopes: ScopesOf<'a>,
    pub(crate) now: Now,
}

impl Unpaid<Sheet> {
    /// Whether anything waits, after dropping an earlier sheet whose waiting use has been paid.
    pub(crate) fn is_some_still(&self) -> bool {
        self.is_some() && {
            let mut waiting = self.lock();
            waiting.before.take_if(|before| !before.unpaid.is_some_still());
            self.note(&waiting)
        }
    }

    /// Use that waits under `before` is paid before this sheet admits anything.
    pub(crate) fn follow(&self, before: &Arc<Sheet>) {
        if before.unpaid.is_some_still() {
            let mut waiting = self.lock();
            // A sheet that itself only waits for another is not kept for that.
            let theirs = before.unpaid.lock();
            let further = theirs.before.clone().filter(|_| theirs.is_clear());
            waiting.before = Some(further.unwrap_or_else(|| before.clone()));
            self.note(&waiting);
        }
    }
}

impl LateUse<'_> {
    /// Pays for `n` atoms used of this meter.
    pub(crate) fn pay(self, meter: MeterId, n: u64) {
        let policy = &self.sheet.policy;
        let (mut is_narrow, mut bills) = (false, false);
        let mut limits = SmallVec::<[&Scope; 4]>::new();
        if self.scopes.known.is_some() || self.scopes.ip.is_some() {
            for rule in narrow_of(self.sheet, meter) {
                (is_narrow, bills) = (true, bills || rule.quota.over == Over::Bill);
                limits.extend(scope_of(policy, rule));
            }
        }
        let is_whole = policy.payers(meter).is_some();
        if n == 0 || !is_narrow && !is_whole {
            return;
        }
        let mut waiting = self.sheet.unpaid.lock();
        // What is beyond a quota that bills is not owed where a grant pays: then the tenant's pay
        // once it is known how much that is, and else at once.
        let waits = is_narrow && bills;
        if is_narrow {
            let narrow = Some(KeptScopes::of(&self.scopes, limits));
            self.add(&mut waiting, Use { narrow, ..used(meter, n, is_whole && waits) });
        }
        if is_whole && !waits {
            self.add(&mut waiting, used(meter, n, true));
        }
        settle_locked(self.sheet, &mut waiting, self.now, false);
    }

    /// Adds it to what waits for the same. Quotas of narrower scope pay at once, if they can.
    fn add(self, waiting: &mut Waiting, mut new: Use) {
        let is_same = |it: &&mut Use, new: &Use| {
            (it.meter, it.whole) == (new.meter, new.whole) && it.narrow == new.narrow
        };
        if let Some(known) = waiting.uses.iter_mut().find(|it| is_same(it, &new)) {
            return known.join(new);
        }
        let (hub, scopes) = (&*self.sheet.tenant.hub, ScopesOf::default());
        let q = Purse { hub, sheet: self.sheet, scopes, now: self.now, store_away: false };
        new.pay_narrow(&q, waiting.uses.len() >= MAX_WAITING);
        match waiting.uses.iter_mut().find(|it| is_same(it, &new)) {
            Some(known) => known.join(new),
            None => waiting.uses.push(new),
        }
    }
}

/// Late use that no quota has paid for yet.
fn used(meter: MeterId, atoms: u64, whole: bool) -> Use {
    Use { meter, atoms, narrow: None, whole, over: 0, owed: 0, needs: None, since: None }
}

/// The condition for drawing units of a meter: its late use is paid, and no quota is in debt.
/// Returns what is missing for that.
#[inline]
pub(crate) fn before(q: &Purse<'_>, payers: &Payers<'_>) -> Option<NotDrawn> {
    let owes = |(_, rule): (QuotaIndex, &QuotaRule)| {
        let lease = debtor_of(q.sheet, rule);
        lease.is_in_debt() || is_unread(payers, rule, lease)
    };
    let granted = payers.debtor.map(|pool| purse::lease_of(q.sheet, pool));
    let waits = q.sheet.unpaid.is_some()
        || granted.is_some_and(|lease| lease.is_in_debt() || lease.is_unknown());
    if waits || lanes::of_tenant(q, payers).any(owes) { clear(q, payers) } else { None }
}

/// Whether debts from before this process started must be read first: a pool of 0 units is never
/// asked for any, and where nothing else can pay, everything is refused anyway.
fn is_unread(payers: &Payers<'_>, rule: &QuotaRule, lease: &Lease) -> bool {
    rule.included.is_none()
        && (rule.over.is_some() || !payers.grants.is_empty())
        && lease.is_unknown()
}

#[cold]
fn clear(q: &Purse<'_>, payers: &Payers<'_>) -> Option<NotDrawn> {
    settle(q.sheet, q.now, q.store_away);
    if q.store_away {
        return None; // what is owed counts against what `on-lease-error` lets through
    }
    if let Some(unread) = read(q, payers) {
        return Some(NotDrawn::Need(unread.clone(), 1));
    }
    let waiting = q.sheet.unpaid.lock();
    let before = waiting.before.clone();
    if let Some((lease, n)) = needs(q, q.sheet, &waiting, payers.meter) {
        return Some(NotDrawn::Need(lease, n));
    }
    let debtors = lanes::of_tenant(q, payers)
        .map(|(index, rule)| (Limit::Quota(index), debtor_of(q.sheet, rule)));
    let granted = payers.debtor.filter(|_| payers.once_only);
    let granted =
        granted.map(|pool| (Limit::Granted(payers.meter), purse::lease_of(q.sheet, pool)));
    for (limit, lease) in debtors.chain(granted) {
        if !lease.is_in_debt() {
            continue;
        }
        if waiting.pays(lease) || before.as_ref().is_some_and(|it| it.unpaid.lock().pays(lease)) {
            return Some(NotDrawn::Need(lease.clone(), 1));
        }
        if let Some((_, at, n)) = waiting.asked.iter().find(|(of, ..)| Arc::ptr_eq(of, lease)) {
            return Some(NotDrawn::Need(at.clone(), *n));
        }
        if lease.debt() > 0 {
            // It is believed as long as any refusal by the pool: units may have come back since.
            if !lease.is_refused_now(q.now) && !lease.takes_no_more() {
                lease.want(1);
                q.hub.renewals.wake(lease);
                return Some(NotDrawn::Need(lease.clone(), 1));
            }
            let reason = match limit {
                Limit::Quota(_) => Reason::Exhausted,
                _ => Reason::PaymentRequired(crate::decision::Payment::GrantUsedUp),
            };
            let refused = LimitRefused { reason, by: limit, wait_ns: None, asked: None };
            q.hub.renewals.wake(lease); // if it was not charged yet
            return Some(NotDrawn::Refused(refused));
        }
    }
    None
}

/// The lease that use of this meter waits for before this caller draws any, and how much of it:
/// under an earlier sheet first. Use that only quotas of another caller are still to pay does not
/// keep this one waiting.
fn needs(
    q: &Purse<'_>,
    sheet: &Sheet,
    waiting: &Waiting,
    meter: MeterId,
) -> Option<(Arc<Lease>, u64)> {
    let of_before = waiting.before.as_ref().and_then(|before| {
        let same = before.catalog.meter(&sheet.catalog.meters[usize::from(meter.0)].name)?;
        needs(q, before, &before.unpaid.lock(), same)
    });
    let is_shared = |kept: &KeptScopes| {
        let theirs = kept.scopes(&q.hub.without_value);
        narrow_of(sheet, meter).any(|rule| {
            scope_of(&sheet.policy, rule).is_none_or(|scope| {
                theirs.of(scope).is_some_and(|value| q.scopes.of(scope) == Some(value))
            })
        })
    };
    let holds_up = |it: &&Use| it.whole || it.narrow.as_ref().is_none_or(is_shared);
    let of_meter = waiting.uses.iter().filter(|it| it.meter == meter);
    of_before.or_else(|| of_meter.filter(holds_up).find_map(|it| it.needs.clone()))
}

/// Whether the tenant's quotas and grants have paid all that they pay under this sheet and earlier
/// ones.
fn has_paid_whole(sheet: &Sheet) -> bool {
    let waiting = sheet.unpaid.lock();
    let is_paid = waiting.payments.is_empty() && waiting.uses.iter().all(|it| !it.whole);
    is_paid && waiting.before.as_ref().is_none_or(|before| has_paid_whole(before))
}

/// Has debts from before this process started read from the store, where nothing else does that.
/// Returns one that is still unknown; pools beyond the same limits are asked for in the same wait.
fn read<'a>(q: &Purse<'a>, payers: &Payers<'_>) -> Option<&'a Arc<Lease>> {
    let granted = payers.debtor.map(|pool| (purse::lease_of(q.sheet, pool), None));
    let quotas = lanes::of_tenant(q, payers)
        .map(|(_, rule)| (debtor_of(q.sheet, rule), rule))
        .filter(|(lease, rule)| is_unread(payers, rule, lease))
        .map(|(lease, rule)| (lease, rule.over));
    let mut first = None;
    for (lease, over) in granted.filter(|(lease, _)| lease.is_unknown()).into_iter().chain(quotas) {
        for lease in [lease].into_iter().chain(over.map(|pool| purse::lease_of(q.sheet, pool))) {
            lease.want(1);
            q.hub.renewals.wake(lease);
        }
        first = first.or(Some(lease));
    }
    first
}

/// Pays what can be paid now of the use waiting under this sheet, and of its debts. `away`: the
/// store does not answer, and what cannot be paid from memory is owed.
pub(crate) fn settle(sheet: &Arc<Sheet>, now: Now, away: bool) {
    settle_locked(sheet, &mut sheet.unpaid.lock(), now, away);
}

/// The same, if anything owed has been given units since.
pub(crate) fn settle_debts(sheet: &Arc<Sheet>, now: Now) {
    if sheet.open_leases().any(|lease| lease.is_in_debt()) {
        settle(sheet, now, sheet.tenant.hub.reach.is_away());
    }
}

fn settle_locked(sheet: &Arc<Sheet>, waiting: &mut Waiting, now: Now, away: bool) {
    // A lease is asked before it is known here that it is waited for, and the renewer, on another
    // thread, may answer in between: then what came is used at once.
    while !settle_once(sheet, waiting, now, away) {}
    sheet.unpaid.note(waiting);
}

/// False: a lease that is now waited for has been answered meanwhile.
fn settle_once(sheet: &Arc<Sheet>, waiting: &mut Waiting, now: Now, away: bool) -> bool {
    let hub = &*sheet.tenant.hub;
    let seen = hub.answers.count();
    let scopes = ScopesOf::default();
    let q = Purse { hub, sheet, scopes, now, store_away: false };
    waiting.before.take_if(|before| {
        settle(before, now, away);
        !before.unpaid.is_some()
    });
    let (mut moved, mut paid_over) = (false, SmallVec::<[(PoolIndex, u64); 1]>::new());
    waiting.payments.retain_mut(|paying| {
        let Some(took) = paying.end(&q) else { return true };
        if let DrawnFrom::Pool(pool) = paying.with.from
            && sheet.policy.bills(&paying.with.from)
        {
            paid_over.push((pool, took));
        }
        moved = true;
        false
    });
    for (pool, n) in paid_over {
        let meter = sheet.policy.pools[pool].meter;
        sheet.row.add_over(meter, waiting.pays_over(&sheet.policy, pool, n));
    }
    waiting.uses.retain_mut(|it| {
        if it.waits_still(&hub.renewals, away) {
            return true;
        }
        it.since = None;
        let before = it.atoms;
        let is_open = !it.pay(&q, away);
        moved |= !is_open || it.atoms != before;
        is_open
    });
    waiting.asked.clear();
    let is_first = waiting.before.as_ref().is_none_or(|before| has_paid_whole(before));
    if is_first && sheet.open_leases().any(|lease| lease.is_in_debt()) {
        for meter in sheet.policy.limited() {
            moved |= pay_debts(&q, meter, waiting);
        }
    }
    give_up_unneeded(sheet, waiting);
    if moved {
        sheet.mark_dirty();
    }
    let asked = waiting.asked.iter().map(|(_, lease, _)| lease);
    let paid = waiting.payments.iter().flat_map(|paying| &paying.debtors);
    asked.chain(paid).all(|lease| hub.answers.wait_for(lease, sheet, seen))
        && waiting.uses.iter_mut().all(|it| it.settles_after(&hub.answers, sheet, seen))
}

#[cfg(test)]
thread_local! {
    /// How often this thread has tried to pay for late use.
    pub(crate) static TRIES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Use {
    /// True: all of it is paid, or owed.
    fn pay(&mut self, q: &Purse<'_>, away: bool) -> bool {
        #[cfg(test)]
        TRIES.set(TRIES.get() + 1);
        let policy = &q.sheet.policy;
        if !self.pay_narrow(q, away) {
            return false;
        }
        let Some(payers) = policy.payers(self.meter).filter(|_| self.whole) else {
            q.sheet.row.add_over(self.meter, self.over);
            return true;
        };
        let mut lanes = Lanes::default();
        let Through { paid, need, short } = lanes.late(q, &payers, self.atoms);
        let mut taken = TakenList::new();
        lanes.emit(PaysFor::LateUse, 0, &mut taken);
        let from = self.atoms.saturating_sub(self.owed).saturating_sub(self.over);
        let over = purse::over_of(
            policy,
            &taken,
            PaysFor::LateUse,
            paid,
            from..from.saturating_add(self.over),
        );
        q.sheet.row.add_over(self.meter, over);
        for took in &taken {
            purse::settle(q.hub, q.sheet, took, took.n);
        }
        self.atoms -= paid;
        self.over = self.over.min(self.atoms.saturating_sub(self.owed));
        self.needs = None;
        if let Some((lease, n)) = need {
            if !away && !lease.takes_no_more() {
                lease.want(n);
                q.hub.renewals.wake(&lease);
                self.needs = Some((lease, n));
                return false;
            }
            // It cannot wait: the quotas owe it.
            for (_, rule) in lanes::of_tenant(q, &payers) {
                owe(q.hub, debtor_of(q.sheet, rule), self.atoms);
            }
        }
        for (index, within, kept) in short {
            let rule = &policy.quotas[index];
            if let Some(from) = within {
                let took = Taken { from, n: kept, pays: PaysFor::LateUse, draw: 0 };
                purse::settle(q.hub, q.sheet, &took, kept);
            }
            owe(q.hub, debtor_of(q.sheet, rule), self.atoms - kept);
        }
        if let Some(pool) = payers.debtor.filter(|_| payers.once_only && self.atoms > 0) {
            owe(q.hub, purse::lease_of(q.sheet, pool), self.atoms);
        }
        self.atoms = 0;
        true
    }

    /// Each quota of narrower scope than the tenant pays for all of it: what it includes, then what
    /// is beyond it. The rest it owes. False: a lease of theirs must answer first.
    fn pay_narrow(&mut self, q: &Purse<'_>, away: bool) -> bool {
        let Some(kept) = self.narrow.take() else { return true };
        let (hub, sheet, scopes) = (q.hub, q.sheet, kept.scopes(&q.hub.without_value));
        let q = &Purse { hub, sheet, scopes, now: q.now, store_away: q.store_away };
        let (mut drawn, mut need) = (SmallVec::<[_; 2]>::new(), None);
        for rule in narrow_of(sheet, self.meter) {
            match lanes::late_of_narrow(q, rule, self.atoms) {
                Ok(parts) => drawn.push((rule, Some(parts))),
                // Go on: the other leases are asked in the same wait.
                Err(NotDrawn::Need(lease, n)) => {
                    need = need.or(Some((lease, n)));
                    drawn.push((rule, None));
                }
                Err(NotDrawn::Refused(_)) => drawn.push((rule, None)),
            }
        }
        self.needs = need.filter(|(lease, _)| !away && !lease.takes_no_more());
        if let Some((lease, n)) = &self.needs {
            for (from, n) in drawn.into_iter().filter_map(|(_, parts)| parts).flatten() {
                lanes::give_back(q, from.as_ref(), n);
            }
            lease.want(*n);
            hub.renewals.wake(lease);
            self.narrow = Some(kept);
            return false;
        }
        let beyond = drawn.into_iter().map(|(rule, parts)| match parts {
            Some(parts) => settle_narrow(q, rule, parts, self.atoms),
            None => owe_narrow(q, rule, self.atoms),
        });
        (self.over, self.owed) = beyond.max().unwrap_or((0, 0));
        true
    }
}

/// The lease whose pool records a debt of this quota.
fn debtor_of<'a>(sheet: &'a Arc<Sheet>, rule: &QuotaRule) -> &'a Arc<Lease> {
    purse::lease_of(sheet, rule.debtor)
}

impl Paying {
    /// How many were taken, once all debtors have answered. What none of them took goes back.
    fn end(&mut self, q: &Purse<'_>) -> Option<u64> {
        let took = &mut self.took;
        self.debtors.retain(|debtor| {
            let Some(paid) = debtor.take_paid() else { return true };
            *took = (*took).max(paid);
            false
        });
        if !self.debtors.is_empty() {
            return None;
        }
        let with = &self.with;
        purse::settle(q.hub, q.sheet, with, self.took);
        purse::give_back(q.sheet, with, with.n - self.took, q.now, q.now);
        Some(self.took)
    }
}

/// Units that were asked for to pay debts go back to their pools once nothing is owed, unless a
/// request wants them here: others may have paid meanwhile, and this process may have no requests.
fn give_up_unneeded(sheet: &Sheet, waiting: &mut Waiting) {
    let owes = || sheet.open_leases().any(|lease| lease.is_in_debt());
    if waiting.brought.is_empty() || !waiting.payments.is_empty() || owes() {
        return;
    }
    for lease in std::mem::take(&mut waiting.brought) {
        lease.rest();
        sheet.tenant.hub.renewals.wake(&lease);
    }
}

/// A debt of one quota or an earlier plan: how much, and the pool beyond it that may pay.
type Owes<'a> = (&'a Arc<Lease>, u64, Option<PoolIndex>);

/// Takes units of grants, or from beyond the quotas, to pay what is owed of this meter. True: some
/// are on their way. Debts of units that an earlier plan granted once were never use of these
/// quotas and are paid separately, after theirs, which admit nothing until then.
fn pay_debts(q: &Purse<'_>, meter: MeterId, waiting: &mut Waiting) -> bool {
    let Some(payers) = q.sheet.policy.payers(meter) else { return false };
    let of_quotas =
        lanes::of_tenant(q, &payers).map(|(_, rule)| (debtor_of(q.sheet, rule), rule.over));
    let granted = payers.debtor.map(|pool| (purse::lease_of(q.sheet, pool), None));
    let of_quotas = of_quotas.collect::<SmallVec<[_; 4]>>();
    let all = || of_quotas.iter().chain(granted.as_slice());
    // After a restart their debts are in the store: all are read before any is paid.
    let mut unknown = all().filter(|(lease, _)| lease.is_unknown() && !lease.takes_no_more());
    if all().any(|(debtor, _)| debtor.payable() > Some(0))
        && let Some((unknown, _)) = unknown.next()
    {
        unknown.want(1);
        q.hub.renewals.wake(unknown);
        wait_for(unknown, 1, all().map(|(debtor, _)| *debtor), waiting);
        return false;
    }
    // A unit owed by several of them is paid once: those last seen before it was owed are read
    // first.
    let pays = !payers.grants.is_empty() || of_quotas.iter().any(|(_, over)| over.is_some());
    let owes_since = of_quotas.iter().map(|(debtor, _)| debtor.owes_since()).max().unwrap_or(0);
    let mut older = of_quotas.iter().filter(|(debtor, _)| debtor.looks_after(owes_since));
    if pays
        && owes_since > 0
        && let Some((older, _)) = older.next()
    {
        older.want(1);
        q.hub.renewals.wake(older);
        wait_for(older, 1, of_quotas.iter().map(|(debtor, _)| *debtor), waiting);
        return false;
    }
    let waits = waiting.asked.len();
    let moved = pay_same(q, &payers, &of_quotas, waiting);
    if moved || waiting.asked.len() > waits {
        return moved;
    }
    pay_same(q, &payers, granted.as_slice(), waiting)
}

/// The same for debtors of the same use.
fn pay_same(
    q: &Purse<'_>,
    payers: &Payers<'_>,
    all: &[(&Arc<Lease>, Option<PoolIndex>)],
    waiting: &mut Waiting,
) -> bool {
    let mut owed = SmallVec::<[Owes<'_>; 4]>::new();
    let mut paying = None;
    for &(debtor, over) in all.iter().filter(|(debtor, _)| debtor.is_in_debt()) {
        let payable = debtor.payable();
        paying = paying.or(payable.is_none().then_some(debtor));
        owed.push((debtor, payable.unwrap_or(0), over));
    }
    let most = owed.iter().map(|(_, n, _)| *n).max().unwrap_or(0);
    if let Some(paying) = paying {
        if !payers.grants.is_empty() || owed.iter().any(|(.., over)| over.is_some()) {
            wait_for_payment(q, paying, &owed, waiting);
        }
        return false;
    }
    let grants = payers.grants.iter().filter(|grant| !lanes::is_over(q, **grant));
    most > 0
        && (pay_from(q, grants.copied(), most, &owed, waiting) || pay_beyond(q, &owed, waiting))
}

/// Pools beyond the quotas pay units owed jointly, if each has them: the largest debtors first, for
/// what they owe beyond the others they owe alone.
fn pay_beyond(q: &Purse<'_>, owed: &[Owes<'_>], waiting: &mut Waiting) -> bool {
    let most = owed.iter().map(|(_, n, _)| *n).max().unwrap_or(0);
    let others = owed.iter().map(|(_, n, _)| *n).filter(|n| *n < most).max().unwrap_or(0);
    let debtors = || owed.iter().filter(|(_, n, _)| *n == most);
    let there = |(_, _, over): &Owes<'_>| over.map_or(0, |pool| lanes::left_of(q, pool));
    let n = debtors().map(there).fold(most - others, u64::min);
    let is_asked = |owes: &Owes<'_>| waiting.asked.iter().any(|(of, ..)| Arc::ptr_eq(of, owes.0));
    if n == 0 || debtors().any(is_asked) {
        return false;
    }
    // Taken from each before any is paid: a unit that only one of them could pay is not sold.
    let mut parts = SmallVec::<[(&Owes<'_>, Taken); 4]>::new();
    let mut n = n;
    for owes in debtors() {
        match owes.2.map(|pool| lanes::most(q, pool, n)) {
            Some(Ok((Some(from), part))) if part > 0 => {
                n = part;
                parts.push((owes, Taken { from, n, pays: PaysFor::LateUse, draw: 0 }));
            }
            stopped => {
                if let Some(Err(NotDrawn::Need(lease, need))) = stopped {
                    wait_for_units(&lease, need, owed, waiting);
                }
                n = 0;
                break;
            }
        }
    }
    parts.into_iter().fold(false, |moved, (owes, with)| {
        purse::give_back(q.sheet, &with, with.n - n, q.now, q.now);
        let with = Taken { n, ..with };
        moved | (n > 0 && hand_over(q, with, std::slice::from_ref(owes), waiting))
    })
}

/// Takes up to `most` units from the first of these pools that has any, to pay what is owed. True:
/// they are on their way.
fn pay_from(
    q: &Purse<'_>,
    pools: impl IntoIterator<Item = PoolIndex>,
    most: u64,
    owed: &[Owes<'_>],
    waiting: &mut Waiting,
) -> bool {
    for pool in pools {
        match lanes::most(q, pool, most) {
            Ok((Some(from), n)) if n > 0 => {
                return hand_over(
                    q,
                    Taken { from, n, pays: PaysFor::LateUse, draw: 0 },
                    owed,
                    waiting,
                );
            }
            Ok(_) | Err(NotDrawn::Refused(_)) => {}
            Err(NotDrawn::Need(lease, n)) => {
                wait_for_units(&lease, n, owed, waiting);
                return false;
            }
        }
    }
    false
}

/// Pays what is owed with these units. True: they are on their way.
fn hand_over(q: &Purse<'_>, with: Taken, owed: &[Owes<'_>], waiting: &mut Waiting) -> bool {
    let mut debtors = SmallVec::new();
    for (debtor, owed, _) in owed.iter().filter(|(_, owed, _)| *owed > 0) {
        let part = with.n.min(*owed);
        if debtor.pay(part) {
            q.hub.renewals.wake(debtor);
            debtors.push((*debtor).clone());
        }
    }
    if debtors.is_empty() {
        purse::give_back(q.sheet, &with, with.n, q.now, q.now);
        return false;
    }
    waiting.payments.push(Paying { debtors, took: 0, with });
    true
}

/// Asks for units that may pay.
fn wait_for_units(lease: &Arc<Lease>, n: u64, owed: &[Owes<'_>], waiting: &mut Waiting) {
    wait_for(lease, n, owed.iter().map(|(debtor, ..)| *debtor), waiting);
    if !waiting.brought.iter().any(|known| Arc::ptr_eq(known, lease)) {
        waiting.brought.push(lease.clone());
    }
}

/// These debtors wait for this lease, which was asked for `n`.
fn wait_for<'a>(
    lease: &Arc<Lease>,
    n: u64,
    debtors: impl Iterator<Item = &'a Arc<Lease>>,
    waiting: &mut Waiting,
) {
    waiting.asked.extend(debtors.map(|debtor| (debtor.clone(), lease.clone(), n)));
}

/// A payment is on its way, perhaps under another sheet: debts beside it wait for it.
fn wait_for_payment(q: &Purse<'_>, paying: &Arc<Lease>, owed: &[Owes<'_>], waiting: &mut Waiting) {
    if !paying.is_paying() {
        return;
    }
    q.hub.renewals.wake(paying);
    for (debtor, ..) in owed {
        waiting.asked.push(((*debtor).clone(), paying.clone(), 1));
    }
}

/// A lease has been answered: use waiting for it is paid now, before a request takes its units.
pub(crate) fn answered(hub: &Hub, lease: &Arc<Lease>) {
    let answered = hub.answers.take(lease);
    for sheet in &answered.sheets {
        settle(sheet, hub.clock.now(), false);
    }
}

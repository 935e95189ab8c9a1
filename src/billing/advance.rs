//! Advances one item as far as it can go now: each step is written under the item's version before
//! it is taken.
//!
//! A future of this file that is dropped, or a process that dies, at any await leaves an item that
//! the next run understands: a marked entry may have been sent, an unmarked one was not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dates::{Dates, dates, starts_s};
use super::due::{BillingTerms, DueUse, Overrun};
use super::item::{self, IdSpace, ItemId, Versioned};
use super::outbox::{
    OLDEST_S, Outbox, OutboxEntry, RestoredItem, SendStep, VERIFY_S, ZERO_APART_S,
};
use super::restored::{SentSinceCopy, Word};
use super::result::{Report, ReportError, StoppedEntry};
use super::sink::{BillingSink, Delivery, MeterEvent, SinkError, Sum};
use crate::amount::Atoms;
use crate::clock::{Clock, Now};
use crate::ledger::totals::Ledger;
use crate::sheets::use_row::RowAtoms;
use crate::store::layout::Space;
use crate::store::{Change, Item, Store, StoreError, Value, When, Write, Written};
use crate::telemetry;

/// Most steps of one item in one run: an entry takes four, and a run opens at most two.
const STEPS: usize = 12;

/// Largest clock drift, and longest time between a mark and its send.
const SLACK_MS: i64 = 5_000;

/// Lifetime of a minute's reservation, in seconds: longer than its sum is ever asked for.
const KEEP_MINUTE_S: i64 = 80 * 86_400;

/// Whether an item may be sent.
pub(super) enum Kin {
    /// None of its kin is undecided.
    Decided,
    /// One is, and cannot be decided yet, or was changed by another reporter.
    Undecided,
}

/// The dependencies and state of a reporter.
pub(super) struct ReporterContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) sink: Arc<dyn BillingSink>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) space: Space,
    pub(super) origin: IdSpace,
    pub(super) ledger: Ledger,
    /// Items that need no work before a second, as long as what is owed of them stays the same.
    pub(super) quiet: Mutex<HashMap<ItemId, Quiet>>,
    /// The table's state since its last restore, and all items of this run.
    pub(super) restored: Mutex<(Word, Arc<[DueUse]>)>,
}

/// An item without work until a second, by the service's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    owed: Atoms,
    /// A smaller unit makes units of what was less than one.
    atoms_per_unit: u64,
    until_s: i64,
}

/// The work of one pass of a run on an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Sends what is owed, with no questions to the service.
    Send,
    /// Also asks for the outcome.
    Ask,
}

/// The service's time at one of our readings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub(super) service_s: i64,
    pub(super) at: Now,
}

impl ReporterContext {
    /// Advances an item as far as this pass goes. Returns its current state if the service is to be
    /// asked about it in the next.
    pub(super) async fn look_after(
        &self,
        due: &DueUse,
        pass: Pass,
        anchor: Anchor,
        report: &mut Report,
    ) -> Option<Outbox> {
        let owed = due.owed();
        let now_s = anchor.service_s;
        let atoms_per_unit = due.terms.atoms_per_unit;
        let known = self.quiet().get(&due.id).copied();
        let same = |quiet: &Quiet| (quiet.owed, quiet.atoms_per_unit) == (owed, atoms_per_unit);
        if known.filter(same).is_some_and(|quiet| now_s < quiet.until_s) {
            return None;
        }
        match self.advance(due, (pass, anchor), report).await {
            Ok(Some((outbox, is_held))) => {
                let word = self.restored().0;
                let step = next_step(word, &outbox, due, now_s);
                let asks = is_held || matches!(step, SendStep::Ask | SendStep::Reconcile);
                let asked = asks || outbox.to_verify(now_s).is_some();
                if asked && pass == Pass::Send {
                    return Some(outbox);
                }
                report.take(&due.id, &outbox);
                let freezes = matches!(step, SendStep::Freeze { .. });
                match self.is_too_old(due, &outbox, now_s).await {
                    Ok(true) if freezes => report.too_old.push(due.id.clone()),
                    Ok(_) => {
                        report.waiting += owed.saturating_sub(outbox.frozen).parts(atoms_per_unit);
                    }
                    Err(error) => report.failed.push((due.id.clone(), error.to_string())),
                }
                let until_s = quiet_until(word, &outbox, due, now_s);
                self.quiet().insert(due.id.clone(), Quiet { owed, atoms_per_unit, until_s });
            }
            // Another reporter is working on it.
            Ok(None) => {}
            Err(error) => report.failed.push((due.id.clone(), error.to_string())),
        }
        None
    }

    /// Looks up what was recorded by the end of each period whose end was learned of late, if units
    /// of it wait to be sent.
    pub(super) async fn split_overruns(&self, dues: &mut [DueUse]) -> Result<(), ReportError> {
        let now_ms = self.clock.now().wall_ms;
        let oldest_ms = now_ms.saturating_sub(OLDEST_S * 1_000);
        let (mut instants, mut places) = (BTreeMap::new(), Vec::new());
        for (at, due) in dues.iter().enumerate() {
            let is_young = |it: &&Overrun| it.parts.first().is_some_and(|it| it.0 >= oldest_ms);
            let Some(overrun) = due.terms.overrun.as_ref().filter(is_young) else { continue };
            // An item that cannot be read fails by itself.
            let read = item::read(&*self.store, due.id.key(&self.space)).await;
            let Ok(frozen) = read.map(|at| at.outbox.frozen) else { continue };
            if due.owed().saturating_sub(frozen).parts(due.terms.atoms_per_unit) > 0 {
                let ItemId { account, tenant, meter, scale, period_ms } = due.id.clone();
                let key = (Some(account), tenant, meter, scale, period_ms);
                instants.insert(key.clone(), overrun.instants());
                places.push((at, key));
            }
        }
        if instants.is_empty() {
            return Ok(());
        }
        let recorded = self.ledger.recorded_by(&instants, now_ms).await?;
        for (at, key) in places {
            let terms = &mut dues[at].terms;
            let owed = |of: RowAtoms| if terms.overage { of.over } else { of.used };
            if let Some(overrun) = &mut terms.overrun {
                let recorded = recorded.get(&key).into_iter().flatten();
                overrun.owed = recorded.map(|recorded| owed(*recorded)).collect();
            }
        }
        Ok(())
    }

    fn quiet(&self) -> MutexGuard<'_, HashMap<ItemId, Quiet>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps an item until nothing more can be done now, and says whether it waits for its kin;
    /// `None` if another reporter interfered.
    async fn advance(
        &self,
        due: &DueUse,
        (pass, anchor): (Pass, Anchor),
        report: &mut Report,
    ) -> Result<Option<(Outbox, bool)>, ReportError> {
        let mut at = item::read(&*self.store, due.id.key(&self.space)).await?;
        let mut has_minutes = true;
        for _ in 0..STEPS {
            let now_s = self.now_s(anchor)?;
            let mut next = at.outbox.clone();
            let step = next_step(self.restored().0, &next, due, now_s);
            if matches!(step, SendStep::Freeze { .. } | SendStep::Send)
                && let Kin::Undecided = self.kin(due, pass == Pass::Ask, now_s).await?
            {
                return Ok(Some((next, true)));
            }
            match step {
                SendStep::Freeze { value, .. } if has_minutes => {
                    let dates = dates(due, &next, now_s);
                    match self.entry(due, &next, value, (&dates, now_s)).await? {
                        Some(entry) => next.freeze(entry),
                        None => {
                            has_minutes = false;
                            continue;
                        }
                    }
                }
                SendStep::Send => match self.send(due, &at, anchor, report).await? {
                    Some((sent, true)) => {
                        at = sent;
                        continue;
                    }
                    stands => return Ok(stands.map(|(at, _)| (at.outbox, false))),
                },
                SendStep::Void => next.void(),
                _ if pass == Pass::Send => return Ok(Some((next, false))),
                SendStep::Reconcile => self.reconcile(due, &mut next).await?,
                SendStep::Ask => {
                    let Some(pending) = &next.pending else { return Ok(Some((next, false))) };
                    let sum = self.sum(&pending.entry).await?;
                    next.summed(sum, now_s);
                }
                SendStep::Freeze { .. }
                | SendStep::Rest
                | SendStep::Wait(_)
                | SendStep::Stopped => {
                    if !self.verify(due, &mut next, now_s, report).await? {
                        return Ok(Some((next, false)));
                    }
                }
            }
            match self.write(&due.id, &at, next).await? {
                Some(stands) => at = stands,
                None => return Ok(None),
            }
        }
        Ok(Some((at.outbox, false)))
    }

    /// Marks the open entry, sends it, and writes the outcome. True if it is decided; `None` if
    /// another reporter interfered.
    async fn send(
        &self,
        due: &DueUse,
        before: &Versioned,
        anchor: Anchor,
        report: &mut Report,
    ) -> Result<Option<(Versioned, bool)>, ReportError> {
        let marked_at = self.clock.now();
        let repeats = before.outbox.pending.as_ref().is_some_and(|open| open.first_s.is_some());
        let mut marked = before.outbox.clone();
        marked.mark(self.now_s(anchor)?);
        let marked = match self.write(&due.id, before, marked).await? {
            Some(stands) => stands,
            None => return Ok(None),
        };
        let Some(entry) = marked.outbox.pending.as_ref().map(|p| p.entry.clone()) else {
            return Ok(Some((marked, false)));
        };
        // A process that was suspended here must not send: the mark may have run out.
        self.now_s(anchor)?;
        if elapsed_ms(marked_at, self.clock.now()) > SLACK_MS {
            return Err(ReportError::ClockMoved);
        }
        let event = MeterEvent {
            identifier: self.origin.identifier(&due.id, &entry),
            customer: entry.customer,
            event: entry.event,
            value: entry.value,
            timestamp_s: entry.minute_s.max(starts_s(&due.id)),
        };
        let mut after = marked.outbox.clone();
        let delivery = self.sink.send(event).await;
        telemetry::stripe_event(delivery.word());
        match delivery {
            Delivery::Delivered => after.delivered(),
            Delivery::Refused(words) if !repeats => after.refused(&words),
            // An earlier send, without an answer, may count: the entry stays uncertain.
            Delivery::Refused(why) | Delivery::Unknown(why) => {
                let entry = StoppedEntry { item: due.id.clone(), k: entry.k };
                report.unanswered.push((entry, why));
                return Ok(Some((marked, false)));
            }
        }
        let delivered = after.pending.is_none();
        match self.write(&due.id, &marked, after).await? {
            Some(stands) => {
                report.sent += u64::from(delivered);
                report.units += if delivered { entry.value } else { 0 };
                Ok(Some((stands, true)))
            }
            None => Ok(None),
        }
    }

    /// Verifies the accepted entry that is due, if any. True if the outbox changed and must be
    /// written.
    async fn verify(
        &self,
        due: &DueUse,
        outbox: &mut Outbox,
        now_s: i64,
        report: &mut Report,
    ) -> Result<bool, ReportError> {
        let Some(entry) = outbox.to_verify(now_s).map(|sent| sent.entry.clone()) else {
            return Ok(false);
        };
        let sum = self.sum(&entry).await?;
        let key = self.space.rejected(&self.origin.identifier(&due.id, &entry));
        let reported = sum == 0 && self.store.read(key).await?.is_some();
        let before = outbox.settled.entries;
        outbox.verified(entry.k, sum, reported, now_s);
        report.verified += outbox.settled.entries - before;
        Ok(true)
    }

    pub(super) async fn sum(&self, entry: &OutboxEntry) -> Result<i64, SinkError> {
        let (customer, event) = (entry.customer.clone(), entry.event.clone());
        let until_s = entry.minute_s.saturating_add(60);
        self.sink.sum(Sum { customer, event, from_s: entry.minute_s, until_s }).await
    }

    /// The next entry, with a minute of its own; `None` if no minute is free.
    async fn entry(
        &self,
        due: &DueUse,
        outbox: &Outbox,
        value: u64,
        (dates, now_s): (&Dates, i64),
    ) -> Result<Option<OutboxEntry>, ReportError> {
        let k = outbox.k.saturating_add(1);
        let BillingTerms { customer, event, atoms_per_unit, .. } = due.terms.clone();
        let owner = self.owner(due, outbox);
        let (restored_s, asks_s) = (self.restored_s(), self.asks_since());
        let value = value.min(dates.most);
        let atoms = Atoms(value.saturating_mul(atoms_per_unit.max(1)));
        for minute_s in dates.minutes() {
            // It may have been used since the copy, which lacks reservations made later; also for
            // an item that the copy does not have. Sums lag: until they are whole, such a minute is
            // left alone.
            if asks_s.is_some_and(|at_s| minute_s <= at_s && now_s < at_s + ZERO_APART_S) {
                continue;
            }
            if restored_s.is_some_and(|at_s| minute_s <= at_s) {
                let (customer, event) = (customer.clone(), event.clone());
                let until_s = minute_s.saturating_add(60);
                if self.sink.sum(Sum { customer, event, from_s: minute_s, until_s }).await? != 0 {
                    continue;
                }
            }
            let key = self.space.minute(&customer, &event, minute_s);
            let ttl = minute_s.saturating_add(KEEP_MINUTE_S);
            let write = Write {
                key,
                when: vec![When::Absent],
                change: vec![
                    Change::Set("of".into(), Value::Text(owner.clone())),
                    Change::Set(Item::TTL.into(), Value::Int(ttl)),
                ],
            };
            let ours = match item::make(&*self.store, write).await? {
                Written::Applied(_) => true,
                // Ours after a lost reply, or from a run that died before it froze the entry.
                Written::Refused(item) => {
                    item.is_some_and(|item| item.text("of") == Some(owner.as_str()))
                }
            };
            if ours {
                return Ok(Some(OutboxEntry { k, customer, event, value, atoms, minute_s }));
            }
        }
        Ok(None)
    }

    pub(super) async fn write(
        &self,
        id: &ItemId,
        before: &Versioned,
        outbox: Outbox,
    ) -> Result<Option<Versioned>, StoreError> {
        item::write(&*self.store, id.key(&self.space), before, outbox).await
    }

    /// Whether units wait that are never sent: none of the minutes left for them is free.
    pub(super) async fn is_too_old(
        &self,
        due: &DueUse,
        outbox: &Outbox,
        now_s: i64,
    ) -> Result<bool, StoreError> {
        let dates = dates(due, outbox, now_s);
        let waits = due.owed().saturating_sub(outbox.frozen).parts(due.terms.atoms_per_unit) > 0;
        if !waits || !dates.is_last {
            return Ok(false);
        }
        let owner = self.owner(due, outbox);
        for minute_s in dates.minutes() {
            let key = self.space.minute(&due.terms.customer, &due.terms.event, minute_s);
            let taken = self.store.read(key).await?;
            if taken.is_none_or(|item| item.text("of") == Some(owner.as_str())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The owner of the next entry's minute.
    fn owner(&self, due: &DueUse, outbox: &Outbox) -> String {
        format!("{} {}", due.id.key(&self.space).pk, outbox.k.saturating_add(1))
    }

    /// The service's time now: its last answer plus the time elapsed on our clocks.
    fn now_s(&self, anchor: Anchor) -> Result<i64, ReportError> {
        let now = self.clock.now();
        let mono_ms = elapsed_ms(anchor.at, now);
        let wall_ms = now.wall_ms.saturating_sub(anchor.at.wall_ms);
        if wall_ms.abs_diff(mono_ms) > SLACK_MS.unsigned_abs() {
            return Err(ReportError::ClockMoved);
        }
        Ok(anchor.service_s.saturating_add(mono_ms / 1_000))
    }
}

fn elapsed_ms(from: Now, until: Now) -> i64 {
    let ns = until.mono_ns.saturating_sub(from.mono_ns);
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// The next step: in a restored table, reconciliation comes first.
pub(super) fn next_step(word: Word, outbox: &Outbox, due: &DueUse, now_s: i64) -> SendStep {
    let unit = due.terms.atoms_per_unit;
    let next = outbox.next(due.owed(), unit, now_s);
    let is_undecided = outbox.restored.is_some_and(|restored| !restored.decided);
    if let Word::Said(SentSinceCopy::Nothing, _) = word
        && is_undecided
        && outbox.pending.is_none()
    {
        // Nothing of it was sent since the copy: there is no sum to wait for. It is decided before
        // the next entry is made, which is then one like any other.
        return match next {
            SendStep::Freeze { .. } => SendStep::Reconcile,
            next => next,
        };
    }
    outbox.after_restore(owed_then(outbox, due), unit, now_s).unwrap_or(next)
}

/// The amount owed in the copy.
pub(super) fn owed_then(outbox: &Outbox, due: &DueUse) -> Atoms {
    let then =
        |restored: RestoredItem| if due.terms.overage { restored.over } else { restored.used };
    outbox.restored.map_or(Atoms::NONE, then).min(due.owed())
}

/// The time until which an item needs no work, unless more is owed.
fn quiet_until(word: Word, outbox: &Outbox, due: &DueUse, now_s: i64) -> i64 {
    let send_s = match next_step(word, outbox, due, now_s) {
        SendStep::Rest => i64::MAX,
        SendStep::Wait(at_s) => at_s,
        // Examined and reported in every run.
        _ => now_s,
    };
    let verify_s = outbox.sent.iter().map(|sent| sent.at_s.saturating_add(VERIFY_S)).min();
    send_s.min(verify_s.unwrap_or(i64::MAX))
}

//! Determines by the service's sums how much of a restored table's items was sent between the
//! backup and the restore.
//!
//! # Laws
//!
//! 1. What an event counts in a period beyond what the copy knows is attributed to what the copy
//!    owed of that event and period, to each unit once: items that share an event and a period are
//!    **kin**, and none of them is sent before all are decided. So what is known of them is what
//!    the copy knew.
//! 2. An item is asked about under every event name that its entries have had.
//! 3. The range of the question is the item's own: from its period's beginning to that of the next
//!    period known of this customer, and no longer than a month. Today's anchors may be others.
//!    Where its units are dated beyond that, because an end or a former customer's cycle was
//!    learned of late, the periods of that time are one with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::advance::{Kin, ReporterContext, next_step, owed_then};
use super::dates::starts_s;
use super::due::DueUse;
use super::item::{self, Versioned};
use super::outbox::{Outbox, OutboxEntry, PendingEntry, SendStep};
use super::restored::{SentSinceCopy, Word};
use super::result::ReportError;
use super::sink::{SinkError, Sum};

/// The longest billing period, in seconds.
const LONGEST_S: i64 = 31 * 86_400;

impl ReporterContext {
    /// The word about the restore, and all items of this run.
    pub(super) fn restored(&self) -> (Word, Arc<[DueUse]>) {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the table was restored and the service is to be asked what was sent since its copy.
    pub(super) fn asks_since(&self) -> Option<i64> {
        match self.restored().0 {
            Word::Said(SentSinceCopy::AskStripe, at_ms) => Some(at_ms.div_euclid(1_000)),
            _ => None,
        }
    }

    /// When the table was restored.
    pub(super) fn restored_s(&self) -> Option<i64> {
        match self.restored().0 {
            Word::Said(_, at_ms) | Word::Waits(at_ms) => Some(at_ms.div_euclid(1_000)),
            Word::Never => None,
        }
    }

    /// Whether an item's kin are decided; in a pass that asks, they are decided now if they can be.
    pub(super) async fn kin(
        &self,
        due: &DueUse,
        asks: bool,
        now_s: i64,
    ) -> Result<Kin, ReportError> {
        let (word, dues) = self.restored();
        if !matches!(word, Word::Said(SentSinceCopy::AskStripe, _)) {
            return Ok(Kin::Decided);
        }
        let stretch = Stretch::of(due, &dues);
        let is_kin = |other: &&DueUse| {
            other.id != due.id && stretch.has(other) && other.terms.event == due.terms.event
        };
        for other in dues.iter().filter(is_kin) {
            let at = item::read(&*self.store, other.id.key(&self.space)).await?;
            if !is_undecided(&at.outbox, other, now_s) {
                continue;
            }
            if !asks || !self.decide_kin(other, &at, now_s).await? {
                return Ok(Kin::Undecided);
            }
        }
        Ok(Kin::Decided)
    }

    async fn decide_kin(
        &self,
        other: &DueUse,
        at: &Versioned,
        now_s: i64,
    ) -> Result<bool, ReportError> {
        if next_step(self.restored().0, &at.outbox, other, now_s) != SendStep::Reconcile {
            return Ok(false);
        }
        let mut outbox = at.outbox.clone();
        self.reconcile(other, &mut outbox).await?;
        Ok(self.write(&other.id, at, outbox).await?.is_some())
    }

    /// Determines what was sent of an item between its copy and the restore.
    pub(super) async fn reconcile(
        &self,
        due: &DueUse,
        outbox: &mut Outbox,
    ) -> Result<(), ReportError> {
        let Some(restored) = outbox.restored else { return Ok(()) };
        let (word, dues) = self.restored();
        let stretch = Stretch::of(due, &dues);
        let mut books = Books::of(stretch.minutes(restored.at_s));
        books.add(outbox, true);
        let minute = match &outbox.pending {
            Some(pending) => Some(self.pending_sum(pending, &mut books).await?),
            None => None,
        };
        let mut beyond = Vec::new();
        if matches!(word, Word::Said(SentSinceCopy::AskStripe, _)) {
            let own: Vec<String> =
                outbox.sent_by_event().map(|(name, _)| name.to_owned()).collect();
            self.add_others(due, (&stretch, &dues), &mut books).await?;
            // A name that is another's now counts that one's use.
            let is_others = |event: &String| {
                dues.iter().any(|other| stretch.has(other) && other.terms.event == *event)
            };
            let former = own.into_iter().filter(|e| *e != due.terms.event && !is_others(e));
            let former: BTreeSet<String> = former.collect();
            for event in std::iter::once(due.terms.event.clone()).chain(former) {
                let known = books.known.get(&event).copied().unwrap_or(0);
                let Range { start: from_s, end: until_s } = books.within;
                let customer = due.terms.customer.clone();
                let sum = Sum { customer, event: event.clone(), from_s, until_s };
                let counted = u64::try_from(self.sink.sum(sum).await?).unwrap_or(0);
                beyond.push((event, counted.saturating_sub(known)));
            }
        }
        let then = owed_then(outbox, due);
        outbox.reconciled(minute, &beyond, then, due.terms.atoms_per_unit);
        Ok(())
    }

    /// Adds what is known of the customer's other items.
    async fn add_others(
        &self,
        due: &DueUse,
        (stretch, dues): (&Stretch<'_>, &[DueUse]),
        books: &mut Books,
    ) -> Result<(), ReportError> {
        let is_its =
            |other: &&DueUse| other.id != due.id && other.terms.customer == due.terms.customer;
        for other in dues.iter().filter(is_its) {
            let is_kin = stretch.has(other);
            let other = item::read(&*self.store, other.id.key(&self.space)).await?.outbox;
            books.add(&other, is_kin);
            let open = other.restored.filter(|restored| is_kin && !restored.decided);
            if let (Some(_), Some(pending)) = (open, &other.pending) {
                self.pending_sum(pending, books).await?;
            }
        }
        Ok(())
    }

    /// The sum of an open entry's minute; if it is the entry's, the entry is in the books.
    async fn pending_sum(
        &self,
        pending: &PendingEntry,
        books: &mut Books,
    ) -> Result<i64, SinkError> {
        let entry = &pending.entry;
        let sum = self.sum(entry).await?;
        if u64::try_from(sum) == Ok(entry.value) {
            books.add_entry(entry);
        }
        Ok(sum)
    }
}

/// Units known to be sent, by event name, and dated within these seconds.
struct Books {
    within: Range<i64>,
    known: BTreeMap<String, u64>,
}

impl Books {
    fn of(within: Range<i64>) -> Self {
        Self { within, known: BTreeMap::new() }
    }

    /// Settled entries have no minute any more, and count as dated into the time of their item and
    /// its kin. Two times may share the minute between them.
    fn add(&mut self, outbox: &Outbox, is_kin: bool) {
        let settled = outbox.settled_by.iter().filter(|_| is_kin);
        settled.for_each(|(event, value)| self.add_units(event, *value));
        outbox.sent.iter().for_each(|sent| self.add_entry(&sent.entry));
    }

    fn add_entry(&mut self, entry: &OutboxEntry) {
        if self.within.contains(&entry.minute_s) {
            self.add_units(&entry.event, entry.value);
        }
    }

    fn add_units(&mut self, event: &str, value: u64) {
        let known = self.known.entry(event.to_owned()).or_default();
        *known = known.saturating_add(value);
    }
}

/// The time into which a customer's items are dated, of those whose times overlap. Use of one meter
/// at another scale, or of two meters with one event, is the same to the service.
struct Stretch<'a> {
    customer: &'a str,
    from_s: i64,
    until_s: i64,
}

impl<'a> Stretch<'a> {
    fn of(due: &'a DueUse, dues: &[DueUse]) -> Self {
        let customer = &*due.terms.customer;
        let its = dues.iter().filter(|other| other.terms.customer == customer);
        let its: Vec<&DueUse> = its.collect();
        let times: Vec<(i64, i64)> = its.iter().map(|other| time(other, &its)).collect();
        let (mut from_s, mut until_s) = time(due, &its);
        loop {
            let before = (from_s, until_s);
            for (begins_s, ends_s) in &times {
                if *begins_s < until_s && from_s < *ends_s {
                    (from_s, until_s) = (from_s.min(*begins_s), until_s.max(*ends_s));
                }
            }
            if (from_s, until_s) == before {
                return Self { customer, from_s, until_s };
            }
        }
    }

    /// Its minutes until the restore, also those that it only has a part of.
    fn minutes(&self, restored_s: i64) -> Range<i64> {
        let until_s = whole_minute(self.until_s.saturating_add(59));
        whole_minute(self.from_s)..until_s.min(whole_minute(restored_s).saturating_add(60))
    }

    fn has(&self, other: &DueUse) -> bool {
        let begins_s = starts_s(&other.id);
        other.terms.customer == self.customer && (self.from_s..self.until_s).contains(&begins_s)
    }
}

fn is_undecided(outbox: &Outbox, due: &DueUse, now_s: i64) -> bool {
    outbox.after_restore(owed_then(outbox, due), due.terms.atoms_per_unit, now_s).is_some()
}

/// The time into which an item is dated, given all of its customer: see the third law.
fn time(due: &DueUse, its: &[&DueUse]) -> (i64, i64) {
    let begins_s = starts_s(&due.id);
    let later = its.iter().filter(|other| other.id.period_ms > due.id.period_ms);
    let next_s = later.map(|other| starts_s(&other.id)).min().unwrap_or(i64::MAX);
    let ends_s = next_s.min(begins_s.saturating_add(LONGEST_S));
    let parts = due.terms.overrun.iter().flat_map(|overrun| &overrun.parts);
    let last_ms = parts.map(|(_, until_ms)| *until_ms).chain([due.terms.ends_ms]).max();
    let last_s = last_ms.map_or(ends_s, |last_ms| last_ms.saturating_add(999).div_euclid(1_000));
    (begins_s, ends_s.max(last_s))
}

fn whole_minute(at_s: i64) -> i64 {
    at_s - at_s.rem_euclid(60)
}

//! The outbox: the amount owed for one account, tenant, meter and billing period, as a state
//! machine without I/O.
//!
//! # Laws
//!
//! 1. An entry's value, customer, event name and minute are frozen before it is first sent and
//!    never change. At most one entry is open.
//! 2. An entry is sent only after its **mark** was written: the latest moment at which this send
//!    can take effect. Marks lie within [`RESEND_S`] of the first, so that the service still knows
//!    the identifier when a repeat arrives.
//! 3. An entry that is uncertain for longer is never sent blindly. The service's own sum for its
//!    minute decides: if it equals the value, the entry counted; if it is zero twice
//!    [`ZERO_APART_S`] apart, it did not; anything else stops the entry for an operator. A refusal
//!    stops it only if no earlier send of it can have counted.
//! 4. An accepted entry is checked again after [`VERIFY_S`]: accepted is not counted. Units are
//!    owed again only if the sum is zero **and** the rejection was reported.
//!    An entry that an operator lets count is never checked again.
//! 5. Atoms are never made or lost: those of settled, sent and open entries together are `frozen`.
//!
//! Times are Unix seconds by the service's own clock. Every write of the item is made under its
//! version ([`super::report`]); two processes that step the same item are harmless.
//!
//! Not promised: rules 2 and 3 rest on identifiers being unique for 24 h and on sums being complete
//! after hours. The service documents the former, but not the latter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::Atoms;

/// Largest distance between marks of one entry: half of the 24 h for which Stripe keeps identifiers
/// unique.
pub(crate) const RESEND_S: i64 = 12 * 3_600;

/// Time from its first mark until an uncertain entry's sum is asked for.
pub(crate) const ASK_AFTER_S: i64 = 24 * 3_600;

/// Longest time until a sum is complete, and least distance of two zeros that are trusted.
pub(crate) const ZERO_APART_S: i64 = 6 * 3_600;

/// Time from acceptance until an entry is verified.
pub(crate) const VERIFY_S: i64 = 24 * 3_600;

/// Oldest minute that is sent: a day inside Stripe's 35.
pub(crate) const OLDEST_S: i64 = 34 * 86_400;

/// Time after its mark during which a send may still take effect: its own timeout and network
/// delay, with room.
pub(crate) const EFFECT_S: i64 = 120;

/// Largest value of one entry: Stripe takes 15 significant digits. The rest follows in the next.
pub(crate) const MAX_VALUE: u64 = 999_999_999_999_999;

/// Most accepted entries waiting to be verified: more than two days at one in 15 minutes. Beyond it
/// nothing is frozen, which delays what is owed but does not reduce it.
pub(crate) const MAX_SENT: usize = 256;

/// The amount owed and its entries. See the [module](self) for its laws.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outbox {
    /// Atoms frozen into entries and not owed anew.
    pub frozen: Atoms,
    /// Number of the newest entry; 0 before the first. Never used twice.
    pub k: u64,
    /// The open entry.
    pub pending: Option<PendingEntry>,
    /// Accepted entries that are not yet verified, oldest first.
    pub sent: Vec<SentEntry>,
    /// Entries whose outcome is final.
    pub settled: SettledEntries,
    /// Their value by event name: a plan file may rename a meter's event within the period.
    pub settled_by: BTreeMap<String, u64>,
    /// Number of entries given up because their minute grew too old; their units are owed anew.
    pub voided: u64,
    /// Number of entries that were accepted and not counted; their units are owed anew.
    pub requeued: u64,
    /// Set if the table was restored from a backup: others may have sent what it owes since the
    /// copy.
    pub restored: Option<RestoredItem>,
}

/// State of an item at the time of the copy it was restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoredItem {
    /// Atoms used by then.
    pub used: Atoms,
    /// Of these: used beyond a quota that bills.
    pub over: Atoms,
    /// Time of the restore: sends by others are dated before it.
    pub at_s: i64,
    /// Whether those sends have been determined.
    pub decided: bool,
}

/// The immutable content of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxEntry {
    /// Its number.
    pub k: u64,
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// Whole units of the service.
    pub value: u64,
    /// The same value in atoms.
    pub atoms: Atoms,
    /// Its timestamp: a full minute that no other entry of this customer and event has.
    pub minute_s: i64,
}

/// The open entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingEntry {
    /// Its content.
    pub entry: OutboxEntry,
    /// Its first mark since it was last certain not to count.
    pub first_s: Option<i64>,
    /// The latest moment at which a send of it can take effect.
    pub last_s: i64,
    /// Time of the first zero sum.
    pub zero_s: Option<i64>,
    /// Why it is no longer sent.
    pub stopped: Option<Stopped>,
}

/// Why an entry waits for an operator. `docs/billing.md` says how to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stopped {
    /// The service refused the entry for good, with this message.
    Refused(String),
    /// The service's sum for the entry's minute, which is neither the entry's value nor zero.
    Sum(i64),
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SentEntry {
    /// Its content.
    pub entry: OutboxEntry,
    /// The latest moment at which it took effect; later, of its last inconclusive check.
    pub at_s: i64,
    /// The last sum of its minute, where it was not the value.
    pub doubt: Option<i64>,
}

/// Totals of entries that were verified, or are counted because an operator decided so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SettledEntries {
    /// Number of entries.
    pub entries: u64,
    /// The service's count of them: of a verified entry, its value.
    pub value: u64,
    /// Their atoms.
    pub atoms: Atoms,
}

/// The next step of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendStep {
    /// No whole unit is owed, or too many entries wait to be verified.
    Rest,
    /// Freeze an entry of this value: [`Outbox::freeze`].
    Freeze {
        /// Whole units of the service.
        value: u64,
        /// The same value in atoms.
        atoms: Atoms,
    },
    /// Mark the open entry ([`Outbox::mark`]), write that, and send it.
    Send,
    /// Ask for the service's sums of the open entry's minute and of the whole period up to the
    /// restore, and pass them to [`Outbox::reconciled`].
    Reconcile,
    /// Ask for the sum of the open entry's minute, and pass it to [`Outbox::summed`].
    Ask,
    /// Give the open entry up, because its minute is too old: [`Outbox::void`].
    Void,
    /// Nothing before this second.
    Wait(i64),
    /// Nothing, until an operator has decided: [`Outbox::decide`].
    Stopped,
}

impl Outbox {
    /// The next step, given the atoms owed and the atoms per unit of the service.
    pub(crate) fn next(&self, owed: Atoms, atoms_per_unit: u64, now_s: i64) -> SendStep {
        if let Some(pending) = &self.pending {
            return pending.next(now_s);
        }
        let unit = atoms_per_unit.max(1);
        // A value whose atoms overflow is capped: the rest follows.
        let value = owed.saturating_sub(self.frozen).parts(unit).min(MAX_VALUE);
        match Atoms::of(value, unit) {
            Some(atoms) if value > 0 && self.sent.len() < MAX_SENT => {
                SendStep::Freeze { value, atoms }
            }
            _ => SendStep::Rest,
        }
    }

    /// The step that comes first in a restored table, given the atoms owed in the copy; `None` if
    /// none of it can have been sent since, or that has been determined.
    pub(crate) fn after_restore(
        &self,
        then: Atoms,
        atoms_per_unit: u64,
        now_s: i64,
    ) -> Option<SendStep> {
        let restored = self.restored.filter(|restored| !restored.decided)?;
        let unsent = then.saturating_sub(self.frozen).parts(atoms_per_unit);
        if self.pending.is_none() && unsent == 0 {
            return None;
        }
        let ask_s = restored.at_s.saturating_add(ZERO_APART_S);
        Some(if now_s < ask_s { SendStep::Wait(ask_s) } else { SendStep::Reconcile })
    }

    /// Applies the service's sums: of the open entry's minute, and of units of the period beyond
    /// all known sends, by event name. Of those, as many as were owed in the copy count as sent;
    /// the rest is use that the copy does not know.
    pub(crate) fn reconciled(
        &mut self,
        minute: Option<i64>,
        beyond: &[(String, u64)],
        then: Atoms,
        atoms_per_unit: u64,
    ) {
        let unit = atoms_per_unit.max(1);
        match (minute, &mut self.pending) {
            (Some(sum), Some(pending)) if u64::try_from(sum) == Ok(pending.entry.value) => {
                self.delivered();
            }
            (Some(0), Some(pending)) if pending.stopped.is_none() => {
                // It is certain not to count: the same entry, in a new window.
                pending.zero_s = None;
                pending.first_s = None;
            }
            (Some(sum), Some(pending)) => {
                pending.stopped.get_or_insert(Stopped::Sum(sum));
            }
            _ => {}
        }
        for (event, beyond) in beyond {
            let value = (*beyond).min(then.saturating_sub(self.frozen).parts(unit));
            if value > 0 {
                let atoms = Atoms(value.saturating_mul(unit));
                self.frozen = self.frozen.saturating_add(atoms);
                self.settle(event, value, atoms);
            }
        }
        if let Some(restored) = &mut self.restored {
            restored.decided = true;
        }
    }

    /// Opens the next entry. Only after [`SendStep::Freeze`], with its values.
    pub(crate) fn freeze(&mut self, entry: OutboxEntry) {
        debug_assert!(self.pending.is_none() && entry.k == self.k + 1);
        self.k = entry.k;
        self.frozen = self.frozen.saturating_add(entry.atoms);
        self.pending =
            Some(PendingEntry { entry, first_s: None, last_s: 0, zero_s: None, stopped: None });
    }

    /// Marks the open entry: it may take effect from now until [`EFFECT_S`] later.
    pub(crate) fn mark(&mut self, now_s: i64) {
        if let Some(pending) = &mut self.pending {
            pending.first_s.get_or_insert(now_s);
            pending.last_s = pending.last_s.max(now_s.saturating_add(EFFECT_S));
        }
    }

    /// The open entry was counted or accepted: queues it for verification.
    pub(crate) fn delivered(&mut self) {
        if let Some(PendingEntry { entry, last_s, .. }) = self.pending.take() {
            self.sent.push(SentEntry { entry, at_s: last_s, doubt: None });
        }
    }

    /// The service refused the open entry for good. Only if no earlier send of it can have counted.
    pub(crate) fn refused(&mut self, words: &str) {
        if let Some(pending) = &mut self.pending {
            pending.stopped = Some(Stopped::Refused(words.to_owned()));
        }
    }

    /// Applies the sum of the open entry's minute, asked for after [`SendStep::Ask`].
    pub(crate) fn summed(&mut self, sum: i64, now_s: i64) {
        let Some(pending) = &mut self.pending else { return };
        if u64::try_from(sum).is_ok_and(|sum| sum == pending.entry.value) {
            self.delivered();
        } else if sum != 0 {
            pending.stopped = Some(Stopped::Sum(sum));
        } else {
            match pending.zero_s {
                None => pending.zero_s = Some(now_s),
                Some(zero_s) if now_s.saturating_sub(zero_s) < ZERO_APART_S => {}
                Some(_) => {
                    // Now it is certain not to count: the same entry, in a new window.
                    pending.zero_s = None;
                    pending.first_s = None;
                }
            }
        }
    }

    /// Gives the open entry up; its atoms are owed anew, under the next number. Only after
    /// [`SendStep::Void`].
    pub(crate) fn void(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.frozen = self.frozen.saturating_sub(pending.entry.atoms);
            self.voided += 1;
        }
    }

    /// An operator's decision about the stopped entry of this number: it counts, and is settled
    /// without verification; or it does not, and is owed anew. False if that entry is not stopped.
    pub(crate) fn decide(&mut self, k: u64, counts: bool) -> bool {
        let is_it = |pending: &PendingEntry| pending.entry.k == k && pending.stopped.is_some();
        let stopped = self.pending.as_ref().is_some_and(is_it);
        match (stopped, counts) {
            (true, true) => self.forgive(),
            (true, false) => self.void(),
            (false, _) => {}
        }
        stopped
    }

    /// Settles the stopped entry with what the service counts in its minute, nothing if it was
    /// refused: its own units were billed by other means, or are given away.
    fn forgive(&mut self) {
        let Some(PendingEntry { entry, stopped, .. }) = self.pending.take() else { return };
        let counted = match stopped {
            Some(Stopped::Sum(sum)) => u64::try_from(sum).unwrap_or(0),
            _ => 0,
        };
        self.settle(&entry.event, counted, entry.atoms);
    }

    fn settle(&mut self, event: &str, value: u64, atoms: Atoms) {
        let of_event = self.settled_by.entry(event.to_owned()).or_default();
        *of_event = of_event.saturating_add(value);
        self.settled.entries += 1;
        self.settled.value = self.settled.value.saturating_add(value);
        self.settled.atoms = self.settled.atoms.saturating_add(atoms);
    }

    /// The accepted entry whose sum is due to be asked for, if any.
    pub(crate) fn to_verify(&self, now_s: i64) -> Option<&SentEntry> {
        self.sent.iter().find(|sent| now_s.saturating_sub(sent.at_s) >= VERIFY_S)
    }

    /// Applies the sum of an accepted entry's minute. `reported`: the service reported it as
    /// rejected.
    pub(crate) fn verified(&mut self, k: u64, sum: i64, reported: bool, now_s: i64) {
        let Some(at) = self.sent.iter().position(|sent| sent.entry.k == k) else { return };
        let sent = &mut self.sent[at];
        if u64::try_from(sum).is_ok_and(|sum| sum == sent.entry.value) {
            let OutboxEntry { event, value, atoms, .. } = self.sent.remove(at).entry;
            self.settle(&event, value, atoms);
        } else if sum == 0 && reported {
            let entry = self.sent.remove(at).entry;
            self.frozen = self.frozen.saturating_sub(entry.atoms);
            self.requeued += 1;
        } else {
            sent.doubt = Some(sum);
            sent.at_s = now_s;
        }
    }

    /// Whole units accepted or settled by event name, for comparison with the service's sums. A
    /// name may come several times.
    pub(crate) fn sent_by_event(&self) -> impl Iterator<Item = (&str, u64)> {
        let settled = self.settled_by.iter().map(|(event, value)| (event.as_str(), *value));
        settled.chain(self.sent.iter().map(|sent| (sent.entry.event.as_str(), sent.entry.value)))
    }

    /// Whole units accepted or settled under any name.
    pub(crate) fn value_sent(&self) -> u64 {
        let sent = self.sent.iter().fold(0, |sum: u64, sent| sum.saturating_add(sent.entry.value));
        self.settled.value.saturating_add(sent)
    }
}

impl PendingEntry {
    fn next(&self, now_s: i64) -> SendStep {
        if self.stopped.is_some() {
            return SendStep::Stopped;
        }
        let too_old = self.entry.minute_s < now_s.saturating_sub(OLDEST_S);
        let Some(first_s) = self.first_s else {
            // No send of it can be under way.
            return if too_old { SendStep::Void } else { SendStep::Send };
        };
        let effect_s = now_s.saturating_add(EFFECT_S);
        if !too_old && effect_s.saturating_sub(first_s) < RESEND_S {
            return SendStep::Send;
        }
        let ask_s =
            first_s.saturating_add(ASK_AFTER_S).max(self.last_s.saturating_add(ZERO_APART_S));
        let ask_s =
            self.zero_s.map_or(ask_s, |zero_s| ask_s.max(zero_s.saturating_add(ZERO_APART_S)));
        if now_s < ask_s { SendStep::Wait(ask_s) } else { SendStep::Ask }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

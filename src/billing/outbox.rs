//! The outbox: what is owed for one account, tenant, meter and billing period, as a state machine
//! without I/O.
//!
//! # Laws
//!
//! 1. An entry's value, customer, event name and minute are frozen before it is first sent and
//!    never change. At most one entry is open.
//! 2. An entry is sent only after its **mark** was written: the latest moment at which this send
//!    can take effect. Marks lie within [`RESEND_S`] of the first, so that the service still knows
//!    the identifier when a repeat arrives.
//! 3. An entry that is uncertain for longer is never sent blindly. The service's own sum for its
//!    minute decides: the value, it counted; zero twice [`ZERO_APART_S`] apart, it did not;
//!    anything else stops the entry until an operator looks.
//! 4. What was accepted is looked at again after [`VERIFY_S`]: accepted is not counted. Units are
//!    owed again only if the sum is zero **and** somebody reported the rejection.
//! 5. Atoms are never made or lost: those of settled, sent and open entries together are `frozen`.
//!
//! Times are Unix seconds by the service's own clock. Whoever writes the item does it under its
//! version ([`super::report`]); two that step the same item are harmless.
//!
//! Not promised: rules 2 and 3 rest on identifiers being unique for 24 h and on sums being complete
//! after hours. The service publishes the first, and nothing about the second.

use serde::{Deserialize, Serialize};

/// Marks of one entry lie this close together: half of the 24 h for which Stripe keeps identifiers
/// unique.
pub(crate) const RESEND_S: i64 = 12 * 3_600;

/// How long after its first mark the sum is asked about an uncertain entry.
pub(crate) const ASK_AFTER_S: i64 = 24 * 3_600;

/// How long a sum may take to be complete, and how far two zeros must lie apart to be believed.
pub(crate) const ZERO_APART_S: i64 = 6 * 3_600;

/// How long after it was accepted an entry is verified.
pub(crate) const VERIFY_S: i64 = 24 * 3_600;

/// Oldest minute that is sent: a day inside Stripe's 35.
pub(crate) const OLDEST_S: i64 = 34 * 86_400;

/// How long after its mark a send may still take effect: its own timeout and what a network holds
/// back, with room.
pub(crate) const EFFECT_S: i64 = 120;

/// Largest value of one entry: Stripe takes 15 significant digits. The rest follows in the next.
pub(crate) const MAX_VALUE: u64 = 999_999_999_999_999;

/// Most accepted entries that wait to be verified: more than two days at one in 15 minutes. Beyond
/// it nothing is frozen, which makes what is owed later, not less.
pub(crate) const MAX_SENT: usize = 256;

/// What is owed and what became of it. See the [module](self) for its laws.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outbox {
    /// Atoms that entries were made of and that are not owed anew.
    pub frozen: u64,
    /// Number of the newest entry; 0 before the first. Never used twice.
    pub k: u64,
    /// The open entry.
    pub pending: Option<PendingEntry>,
    /// Accepted entries that are not yet verified, oldest first.
    pub sent: Vec<SentEntry>,
    /// Verified entries.
    pub settled: SettledEntries,
    /// Entries that were given up because their minute grew too old; their units are owed anew.
    pub voided: u64,
    /// Entries that were accepted and not counted; their units are owed anew.
    pub requeued: u64,
    /// The table was restored from a backup: since the copy others may have sent what it owes.
    pub restored: Option<RestoredItem>,
}

/// What an item of a restored table knows of its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoredItem {
    /// Atoms that were used by then.
    pub used: u64,
    /// Of these: drawn beyond a quota that bills.
    pub over: u64,
    /// When it was restored: what others sent is dated before.
    pub at_s: i64,
    /// Whether it was found out what they sent.
    pub decided: bool,
}

/// What one entry says, unchanging.
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
    /// Atoms these are.
    pub atoms: u64,
    /// Its timestamp: a full minute that no other entry of this customer and event has.
    pub minute_s: i64,
}

/// The open entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingEntry {
    /// What it says.
    pub entry: OutboxEntry,
    /// When it was first marked since it was last certain that it does not count.
    pub first_s: Option<i64>,
    /// The latest moment at which a send of it can take effect.
    pub last_s: i64,
    /// When the sum was first zero.
    pub zero_s: Option<i64>,
    /// Why it is not sent any more.
    pub stopped: Option<Stopped>,
}

/// Why an entry waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stopped {
    /// The service refused it for good, with these words.
    Refused(String),
    /// The sum of its minute is neither its value nor zero.
    Sum(i64),
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SentEntry {
    /// What it says.
    pub entry: OutboxEntry,
    /// The latest moment at which it took effect; later, when it was last looked at in vain.
    pub at_s: i64,
    /// The last sum of its minute, where it was not the value.
    pub doubt: Option<i64>,
}

/// Verified entries, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SettledEntries {
    /// How many.
    pub entries: u64,
    /// Their values.
    pub value: u64,
    /// Their atoms.
    pub atoms: u64,
}

/// What to do next about sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendStep {
    /// Nothing is owed that makes a whole unit, or too much waits to be verified.
    Rest,
    /// Freeze an entry of this value: [`Outbox::freeze`].
    Freeze {
        /// Whole units of the service.
        value: u64,
        /// Atoms these are.
        atoms: u64,
    },
    /// Mark the open entry ([`Outbox::mark`]), write that, and send it.
    Send,
    /// Ask what the service counts of the minute of the open entry, and of the whole period up to
    /// the restore, and tell [`Outbox::reconciled`].
    Reconcile,
    /// Ask for the sum of the open entry's minute, and tell [`Outbox::summed`].
    Ask,
    /// Give the open entry up, for its minute is too old: [`Outbox::void`].
    Void,
    /// Nothing before this second.
    Wait(i64),
    /// Nothing, until an operator has decided: [`Outbox::decide`].
    Stopped,
}

impl Outbox {
    /// What to do next, with so many atoms owed and so many to a unit of the service.
    pub(crate) fn next(&self, owed: u64, atoms_per_unit: u64, now_s: i64) -> SendStep {
        if let Some(pending) = &self.pending {
            return pending.next(now_s);
        }
        let unit = atoms_per_unit.max(1);
        // A value whose atoms do not fit is capped: the rest follows.
        let value = (owed.saturating_sub(self.frozen) / unit).min(MAX_VALUE);
        match value.checked_mul(unit) {
            Some(atoms) if value > 0 && self.sent.len() < MAX_SENT => {
                SendStep::Freeze { value, atoms }
            }
            _ => SendStep::Rest,
        }
    }

    /// What comes before all else in a restored table, where so many atoms were owed in the copy;
    /// `None` if nothing of it can have been sent since, or that was found out.
    pub(crate) fn after_restore(
        &self,
        then: u64,
        atoms_per_unit: u64,
        now_s: i64,
    ) -> Option<SendStep> {
        let restored = self.restored.filter(|restored| !restored.decided)?;
        let unsent = then.saturating_sub(self.frozen) / atoms_per_unit.max(1);
        if self.pending.is_none() && unsent == 0 {
            return None;
        }
        let ask_s = restored.at_s.saturating_add(ZERO_APART_S);
        Some(if now_s < ask_s { SendStep::Wait(ask_s) } else { SendStep::Reconcile })
    }

    /// What the service counts: the sum of the open entry's minute, and units of the period beyond
    /// all that is known to have been sent. Of those, as many as were owed in the copy count as
    /// sent; others are of use that the copy does not know.
    pub(crate) fn reconciled(
        &mut self,
        minute: Option<i64>,
        beyond: u64,
        then: u64,
        atoms_per_unit: u64,
    ) {
        let unit = atoms_per_unit.max(1);
        match (minute, &mut self.pending) {
            (Some(sum), Some(pending)) if u64::try_from(sum) == Ok(pending.entry.value) => {
                self.delivered();
            }
            (Some(0), Some(pending)) if pending.stopped.is_none() => {
                // Certain that it does not count: the same entry, in a new window.
                pending.zero_s = None;
                pending.first_s = None;
            }
            (Some(sum), Some(pending)) => {
                pending.stopped.get_or_insert(Stopped::Sum(sum));
            }
            _ => {}
        }
        let value = beyond.min(then.saturating_sub(self.frozen) / unit);
        if value > 0 {
            let atoms = value.saturating_mul(unit);
            self.frozen = self.frozen.saturating_add(atoms);
            self.settled.entries += 1;
            self.settled.value = self.settled.value.saturating_add(value);
            self.settled.atoms = self.settled.atoms.saturating_add(atoms);
        }
        if let Some(restored) = &mut self.restored {
            restored.decided = true;
        }
    }

    /// Opens the next entry. Only after [`SendStep::Freeze`], with what it said.
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

    /// The open entry counts, or was accepted: it is to be verified.
    pub(crate) fn delivered(&mut self) {
        if let Some(PendingEntry { entry, last_s, .. }) = self.pending.take() {
            self.sent.push(SentEntry { entry, at_s: last_s, doubt: None });
        }
    }

    /// The service refused the open entry for good.
    pub(crate) fn refused(&mut self, words: &str) {
        if let Some(pending) = &mut self.pending {
            pending.stopped = Some(Stopped::Refused(words.to_owned()));
        }
    }

    /// The sum of the open entry's minute, asked for after [`SendStep::Ask`].
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
                    // Certain now that it does not count: the same entry, in a new window.
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

    /// An operator's decision about a stopped entry: it counts, or it does not and is owed anew.
    /// False if no entry is stopped.
    pub(crate) fn decide(&mut self, counts: bool) -> bool {
        let stopped = self.pending.as_ref().is_some_and(|pending| pending.stopped.is_some());
        match (stopped, counts) {
            (true, true) => self.delivered(),
            (true, false) => self.void(),
            (false, _) => {}
        }
        stopped
    }

    /// The accepted entry whose sum is to be asked for next, if one is due.
    pub(crate) fn to_verify(&self, now_s: i64) -> Option<&SentEntry> {
        self.sent.iter().find(|sent| now_s.saturating_sub(sent.at_s) >= VERIFY_S)
    }

    /// The sum of an accepted entry's minute. `reported`: somebody said that the service threw it
    /// away.
    pub(crate) fn verified(&mut self, k: u64, sum: i64, reported: bool, now_s: i64) {
        let Some(at) = self.sent.iter().position(|sent| sent.entry.k == k) else { return };
        let sent = &mut self.sent[at];
        if u64::try_from(sum).is_ok_and(|sum| sum == sent.entry.value) {
            let OutboxEntry { value, atoms, .. } = self.sent.remove(at).entry;
            self.settled.entries += 1;
            self.settled.value = self.settled.value.saturating_add(value);
            self.settled.atoms = self.settled.atoms.saturating_add(atoms);
        } else if sum == 0 && reported {
            let entry = self.sent.remove(at).entry;
            self.frozen = self.frozen.saturating_sub(entry.atoms);
            self.requeued += 1;
        } else {
            sent.doubt = Some(sum);
            sent.at_s = now_s;
        }
    }

    /// Whole units that were accepted or verified: what the service's sum is held against.
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
            // Nothing of it can be under way.
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

//! What the answer to a call means: the state that came back is adopted, never computed.

use super::balance::{Balance, signed};
use super::call::{Context, Op};
use super::negotiation::{Closing, Negotiation};
use crate::clock::Now;
use crate::ids::WriterId;
use crate::quota::demand::RootSeen;
use crate::quota::pool::{self, Entry, View};
use crate::store::{Item, StoreError, StoreErrorKind};

impl Negotiation {
    /// Takes in the answer to the call from [`next`](Self::next). `Ok(true)`: call `next` again at
    /// once. After an unknown outcome the call stays in flight until it is answered, however its
    /// repeats fail; after any other error it is dropped, because it was not applied.
    pub(super) fn answered(
        &mut self,
        at: &mut Balance,
        with: Context<'_>,
        answer: Result<Option<Item>, StoreError>,
    ) -> Result<bool, StoreError> {
        let Some(open) = self.in_flight.take() else {
            return Ok(false);
        };
        let op = open.0;
        if let (Op::PayRoot(payment), Ok(item)) = (op, &answer) {
            self.in_doubt = false;
            self.adopt_payment(at, with, item.as_ref(), payment)?;
            at.wakes = true;
            return Ok(self.closing != Closing::No || self.is_short(at, with.now));
        }
        if op == Op::Seek && answer.is_ok() {
            // The root was read together with the shard.
            (self.debts.has_charged, self.debts.has_given) = (false, false);
        }
        let read = |item: Item| View::read(&item, with.writer.incarnation);
        match answer.and_then(|item| item.map(read).transpose()) {
            Ok(view) => {
                self.in_doubt = false;
                self.seen_ns = with.now.mono_ns;
                self.adopt(at, view, op, with.now);
                at.wakes = true;
                let folded = matches!(op, Op::Fold(_)) && !self.sealed;
                Ok(!folded && (self.closing != Closing::No || self.is_short(at, with.now)))
            }
            Err(error) => {
                // A seek carries no entry of ours: it is started over.
                self.in_doubt |= error.kind == StoreErrorKind::Unknown && op != Op::Seek;
                if self.in_doubt {
                    self.in_flight = Some(open);
                } else if !self.sealed {
                    self.set_apart(at);
                    self.keep(at, op);
                    at.wakes = true;
                }
                Err(error)
            }
        }
    }

    /// Takes back what was set aside to be given back.
    fn keep(&self, at: &mut Balance, op: Op) {
        match op {
            Op::Give(next) => at.release(self.bound().saturating_sub(next.held)),
            // What was settled late meanwhile has lowered `left` by itself.
            Op::Fold(used) => at.release(self.bound().saturating_sub(used)),
            Op::Take(_) | Op::Relimit | Op::Look | Op::Seek => {}
            Op::Charge(_) | Op::Pay(_) | Op::PayRoot(_) => {}
        }
    }

    /// Adopts the state that came back: `left` moves by what our entry says, not by what was asked.
    fn adopt(&mut self, at: &mut Balance, view: Option<View>, op: Op, now: Now) {
        let mine = view.and_then(|view| view.mine);
        if self.sealed || self.is_closed(mine, op) {
            if !self.sealed {
                self.keep(at, op); // or it would look like an open hold, for ever
            }
            (self.sealed, self.remains) = (true, mine.map(Box::new));
            self.end_payment(false);
            return;
        }
        let (before, first) = ((self.held(), self.bound()), self.view.is_none());
        self.see(at, view, op);
        let (held, bound) = (self.held(), self.bound());
        let made = |entry| mine == Some(entry);
        let made_by = |op| matches!(op, Op::Take(entry) | Op::Charge(entry) if made(entry));
        match op {
            // An entry that this lease did not make: this process leased from the pool before, and
            // dropped the lease once all of it was settled or given back.
            Op::Take(_) | Op::Charge(_) | Op::Look | Op::Seek if first && !made_by(op) => {
                at.total = at.total.saturating_add(held);
                self.ceiling.raise(held);
            }
            Op::Take(entry) => {
                at.release(bound.saturating_sub(before.1));
                self.may_be_late = mine.is_none();
                if made(entry) {
                    self.resize(held.saturating_sub(before.0), now);
                }
            }
            Op::Charge(entry) => {
                if made(entry) {
                    self.charged(held.saturating_sub(before.0));
                }
                at.release(bound.saturating_sub(before.1));
            }
            Op::Pay(entry) => {
                at.release(bound.saturating_sub(before.1));
                // Other processes have moved units meanwhile: retry with what is still owed.
                if made(entry) {
                    self.end_payment(true);
                }
            }
            Op::PayRoot(_) => {} // answered by the root, see `adopt_payment`
            // `left` was lowered before the call; a refusal restores it.
            Op::Give(entry) if !made(entry) => at.release(bound.saturating_sub(entry.held)),
            // Use may exceed what the ceiling allowed: the entry covers it now.
            Op::Give(_) => at.release(bound.saturating_sub(before.1)),
            // All of it was to go back; if that failed, it is ours again.
            Op::Fold(used) => at.release(bound.saturating_sub(used)),
            // A late copy of a refused grant may have been applied once there were units again.
            Op::Relimit | Op::Look | Op::Seek => {
                at.release(bound.saturating_sub(before.1));
                self.may_be_late &= self.closing == Closing::No; // it has been looked for
            }
        }
        // Units given back to a shard go to the root if that owes.
        self.debts.has_given |= self.shard.is_some() && matches!(op, Op::Give(_) | Op::Fold(_));
        self.note_free(at);
        self.note_view(at);
    }

    /// Takes the pool for what this answer shows.
    fn see(&mut self, at: &mut Balance, view: Option<View>, op: Op) {
        (self.view, self.unseen) = (view, false);
        // Shards are searched before a refusal stands.
        self.stale = self.is_split() && op != Op::Seek;
        self.peak = self.peak.take().filter(|peak| view.is_some_and(|v| peak.rev > v.terms.rev));
        self.debts.absent = view.is_none();
        let rev = view.map_or(self.asked_rev, |view| view.terms.rev);
        self.seen_rev = rev.max(self.asked_rev);
        (at.is_seen, at.is_looked_for) = (true, false);
        self.note_moved(at);
    }

    /// Adopts the root after a payment from a shard.
    fn adopt_payment(
        &mut self,
        at: &mut Balance,
        with: Context<'_>,
        root: Option<&Item>,
        payment: u64,
    ) -> Result<(), StoreError> {
        let last = root.and_then(|item| pool::last_payment(item, with.of.incarnation));
        self.debts.last_payment = last;
        let root = root.map(|item| View::read(item, WriterId::NONE)).transpose()?;
        self.root = root.map_or_else(Default::default, |root| RootSeen::of(&root).into());
        if last == Some(payment) {
            self.end_payment(true);
        }
        self.note_free(at);
        self.note_view(at);
        Ok(())
    }

    /// Updates what is free and what is withheld, as last seen.
    fn note_free(&mut self, at: &mut Balance) {
        // Units that only a ceiling keeps from being served count as free.
        let capped = signed(self.held().saturating_sub(self.bound()));
        let unmade = if self.shard.is_some() { 0 } else { self.terms.limit };
        let here = self.view.map_or(unmade, |view| view.free);
        let in_root = self.root.free.max(-signed(self.root.owed));
        let free = here.saturating_add(self.moved()).saturating_add(capped);
        let free = free.saturating_add(in_root);
        at.free = free.saturating_add(signed(self.withheld));
        self.set_apart(at);
        // Ahead of need: when little is left of the lease, or of what its ceiling allows.
        at.low = if free > 0 { signed((self.granted / 4).min(self.soon())) } else { 0 };
    }

    /// A generous estimate of use while a record or a grant is on its way. A larger one would
    /// trigger records that the flush is about to write anyway.
    fn soon(&self) -> u64 {
        let ahead = self.ahead();
        (ahead / 8).max(self.first_ask.saturating_mul(2)).min(ahead / 2)
    }

    /// Whether another process closed our entry, which happens only after our log is sealed. An
    /// entry that we folded ourselves is gone, too.
    fn is_closed(&self, mine: Option<Entry>, op: Op) -> bool {
        let had = self.view.is_some_and(|view| view.mine.is_some());
        mine.map_or(had && !matches!(op, Op::Fold(_)), |mine| mine.is_closed())
    }
}

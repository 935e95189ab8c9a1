//! The cold half of a lease: chooses calls to the pool and interprets the answers. A state machine
//! without I/O, driven by the renewer, one call at a time.

use std::sync::atomic::Ordering;

use super::ask::OPS;
use super::{Closing, Cold, Lease, LeaseCall, Op, Writer, signed};
use crate::clock::Now;
use crate::quota::demand::RootSeen;
use crate::quota::pool::{self, Entry, Terms, View};
use crate::store::{Item, StoreError, StoreErrorKind};

impl Lease {
    /// The catalog or the directory has another limit, or the same one under a newer revision:
    /// other processes may have written one in between. Takes effect with the next call, which the
    /// next request that needs units triggers: a refusal under the old limit is forgotten, and
    /// units a lowered limit lacks are not served until then.
    pub(crate) fn retarget(&self, terms: Terms) {
        let mut cold = self.cold();
        if terms.rev <= cold.terms.rev {
            return;
        }
        self.rev.store(terms.rev, Ordering::Relaxed);
        let is_same = terms.limit == cold.terms.limit;
        if is_same && cold.view.is_none_or(|view| view.terms.limit == terms.limit) {
            cold.terms = terms;
            return;
        }
        let before = cold.limit_in_force();
        cold.note_peak(terms);
        cold.terms = terms;
        // Other processes may have written it already: free units seen are then free under it.
        let moved = cold.limit_in_force().saturating_sub(before);
        self.free_seen.fetch_add(moved, Ordering::Relaxed);
        self.moved.store(true, Ordering::Relaxed);
        self.refused_until_ns.store(0, Ordering::Release);
        let moving = self.moving();
        self.set_apart(&mut cold);
        drop(moving);
        self.note_debt(&mut cold);
    }

    /// Notes whether the pool was created under another limit.
    pub(super) fn note_moved(&self, cold: &Cold) {
        if cold.view.is_some_and(|view| view.moved || view.terms.limit != cold.terms.limit) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Withholds what the pool lacks, both from what is left here and from what requests give back
    /// later. The caller holds a `Moving`.
    fn set_apart(&self, cold: &mut Cold) {
        let apart = cold.lacking();
        let more = signed(apart).saturating_sub(signed(cold.withheld));
        self.left.fetch_sub(more, Ordering::AcqRel);
        self.free_seen.fetch_add(more, Ordering::AcqRel);
        cold.withheld = apart;
    }

    /// [`retarget`](Self::retarget) for the common case, no news: takes no lock unless the terms
    /// are newer.
    pub(crate) fn retarget_if_changed(&self, terms: Terms) {
        if self.rev.load(Ordering::Relaxed) < terms.rev {
            self.retarget(terms);
        }
    }

    /// The limit as the catalog has it.
    pub(crate) fn terms(&self) -> Terms {
        self.cold().terms
    }

    /// The lease is idle: what is left goes back, until the next ask.
    pub(crate) fn rest(&self) {
        let mut cold = self.cold();
        if cold.closing == Closing::No {
            cold.closing = Closing::Resting;
        }
    }

    /// The gate closes: from now on units are only given back.
    pub(crate) fn close(&self) {
        self.cold().closing = Closing::ForGood;
    }

    /// Whether nothing is left to give back and no call is in flight.
    pub(crate) fn is_returned(&self) -> bool {
        let cold = self.cold();
        let left = self.left.load(Ordering::Acquire);
        let nothing = match cold.view.and_then(|view| view.mine) {
            _ if cold.sealed => cold.remains.is_none(),
            None => !cold.may_be_late,
            Some(mine) => left <= 0 && mine.held <= cold.used(left),
        };
        let is_written = cold.peak.is_none() || cold.sealed;
        let is_charged = self.chargeable(&cold) == 0 && !cold.debts.is_uncarried();
        cold.in_flight.is_none() && nothing && is_written && is_charged
    }

    /// Whether another process closed the entry: this incarnation is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.cold().sealed
    }

    /// Whether it takes nothing more from its pool, whatever is asked of it: use that it cannot pay
    /// is owed, and never waits for it.
    pub(crate) fn takes_no_more(&self) -> bool {
        let cold = self.cold();
        cold.sealed || cold.closing == Closing::ForGood
    }

    /// Whether it waits for a ceiling, not for the pool.
    pub(crate) fn is_capped(&self) -> bool {
        self.cold().ceiling.wanted
    }

    /// Whether the pool had too little when it was last asked.
    pub(crate) fn is_refused_now(&self, now: Now) -> bool {
        self.is_refused(u64::MAX, now)
    }

    /// The pool may have more than when it refused.
    pub(crate) fn forget_refusal(&self) {
        self.refused_until_ns.store(0, Ordering::Release);
        self.cold().stale = true;
    }

    /// Another process has probably created its pool: read it before creating it.
    pub(crate) fn look_first(&self) {
        let mut cold = self.cold();
        cold.unseen |= cold.view.is_none();
    }

    /// The pool was found to have so many writers that this lease draws on its sub-pool from now
    /// on. The call in flight has been answered; it has changed nothing.
    pub(crate) fn divert(&self, shard: u16) {
        let mut cold = self.cold();
        (cold.in_flight, cold.in_doubt, cold.unseen) = (None, false, false);
        (cold.shard, cold.stale) = (Some(shard), true);
    }

    /// Whether it has a sub-pool, or is to stay with the root.
    pub(crate) fn has_place(&self) -> bool {
        let cold = self.cold();
        cold.shard.is_some() || cold.in_root
    }

    /// Its root owes. If nothing of ours is in the sub-pool and it has nothing to give, the lease
    /// moves to the root, where the debt is visible. No call is in flight.
    pub(crate) fn follow_debt(&self) {
        let mut cold = self.cold();
        let is_clear = cold.view.is_none_or(|view| view.mine.is_none() && view.free <= 0);
        let follows = is_clear && cold.in_flight.is_none() && cold.closing == Closing::No;
        let follows = follows && cold.shard.is_some() && !cold.sealed;
        if follows {
            cold.unseen = true;
            cold.go_to_root();
        }
    }

    /// The sub-pool that holds its entry; `None`: the pool itself.
    pub(crate) fn shard(&self) -> Option<u16> {
        self.cold().shard
    }

    /// Records the root as it was last read for this lease.
    pub(crate) fn saw_root(&self, root: RootSeen) {
        self.cold().see_root(root);
    }

    /// Whether it has given back all it could and its entry is gone.
    pub(crate) fn has_left(&self) -> bool {
        let cold = self.cold();
        cold.closing != Closing::No && cold.view.is_some_and(|view| view.mine.is_none())
    }

    /// Whether it has not seen its pool yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.cold().view.is_none()
    }

    /// The call to make now, or `None` if there is nothing to ask for; the lease may then be queued
    /// again. While a call is in flight, returns that same call.
    pub(crate) fn next(&self, writer: &Writer, now: Now) -> Option<LeaseCall> {
        let mut cold = self.cold();
        if let Some(open) = cold.in_flight.as_deref() {
            let (op, call) = open.clone();
            // Made before and not answered, perhaps cut off: its outcome is unknown.
            cold.in_doubt |= op != Op::Seek;
            return Some(call);
        }
        loop {
            // A sealed writer gets no more units, whatever is wanted.
            let wanted = !cold.sealed && self.wanted.load(Ordering::SeqCst) > 0;
            if cold.closing == Closing::Resting && wanted {
                cold.closing = Closing::No;
            }
            let next = match cold.closing {
                _ if cold.sealed => self.settle_sealed(&mut cold, writer),
                Closing::No => self.ask(&mut cold, writer, now),
                Closing::Resting | Closing::ForGood => self.give(&mut cold, writer),
            };
            if let Some((op, call)) = next {
                cold.asked_rev = cold.terms.rev.max(cold.beside_rev);
                cold.in_flight = Some(Box::new((op, call.clone())));
                return Some(call);
            }
            // Only now may it be queued again: two drivers of one lease would make two calls at
            // once, and a late answer would be taken for the newer one. An ask made while it was
            // still in hand did not queue it, so check once more.
            self.queued.store(false, Ordering::SeqCst);
            let asked = cold.closing != Closing::ForGood
                && !cold.sealed
                && self.wanted.load(Ordering::SeqCst) > 0
                && self.is_short(&cold, now)
                && !cold.ceiling.wanted;
            if !asked || self.queued.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
    }

    /// Takes in the answer to the call from [`next`](Self::next). `Ok(true)`: call `next` again at
    /// once. After an unknown outcome the call stays in flight until it is answered, however its
    /// repeats fail; after any other error it is dropped, because it was not applied.
    pub(crate) fn answered(
        &self,
        writer: &Writer,
        now: Now,
        answer: Result<Option<Item>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut cold = self.cold();
        let Some(open) = cold.in_flight.take() else {
            return Ok(false);
        };
        let op = open.0;
        if let (Op::PayRoot(payment), Ok(item)) = (op, &answer) {
            cold.in_doubt = false;
            self.adopt_payment(&mut cold, item.as_ref(), payment)?;
            self.changed.notify_waiters();
            return Ok(cold.closing != Closing::No || self.is_short(&cold, now));
        }
        if op == Op::Seek && answer.is_ok() {
            cold.debts.told_root();
        }
        let read = |item: Item| View::read(&item, writer.incarnation);
        match answer.and_then(|item| item.map(read).transpose()) {
            Ok(view) => {
                cold.in_doubt = false;
                self.adopt(&mut cold, view, op, now);
                self.changed.notify_waiters();
                let folded = op == Op::Fold && !cold.sealed;
                Ok(!folded && (cold.closing != Closing::No || self.is_short(&cold, now)))
            }
            Err(error) => {
                // A seek carries no entry of ours: it is started over.
                cold.in_doubt |= error.kind == StoreErrorKind::Unknown && op != Op::Seek;
                if cold.in_doubt {
                    cold.in_flight = Some(open);
                } else if !cold.sealed {
                    let _moving = self.moving();
                    self.set_apart(&mut cold);
                    self.keep(&cold, op);
                }
                Err(error)
            }
        }
    }

    /// Takes back what was set aside to be given back.
    fn keep(&self, cold: &Cold, op: Op) {
        match op {
            Op::Give(next) => self.release(cold.bound().saturating_sub(next.held)),
            Op::Fold => self.release(cold.bound().saturating_sub(self.total())),
            Op::Take(_) | Op::Relimit | Op::Look | Op::Seek => {}
            Op::Charge(_) | Op::Pay(_) | Op::PayRoot(_) => {}
        }
    }

    /// Adopts the state that came back: `left` moves by what our entry says, not by what was asked.
    fn adopt(&self, cold: &mut Cold, view: Option<View>, op: Op, now: Now) {
        let mine = view.and_then(|view| view.mine);
        if cold.sealed || cold.is_closed(mine, op) {
            if !cold.sealed {
                self.keep(cold, op); // or it would look like an open hold, for ever
            }
            (cold.sealed, cold.remains) = (true, mine);
            cold.end_payment(false);
            return;
        }
        let _moving = self.moving();
        let (before, first) = ((cold.held(), cold.bound()), cold.view.is_none());
        // Sub-pools are searched before a refusal stands.
        let elsewhere = cold.shard.is_some() || view.is_some_and(|view| view.sub_pools > 0);
        (cold.view, cold.stale, cold.unseen) = (view, elsewhere && op != Op::Seek, false);
        cold.peak = cold.peak.filter(|peak| view.is_some_and(|v| peak.rev > v.terms.rev));
        let (held, bound) = (cold.held(), cold.bound());
        let made = |entry| mine == Some(entry);
        let made_by = |op| matches!(op, Op::Take(entry) | Op::Charge(entry) if made(entry));
        cold.debts.absent = view.is_none();
        self.seen.store(true, Ordering::Release);
        cold.seen_rev = view.map_or(cold.asked_rev, |view| view.terms.rev.max(cold.asked_rev));
        self.looked_for.store(false, Ordering::Release);
        self.note_moved(cold);
        match op {
            // An entry that this lease did not make: this process leased from the pool before, and
            // dropped the lease once all of it was settled or given back.
            Op::Take(_) | Op::Charge(_) | Op::Look | Op::Seek if first && !made_by(op) => {
                self.total.fetch_add(held, Ordering::Relaxed);
                // A record of use since then left that out, and the log has more: the sum is
                // recorded again.
                if self.logged.load(Ordering::Relaxed) == 0 {
                    self.logged.store(held, Ordering::Relaxed);
                }
                cold.ceiling.was_used(held);
            }
            Op::Take(entry) => {
                self.release(bound.saturating_sub(before.1));
                cold.may_be_late = mine.is_none();
                if made(entry) {
                    cold.resize(held.saturating_sub(before.0), now);
                }
            }
            Op::Charge(entry) => {
                if made(entry) {
                    cold.charged(held.saturating_sub(before.0));
                }
                self.release(bound.saturating_sub(before.1));
            }
            Op::Pay(entry) => {
                self.release(bound.saturating_sub(before.1));
                // Other processes have moved units meanwhile: retry with what is still owed.
                if made(entry) {
                    cold.end_payment(true);
                }
            }
            Op::PayRoot(_) => {} // answered by the root, see `adopt_payment`
            // `left` was lowered before the call; a refusal restores it.
            Op::Give(entry) if !made(entry) => self.release(bound.saturating_sub(entry.held)),
            // Use may exceed what the ceiling allowed: the entry covers it now.
            Op::Give(_) => self.release(bound.saturating_sub(before.1)),
            // All of it was to go back; if that failed, it is ours again.
            Op::Fold => self.release(bound.saturating_sub(self.total()).min(held)),
            // A late copy of a refused grant may have been applied once there were units again.
            Op::Relimit | Op::Look | Op::Seek => {
                self.release(bound.saturating_sub(before.1));
                cold.may_be_late &= cold.closing == Closing::No; // it has been looked for
            }
        }
        // Units given back to a sub-pool go to the root if that owes.
        cold.debts.has_given |= cold.shard.is_some() && matches!(op, Op::Give(_) | Op::Fold);
        self.note_free(cold);
        self.note_view(cold);
    }

    /// Adopts the root after a payment from a sub-pool.
    fn adopt_payment(
        &self,
        cold: &mut Cold,
        root: Option<&Item>,
        payment: u64,
    ) -> Result<(), StoreError> {
        let last = root.and_then(|item| pool::last_payment(item, self.incarnation));
        cold.debts.last_payment = last;
        let root = root.map(|item| View::read(item, 0)).transpose()?;
        let _moving = self.moving();
        cold.see_root(root.map_or_else(RootSeen::default, |root| RootSeen::of(&root)));
        if last == Some(payment) {
            cold.end_payment(true);
        }
        self.note_free(cold);
        self.note_view(cold);
        Ok(())
    }

    /// Updates what is free and what is withheld, as last seen; the caller holds a `Moving`.
    fn note_free(&self, cold: &mut Cold) {
        let (view, held, bound) = (cold.view, cold.held(), cold.bound());
        // Units that only a ceiling keeps from being served count as free.
        let capped = signed(held.saturating_sub(bound));
        let unmade = if cold.shard.is_some() { 0 } else { cold.terms.limit };
        let free =
            view.map_or(unmade, |v| v.free).saturating_add(cold.moved()).saturating_add(capped);
        let free = free.saturating_add(cold.elsewhere.max(-signed(cold.owed_elsewhere)));
        self.free_seen.store(free.saturating_add(signed(cold.withheld)), Ordering::Release);
        self.set_apart(cold);
        // Ahead of need: when little is left of the lease, or of what its ceiling allows.
        let low = if free > 0 { signed((cold.granted / 4).min(cold.soon())) } else { 0 };
        self.low.store(low, Ordering::Relaxed);
    }

    /// Lowers `left` by what remains, then asks to give that back.
    pub(super) fn give(&self, cold: &mut Cold, writer: &Writer) -> Option<(Op, LeaseCall)> {
        if cold.closing == Closing::ForGood {
            self.own_up(cold); // nothing more is asked for
        }
        if let Some(next) = self.ask_debt(cold, writer) {
            return Some(next);
        }
        let view = cold.view?;
        let key = self.key(cold.shard, writer);
        if let Some(peak) = cold.peak {
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key, &view, peak))));
        }
        let Some(mine) = view.mine else {
            return cold.may_be_late.then_some((Op::Look, LeaseCall::Look(key)));
        };
        let back = self.set_aside(cold, mine);
        // Excludes what is in use now: what is released from here on stays ours.
        let used = cold.used_beside(back);
        if back < 0 && used > mine.held {
            return None; // a debt stays
        }
        if cold.closing == Closing::ForGood && used == self.total() {
            return Some((
                Op::Fold,
                LeaseCall::Write(pool::fold(key, self.incarnation, mine, used)),
            ));
        }
        if back <= 0 && mine.held <= used {
            return None;
        }
        let op = OPS.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { op, held: used, preauthorised: used };
        let write = pool::give(key, writer.incarnation, &view, entry);
        Some((Op::Give(entry), LeaseCall::Write(write)))
    }

    /// Lowers `left` by all that is unused, withheld units included, and returns how much that was.
    /// While that is on its way, the rest of what the pool lacks is withheld from what requests
    /// give back.
    fn set_aside(&self, cold: &mut Cold, mine: Entry) -> i64 {
        let _moving = self.moving();
        let before = signed(cold.withheld);
        let lacks = signed(cold.lacking());
        let apart = |rest: i64| {
            let back = mine.held.saturating_sub(cold.used_beside(rest));
            lacks.saturating_sub(signed(back)).max(0)
        };
        let next = |left: i64| {
            let rest = left.saturating_add(before);
            Some(rest.min(0).saturating_sub(apart(rest)))
        };
        let left = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let rest = left.unwrap_or_else(|left| left).saturating_add(before);
        let apart = apart(rest);
        self.free_seen.fetch_add(apart.saturating_sub(before), Ordering::AcqRel);
        cold.withheld = apart.unsigned_abs();
        rest
    }

    /// Folds the entry of a sealed incarnation once nothing of it is open: only this process knows
    /// exactly what it used.
    fn settle_sealed(&self, cold: &mut Cold, writer: &Writer) -> Option<(Op, LeaseCall)> {
        if let Some(next) = self.tell_root(cold) {
            return Some(next);
        }
        let mine = cold.remains?;
        if cold.closing == Closing::No {
            return None;
        }
        self.forgo_rest(cold);
        if self.open_of(cold) > 0 {
            return None;
        }
        let key = self.key(cold.shard, writer);
        Some((Op::Fold, LeaseCall::Write(pool::fold(key, self.incarnation, mine, self.total()))))
    }

    /// Lowers what may be served to what requests have used or hold: a request still running must
    /// not draw more from an entry about to be lowered to what was used.
    fn forgo_rest(&self, cold: &mut Cold) {
        let withheld = signed(std::mem::take(&mut cold.withheld));
        let rest = self.left.swap(0, Ordering::AcqRel).saturating_add(withheld);
        if rest < 0 {
            self.left.fetch_add(rest, Ordering::AcqRel); // a debt stays
            return;
        }
        let used = cold.used_beside(rest);
        if let Some(mine) = cold.view.as_mut().and_then(|view| view.mine.as_mut()) {
            (mine.held, mine.preauthorised) = (used, used);
        }
    }
}

impl Cold {
    /// Moves the lease to the root, whose state is not known yet.
    pub(super) fn go_to_root(&mut self) {
        (self.shard, self.in_root, self.view) = (None, true, None);
        (self.elsewhere, self.share, self.owed_elsewhere) = (0, 0, 0);
        self.debts.absent = false;
    }

    /// The root as read.
    fn see_root(&mut self, root: RootSeen) {
        (self.elsewhere, self.share) = (root.free, root.share);
        self.owed_elsewhere = root.owed;
    }

    pub(super) fn held(&self) -> u64 {
        self.view.and_then(|v| v.mine).map_or(0, |mine| mine.held)
    }

    /// What requests have used or hold, given what is left; more than the bound where a late cost
    /// has made a debt.
    pub(super) fn used(&self, left: i64) -> u64 {
        self.used_beside(left.saturating_add(signed(self.withheld)))
    }

    /// The same, given the sum of left and withheld.
    fn used_beside(&self, rest: i64) -> u64 {
        let bound = self.bound();
        match rest {
            debt @ ..0 => bound.saturating_add(debt.unsigned_abs()),
            rest => bound.saturating_sub(rest.unsigned_abs()),
        }
    }

    /// Late use owed, as far as is known, under the limits in force since.
    pub(super) fn owed(&self) -> u64 {
        let terms = self.peak.unwrap_or(self.terms);
        let here = self.view.map_or(0, |view| view.owed_under(terms));
        let newer = self.view.map(|view| view.terms).filter(|known| known.rev < terms.rev);
        let raised = newer.map_or(0, |known| terms.limit.saturating_sub(known.limit).max(0));
        here.saturating_add(self.owed_elsewhere.saturating_sub(raised.unsigned_abs()))
    }

    /// The same under the limit as it is stored, in the item that a payment goes to.
    pub(super) fn owed_in_store(&self) -> u64 {
        let here = || self.view.map_or(0, |view| view.owed());
        if self.shard.is_some() { self.owed_elsewhere } else { here() }
    }

    /// Called before the limit changes to this. A higher limit that has paid part of what is owed
    /// is kept, and written first.
    fn note_peak(&mut self, terms: Terms) {
        let most = self.peak.unwrap_or(self.terms);
        let has_paid = |view: View| {
            let is_unwritten = most.rev > view.terms.rev && most.limit > view.terms.limit;
            is_unwritten && view.owed() > 0
        };
        let is_paid = self.shard.is_none() && self.view.is_some_and(has_paid);
        self.peak = (is_paid && terms.limit < most.limit).then_some(most);
    }

    /// The newer of the pool's limit and ours.
    fn limit_in_force(&self) -> i64 {
        let written = self.view.map(|view| view.terms).filter(|it| it.rev >= self.terms.rev);
        written.unwrap_or(self.terms).limit
    }

    /// How far `free` is below zero, as far as is known: owed by late use, or given out before the
    /// limit was lowered.
    fn lacking(&self) -> u64 {
        let Some(view) = self.view else { return 0 };
        let free = if self.shard.is_some() { view.free.min(self.elsewhere) } else { view.free };
        free.saturating_add(self.moved()).min(0).unsigned_abs()
    }

    /// How far a limit that is not written to the pool yet moves what is free there.
    fn moved(&self) -> i64 {
        let behind = self.view.filter(|view| self.is_outdated(view));
        behind.map_or(0, |view| view.free_under(self.terms).saturating_sub(view.free))
    }

    /// Whether another process closed our entry, which happens only after our log is sealed. An
    /// entry that we folded ourselves is gone, too.
    fn is_closed(&self, mine: Option<Entry>, op: Op) -> bool {
        let had = self.view.is_some_and(|view| view.mine.is_some());
        mine.map_or(had && op != Op::Fold, |mine| mine.is_closed())
    }
}

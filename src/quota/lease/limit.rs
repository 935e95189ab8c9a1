//! A changed limit: what it moves before the pool is written, and what the pool lacks under it.

use super::balance::{Balance, signed};
use super::negotiation::Negotiation;
use crate::quota::pool::{Terms, View};

impl Negotiation {
    /// The catalog or the directory has other terms. See
    /// [`Lease::retarget`](super::Lease::retarget).
    pub(super) fn retarget(&mut self, at: &mut Balance, terms: Terms) {
        if terms.rev <= self.terms.rev {
            return;
        }
        let is_same = terms.limit == self.terms.limit;
        if is_same && self.view.is_none_or(|view| view.terms.limit == terms.limit) {
            self.terms = terms;
            return;
        }
        let before = self.limit_in_force();
        self.note_peak(terms);
        self.terms = terms;
        // Other processes may have written it already: free units seen are then free under it.
        let moved = self.limit_in_force().saturating_sub(before);
        at.free = at.free.saturating_add(moved);
        at.has_moved = true;
        at.refused_until_ns = 0;
        self.set_apart(at);
        self.note_debt(at);
    }

    /// Notes whether the pool was created under another limit.
    pub(super) fn note_moved(&self, at: &mut Balance) {
        at.has_moved |=
            self.view.is_some_and(|view| view.moved || view.terms.limit != self.terms.limit);
    }

    /// Withholds what the pool lacks, both from what is left here and from what requests give back
    /// later.
    pub(super) fn set_apart(&mut self, at: &mut Balance) {
        let apart = self.lacking();
        let more = signed(apart).saturating_sub(signed(self.withheld));
        at.left = at.left.saturating_sub(more);
        at.free = at.free.saturating_add(more);
        self.withheld = apart;
    }

    /// Called before the limit changes to this. A higher limit that has paid part of what is owed
    /// is kept, and written first.
    fn note_peak(&mut self, terms: Terms) {
        let most = self.peak.as_deref().copied().unwrap_or(self.terms);
        let has_paid = |view: View| {
            let is_unwritten = most.rev > view.terms.rev && most.limit > view.terms.limit;
            is_unwritten && view.owed() > 0
        };
        let is_paid = self.shard.is_none() && self.view.is_some_and(has_paid);
        self.peak = (is_paid && terms.limit < most.limit).then(|| Box::new(most));
    }

    /// The newer of the pool's limit and ours.
    fn limit_in_force(&self) -> i64 {
        let written = self.view.map(|view| view.terms).filter(|it| it.rev >= self.terms.rev);
        written.unwrap_or(self.terms).limit
    }

    /// How far what is free in the pool is below zero, as far as is known: owed by late use, or
    /// given out before the limit was lowered.
    pub(super) fn lacking(&self) -> u64 {
        let Some(view) = self.view else { return 0 };
        let free = if self.shard.is_some() { view.free.min(self.root.free) } else { view.free };
        free.saturating_add(self.moved()).min(0).unsigned_abs()
    }

    /// How far a limit that is not written to the pool yet moves what is free there.
    pub(super) fn moved(&self) -> i64 {
        let behind = self.view.filter(|view| self.is_outdated(view));
        behind.map_or(0, |view| view.free_under(self.terms).saturating_sub(view.free))
    }

    /// The limit to write next.
    pub(super) fn unwritten(&self, view: &View) -> Option<Terms> {
        let peak = self.peak.as_deref().copied();
        peak.or_else(|| self.is_outdated(view).then_some(self.terms))
    }

    pub(super) fn is_outdated(&self, view: &View) -> bool {
        let newer = self.terms.rev > view.terms.rev;
        // A shard learns its root's limit from any process that reads both.
        let seen = self.shard.is_some() && !self.stale;
        newer && self.terms.limit != view.terms.limit && !seen
    }
}

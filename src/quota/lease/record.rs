//! What the usage log does to a lease: a ceiling is proposed with each record, and in force once
//! the record is in the store.

use std::time::Duration;

use super::balance::{Balance, signed};
use super::call::Op;
use super::negotiation::Negotiation;
use crate::clock::Now;

impl Negotiation {
    /// The ceiling for the record being made: current use plus this much time of demand. `None`:
    /// the one in force has room for that.
    pub(super) fn propose_ceiling(
        &mut self,
        at: &mut Balance,
        now: Now,
        ahead: Duration,
    ) -> Option<u64> {
        (self.ceiling.wanted, self.ceiling.ahead) = (false, ahead);
        self.ceiling.measure(at.total, now);
        let room = at.asked().max(self.ahead());
        let ceiling = self.used(at).saturating_add(room).min(self.held());
        let is_higher = ceiling > self.bound() && !self.sealed;
        // Without a record no answer comes to those that wait: what they miss may be here again.
        at.wakes |= !is_higher && at.wanted > 0;
        is_higher.then_some(ceiling)
    }

    /// A record with this ceiling is in the store. For a closed entry that comes too late: its
    /// bound, and what is left with it, stay as they were.
    pub(super) fn ceiling_logged(&mut self, at: &mut Balance, ceiling: u64) {
        if self.sealed {
            return;
        }
        let before = self.bound();
        self.ceiling.raise(ceiling);
        let more = self.bound().saturating_sub(before);
        // Units on their way back are not served again; the answer to that call finds the ceiling
        // here.
        let op = self.in_flight.as_deref().map(|(op, _)| *op);
        if more > 0 && !matches!(op, Some(Op::Give(_) | Op::Fold(_))) {
            at.release(more);
            at.free = at.free.saturating_sub(signed(more));
            at.wakes = true;
        }
    }
}

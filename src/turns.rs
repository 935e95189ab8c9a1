//! Fair scheduling by tenant of work that waits for one of a few places.
//!
//! Tenants take turns, and none starts another piece of work unless more places are free than it
//! already has. So a tenant alone with much to do gets half of the places, two get a third each,
//! and the next to come always finds some. The same rule applies to all queued work, so that no
//! tenant fills the memory either.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::ids::Surrogate;

/// See the [module](self). Callers without a known tenant yet take turns under another key.
#[derive(Debug)]
pub(crate) struct Turns<T, K = Surrogate> {
    places: usize,
    most_held: usize,
    tenants: HashMap<K, TenantTurn<T>>,
    /// Tenants with waiting work, each once, in order of their turns.
    order: VecDeque<K>,
    busy: usize,
    held: usize,
}

/// One tenant's work.
#[derive(Debug)]
struct TenantTurn<T> {
    new: VecDeque<T>,
    again: VecDeque<T>,
    /// The last turn favored `again`, so `new` is next.
    was_again: bool,
    busy: usize,
    /// Waiting, busy or paused.
    held: usize,
}

impl<T, K: Copy + Eq + Hash> Turns<T, K> {
    /// For this many places, and at most this much work held.
    pub(crate) fn new(places: usize, most_held: usize) -> Self {
        let (tenants, order) = (HashMap::new(), VecDeque::new());
        Self { places, most_held, tenants, order, busy: 0, held: 0 }
    }

    /// Queues new work, or returns it if its tenant has no more room.
    pub(crate) fn push(&mut self, tenant: K, it: T) -> Result<(), T> {
        let room = self.most_held.saturating_sub(self.held);
        if self.tenants.get(&tenant).map_or(0, |line| line.held) >= room {
            return Err(it);
        }
        let line = self.tenants.entry(tenant).or_default();
        let waited = line.waits();
        line.new.push_back(it);
        (line.held, self.held) = (line.held + 1, self.held + 1);
        if !waited {
            self.order.push_back(tenant);
        }
        Ok(())
    }

    /// The next piece of work, if there is a place. It keeps the place until [`done`](Self::done)
    /// or [`pause`](Self::pause).
    pub(crate) fn next(&mut self) -> Option<T> {
        let free = self.places.saturating_sub(self.busy);
        // Only tenants with a place can be skipped here: fewer than there are places.
        for _ in 0..self.order.len().min(self.places + 1) {
            let tenant = self.order.pop_front()?;
            let Some(line) = self.tenants.get_mut(&tenant) else { continue };
            if line.busy >= free {
                self.order.push_back(tenant);
                continue;
            }
            let Some(it) = line.pop() else { continue };
            (line.busy, self.busy) = (line.busy + 1, self.busy + 1);
            if line.waits() {
                self.order.push_back(tenant);
            }
            return Some(it);
        }
        None
    }

    /// A piece of work with a place has ended.
    pub(crate) fn done(&mut self, tenant: K) {
        self.pause(tenant);
        let Some(line) = self.tenants.get_mut(&tenant) else { return };
        line.held = line.held.saturating_sub(1);
        self.held = self.held.saturating_sub(1);
        if line.held == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// A piece of work gives up its place, and will come [`again`](Self::again).
    pub(crate) fn pause(&mut self, tenant: K) {
        let Some(line) = self.tenants.get_mut(&tenant) else { return };
        line.busy = line.busy.saturating_sub(1);
        self.busy = self.busy.saturating_sub(1);
    }

    /// Queues paused work again, alternating with new work.
    pub(crate) fn again(&mut self, tenant: K, it: T) {
        let line = self.tenants.entry(tenant).or_default();
        let waited = line.waits();
        line.again.push_back(it);
        if !waited {
            self.order.push_back(tenant);
        }
    }

    /// Whether no work is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }
}

impl<T> TenantTurn<T> {
    fn waits(&self) -> bool {
        !self.new.is_empty() || !self.again.is_empty()
    }

    fn pop(&mut self) -> Option<T> {
        self.was_again = !self.was_again;
        let (first, second) = match self.was_again {
            true => (&mut self.again, &mut self.new),
            false => (&mut self.new, &mut self.again),
        };
        first.pop_front().or_else(|| second.pop_front())
    }
}

impl<T> Default for TenantTurn<T> {
    fn default() -> Self {
        let (new, again) = (VecDeque::new(), VecDeque::new());
        Self { new, again, was_again: true, busy: 0, held: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Surrogate = Surrogate::test(1);
    const B: Surrogate = Surrogate::test(2);

    fn drained(turns: &mut Turns<(Surrogate, u32)>) -> Vec<(Surrogate, u32)> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn a_tenant_with_much_to_do_leaves_places_to_the_next() {
        let mut turns = Turns::new(8, 1_000);
        (0..100).for_each(|i| turns.push(A, (A, i)).unwrap());
        assert_eq!(drained(&mut turns).len(), 4);
        turns.push(B, (B, 0)).unwrap();
        assert_eq!(drained(&mut turns), [(B, 0)], "at once, and not behind all of the other's");
        turns.done(A);
        assert_eq!(drained(&mut turns), [(A, 4)]);
        (0..100).for_each(|i| turns.push(B, (B, i)).unwrap());
        turns.done(B);
        assert_eq!(drained(&mut turns), [(B, 0), (B, 1)], "a third each, and one for the next");
    }

    #[test]
    fn what_pauses_has_no_place_and_comes_between_what_is_new() {
        let mut turns = Turns::new(4, 1_000);
        (0..6).for_each(|i| turns.push(A, (A, i)).unwrap());
        assert_eq!(drained(&mut turns), [(A, 0), (A, 1)]);
        turns.pause(A);
        turns.pause(A);
        assert_eq!(drained(&mut turns), [(A, 2), (A, 3)]);
        turns.again(A, (A, 0));
        turns.again(A, (A, 1));
        turns.done(A);
        turns.done(A);
        assert_eq!(drained(&mut turns), [(A, 4), (A, 0)]);
        for _ in 0..2 {
            turns.done(A);
        }
        assert_eq!(drained(&mut turns), [(A, 5), (A, 1)]);
        assert!(!turns.is_empty());
        turns.done(A);
        turns.done(A);
        assert!(turns.is_empty() && turns.tenants.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn nobody_fills_what_is_in_hand() {
        let mut turns = Turns::new(1, 100);
        let taken = (0..200).filter(|i| turns.push(A, (A, *i)).is_ok()).count();
        assert_eq!(taken, 50);
        let taken = (0..200).filter(|i| turns.push(B, (B, *i)).is_ok()).count();
        assert_eq!(taken, 25);
        turns.push(Surrogate::test(3), (B, 0)).unwrap();
    }
}

//! Claims that wait to be settled, and a wait for those that were handed over so far.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::claim::{Charge, Unsettled};

/// Claims waiting to be settled: at most one for each keyed request or piece of work in flight.
#[derive(Debug, Default)]
pub(crate) struct ClaimQueue {
    waiting: Mutex<Vec<Queued>>,
    pushed: Notify,
    open: Arc<OpenClaims>,
}

/// A claim from its entry into the queue until its outcome is known, or it is dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    claim: Box<dyn Unsettled>,
    _open: Ticket,
}

/// The claims that are not settled, by the order of their entry.
#[derive(Debug, Default)]
struct OpenClaims {
    numbers: Mutex<Numbers>,
    /// The oldest has been settled.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// One claim's entry in [`OpenClaims`].
#[derive(Debug)]
struct Ticket {
    number: u64,
    of: Arc<OpenClaims>,
}

impl ClaimQueue {
    /// Hands a claim to the task that settles it.
    pub(crate) fn push(&self, claim: Box<dyn Unsettled>) {
        let queued = Queued { claim, _open: self.open.enter() };
        locked(&self.waiting).push(queued);
        self.pushed.notify_one();
    }

    /// Takes all waiting claims.
    pub(crate) fn take(&self) -> Vec<Queued> {
        std::mem::take(&mut *locked(&self.waiting))
    }

    /// Returns once a claim has been pushed since the last call.
    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Returns once each claim that was pushed before this call is settled, or was given up.
    pub(crate) async fn all_settled(&self) {
        let until = locked(&self.open.numbers).next;
        let mut moved = pin!(self.open.moved.notified());
        loop {
            moved.as_mut().enable(); // before the look, or what ends meanwhile is missed
            if locked(&self.open.numbers).open.first().is_none_or(|oldest| *oldest >= until) {
                return;
            }
            moved.as_mut().await;
            moved.set(self.open.moved.notified());
        }
    }

    /// How many are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        locked(&self.open.numbers).open.len()
    }
}

impl Queued {
    /// Its outcome is known. See [`Unsettled::end`].
    pub(crate) fn end(self, charge: Charge) {
        self.claim.end(charge);
    }
}

impl Deref for Queued {
    type Target = dyn Unsettled;

    fn deref(&self) -> &Self::Target {
        &*self.claim
    }
}

impl OpenClaims {
    fn enter(self: &Arc<Self>) -> Ticket {
        let mut numbers = locked(&self.numbers);
        let number = numbers.next;
        numbers.next += 1;
        numbers.open.insert(number);
        Ticket { number, of: self.clone() }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut numbers = locked(&self.of.numbers);
        let was_oldest = numbers.open.first() == Some(&self.number);
        numbers.open.remove(&self.number);
        drop(numbers);
        if was_oldest {
            self.of.moved.notify_waiters();
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

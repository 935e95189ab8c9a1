//! Alerts that stay in their queue while later ones go on, and when each is looked at again: those
//! that the destination has refused, and those whose effect has not happened yet.
//!
//! It is kept in memory: the process that sends next begins anew with the first pause.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::nanos;
use crate::delays::Delays;

/// Most refused alerts beside the queue: they are read with each walk. One more is left in its
/// place, and those behind it wait.
pub(super) const MAX_REFUSED: usize = 64;

/// So many refused one after another, none taken in between, are the receiver's trouble rather than
/// the alerts': from here on it is offered one or two after each pause.
const IN_A_ROW: usize = 3;

/// Pauses between offers of a refused alert: a receiver is repaired by people.
const REFUSED: Delays = Delays::doubling(Duration::from_secs(300), Duration::from_secs(21_600));

/// Pauses between looks at an effect: most follow within milliseconds, the others perhaps never.
const PENDING: Delays = Delays::doubling(Duration::from_secs(4), Duration::from_secs(60));

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct SetAside {
    /// By the alert's id. Bounded as the queue is.
    waits: BTreeMap<String, Pause>,
    in_a_row: usize,
}

#[derive(Debug)]
struct Pause {
    is_refused: bool,
    pauses: Delays,
    /// On the monotonic clock.
    until_ns: u64,
}

impl Pause {
    fn new(is_refused: bool, now_ns: u64) -> Self {
        let pauses = if is_refused { REFUSED } else { PENDING };
        let mut wait = Self { is_refused, pauses, until_ns: 0 };
        wait.step(now_ns);
        wait
    }

    fn step(&mut self, now_ns: u64) {
        self.until_ns = now_ns.saturating_add(nanos(self.pauses.step()));
    }
}

impl SetAside {
    /// Whether an alert is not to be looked at yet.
    pub(super) fn rests(&self, id: &str, now_ns: u64) -> bool {
        self.waits.get(id).is_some_and(|wait| now_ns < wait.until_ns)
    }

    pub(super) fn is_refused(&self, id: &str) -> bool {
        self.waits.get(id).is_some_and(|wait| wait.is_refused)
    }

    /// How many were refused.
    pub(super) fn refused(&self) -> usize {
        self.waits.values().filter(|wait| wait.is_refused).count()
    }

    /// Whether the receiver seems to refuse everything.
    pub(super) fn refuses_all(&self) -> bool {
        self.in_a_row >= IN_A_ROW
    }

    /// The effect of an alert has not happened yet.
    pub(super) fn pends(&mut self, id: &str, now_ns: u64) {
        self.waits_on(id, false, now_ns);
    }

    /// An alert that another process has set aside.
    pub(super) fn learn(&mut self, id: &str, now_ns: u64) {
        if !self.is_refused(id) {
            self.waits.insert(id.to_owned(), Pause::new(true, now_ns));
        }
    }

    /// An alert was refused. False: there is no room for it beside the queue.
    pub(super) fn refuse(&mut self, id: &str, now_ns: u64) -> bool {
        if !self.is_refused(id) {
            self.in_a_row += 1;
            if self.refused() >= MAX_REFUSED {
                return false;
            }
        }
        self.waits_on(id, true, now_ns);
        true
    }

    fn waits_on(&mut self, id: &str, is_refused: bool, now_ns: u64) {
        match self.waits.get_mut(id) {
            Some(wait) if wait.is_refused == is_refused => wait.step(now_ns),
            _ => _ = self.waits.insert(id.to_owned(), Pause::new(is_refused, now_ns)),
        }
    }

    /// An alert was taken. Where the receiver refused everything and now takes what it had refused,
    /// the rest of that is offered at once, in its order.
    pub(super) fn take(&mut self, id: &str) {
        if self.refuses_all() && self.is_refused(id) {
            self.waits.values_mut().for_each(|wait| wait.until_ns = 0);
        }
        self.in_a_row = 0;
        self.leave(id);
    }

    /// An alert has left the queue.
    pub(super) fn leave(&mut self, id: &str) {
        self.waits.remove(id);
        if self.refused() == 0 {
            self.in_a_row = 0;
        }
    }
}

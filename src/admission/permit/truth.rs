//! The true number of what was asked as an estimate, learned when the work is done.

use super::{Hold, HoldState};
use crate::clock::Now;
use crate::policy::{AmountSource, AskIndex, CounterIndex};
use crate::table::Index;

impl Hold {
    /// The work used `n` atoms of an ask in all: they are used of what is held, the rest of which
    /// goes back at the end; beyond it they are late usage. What was reported already stays used.
    pub(crate) fn learn(&mut self, ask: AskIndex, n: u64, now: Now) {
        if self.state != HoldState::Open {
            return;
        }
        self.write_down();
        self.list.open().truth = Some((ask, n));
        if let AmountSource::Reported(counter) = self.of.rules().meters[ask].known {
            let rest = n.saturating_sub(self.reported_in_all(counter));
            self.report_in_turn(counter, rest, now);
        }
    }

    /// Whether a number has come that replaces the stated cost of a reported meter.
    pub(super) fn is_learned(&self, ask: AskIndex, counter: CounterIndex) -> bool {
        let truth = self.list.get().and_then(|listed| listed.truth);
        truth.is_some_and(|(of, _)| of == ask) || self.reported(counter) > 0
    }

    /// What was reported of a meter under this sheet.
    pub(super) fn reported(&self, counter: CounterIndex) -> u64 {
        let counters = self.list.get().map(|listed| &listed.counters[..]).unwrap_or_default();
        counters.get(counter.number()).copied().unwrap_or(0)
    }

    /// The same under all its sheets.
    fn reported_in_all(&mut self, counter: CounterIndex) -> u64 {
        let mut all = self.reported(counter);
        self.each_later(counter, |later, counter| {
            all = all.saturating_add(later.reported(counter));
        });
        all
    }
}

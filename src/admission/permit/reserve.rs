//! Reserves of a request for numbers still to be learned: an amount of each meter, whether a limit
//! of that meter gave units for it or only one of a sum that it feeds.
//!
//! What a handler takes (`usage.take`) is promised to it out of this first. More is drawn once all
//! of it is promised.

use smallvec::SmallVec;

use super::Hold;
use super::state::{ByAsk, HoldState};
use crate::policy::{AmountSource, AskIndex, CounterIndex, RoutePolicy};
use crate::table::Table;

/// The reserve of one meter ask.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reserve {
    /// Set aside and unused.
    held: u64,
    /// Of that: taken by the handler and not reported yet.
    promised: u64,
}

pub(super) type Reserves = Table<AskIndex, SmallVec<[Reserve; 4]>>;

impl Hold {
    /// Units set aside for the ask with this counter, and unused.
    pub(crate) fn held(&mut self, counter: CounterIndex) -> u64 {
        if self.is_replay() {
            return u64::MAX;
        }
        let known = AmountSource::Reported(counter);
        let ask = self.of.rules().meters.find(|ask| ask.known == known);
        ask.map_or(0, |ask| self.reserves()[ask].held)
    }

    /// Units of an ask set aside and unused.
    pub(super) fn reserved(&self, ask: AskIndex) -> u64 {
        let reserve = self.list.get().and_then(|listed| listed.reserves.get(ask));
        reserve.map_or_else(|| set_aside(self.of.rules(), ask), |reserve| reserve.held)
    }

    /// How much more of an ask the handler may take without a draw.
    pub(super) fn free(&mut self, ask: AskIndex) -> u64 {
        let rules = self.of.rules();
        let fed: SmallVec<[(AskIndex, u64); 4]> = rules.fed_by(ask).collect();
        let reserves = self.reserves();
        let free = fed.into_iter().map(|(i, weight)| {
            let Reserve { held, promised } = reserves[i];
            held.saturating_sub(promised) / weight.max(1)
        });
        free.min().unwrap_or(0)
    }

    /// So much of each ask is set aside, whatever was before.
    pub(super) fn reserve_only(&mut self, asks: &ByAsk) {
        let reserves = asks.iter().map(|held| Reserve { held: *held, promised: 0 });
        self.list.open().reserves = reserves.collect();
    }

    /// So much of an ask is set aside besides.
    pub(super) fn reserve(&mut self, ask: AskIndex, n: u64) {
        self.each_reserve(ask, |of, weight| {
            of.held = of.held.saturating_add(n.saturating_mul(weight));
        });
    }

    /// Promises `n` of what is set aside to the handler.
    pub(super) fn promise_here(&mut self, ask: AskIndex, n: u64) {
        self.each_reserve(ask, |of, weight| {
            of.promised = of.promised.saturating_add(n.saturating_mul(weight));
        });
    }

    /// Uses `n` of an ask.
    pub(super) fn use_reserve(&mut self, ask: AskIndex, n: u64) {
        self.each_reserve(ask, |of, weight| {
            let n = n.saturating_mul(weight);
            of.held = of.held.saturating_sub(n);
            of.promised = of.promised.saturating_sub(n);
        });
    }

    /// Visits the reserve of an ask and of the sums it feeds.
    fn each_reserve(&mut self, ask: AskIndex, mut with: impl FnMut(&mut Reserve, u64)) {
        self.reserves();
        let listed = self.list.open();
        for (i, weight) in self.of.rules().fed_by(ask) {
            with(&mut listed.reserves[i], weight);
        }
    }

    /// The reserves, one for each ask of the rules.
    fn reserves(&mut self) -> &Reserves {
        self.write_down();
        let rules = self.of.rules();
        let reserves = &mut self.list.open().reserves;
        if reserves.len() == 0 {
            let is_over = self.state == HoldState::Over;
            let held = |i| if is_over { 0 } else { set_aside(rules, i) };
            let all = rules.meters.indices().map(|i| Reserve { held: held(i), promised: 0 });
            reserves.rows_mut().extend(all);
        }
        reserves
    }
}

/// Units of an ask set aside on entry for numbers learned later.
fn set_aside(rules: &RoutePolicy, ask: AskIndex) -> u64 {
    let ask = &rules.meters[ask];
    match &ask.known {
        AmountSource::Cost | AmountSource::Length => 0,
        AmountSource::Reported(_) => ask.n,
        AmountSource::Sum(parts) => parts.iter().fold(0, |sum, (part, weight)| {
            let part = set_aside(rules, *part);
            sum.saturating_add(part.saturating_mul(*weight))
        }),
    }
}

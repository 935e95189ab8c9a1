//! Holds of plain requests: exactly what the route's [`PlainAsk`]s state, so that no list is needed
//! until something happens that is not plain.

use super::Hold;
use super::state::{FORGIVEN, HoldState};
use crate::catalog::MeterId;
use crate::policy::taken::{DrawnFrom, PaysFor, Taken};
use crate::policy::{LeaseSlot, PlainAsk, PoolIndex, RoutePolicy};

/// The state of a plain request's costs. What it holds for reported meters goes back at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// It is not plain, or no longer: see the list.
    Not,
    Held,
    Charged,
    Forgiven,
}

impl Hold {
    /// Settles the costs of a plain request, or gives them back.
    #[inline]
    pub(super) fn charge_plain(&mut self, charged: bool) {
        let sheet = &self.of.sheet;
        let costs = plain_asks(self.of.rules()).iter().filter(|ask| ask.is_cost && ask.n > 0);
        let mut news = false;
        for ask in costs {
            news = charged;
            if charged {
                sheet.count_used(ask.meter, ask.n);
            } else {
                sheet.count_refund(ask.meter, ask.n);
            }
            match ask.from {
                Some((pool, slot)) if charged => sheet.lease(pool, slot).settle(ask.n),
                Some((pool, slot)) => sheet.lease(pool, slot).release(ask.n),
                None => {}
            }
        }
        if news {
            sheet.mark_dirty();
            self.has_used = true;
        }
        self.plain = if charged { Plain::Charged } else { Plain::Forgiven };
    }

    /// Lists what a plain request holds: from here on it is like any other.
    #[cold]
    pub(super) fn write_down(&mut self) {
        let plain = std::mem::replace(&mut self.plain, Plain::Not);
        if plain == Plain::Not {
            return;
        }
        let listed = self.list.open();
        let rules = self.of.rules();
        for (i, ask) in rules.meters.indices().zip(plain_asks(rules)) {
            let is_held =
                if ask.is_cost { plain == Plain::Held } else { self.state != HoldState::Over };
            if let Some((pool, _)) = ask.from {
                let (from, pays) = (DrawnFrom::Pool(pool), PaysFor::Ask(i));
                let n = if is_held { ask.n } else { 0 };
                listed.taken.push(Taken { from, n, pays, draw: 0 });
            }
            listed.recorded.rows_mut().push(match plain {
                Plain::Charged if ask.is_cost => ask.n,
                Plain::Forgiven if ask.is_cost => FORGIVEN,
                _ => 0,
            });
        }
    }

    /// Gives back what a plain request holds for reported meters.
    pub(super) fn release_plain(&self) {
        for (meter, (pool, slot), n) in self.plain_reported() {
            self.of.sheet.count_refund(meter, n);
            self.of.sheet.lease(pool, slot).release(n);
        }
    }

    /// The units that a plain request holds of a pool for a reported meter.
    pub(super) fn plain_set_aside(&self, pool: Option<PoolIndex>) -> u64 {
        if self.state == HoldState::Over {
            return 0;
        }
        let of_pool = self.plain_reported().filter(|(_, (of, _), _)| Some(*of) == pool);
        of_pool.fold(0, |sum, (.., n)| sum.saturating_add(n))
    }

    fn plain_reported(&self) -> impl Iterator<Item = (MeterId, (PoolIndex, LeaseSlot), u64)> + '_ {
        let held = plain_asks(self.of.rules()).iter().filter(|ask| !ask.is_cost);
        held.filter_map(|ask| ask.from.map(|from| (ask.meter, from, ask.n)))
    }
}

pub(super) fn plain_asks(rules: &RoutePolicy) -> &[PlainAsk] {
    rules.plain.as_deref().unwrap_or(&[])
}

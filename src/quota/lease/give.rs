//! Gives units back: what is left while resting, all but what is used at the end, and what remains
//! of a sealed writer's entry.

use super::balance::{Balance, signed};
use super::call::{Context, LeaseCall, Op};
use super::negotiation::{Closing, Negotiation};
use crate::quota::pool::{self, Entry};

impl Negotiation {
    /// Lowers `left` by what remains, then asks to give that back.
    pub(super) fn give(&mut self, at: &mut Balance, with: Context<'_>) -> Option<(Op, LeaseCall)> {
        if self.closing == Closing::ForGood {
            self.own_up(at); // nothing more is asked for
        }
        if let Some(next) = self.ask_debt(at, with) {
            return Some(next);
        }
        let view = self.view?;
        let key = with.key(self.shard);
        if let Some(&peak) = self.peak.as_deref() {
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key, &view, peak))));
        }
        let Some(mine) = view.mine else {
            return self.may_be_late.then_some((Op::Look, LeaseCall::Look(key)));
        };
        let back = self.set_aside(at, mine);
        // Excludes what is in use now: what is released from here on stays ours.
        let used = self.used_beside(back);
        if back < 0 && used > mine.held {
            return None; // a debt stays
        }
        if self.closing == Closing::ForGood && used == at.total {
            let write = pool::fold(key, with.of.incarnation, mine, used);
            return Some((Op::Fold(used), LeaseCall::Write(write)));
        }
        if back <= 0 && mine.held <= used {
            return None;
        }
        let entry = Entry { op: Op::number(), held: used, preauthorised: used };
        let write = pool::give(key, with.writer.incarnation, &view, entry);
        Some((Op::Give(entry), LeaseCall::Write(write)))
    }

    /// Lowers `left` by all that is unused, withheld units included, and returns how much that was.
    /// While that is on its way, the rest of what the pool lacks is withheld from what requests
    /// give back.
    fn set_aside(&mut self, at: &mut Balance, mine: Entry) -> i64 {
        let before = signed(self.withheld);
        let rest = at.left.saturating_add(before);
        let back = mine.held.saturating_sub(self.used_beside(rest));
        let apart = signed(self.lacking()).saturating_sub(signed(back)).max(0);
        at.left = rest.min(0).saturating_sub(apart);
        at.free = at.free.saturating_add(apart.saturating_sub(before));
        self.withheld = apart.unsigned_abs();
        rest
    }

    /// Folds the entry of a sealed incarnation once nothing of it is open: only this process knows
    /// exactly what it used.
    pub(super) fn settle_sealed(
        &mut self,
        at: &mut Balance,
        with: Context<'_>,
    ) -> Option<(Op, LeaseCall)> {
        if let Some(next) = self.tell_root(at, with) {
            return Some(next);
        }
        let mine = *self.remains.as_deref()?;
        if self.closing == Closing::No {
            return None;
        }
        self.forgo_rest(at);
        if self.open_holds(at) > 0 {
            return None;
        }
        let write = pool::fold(with.key(self.shard), with.of.incarnation, mine, at.total);
        Some((Op::Fold(at.total), LeaseCall::Write(write)))
    }

    /// Lowers what may be served to what requests have used or hold: a request still running must
    /// not draw more from an entry about to be lowered to what was used.
    fn forgo_rest(&mut self, at: &mut Balance) {
        let rest = at.left.saturating_add(signed(std::mem::take(&mut self.withheld)));
        at.left = rest.min(0); // a debt stays
        if rest < 0 {
            return;
        }
        let used = self.used_beside(rest);
        if let Some(mine) = self.view.as_mut().and_then(|view| view.mine.as_mut()) {
            (mine.held, mine.preauthorised) = (used, used);
        }
    }
}

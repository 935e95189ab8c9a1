//! Chooses a lease's next call to its pool: create it, take from it, read it, or seek units in a
//! split pool.

use super::balance::{Balance, signed};
use super::call::{Context, LeaseCall, Op};
use super::negotiation::Negotiation;
use crate::clock::Now;
use crate::quota::demand;
use crate::quota::pool::{self, Entry};

/// A pool is created at the latest 35 days after its window's end: usage events for the window may
/// arrive until then. Soon after, a pool full of use may have existed and been deleted.
pub(super) const MAKE_WITHIN_MS: i64 = 35 * 86_400_000;

/// How long a refusal stands before the pool is asked again, minimum and maximum: a tenant over its
/// limit must not cost a call per request.
const REFUSED_NS: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;

impl Negotiation {
    /// The next call to make, if there is one.
    pub(super) fn ask(&mut self, at: &mut Balance, with: Context<'_>) -> Option<(Op, LeaseCall)> {
        let shard = self.shard;
        let key = || with.key(shard);
        let may_make = with.now.wall_ms.saturating_sub(with.of.end_ms) <= MAKE_WITHIN_MS;
        if self.view.is_none() && !may_make {
            self.refuse(at, with);
            return None;
        }
        // Nothing is taken from a limit of 0: its pool exists only where there is a debt.
        let is_empty = self.terms.limit == 0 && self.view.is_none() && self.shard.is_none();
        if self.unseen && self.shard.is_some() {
            return Some(self.seek(at, with, may_make)); // its debts are in the root
        }
        if self.unseen || is_empty && !self.debts.absent {
            return Some((Op::Look, LeaseCall::Look(key())));
        }
        // Late use of a narrow quota is owed before the quota has asked for any units: it is taken
        // in leases while units last, and charged after that.
        let is_there = self.view.map_or(!is_empty, |view| view.free > 0);
        let is_taken = with.of.pool.scope != 0 && is_there;
        if !is_taken && let Some(next) = self.ask_debt(at, with) {
            return Some(next);
        }
        if is_empty {
            self.refuse(at, with);
            return None;
        }
        let view = match self.view {
            Some(view) => view,
            None if self.shard.is_none() => {
                let entry = self.next_entry(at, with, self.more(at, self.terms.limit));
                let (writer, ttl) = (with.writer.incarnation, with.of.ttl);
                let write = pool::create(key(), writer, self.terms, entry, ttl);
                return Some((Op::Take(entry), LeaseCall::Write(write)));
            }
            None if self.stale => return Some(self.seek(at, with, may_make)),
            None => {
                let next = self.ask_debt(at, with);
                if next.is_none() {
                    self.refuse(at, with);
                }
                return next;
            }
        };
        if self.is_outdated(&view) && self.shard.is_some() {
            return Some(self.seek(at, with, may_make));
        }
        if let Some(terms) = self.unwritten(&view) {
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key(), &view, terms))));
        }
        let has_too_much = self.withheld > 0;
        if has_too_much
            && self.unused(at) > 0
            && let Some(next) = self.give(at, with)
        {
            return Some(next);
        }
        if !self.is_short(at, with.now) {
            return None;
        }
        // The ceiling alone keeps units here from being served: that takes a record, not a call.
        let (ask, unused, is_capped) = (at.asked(), self.unused(at), self.held() > self.bound());
        if is_capped && unused >= ask.max(self.granted / 4).max(1) {
            self.ceiling.wanted = true;
            return None;
        }
        let more = if has_too_much { 0 } else { self.more(at, view.free) };
        if more == 0 && is_capped && unused >= ask {
            self.ceiling.wanted = true; // the pool has no more, and what is here is enough
            return None;
        }
        let is_thin = || demand::is_thin(view.free, self.root.share, self.wish(at));
        let is_split = view.sub_pools > 0;
        if self.stale && self.shard.map_or(more == 0 && is_split, |_| more == 0 || is_thin()) {
            return Some(self.seek(at, with, may_make));
        }
        if more == 0 && self.stale {
            return Some((Op::Look, LeaseCall::Look(key())));
        }
        if more == 0 {
            self.refuse(at, with);
            self.own_up(at);
            return self.ask_debt(at, with);
        }
        let entry = self.next_entry(at, with, self.held().saturating_add(more));
        let write = pool::grant(key(), with.writer.incarnation, &view, entry);
        Some((Op::Take(entry), LeaseCall::Write(write)))
    }

    /// Whether more units are to be asked for. An ask that is answered is cleared, and wakes those
    /// that wait: units that requests gave back may have answered it, and then no call does.
    pub(super) fn is_short(&self, at: &mut Balance, now: Now) -> bool {
        let is_refused = at.is_refused(at.wanted, now);
        if at.left >= signed(at.wanted) || is_refused {
            at.wakes |= at.wanted > 0;
            // Answered, or covered by an earlier answer. If another ask arrived in between, it
            // queues the lease again; a smaller one that arrived with a refused one is repeated.
            at.wanted = 0;
        }
        let wants = at.left < signed(at.wanted) || at.left < at.low;
        self.view.is_some_and(|v| self.is_outdated(&v)) || wants && !is_refused
    }

    /// The pool cannot cover the ask: the refusal stands for a while, then the pool is read again.
    fn refuse(&mut self, at: &mut Balance, with: Context<'_>) {
        let asked = std::mem::take(&mut at.wanted);
        let (now_ns, scope) = (with.now.mono_ns, with.of.pool.scope as u64);
        let span = REFUSED_NS.end - REFUSED_NS.start;
        // Jitter from values that differ between processes and pools; it need not be random.
        let spread = (now_ns ^ scope).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let believed = REFUSED_NS.start + (spread >> 33) % span;
        at.refused_short = at.lacking(asked.max(1));
        at.refused_until_ns = now_ns.saturating_add(believed);
        at.low = 0;
        at.wakes = true;
        self.stale = true;
    }

    /// The entry to write: its units, and how many of them may be served before a record raises
    /// that.
    pub(super) fn next_entry(&self, at: &Balance, with: Context<'_>, held: u64) -> Entry {
        let ahead = self.used(at).saturating_add(at.asked().max(self.ahead()));
        let preauthorised = if with.of.of_slot { held } else { self.bound().max(ahead).min(held) };
        Entry { op: Op::number(), held, preauthorised }
    }
}

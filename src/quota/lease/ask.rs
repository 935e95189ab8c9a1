//! Chooses a lease's next call to its pool: create it, take from it, read it, or seek units in a
//! split pool. The rest of the state machine is in `cold.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Closing, Cold, Lease, Writer, signed};
use crate::clock::Now;
use crate::quota::demand::{self, Want};
use crate::quota::pool::{self, Entry, PoolId, Terms, View};
use crate::store::{Key, Write};

/// A pool is created at the latest 35 days after its window's end: usage events for the window may
/// arrive until then. Soon after, a pool full of use may have existed and been deleted.
pub(super) const MAKE_WITHIN_MS: i64 = 35 * 86_400_000;

/// How long a refusal stands before the pool is asked again, minimum and maximum: a tenant over its
/// limit must not cost a call per request.
const REFUSED_NS: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;

/// Numbers lease operations: unique in this process, and so under its incarnation.
pub(super) static OPS: AtomicU64 = AtomicU64::new(1);

/// A lease's call to the store. Every answer is the item as it stands after the call.
#[derive(Clone, Debug)]
pub(crate) enum LeaseCall {
    /// A strong read.
    Look(Key),
    /// A conditional write, to be repeated as it is until its outcome is known.
    Write(Write),
    /// Writes that carry no entry of ours: restarted after any failure.
    Seek(Seek),
}

/// A search for units in the root and in its sub-pools.
#[derive(Clone, Debug)]
pub(crate) struct Seek {
    pub(crate) pool: PoolId,
    /// The item returned as the answer: a sub-pool, or the root.
    pub(crate) shard: Option<u16>,
    pub(crate) want: Want,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Look,
    Seek,
    /// Creates the pool and takes, or just takes. Carries our entry as it will be.
    Take(Entry),
    Give(Entry),
    /// The final write: used units become spent, the entry is removed.
    Fold,
    Relimit,
    /// Takes what is owed, whether it is free or not.
    Charge(Entry),
    /// Pays part of what is owed.
    Pay(Entry),
    /// The same from a sub-pool: a payment to the root, by its number.
    PayRoot(u64),
}

impl Lease {
    /// The next call to make, if there is one.
    pub(super) fn ask(
        &self,
        cold: &mut Cold,
        writer: &Writer,
        now: Now,
    ) -> Option<(Op, LeaseCall)> {
        let shard = cold.shard;
        let key = || self.key(shard, writer);
        let is_over = now.wall_ms.saturating_sub(self.end_ms) > MAKE_WITHIN_MS;
        if cold.view.is_none() && is_over {
            self.refuse(cold, now);
            return None;
        }
        // Nothing is taken from a limit of 0: its pool exists only where there is a debt.
        let is_empty = cold.terms.limit == 0 && cold.view.is_none() && cold.shard.is_none();
        if cold.unseen && cold.shard.is_some() {
            return Some(self.seek(cold, is_over)); // its debts are in the root
        }
        if cold.unseen || is_empty && !cold.debts.absent {
            return Some((Op::Look, LeaseCall::Look(key())));
        }
        // Late use of a narrow quota is owed before the quota has asked for any units: it is taken
        // in leases while units last, and charged after that.
        let is_there = cold.view.map_or(!is_empty, |view| view.free > 0);
        let is_taken = self.pool.scope != 0 && is_there;
        if !is_taken && let Some(next) = self.ask_debt(cold, writer) {
            return Some(next);
        }
        if is_empty {
            self.refuse(cold, now);
            return None;
        }
        let view = match cold.view {
            Some(view) => view,
            None if cold.shard.is_none() => {
                let entry = self.next_entry(cold, self.size(cold, cold.terms.limit));
                let write = pool::create(key(), writer.incarnation, cold.terms, entry, self.ttl);
                return Some((Op::Take(entry), LeaseCall::Write(write)));
            }
            None if cold.stale => return Some(self.seek(cold, is_over)),
            None => {
                let next = self.ask_debt(cold, writer);
                if next.is_none() {
                    self.refuse(cold, now);
                }
                return next;
            }
        };
        if cold.is_outdated(&view) && cold.shard.is_some() {
            return Some(self.seek(cold, is_over));
        }
        if let Some(terms) = cold.unwritten(&view) {
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key(), &view, terms))));
        }
        let has_too_much = cold.withheld > 0;
        if has_too_much
            && cold.held() > self.used(cold)
            && let Some(next) = self.give(cold, writer)
        {
            return Some(next);
        }
        if !self.is_short(cold, now) {
            return None;
        }
        // The ceiling alone keeps units here from being served: that takes a record, not a call.
        let ask = self.wanted.load(Ordering::SeqCst).max(self.waiting.load(Ordering::SeqCst));
        let unused = cold.held().saturating_sub(self.used(cold));
        if cold.held() > cold.bound() && unused >= ask.max(cold.granted / 4).max(1) {
            cold.ceiling.wanted = true;
            return None;
        }
        let more = if has_too_much { 0 } else { self.size(cold, view.free) };
        if more == 0 && cold.held() > cold.bound() && unused >= ask {
            cold.ceiling.wanted = true; // the pool has no more, and what is here is enough
            return None;
        }
        let is_thin = || demand::is_thin(view.free, cold.share, self.wish(cold));
        if cold.stale && cold.shard.map_or(more == 0 && view.sub_pools > 0, |_| more == 0 || is_thin()) {
            return Some(self.seek(cold, is_over));
        }
        if more == 0 && cold.stale {
            return Some((Op::Look, LeaseCall::Look(key())));
        }
        if more == 0 {
            self.refuse(cold, now);
            self.own_up(cold);
            return self.ask_debt(cold, writer);
        }
        let entry = self.next_entry(cold, cold.held().saturating_add(more));
        let write = pool::grant(key(), writer.incarnation, &view, entry);
        Some((Op::Take(entry), LeaseCall::Write(write)))
    }

    /// Looks for units in the root and the sub-pools before concluding that there are none.
    pub(super) fn seek(&self, cold: &Cold, is_over: bool) -> (Op, LeaseCall) {
        // A lease that closes reports to the root and asks for no units.
        let wanted = cold.closing == Closing::No && !cold.sealed;
        let (need, wish) = if wanted { (self.missing(), self.wish(cold)) } else { (0, 0) };
        let want = Want {
            need,
            wish,
            terms: cold.terms,
            may_make: !is_over,
            of_root: cold.unseen || cold.debts.is_for_root() || cold.owed() > 0,
        };
        (Op::Seek, LeaseCall::Seek(Seek { pool: self.pool.clone(), shard: cold.shard, want }))
    }

    /// The key of the item that holds its entry.
    pub(super) fn key(&self, shard: Option<u16>, writer: &Writer) -> Key {
        self.pool.key_of(&writer.space, shard)
    }

    pub(super) fn is_short(&self, cold: &Cold, now: Now) -> bool {
        let left = self.left.load(Ordering::Acquire);
        let wanted = self.wanted.load(Ordering::SeqCst);
        let is_refused = self.is_refused(wanted, now);
        if left >= signed(wanted) || is_refused {
            // Answered, or covered by an earlier answer. If another ask arrived in between, it
            // queues the lease again; a smaller one that arrived with a refused one is repeated.
            let _ = self.wanted.compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        if wanted > 0 && is_refused {
            self.changed.notify_waiters();
        }
        let wants = left < signed(self.wanted.load(Ordering::SeqCst));
        let ahead = left < self.low.load(Ordering::Relaxed);
        cold.view.is_some_and(|v| cold.is_outdated(&v)) || (wants || ahead) && !is_refused
    }

    /// The pool cannot cover the ask: the refusal stands for a while, then the pool is read again.
    fn refuse(&self, cold: &mut Cold, now: Now) {
        let asked = self.wanted.swap(0, Ordering::AcqRel);
        let span = REFUSED_NS.end - REFUSED_NS.start;
        // Jitter from values that differ between processes and pools; it need not be random.
        let spread = (now.mono_ns ^ self.pool.scope as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let believed = REFUSED_NS.start + (spread >> 33) % span;
        self.refused_short.store(self.lacking(asked.max(1)), Ordering::Relaxed);
        self.refused_until_ns.store(now.mono_ns.saturating_add(believed), Ordering::Release);
        self.low.store(0, Ordering::Relaxed);
        cold.stale = true;
        self.changed.notify_waiters();
    }

    /// The entry to write: its units, and how many of them may be served before a record raises
    /// that.
    pub(super) fn next_entry(&self, cold: &Cold, held: u64) -> Entry {
        let asked = self.wanted.load(Ordering::SeqCst).max(self.waiting.load(Ordering::SeqCst));
        let ahead = self.used(cold).saturating_add(asked.max(cold.ahead()));
        let preauthorised = if self.of_slot { held } else { cold.bound().max(ahead).min(held) };
        Entry { op: OPS.fetch_add(1, Ordering::Relaxed), held, preauthorised }
    }
}

impl Cold {
    /// The limit to write next.
    pub(super) fn unwritten(&self, view: &View) -> Option<Terms> {
        self.peak.or_else(|| self.is_outdated(view).then_some(self.terms))
    }

    pub(super) fn is_outdated(&self, view: &View) -> bool {
        let newer = self.terms.rev > view.terms.rev;
        // A sub-pool learns its root's limit from any process that reads both.
        let seen = self.shard.is_some() && !self.stale;
        newer && self.terms.limit != view.terms.limit && !seen
    }
}

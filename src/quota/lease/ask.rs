//! What a lease asks of its pool, by what it knows: to make it, to take of it, to look again, or to
//! have units looked for where a pool is split. The rest of the machine is in `cold.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Cold, Lease, Writer, signed};
use crate::clock::Now;
use crate::planted::{Plant, planted};
use crate::quota::pool::{self, Entry, PoolId, Terms, View};
use crate::quota::subpool::{self, Want};
use crate::store::{Key, Write};

/// A pool is not made later than this after its window's end, 35 days: not long after it may have
/// been there, full of use, and be deleted. Till then events may come that lie in it.
pub(super) const MAKE_WITHIN_MS: i64 = 35 * 86_400_000;

/// How long a refusal is believed before the pool is asked again, at least and at most: a tenant
/// over its limit must not cost a call per request.
const REFUSED_NS: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;

/// Numbers lease operations: unique in this process, and so under its incarnation.
pub(super) static OPS: AtomicU64 = AtomicU64::new(1);

/// What a lease asks of the store. Every answer is the item as it stands after the call.
#[derive(Clone, Debug)]
pub(crate) enum LeaseCall {
    /// A strong read.
    Look(Key),
    /// A conditional write, to be repeated as it is until its outcome is known.
    Write(Write),
    /// Writes that no entry of ours is in: to be begun anew after any failure.
    Seek(Seek),
}

/// To look for units where they may be: in the root, and in its sub-pools.
#[derive(Clone, Debug)]
pub(crate) struct Seek {
    pub(crate) pool: PoolId,
    /// The item that is answered with: a sub-pool, or the root.
    pub(crate) shard: Option<u16>,
    pub(crate) want: Want,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Look,
    Seek,
    /// Makes the pool and takes; or takes. Carries our entry as it will be.
    Take(Entry),
    Give(Entry),
    /// The last one: what was used is spent, the entry is gone.
    Fold,
    Relimit,
    /// Takes what is owed, free or not.
    Charge(Entry),
    /// Pays of what is owed.
    Pay(Entry),
}

impl Lease {
    /// The next thing to ask of the pool.
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
        // Of a limit that has no units nothing is taken: it is there where there is a debt.
        let is_empty = cold.terms.limit == 0 && cold.view.is_none() && cold.shard.is_none();
        if cold.unseen || is_empty && !cold.debts.absent {
            return Some((Op::Look, LeaseCall::Look(key())));
        }
        // Late use of a narrow quota is owed before it has asked for any: it is taken in leases
        // while there is some, and charged once there is not.
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
        // There are units that only the ceiling keeps from being served: no call, a record.
        let ask = self.wanted.load(Ordering::SeqCst).max(self.waiting.load(Ordering::SeqCst));
        let unused = cold.held().saturating_sub(self.used(cold));
        if cold.held() > cold.bound() && unused >= ask.max(cold.granted / 4).max(1) {
            cold.ceiling.wanted = true;
            return None;
        }
        let more = if has_too_much { 0 } else { self.size(cold, view.free) };
        if more == 0 && cold.held() > cold.bound() && unused >= ask {
            cold.ceiling.wanted = true; // the pool has no more, and what is here will do
            return None;
        }
        let is_thin = || subpool::is_thin(view.free, cold.share, self.wish(cold));
        if cold.stale && cold.shard.map_or(more == 0 && view.split, |_| more == 0 || is_thin()) {
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

    /// To look for units in the root and in sub-pools before believing that there are none.
    fn seek(&self, cold: &Cold, is_over: bool) -> (Op, LeaseCall) {
        let want = Want {
            need: self.missing(),
            wish: self.wish(cold),
            terms: cold.terms,
            may_make: !is_over,
        };
        (Op::Seek, LeaseCall::Seek(Seek { pool: self.pool.clone(), shard: cold.shard, want }))
    }

    /// The item that its entry is in.
    pub(super) fn key(&self, shard: Option<u16>, writer: &Writer) -> Key {
        self.pool.key_of(&writer.space, shard)
    }

    pub(super) fn is_short(&self, cold: &Cold, now: Now) -> bool {
        let left = self.left.load(Ordering::Acquire);
        let wanted = self.wanted.load(Ordering::SeqCst);
        let is_refused = self.is_refused(wanted, now);
        if left >= signed(wanted) || is_refused {
            // Answered, or by what was answered before. If another ask came in between, it queues
            // the lease again; a smaller one that came in with a refused one is made anew.
            let _ = self.wanted.compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        if wanted > 0 && is_refused {
            self.changed.notify_waiters();
        }
        let wants = left < signed(self.wanted.load(Ordering::SeqCst));
        let ahead = left < self.low.load(Ordering::Relaxed);
        cold.view.is_some_and(|v| cold.is_outdated(&v)) || (wants || ahead) && !is_refused
    }

    /// The pool cannot give what is wanted: believed for a while, then looked at again.
    fn refuse(&self, cold: &mut Cold, now: Now) {
        let asked = self.wanted.swap(0, Ordering::AcqRel);
        let span = REFUSED_NS.end - REFUSED_NS.start;
        // Spread by what differs between processes and pools; it need not be random.
        let spread = (now.mono_ns ^ self.pool.scope as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let believed = REFUSED_NS.start + (spread >> 33) % span;
        self.refused_short.store(self.lacking(asked.max(1)), Ordering::Relaxed);
        self.refused_until_ns.store(now.mono_ns.saturating_add(believed), Ordering::Release);
        self.low.store(0, Ordering::Relaxed);
        cold.stale = true;
        self.changed.notify_waiters();
    }

    /// What the entry is to be: the units, and how many of them may be served before a record
    /// says more.
    pub(super) fn next_entry(&self, cold: &Cold, held: u64) -> Entry {
        let asked = self.wanted.load(Ordering::SeqCst).max(self.waiting.load(Ordering::SeqCst));
        let ahead = self.used(cold).saturating_add(asked.max(cold.ahead()));
        let preauthorised = if self.of_slot { held } else { cold.bound().max(ahead).min(held) };
        Entry { op: OPS.fetch_add(1, Ordering::Relaxed), held, preauthorised }
    }
}

impl Cold {
    /// The limit that is to be written next.
    pub(super) fn unwritten(&self, view: &View) -> Option<Terms> {
        self.peak.or_else(|| self.is_outdated(view).then_some(self.terms))
    }

    pub(super) fn is_outdated(&self, view: &View) -> bool {
        let newer = self.terms.rev > view.terms.rev || planted(Plant::LimitsWithoutOrder);
        // Of a root's limit a sub-pool hears from whoever looks at both.
        let seen = self.shard.is_some() && !self.stale;
        newer && self.terms.limit != view.terms.limit && !seen
    }
}

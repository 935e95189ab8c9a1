//! The cold half of a lease: what to ask of the pool, and what an answer means. A state machine
//! without I/O, driven by the keeper, one call at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::pool::{self, Entry, Terms, View};
use super::{Call, Closing, Cold, Lease, Op, Writer, signed};
use crate::clock::Now;
use crate::store::{Item, StoreError, StoreErrorKind};

/// A lease that lasts less than this is doubled ...
const SHORT: Duration = Duration::from_secs(60);

/// ... and one that lasts longer than this is halved.
const LONG: Duration = Duration::from_secs(240);

/// No lease takes more than one part in this of what is free (5 %), so that leases shrink as a pool
/// runs out and the last units are shared.
const SHARE_OF_FREE: i64 = 20;

/// A pool is not made later than this after its window's end: by then it may have been there, full
/// of use, and be deleted.
const MAKE_WITHIN_MS: i64 = 3_600_000;

/// How long a refusal is believed before the pool is asked again, at least and at most: a tenant
/// over its limit must not cost a call per request.
const REFUSED_NS: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;

/// Numbers lease operations: unique in this process, and so under its incarnation.
static OPS: AtomicU64 = AtomicU64::new(1);

impl Lease {
    /// The catalog or the directory says another limit. Acts with the next call, which the next
    /// request that needs units brings about: a refusal believed under the old limit is forgotten.
    pub(crate) fn retarget(&self, terms: Terms) {
        let mut cold = self.cold();
        if terms.rev <= cold.terms.rev || terms.limit == cold.terms.limit {
            return;
        }
        let moved = terms.limit.saturating_sub(cold.terms.limit);
        self.free_seen.fetch_add(moved, Ordering::Relaxed);
        cold.terms = terms;
        self.limit.store(terms.limit, Ordering::Relaxed);
        self.refused_until_ns.store(0, Ordering::Release);
    }

    /// The same where most calls bring no news: without a lock unless the limit is another.
    pub(crate) fn retarget_if_changed(&self, terms: Terms) {
        if self.limit.load(Ordering::Relaxed) != terms.limit {
            self.retarget(terms);
        }
    }

    /// The limit as the catalog has it.
    pub(crate) fn terms(&self) -> Terms {
        self.cold().terms
    }

    /// Nobody has used it for a while: what is left goes back, until somebody asks again.
    pub(crate) fn rest(&self) {
        let mut cold = self.cold();
        if cold.closing == Closing::No {
            cold.closing = Closing::Resting;
        }
    }

    /// The gate closes: from now on units are given back and none taken.
    pub(crate) fn close(&self) {
        self.cold().closing = Closing::ForGood;
    }

    /// Whether nothing is left to give back and no call is in flight.
    pub(crate) fn is_returned(&self) -> bool {
        let cold = self.cold();
        cold.in_flight.is_none() && (cold.view.is_none() || self.left.load(Ordering::Acquire) <= 0)
    }

    /// The call to make now, or `None` if there is nothing to ask for; the lease may then be queued
    /// again. While a call is in flight this is that same call.
    pub(crate) fn next(&self, writer: &Writer, now: Now) -> Option<Call> {
        let mut cold = self.cold();
        if let Some(open) = &cold.in_flight {
            return Some(open.1.clone());
        }
        loop {
            if cold.closing == Closing::Resting && self.wanted.load(Ordering::SeqCst) > 0 {
                cold.closing = Closing::No;
            }
            let next = match cold.closing {
                Closing::No => self.ask(&mut cold, writer, now),
                Closing::Resting | Closing::ForGood => self.give(&mut cold, writer),
            };
            if let Some((op, call)) = next {
                cold.in_flight = Some(Box::new((op, call.clone())));
                return Some(call);
            }
            // Only now may it be queued again: two that drive one lease would make two calls at
            // once, and an answer that comes late would be taken for the newer one. Who asked while
            // it was still in hand was not queued, and is looked for once more.
            self.queued.store(false, Ordering::SeqCst);
            let asked = cold.closing != Closing::ForGood
                && self.wanted.load(Ordering::SeqCst) > 0
                && self.is_short(&cold, now);
            if !asked || self.queued.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
    }

    /// Takes in the answer to the call that [`next`](Self::next) gave. `Ok(true)`: call `next`
    /// again at once. After an unknown outcome the call stays in flight until it is answered,
    /// whatever its repetitions fail of; after any other error it is forgotten, for it was not
    /// applied.
    pub(crate) fn answered(
        &self,
        writer: &Writer,
        now: Now,
        answer: Result<Option<Item>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut cold = self.cold();
        let Some(open) = cold.in_flight.take() else {
            return Ok(false);
        };
        let op = open.0;
        let read = |item: Item| View::read(&item, writer.incarnation);
        match answer.and_then(|item| item.map(read).transpose()) {
            Ok(view) => {
                cold.in_doubt = false;
                self.adopt(&mut cold, view, op, now);
                self.changed.notify_waiters();
                Ok(cold.closing != Closing::No || self.is_short(&cold, now))
            }
            Err(error) => {
                cold.in_doubt |= error.kind == StoreErrorKind::Unknown;
                if cold.in_doubt {
                    cold.in_flight = Some(open);
                } else if let Op::Give(next) = op {
                    // What was set aside to be given back is ours again.
                    self.release(cold.held().saturating_sub(next.held));
                }
                Err(error)
            }
        }
    }

    /// What comes back is the truth: `left` moves by what our entry says, not by what was asked.
    fn adopt(&self, cold: &mut Cold, view: Option<View>, op: Op, now: Now) {
        let (before, first) = (cold.held(), cold.view.is_none());
        (cold.view, cold.stale) = (view, false);
        let held = cold.held();
        let made = |entry| view.and_then(|v| v.mine) == Some(entry);
        match op {
            // An entry of ours that we did not make: this process has leased from the pool before,
            // and let go of the lease when all of it was settled or given back.
            Op::Take(entry) if first && !made(entry) => {
                self.total.fetch_add(held, Ordering::Relaxed);
                self.logged.fetch_add(held, Ordering::Relaxed);
            }
            Op::Take(entry) => {
                self.release(held.saturating_sub(before));
                if made(entry) {
                    cold.resize(held.saturating_sub(before), now);
                }
            }
            // `left` was lowered before the question; a refusal puts it back.
            Op::Give(entry) if !made(entry) => self.release(held.saturating_sub(entry.held)),
            Op::Give(_) | Op::Relimit | Op::Look => {}
        }
        let free = view.map_or(cold.terms.limit, |v| v.free);
        self.free_seen.store(free, Ordering::Relaxed);
        let renew_at = if free > 0 { signed(cold.granted / 4) } else { 0 };
        self.low.store(renew_at, Ordering::Relaxed);
    }

    /// The next thing to ask of the pool.
    fn ask(&self, cold: &mut Cold, writer: &Writer, now: Now) -> Option<(Op, Call)> {
        let key = || self.pool.key(&writer.space);
        let over_since = now.wall_ms.saturating_sub(self.end_ms);
        if cold.view.is_none() && over_since > MAKE_WITHIN_MS {
            self.refuse(cold, now);
            return None;
        }
        let Some(view) = cold.view else {
            let entry = cold.next_entry(self.size(cold, cold.terms.limit));
            let write = pool::create(key(), writer.incarnation, cold.terms, entry, self.ttl);
            return Some((Op::Take(entry), Call::Write(write)));
        };
        if cold.is_outdated(&view) {
            return Some((Op::Relimit, Call::Write(pool::relimit(key(), &view, cold.terms))));
        }
        if !self.is_short(cold, now) {
            return None;
        }
        let more = self.size(cold, view.free);
        if more == 0 && cold.stale {
            return Some((Op::Look, Call::Look(key())));
        }
        if more == 0 {
            self.refuse(cold, now);
            return None;
        }
        let entry = cold.next_entry(cold.held().saturating_add(more));
        let write = pool::grant(key(), writer.incarnation, &view, entry);
        Some((Op::Take(entry), Call::Write(write)))
    }

    /// How much to take: what is usual and what waits, within a share of what is free. 0: the pool
    /// cannot cover the ask, so taking from it would only keep units from others.
    fn size(&self, cold: &Cold, free: i64) -> u64 {
        let left = self.left.load(Ordering::Acquire);
        let free = free.max(0);
        let missing =
            |wanted: &AtomicU64| signed(wanted.load(Ordering::SeqCst)).saturating_sub(left).max(0);
        let one = missing(&self.wanted);
        if one > free {
            return 0;
        }
        let usual = signed(cold.size).min(free / SHARE_OF_FREE);
        let all = missing(&self.waiting).min(free);
        usual.max(one).max(all).max(i64::from(free > 0)).unsigned_abs()
    }

    fn is_short(&self, cold: &Cold, now: Now) -> bool {
        let left = self.left.load(Ordering::Acquire);
        let wanted = self.wanted.load(Ordering::SeqCst);
        if left >= signed(wanted) {
            // Answered; if another ask came in between, it queues the lease again.
            let _ = self.wanted.compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        let wants = left < signed(self.wanted.load(Ordering::SeqCst));
        let ahead = left < self.low.load(Ordering::Relaxed);
        cold.view.is_some_and(|v| cold.is_outdated(&v))
            || (wants || ahead) && !self.is_refused(self.wanted.load(Ordering::SeqCst), now)
    }

    /// The pool cannot give what is wanted: believed for a while, then looked at again.
    fn refuse(&self, cold: &mut Cold, now: Now) {
        let asked = self.wanted.swap(0, Ordering::AcqRel);
        let span = REFUSED_NS.end - REFUSED_NS.start;
        // Spread by what differs between processes and pools; it need not be random.
        let spread = (now.mono_ns ^ self.pool.scope as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let believed = REFUSED_NS.start + (spread >> 33) % span;
        self.refused_ask.store(asked.max(1), Ordering::Relaxed);
        self.refused_until_ns.store(now.mono_ns.saturating_add(believed), Ordering::Release);
        self.low.store(0, Ordering::Relaxed);
        cold.stale = true;
        self.changed.notify_waiters();
    }

    /// Lowers `left` by what is left, then asks for it to be given back.
    fn give(&self, cold: &mut Cold, writer: &Writer) -> Option<(Op, Call)> {
        let view = cold.view?;
        let back = self.left.swap(0, Ordering::AcqRel);
        if back <= 0 {
            self.left.fetch_add(back, Ordering::AcqRel); // a debt stays
            return None;
        }
        let entry = cold.next_entry(cold.held().saturating_sub(back.unsigned_abs()));
        let write = pool::give(self.pool.key(&writer.space), writer.incarnation, &view, entry);
        Some((Op::Give(entry), Call::Write(write)))
    }
}

impl Cold {
    pub(super) fn held(&self) -> u64 {
        self.view.and_then(|v| v.mine).map_or(0, |mine| mine.held)
    }

    fn is_outdated(&self, view: &View) -> bool {
        self.terms.rev > view.terms.rev && self.terms.limit != view.terms.limit
    }

    fn next_entry(&self, held: u64) -> Entry {
        Entry { op: OPS.fetch_add(1, Ordering::Relaxed), held, preauthorised: held }
    }

    /// Slow start: a lease that was used up quickly is doubled, one that lasted is halved.
    fn resize(&mut self, granted: u64, now: Now) {
        self.granted = granted;
        // The cap may have cut it: what counts is what it was, not what it might have been.
        self.size = self.size.min(granted.max(1));
        let lasted = Duration::from_nanos(now.mono_ns.saturating_sub(self.granted_ns));
        if self.granted_ns != 0 && lasted < SHORT {
            self.size = self.size.saturating_mul(2);
        } else if self.granted_ns != 0 && lasted > LONG {
            self.size = (self.size / 2).max(1);
        }
        self.granted_ns = now.mono_ns;
    }
}

//! A lease: units of one pool that this process has taken in advance and serves from memory.
//!
//! Two halves. The **hot** half is a handful of atomics: what is left, what was settled, and when it
//! is worth asking for more. The **cold** half is a state machine without I/O: [`Lease::next`] says
//! which write to make, [`Lease::answered`] reads what came back. One write is in flight at a time;
//! after an unknown outcome the identical write is repeated, and the state that comes back is
//! adopted, never computed.
//!
//! # Laws
//!
//! 1. `left + open holds + total == held`, where `held` is what the pool's entry says this process
//!    has. `left` is raised only by what the store granted, so what is served never passes it.
//! 2. `total` (settled use) never falls.
//! 3. Before units are given back, `left` is lowered by them.
//! 4. Units served beyond the lease (a cost learned late) make `left` negative: a debt. While it
//!    stands nothing is admitted, and what is released or granted pays it first.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::pool::{self, Entry, PoolId, Terms, View};
use crate::catalog::Window;
use crate::clock::{Clock, Now};
use crate::store::layout::Space;
use crate::store::{Item, Key, StoreError, StoreErrorKind, Write};

/// The first lease of a pool, in asks: small, because nobody knows yet what this process needs.
pub(crate) const FIRST_ASKS: u64 = 8;

/// A lease that lasts less than this is doubled ...
const SHORT: Duration = Duration::from_secs(60);

/// ... and one that lasts longer than this is halved.
const LONG: Duration = Duration::from_secs(240);

/// No lease takes more than one part in this of what is free (5 %), so that leases shrink as a pool
/// runs out and the last units are shared.
const SHARE_OF_FREE: i64 = 20;

/// A pool is not made later than this after its window's end: by then it may have been there, full of
/// use, and be deleted.
const MAKE_WITHIN_MS: i64 = 3_600_000;

/// How long a refusal is believed before the pool is asked again, at least and at most: a tenant
/// over its limit must not cost a call per request.
const REFUSED_NS: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;

/// Numbers lease operations: unique in this process, and so under its incarnation.
static OPS: AtomicU64 = AtomicU64::new(1);

/// Who leases: this process's part of the table and its incarnation.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) space: Space,
    pub(crate) incarnation: u128,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lease {
    pool: PoolId,
    end_ms: i64,
    /// What its pool is made with; see [`pool::ttl`].
    ttl: Option<i64>,
    /// Atoms that may still be taken; negative is a debt.
    left: AtomicI64,
    /// Atoms settled.
    total: AtomicU64,
    /// `total` as the usage log last had it; the flush alone writes it.
    logged: AtomicU64,
    /// Renew when `left` falls below this.
    low: AtomicI64,
    /// Until then, asks of `refused_ask` and more are refused without asking the pool.
    refused_until_ns: AtomicU64,
    refused_ask: AtomicU64,
    /// Largest ask since the last answer, and the sum of those that wait now.
    wanted: AtomicU64,
    waiting: AtomicU64,
    /// What nobody held when the pool was last seen, and the limit of our catalog.
    free_seen: AtomicI64,
    limit: AtomicI64,
    /// Whether the keeper has it in hand.
    queued: AtomicBool,
    /// Whether the recorder has it in hand (leases of narrower scope than the tenant).
    dirty: AtomicBool,
    /// Wakes those who wait for units.
    changed: Notify,
    cold: Mutex<Cold>,
}

/// What is known of the pool, and what is being asked of it.
#[derive(Debug)]
struct Cold {
    terms: Terms,
    view: Option<View>,
    /// The view is too old to refuse by: look again first.
    stale: bool,
    /// Whether units are given back instead of taken.
    closing: Closing,
    /// Size of the next lease before the caps, in atoms.
    size: u64,
    /// The last lease: how much, and when.
    granted: u64,
    granted_ns: u64,
    in_flight: Option<Box<(Op, Call)>>,
    /// A try of the call in flight may have been applied: that a later try was not says nothing of
    /// it, so only an answer ends it.
    in_doubt: bool,
}

/// What a lease asks of the store. Every answer is the item as it stands after the call.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// A strong read.
    Look(Key),
    /// A conditional write, to be repeated as it is until its outcome is known.
    Write(Write),
}

/// Whether a lease gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Until somebody asks again.
    Resting,
    ForGood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Look,
    /// Makes the pool and takes; or takes. Carries our entry as it will be.
    Take(Entry),
    Give(Entry),
    Relimit,
}

/// What an attempt to take came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Taken. `renew`: it is time to ask for more, ahead of need.
    Taken { renew: bool },
    /// Not enough here, and the pool may have more.
    Need,
    /// Not enough here nor in the pool, when it was last asked.
    Exhausted,
}

impl Lease {
    /// A lease that holds nothing yet. `first_ask` is the usual ask, from which the first size comes.
    pub(crate) fn new(pool: PoolId, end_ms: i64, terms: Terms, first_ask: u64) -> Self {
        Self {
            pool,
            end_ms,
            ttl: None,
            left: AtomicI64::new(0),
            total: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            low: AtomicI64::new(0),
            refused_until_ns: AtomicU64::new(0),
            refused_ask: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            free_seen: AtomicI64::new(terms.limit),
            limit: AtomicI64::new(terms.limit),
            queued: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            changed: Notify::new(),
            cold: Mutex::new(Cold {
                terms,
                view: None,
                stale: false,
                closing: Closing::No,
                size: first_ask.max(1).saturating_mul(FIRST_ASKS),
                granted: 0,
                granted_ns: 0,
                in_flight: None,
                in_doubt: false,
            }),
        }
    }

    /// The same, whose pool may be forgotten from then on.
    pub(crate) fn forgotten_at(self, ttl: Option<i64>) -> Self {
        Self { ttl, ..self }
    }

    pub(crate) fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// The window its pool is for.
    pub(crate) fn window(&self) -> Window {
        Window {
            start_ms: self.pool.start_ms,
            end_ms: self.end_ms,
        }
    }

    // ---- the hot half ----

    /// Takes `n` atoms if they are here: one compare-and-swap.
    pub(crate) fn take(&self, n: u64, now: Now) -> Take {
        let ask = signed(n);
        let mut left = self.left.load(Ordering::Relaxed);
        loop {
            if left < ask {
                return self.short(n, now);
            }
            let next = left - ask;
            let swapped =
                self.left
                    .compare_exchange_weak(left, next, Ordering::AcqRel, Ordering::Relaxed);
            match swapped {
                Ok(_) => {
                    return Take::Taken {
                        renew: next < self.low.load(Ordering::Relaxed),
                    };
                }
                Err(seen) => left = seen,
            }
        }
    }

    #[cold]
    fn short(&self, n: u64, now: Now) -> Take {
        if self.is_refused(n, now) {
            return Take::Exhausted;
        }
        self.wanted.fetch_max(n, Ordering::SeqCst);
        Take::Need
    }

    /// Takes `n` atoms even below nothing, for as much as `floor` allows: what `on-lease-error`
    /// admits while the store is away.
    pub(crate) fn take_down_to(&self, n: u64, floor: i64) -> bool {
        let ask = signed(n);
        let taken = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| {
                let next = left.saturating_sub(ask);
                (next >= floor.min(0)).then_some(next)
            });
        taken.is_ok()
    }

    /// Gives back `n` atoms of a hold.
    pub(crate) fn release(&self, n: u64) {
        self.left.fetch_add(signed(n), Ordering::AcqRel);
    }

    /// Settles `n` atoms of a hold: they were used.
    pub(crate) fn settle(&self, n: u64) {
        self.total.fetch_add(n, Ordering::Relaxed);
    }

    /// Settles `n` atoms that no hold covers: what is left pays, the rest is a debt. Returns the
    /// part that was not covered.
    pub(crate) fn settle_late(&self, n: u64) -> u64 {
        let ask = signed(n);
        let before = self.left.fetch_sub(ask, Ordering::AcqRel);
        self.total.fetch_add(n, Ordering::Relaxed);
        n.saturating_sub(u64::try_from(before).unwrap_or(0))
    }

    /// Atoms taken by requests that have not ended.
    pub(crate) fn open_holds(&self) -> u64 {
        let held = self.cold().held();
        let left = self.left.load(Ordering::Acquire);
        let used = signed(held)
            .saturating_sub(left)
            .saturating_sub(signed(self.total()));
        u64::try_from(used).unwrap_or(0)
    }

    /// Atoms that may still be taken; negative is a debt.
    #[cfg(test)]
    pub(crate) fn left(&self) -> i64 {
        self.left.load(Ordering::Acquire)
    }

    /// Atoms settled by this process.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// `total`, if it has risen since the log last had it; the log has it from now on.
    pub(crate) fn unlogged(&self) -> Option<u64> {
        let total = self.total();
        (self.logged.swap(total, Ordering::Relaxed) != total).then_some(total)
    }

    /// Atoms still to be had, as far as this process knows: its own, and what was free when the
    /// pool last answered. What is free is moved by a limit that has changed since.
    pub(crate) fn remaining(&self) -> u64 {
        let free = self.free_seen.load(Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        u64::try_from(left.saturating_add(free)).unwrap_or(0)
    }

    /// True once: whoever gets it brings the lease to the keeper.
    pub(crate) fn queue(&self) -> bool {
        !self.queued.load(Ordering::SeqCst) && !self.queued.swap(true, Ordering::SeqCst)
    }

    /// It did not reach the keeper after all.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// True once until [`clean`](Self::clean): whoever gets it brings the lease to the recorder.
    pub(crate) fn soil(&self) -> bool {
        !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clean(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Whether the log lacks some of the total.
    pub(crate) fn is_unlogged(&self) -> bool {
        self.logged.load(Ordering::Relaxed) != self.total()
    }

    /// Waits until `n` atoms are here, or are known not to be had; the caller bounds the wait.
    pub(crate) async fn answer_for(&self, n: u64, clock: &dyn Clock) {
        let _asked = Asked::count(self, n);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let here = self.left.load(Ordering::Acquire) >= signed(n);
            if here || self.is_refused(n, clock.now()) {
                return;
            }
            changed.await;
        }
    }

    // ---- the cold half ----

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

    /// Takes in the answer to the call that [`next`](Self::next) gave. `Ok(true)`: call `next` again
    /// at once. After an unknown outcome the call stays in flight until it is answered, whatever
    /// its repetitions fail of; after any other error it is forgotten, for it was not applied.
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
        let renew_at = if free > 0 {
            signed(cold.granted / 4)
        } else {
            0
        };
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
            return Some((
                Op::Relimit,
                Call::Write(pool::relimit(key(), &view, cold.terms)),
            ));
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
        let missing = |wanted: &AtomicU64| {
            signed(wanted.load(Ordering::SeqCst))
                .saturating_sub(left)
                .max(0)
        };
        let one = missing(&self.wanted);
        if one > free {
            return 0;
        }
        let usual = signed(cold.size).min(free / SHARE_OF_FREE);
        let all = missing(&self.waiting).min(free);
        usual
            .max(one)
            .max(all)
            .max(i64::from(free > 0))
            .unsigned_abs()
    }

    fn is_short(&self, cold: &Cold, now: Now) -> bool {
        let left = self.left.load(Ordering::Acquire);
        let wanted = self.wanted.load(Ordering::SeqCst);
        if left >= signed(wanted) {
            // Answered; if another ask came in between, it queues the lease again.
            let _ = self
                .wanted
                .compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Relaxed);
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
        self.refused_until_ns
            .store(now.mono_ns.saturating_add(believed), Ordering::Release);
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
        let write = pool::give(
            self.pool.key(&writer.space),
            writer.incarnation,
            &view,
            entry,
        );
        Some((Op::Give(entry), Call::Write(write)))
    }

    fn is_refused(&self, n: u64, now: Now) -> bool {
        now.mono_ns < self.refused_until_ns.load(Ordering::Acquire)
            && n >= self.refused_ask.load(Ordering::Relaxed)
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        // A panic while it was held is a bug elsewhere; the state is whole between statements.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cold {
    fn held(&self) -> u64 {
        self.view.and_then(|v| v.mine).map_or(0, |mine| mine.held)
    }

    fn is_outdated(&self, view: &View) -> bool {
        self.terms.rev > view.terms.rev && self.terms.limit != view.terms.limit
    }

    fn next_entry(&self, held: u64) -> Entry {
        Entry {
            op: OPS.fetch_add(1, Ordering::Relaxed),
            held,
            preauthorised: held,
        }
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

/// Counts an ask among those that wait, for as long as it does.
struct Asked<'a>(&'a Lease, u64);

impl<'a> Asked<'a> {
    fn count(lease: &'a Lease, n: u64) -> Self {
        lease.waiting.fetch_add(n, Ordering::AcqRel);
        Self(lease, n)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::AcqRel);
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

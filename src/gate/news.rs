//! Applies changes of the directory to what is in memory: at once if this process made them, within
//! two seconds if another did.
//!
//! Cached records are replaced or reread; a read under way when a change arrives is repeated (see
//! [`Recent`]). Age (`MAX_AGE`) only covers changes that were never announced.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Inner;
use crate::clock::nanos;
use crate::directory::{FeedLook, FeedPosition, Hears, News, TenantRecord};
use crate::ids::Surrogate;
use crate::repeated::repeated;
use crate::store::StoreErrorKind;
use crate::tenants::{MAX_AGE, REFRESH_AGE};

/// How often the feed of changes is looked at: with the reading that follows it this is what keeps
/// the two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// A look that is not answered within so long has failed, so that the next is not late.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// Most tenants that other processes have changed and that are to be read again. Past it all that
/// is in memory is in doubt.
const MAX_CHANGED: usize = 4_096;

/// Changes that are kept for look-ups under way: a look-up that lasts for longer than so many
/// changes is made once more.
const RECENT: usize = 256;

/// The tenants that were changed last, numbered in the order in which this process learned of it.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changed: Mutex<HeardChanges>,
    /// When a value was last read from the directory, or kept because it could not be read, on the
    /// monotonic clock.
    read_ns: AtomicU64,
    /// Everything read before this time is in doubt.
    doubted_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct HeardChanges {
    so_far: u64,
    last: VecDeque<Surrogate>,
    /// The number of the change by which everything came into doubt last.
    doubt: u64,
}

impl Recent {
    /// How many changes were heard of so far: to be asked before something is read.
    pub(super) fn so_far(&self) -> u64 {
        self.locked().so_far
    }

    /// Notes a change, and returns its number.
    fn note(&self, tenant: Surrogate) -> u64 {
        let mut changed = self.locked();
        changed.so_far += 1;
        changed.last.push_back(tenant);
        if changed.last.len() > RECENT {
            changed.last.pop_front();
        }
        changed.so_far
    }

    /// Any tenant may have changed.
    fn doubt(&self, now_ns: u64) {
        let mut changed = self.locked();
        changed.so_far += 1;
        changed.doubt = changed.so_far;
        changed.last.clear(); // so this change is none of those in mind
        self.doubted_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// Whether what was read then may lack a change that was announced.
    pub(super) fn is_in_doubt(&self, read_ns: u64) -> bool {
        read_ns <= self.doubted_ns.load(Ordering::Relaxed)
    }

    /// Whether this tenant may have been changed after so many changes had been heard of: what was
    /// read since then may be from before.
    pub(super) fn has_changed(&self, tenant: Surrogate, as_of: u64) -> bool {
        let changed = self.locked();
        let since = usize::try_from(changed.so_far - as_of).unwrap_or(usize::MAX);
        since > changed.last.len() || changed.last.iter().rev().take(since).any(|it| *it == tenant)
    }

    /// Whether everything came into doubt after so many changes had been heard of: also what was
    /// read since then, as it may be from before. To be asked once that is in its table, where a
    /// doubt that comes later finds it.
    pub(super) fn has_doubted(&self, as_of: u64) -> bool {
        as_of < self.locked().doubt
    }

    /// Notes that a value was read from the directory, or kept, and will be trusted for a while.
    pub(super) fn reads(&self, now_ns: u64) {
        self.read_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    fn locked(&self) -> MutexGuard<'_, HeardChanges> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hears for Inner {
    fn changed(&self, record: &Arc<TenantRecord>) {
        self.tenants.recent.note(record.surrogate);
        if let Some(tenant) = self.tenant_in_memory(record.surrogate) {
            self.learn(&tenant, record.clone());
        }
    }

    fn hear(&self, news: News) {
        self.heard(news);
    }
}

impl Inner {
    /// Applies a change. Returns the tenant to reread, if it is in use.
    fn heard(&self, news: News) -> Option<Surrogate> {
        let now = self.clock.now();
        match news {
            News::Made(tag) => self.credentials.unknown.made(tag, now),
            News::Revoked(surrogate) => {
                let change = self.tenants.recent.note(surrogate);
                self.revoked(surrogate, change);
            }
            News::Tenant(surrogate) => {
                self.tenants.recent.note(surrogate);
                // One that sleeps is older than anything is believed: its next call reads it.
                let tenant = self.tenants.active.get(&surrogate)?;
                tenant.read_by(now.mono_ns.saturating_sub(nanos(REFRESH_AGE)));
                return Some(surrogate);
            }
        }
        None
    }

    /// Changes were announced that are lost: all that is in memory may have changed, and so may all
    /// that is being read just now. It is read again before it is used. What cannot be read then
    /// stays as last known, and is asked for again after `RETRY`: see `keep_tenant` and
    /// `keep_as_known`.
    fn doubt_all(&self) {
        let now = self.clock.now();
        let old_ns = now.mono_ns.saturating_sub(nanos(MAX_AGE));
        self.tenants.recent.doubt(now.mono_ns);
        self.credentials.unknown.clear();
        self.tenants.idle.forget_callers();
        self.tenants.active.iter().for_each(|tenant| tenant.read_by(old_ns));
        self.tenants.callers.iter().for_each(|caller| caller.looked_up_by(old_ns));
    }

    /// Whether anything in memory may still be used as it is: a record that was read lately, or a
    /// tenant whose late usage, reported through a handle of long ago, would be charged without
    /// being read again. Otherwise the feed need not be read.
    fn believes_anything(&self) -> bool {
        let read_ns = self.tenants.recent.read_ns.load(Ordering::Relaxed);
        let age_ns = self.clock.now().mono_ns.saturating_sub(read_ns);
        age_ns < nanos(MAX_AGE + LOOK) || !self.tenants.active.is_empty()
    }
}

/// Looks at the feed of changes, and reads again what was changed.
pub(super) async fn follow(inner: Weak<Inner>) {
    let (mut seen, mut changed) = (FeedPosition::default(), Changed::default());
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased; // so that one seed is one run
            Some(read) = changed.reading.join_next(), if !changed.reading.is_empty() => {
                changed.again.extend(read.ok().flatten());
                continue;
            }
            _ = look.tick() => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let feed = inner.tenants.directory.feed();
        feed.announced().await; // what could not be announced before
        if inner.believes_anything() {
            match tokio::time::timeout(LOOK_WITHIN, feed.look(&mut seen)).await {
                Ok(Ok(heard)) => changed.hear(heard, &inner),
                Ok(Err(error)) if error.kind == StoreErrorKind::Corrupt => {
                    const TEXT: &str = "changes made by other processes cannot be parsed: they \
                                        take effect within 30 s";
                    repeated!(warn, inner.clock.now().wall_ms, TEXT; %error);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "changes made by other processes cannot be read");
                }
                Err(_) => tracing::debug!("changes made by other processes: no answer in time"),
            }
        }
        changed.read(&inner);
    }
}

/// Tenants that were changed by other processes, until they have been read again.
#[derive(Default)]
struct Changed {
    /// To be read, or read once more because that failed.
    again: BTreeSet<Surrogate>,
    /// Being read; what comes back could not be.
    reading: JoinSet<Option<Surrogate>>,
}

impl Changed {
    fn hear(&mut self, heard: FeedLook, inner: &Inner) {
        self.again.extend(heard.news.iter().filter_map(|news| inner.heard(*news)));
        if heard.missed || self.again.len() + self.reading.len() > MAX_CHANGED {
            inner.doubt_all();
            self.again.clear();
        }
        if heard.missed_made {
            inner.credentials.unknown.clear();
        }
    }

    /// Begins the reads that are due, taking turns with waiting look-ups.
    fn read(&mut self, inner: &Arc<Inner>) {
        for surrogate in std::mem::take(&mut self.again) {
            let Some(tenant) = inner.tenants.active.get(&surrogate).map(|it| it.clone()) else {
                continue;
            };
            let inner = inner.clone();
            self.reading.spawn(async move {
                let place = inner.tenants.reads.place(surrogate.as_u128()).await;
                let is_read = place.is_some() && inner.read_anew(&tenant, false).await;
                (!is_read).then_some(surrogate)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::gate::callers::Wanted;
    use crate::identity::Caller;
    use crate::store::Memory;
    use crate::testing::{self, Faulty, Odds};

    const PLANS: &str = "default-plan = \"free\"\n[plan.free]";

    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_as_all_comes_into_doubt_is_read_again_before_it_is_used() {
        let faulty = Faulty::scripted(Memory::new(), []);
        let (gate, clock) = testing::gate_with(PLANS, faulty.clone());
        let (inner, acme) = (&gate.inner, gate.tenant("acme").await.unwrap().0);
        clock.advance(2 * MAX_AGE);
        faulty.odds(Odds { delay: 1_000, ..Odds::default() });
        let doubt = async {
            clock.advance(Duration::from_millis(10));
            inner.doubt_all();
            clock.advance(Duration::from_millis(10));
        };
        let (is_read, ()) = tokio::join!(inner.read_anew(&acme, true), doubt);
        assert!(is_read && gate.refresh(&acme, clock.now()).is_some());
        assert!(inner.read_anew(&acme, true).await);
        assert!(gate.refresh(&acme, clock.now()).is_none(), "once");

        // A caller is looked up again and again meanwhile, and taken as it is in the end.
        let (caller, expires_ms) = (Caller::new("acme").key("ci"), i64::MAX);
        let probe = inner.probe_of(&caller);
        let doubts = async {
            loop {
                inner.doubt_all();
                clock.advance(Duration::from_millis(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            loaded = inner.load_caller(probe, Wanted::Named { caller, expires_ms }) => {
                loaded.unwrap();
            }
            () = doubts => {}
        }
        let known = inner.tenants.callers.get(&probe.0).unwrap().clone();
        assert!(clock.now().mono_ns - known.looked_up_ns() >= nanos(MAX_AGE));
    }
}

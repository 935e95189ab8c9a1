//! Changes of the directory, as they are heard of: at once where this process made them, within two
//! seconds where another did.
//!
//! What is in memory is replaced, or read again; what is being read while a change is heard of is
//! read once more (see [`Recent`]). So age (`MAX_AGE`) is left for changes that were not announced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Inner;
use super::callers::{MAX_AGE, REFRESH_AGE, nanos};
use crate::admission::tenant::LiveTenant;
use crate::directory::{Hears, News, Seen, Surrogate, TenantRecord};
use crate::planted::{Plant, planted};

/// How often the feed of changes is looked at: with the reading that follows it this is what keeps
/// the two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// Tenants that are read again at once because another process has changed them.
const AT_ONCE: usize = 16;

/// Changes that are kept for look-ups under way: a look-up that lasts for longer than so many
/// changes is made once more.
const RECENT: usize = 256;

/// The tenants that were changed last, numbered in the order in which this process heard of it.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changed: Mutex<(u64, VecDeque<Surrogate>)>,
    /// When something was last read of the directory, on the monotonic clock.
    read_ns: AtomicU64,
}

impl Recent {
    /// How many changes were heard of so far: to be asked before something is read.
    pub(super) fn so_far(&self) -> u64 {
        self.locked().0
    }

    /// Notes a change, and returns its number.
    fn note(&self, tenant: Surrogate) -> u64 {
        let mut changed = self.locked();
        changed.0 += 1;
        changed.1.push_back(tenant);
        if changed.1.len() > RECENT {
            changed.1.pop_front();
        }
        changed.0
    }

    /// Whether this tenant may have been changed after so many changes had been heard of: what was
    /// read since then may be from before.
    pub(super) fn has_changed(&self, tenant: Surrogate, as_of: u64) -> bool {
        let changed = self.locked();
        let since = usize::try_from(changed.0 - as_of).unwrap_or(usize::MAX);
        since > changed.1.len() || changed.1.iter().rev().take(since).any(|it| *it == tenant)
    }

    /// Something is read of the directory, which will be believed for a while.
    pub(super) fn reads(&self, now_ns: u64) {
        self.read_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    fn locked(&self) -> MutexGuard<'_, (u64, VecDeque<Surrogate>)> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hears for Inner {
    fn changed(&self, record: &Arc<TenantRecord>) {
        if planted(Plant::ChangesActLate) {
            return;
        }
        self.recent.note(record.surrogate);
        if let Some(tenant) = self.tenant_in_memory(record.surrogate) {
            self.learn(&tenant, record.clone());
        }
    }

    fn hear(&self, news: News) {
        if planted(Plant::ChangesActLate) {
            return;
        }
        self.heard(news);
    }
}

impl Inner {
    /// Something has changed. Returns the tenant that is to be read again, if it is in use.
    fn heard(&self, news: News) -> Option<Arc<LiveTenant>> {
        let now = self.clock.now();
        match news {
            News::Made(tag) => self.unknown.made(tag, now),
            News::Revoked(surrogate) => {
                let change = self.recent.note(surrogate);
                if let Some(tenant) = self.tenants.get(&surrogate) {
                    tenant.revoked(change);
                }
                self.sleepers.forget_callers_of(surrogate);
            }
            News::Tenant(surrogate) => {
                self.recent.note(surrogate);
                // One that sleeps is older than anything is believed: its next call reads it.
                let tenant = self.tenants.get(&surrogate)?.clone();
                tenant.read_by(now.mono_ns.saturating_sub(nanos(REFRESH_AGE)));
                return Some(tenant);
            }
        }
        None
    }

    /// Changes were announced that are lost: all that is in memory may have changed. It is read
    /// again in the background, as it is asked for.
    fn doubt_all(&self) {
        let now = self.clock.now();
        let old_ns = now.mono_ns.saturating_sub(nanos(REFRESH_AGE) + 1);
        self.unknown.clear();
        self.sleepers.forget_callers();
        self.tenants.iter().for_each(|tenant| tenant.read_by(old_ns));
        self.callers.iter().for_each(|caller| caller.looked_up_by(old_ns));
    }

    /// Whether anything in memory may still be believed: otherwise whatever is asked for next is
    /// read first, and the feed need not be looked at.
    fn believes_anything(&self) -> bool {
        let age =
            self.clock.now().mono_ns.saturating_sub(self.recent.read_ns.load(Ordering::Relaxed));
        age < nanos(MAX_AGE + LOOK)
    }
}

/// Looks at the feed of changes, and reads again what was changed.
pub(super) async fn follow(inner: Weak<Inner>) {
    let mut seen = Seen::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let feed = inner.directory.feed();
        feed.announced().await; // what could not be announced before
        if !inner.believes_anything() {
            continue;
        }
        let heard = match feed.look(&mut seen).await {
            Ok(heard) => heard,
            Err(error) => {
                tracing::debug!(%error, "changes made by other processes cannot be read");
                continue;
            }
        };
        if heard.missed {
            inner.doubt_all();
        }
        let mut due: Vec<_> = heard.news.into_iter().filter_map(|it| inner.heard(it)).collect();
        due.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let mut reading = JoinSet::new();
        for tenant in due {
            if reading.len() >= AT_ONCE {
                reading.join_next().await;
            }
            let inner = inner.clone();
            reading.spawn(async move { inner.read_anew(&tenant, false).await });
        }
        while reading.join_next().await.is_some() {}
    }
}

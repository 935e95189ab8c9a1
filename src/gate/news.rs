//! Applies changes of the directory to what is in memory: at once if this process made them, within
//! two seconds if another did.
//!
//! Cached records are replaced or reread; a read under way when a change arrives is repeated (see
//! `recent.rs`). Age (`MAX_AGE`) covers changes that were never announced: of which there can be
//! some is known from those that have begun, so that all other tenants are not read again by their
//! age while this process follows the feed (see `sheets/followed.rs`).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Inner;
use super::tenants::Tenants;
use crate::clock::{Now, nanos};
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

impl Hears for Inner {
    fn changed(&self, record: &Arc<TenantRecord>) {
        self.tenants.changed(record);
    }

    fn hear(&self, news: News) {
        self.tenants.heard(news);
    }
}

impl Tenants {
    /// A record was changed here to this.
    fn changed(&self, record: &Arc<TenantRecord>) {
        self.recent.note(record.surrogate);
        if let Some(tenant) = self.tenant_in_memory(record.surrogate) {
            self.learn(&tenant, record.clone());
        }
    }

    /// Applies a change. Returns the tenant to reread, if it is in use.
    fn heard(&self, news: News) -> Option<Surrogate> {
        let now = self.clock.now();
        match news {
            News::Made(tag) => self.unknown.made(tag, now),
            News::Revoked(surrogate) => {
                let change = self.recent.note(surrogate);
                self.revoked(surrogate, change);
            }
            News::Tenant(surrogate) => {
                self.recent.note(surrogate);
                // One that sleeps is older than anything is believed: its next call reads it.
                let tenant = self.active.get(&surrogate)?;
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
        self.hub.followed.lost();
        self.recent.doubt(now.mono_ns);
        self.unknown.clear();
        self.idle.forget_callers();
        self.active.iter().for_each(|tenant| tenant.read_by(old_ns));
        self.callers.iter().for_each(|caller| caller.looked_up_by(old_ns));
    }

    /// Whether anything in memory may still be used as it is: a record that was read lately, or a
    /// tenant whose late usage, reported through a handle of long ago, would be charged without
    /// being read again. Otherwise the feed need not be read.
    fn believes_anything(&self) -> bool {
        let age_ns = self.clock.now().mono_ns.saturating_sub(self.recent.read_ns());
        age_ns < nanos(MAX_AGE + LOOK) || !self.active.is_empty()
    }
}

/// Looks at the feed of changes, and reads again what was changed.
pub(super) async fn follow(inner: Weak<Inner>) {
    let (mut seen, mut changed) = (FeedPosition::default(), Changed::default());
    let mut begun = FeedPosition::default();
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
        if inner.tenants.believes_anything() {
            // All that is announced by now, and no more for sure.
            let now = inner.clock.now();
            match tokio::time::timeout(LOOK_WITHIN, feed.look(&mut seen)).await {
                Ok(Ok(heard)) => {
                    changed.hear(heard, &inner.tenants);
                    changed
                        .again
                        .extend(look_for_beginnings(&inner.tenants, &mut begun, now).await);
                }
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

/// Looks for changes that have begun. What was announced before `then` has been heard. Returns
/// tenants of which any were that were read so long ago that they are to be read again.
async fn look_for_beginnings(
    tenants: &Tenants,
    seen: &mut FeedPosition,
    then: Now,
) -> Vec<Surrogate> {
    // What the host's own tables say of a tenant changes without being announced.
    if tenants.source.is_some() {
        return Vec::new();
    }
    // Of what was there before a first look some may be kept no more.
    let is_first = seen.is_new();
    let look = tenants.directory.beginnings().look(seen);
    let Ok(Ok(heard)) = tokio::time::timeout(LOOK_WITHIN, look).await else { return Vec::new() };
    let (followed, now) = (&tenants.hub.followed, tenants.clock.now());
    let subject = |news| match news {
        News::Tenant(tenant) | News::Revoked(tenant) => Some(tenant),
        News::Made(_) => None,
    };
    let missed = heard.missed || is_first && heard.may_lack();
    let begun: Vec<Surrogate> = heard.news.into_iter().filter_map(subject).collect();
    begun.iter().for_each(|tenant| followed.begins(*tenant, now));
    let is_old = |tenant: &Surrogate| {
        let known = tenants.active.get(tenant);
        known.is_some_and(|known| known.begins(now))
    };
    let old = begun.into_iter().filter(is_old).collect();
    if missed {
        followed.any_begins(now);
    }
    followed.up_to(then.mono_ns);
    old
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
    fn hear(&mut self, heard: FeedLook, tenants: &Tenants) {
        self.again.extend(heard.news.iter().filter_map(|news| tenants.heard(*news)));
        if heard.missed || self.again.len() + self.reading.len() > MAX_CHANGED {
            tenants.doubt_all();
            self.again.clear();
        }
        if heard.missed_made {
            tenants.unknown.clear();
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
                let is_read = place.is_some() && inner.tenants.read_anew(&tenant, false).await;
                (!is_read).then_some(surrogate)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::gate::tenants::Wanted;
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
            inner.tenants.doubt_all();
            clock.advance(Duration::from_millis(10));
        };
        let (is_read, ()) = tokio::join!(inner.tenants.read_anew(&acme, true), doubt);
        assert!(is_read && gate.refresh(&acme, clock.now()).is_some());
        assert!(inner.tenants.read_anew(&acme, true).await);
        assert!(gate.refresh(&acme, clock.now()).is_none(), "once");

        // A caller is looked up again and again meanwhile, and taken as it is in the end.
        let (caller, expires_ms) = (Caller::new("acme").key("ci"), i64::MAX);
        let probe = inner.credentials.probe_of(&caller);
        let doubts = async {
            loop {
                inner.tenants.doubt_all();
                clock.advance(Duration::from_millis(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            loaded = inner.tenants.load_caller(probe, Wanted::Named { caller, expires_ms }) => {
                loaded.unwrap();
            }
            () = doubts => {}
        }
        let known = inner.tenants.callers.get(&probe.0).unwrap().clone();
        assert!(clock.now().mono_ns - known.looked_up_ns() >= nanos(MAX_AGE));
    }
}

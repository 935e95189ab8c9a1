//! The queues of alerts in the store: one for each destination, and one of alerts that are due
//! later. Here alerts are written; `delivery.rs` sends them.
//!
//! An entry is one item, whose place is its time and id. That it was sent is another item, under
//! its id alone: so a second entry of the same alert, which another process or another time has
//! written, is known as the same, whichever comes first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::{Notify, OnceCell};

use super::{KEEP_MS, Notification, Notifier, kinds};
use crate::clock::{Clock, time_at, unix_ms};
use crate::identity::hex;
use crate::ids::Surrogate;
use crate::store::layout::{Space, check_format, format};
use crate::store::store_id::StoreId;
use crate::store::{Change, Item, Key, Page, Query, Store, StoreError, StoreErrorKind, Value};
use crate::store::{When, Write, Written, until_known_at_once};

const FORMAT: i64 = 1;
const ID: &str = "id";
const KIND: &str = "kind";
const AT: &str = "at_ms";
const TEXT: &str = "text";
const PAYLOAD: &str = "payload";
const TENANT: &str = "tenant";
const CHANGE: &str = "change";
const KEY: &str = "key";
const UNTIL: &str = "until_ms";
/// Why the destination has refused it.
const REFUSED: &str = "refused";

/// An entry outlives the time for which it is tried by a day; then no destination of its name is
/// in any service file.
const EXPIRE_MS: i64 = KEEP_MS + 86_400_000;

/// How long it is known that an alert was sent: longer than any process may find it again, which
/// is as long as the pool of a month is kept.
const REMEMBER_MS: i64 = 80 * 86_400_000;

/// How long an alert that was given up is kept for inspection.
const KEEP_DEAD_MS: i64 = 40 * 86_400_000;

/// Most characters kept of why an alert was refused.
const MAX_WORDS: usize = 200;

/// Alerts that this process has raised of late, each with its time, so that a repetition is the
/// same entry: more than fail to be written or noted at once.
const MAX_RAISED: usize = 256;

/// Alerts that are due, moved in one look; the rest follow with the next, a minute later.
const DUE_AT_ONCE: usize = 256;

/// What an alert that was written in advance depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Nothing: it has happened.
    Fact,
    /// This change in a tenant's history.
    Change { tenant: Surrogate, change: u64 },
    /// A key of this tenant that works, and ends then.
    Key { tenant: Surrogate, key: String, until_ms: i64 },
}

/// Whether that on which an alert depends has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Happened,
    Pending,
    Never,
}

/// The future of a [`Judge`].
pub(crate) type VerdictFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Verdict, StoreError>> + Send + 'a>>;

/// Knows whether what alerts depend on has happened: the directory.
pub(crate) trait Judge: Send + Sync + 'static {
    fn judge<'a>(&'a self, about: &'a About) -> VerdictFuture<'a>;
}

/// An alert in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) notification: Notification,
    pub(crate) about: About,
    /// Why its destination has refused it.
    pub(crate) refused: Option<String>,
}

impl Entry {
    /// Whether it is about this tenant.
    fn is_about(&self, of: Surrogate, id: Option<&str>) -> bool {
        match &self.about {
            About::Change { tenant, .. } | About::Key { tenant, .. } => *tenant == of,
            About::Fact => id.is_some_and(|id| {
                let payload: Option<Json> = serde_json::from_str(&self.notification.payload).ok();
                payload.is_some_and(|payload| payload["data"]["tenant"] == id)
            }),
        }
    }
}

/// A destination, and what this process knows of its queue.
pub(crate) struct Destination {
    pub(crate) notifier: Arc<dyn Notifier>,
    /// Whether this process may send to it; otherwise it only writes for others.
    pub(crate) sends: bool,
    /// Wakes the task that sends.
    pub(super) woken: Notify,
    state: Mutex<QueueState>,
}

/// What the process that sends knows of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    /// Alerts that wait.
    pub(crate) waiting: usize,
    /// Age of the oldest.
    pub(crate) oldest: Duration,
    /// Why the last delivery failed.
    pub(crate) error: Option<String>,
}

impl Destination {
    pub(crate) fn new(notifier: Arc<dyn Notifier>, sends: bool) -> Self {
        Self { notifier, sends, woken: Notify::new(), state: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &str {
        self.notifier.name()
    }

    /// The state of its queue, if this process sends from it.
    pub(crate) fn state(&self) -> QueueState {
        self.locked().clone()
    }

    pub(super) fn set_state(&self, state: QueueState) {
        *self.locked() = state;
    }

    fn locked(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the [module](self).
pub(crate) struct AlertQueue {
    pub(super) store: Arc<dyn Store>,
    pub(super) space: Space,
    pub(super) clock: Arc<dyn Clock>,
    pub(crate) destinations: Vec<Arc<Destination>>,
    /// The time of the last entry: those of one process are in order within a millisecond, too.
    last_ms: AtomicI64,
    /// The latest at the end.
    raised: Mutex<VecDeque<Entry>>,
    /// Once it is known.
    store_id: OnceCell<StoreId>,
}

impl AlertQueue {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        space: Space,
        clock: Arc<dyn Clock>,
        destinations: Vec<Destination>,
    ) -> Self {
        let destinations = destinations.into_iter().map(Arc::new).collect();
        let (last_ms, raised) = (AtomicI64::new(i64::MIN), Mutex::default());
        Self { store, space, clock, destinations, last_ms, raised, store_id: OnceCell::new() }
    }

    /// Whether any destination takes alerts of this kind.
    pub(crate) fn wants(&self, kind: &str) -> bool {
        self.destinations.iter().any(|it| it.notifier.wants(kind))
    }

    /// The time of a new alert.
    pub(crate) fn stamp(&self) -> i64 {
        let now_ms = self.clock.now().wall_ms;
        let next = |last: i64| Some(now_ms.max(last.saturating_add(1)));
        let last = self.last_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(now_ms, |last| now_ms.max(last.saturating_add(1)))
    }

    /// Writes an alert for each destination that takes its kind. Raised again by this process it is
    /// the entry that it was the first time, in the same place.
    ///
    /// # Errors
    ///
    /// The store's error: it is not written for all of them, and is to be raised again.
    pub(crate) async fn raise(&self, entry: &Entry) -> Result<(), StoreError> {
        let entry = &self.first_of(entry);
        for to in &self.destinations {
            if !to.notifier.wants(&entry.notification.kind) {
                continue;
            }
            let Notification { id, at, .. } = &entry.notification;
            let key = self.space.waiting_alert(to.name(), unix_ms(*at), id);
            self.put(key, entry, EXPIRE_MS).await?;
            to.woken.notify_one();
        }
        Ok(())
    }

    /// The same for trouble of the service, which names no tenant: under an id that no alert of
    /// another service has.
    ///
    /// # Errors
    ///
    /// As [`raise`](Self::raise).
    pub(crate) async fn raise_of_service(&self, entry: &Entry) -> Result<(), StoreError> {
        let read = || StoreId::of(&*self.store, &self.space);
        let of = self.store_id.get_or_try_init(read).await?;
        let mut entry = entry.clone();
        let id = &mut entry.notification.id;
        *id = kinds::id(&[id, &hex(&of.to_bytes())]);
        self.raise(&entry).await
    }

    /// The entry under which an alert was raised the first time.
    fn first_of(&self, entry: &Entry) -> Entry {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &&Entry| known.notification.id == entry.notification.id;
        if let Some(first) = raised.iter().find(is_it) {
            return first.clone();
        }
        if raised.len() == MAX_RAISED {
            raised.pop_front();
        }
        raised.push_back(entry.clone());
        entry.clone()
    }

    /// Writes an alert that is due at its own time.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub(crate) async fn raise_later(&self, entry: &Entry) -> Result<(), StoreError> {
        let Notification { id, at, .. } = &entry.notification;
        self.put(self.space.later_alert(unix_ms(*at), id), entry, EXPIRE_MS).await
    }

    async fn put(&self, key: Key, entry: &Entry, keep_ms: i64) -> Result<(), StoreError> {
        let ends_ms = unix_ms(entry.notification.at).saturating_add(keep_ms);
        let write = Write { key, when: vec![When::Absent], change: changes(entry, ends_ms) };
        // Refused: it is there.
        until_known_at_once(&*self.store, write).await.map(|_| ())
    }

    /// Moves alerts that are due into the queues, if that on which they depend is so. By any number
    /// of processes: an alert keeps its place.
    ///
    /// # Errors
    ///
    /// The store's error: the rest is moved with the next call.
    pub(crate) async fn move_due(&self, judge: &dyn Judge) -> Result<(), StoreError> {
        let now_ms = self.clock.now().wall_ms;
        let Key { pk, .. } = self.space.later_alert(0, "");
        let until = Some(self.space.later_alert(now_ms.saturating_add(1), "").sk);
        let query = Query { pk: pk.clone(), from: String::new(), until, limit: DUE_AT_ONCE };
        for (sk, item) in self.store.query(query).await?.items {
            // One that cannot be read keeps no other waiting; it expires.
            let Ok(entry) = read(&item) else { continue };
            match judge.judge(&entry.about).await {
                Ok(Verdict::Happened) => self.raise(&entry).await?,
                Ok(Verdict::Pending) => continue,
                Ok(Verdict::Never) => {}
                // Nor one whose tenant's record is damaged.
                Err(error) if !error.is_temporary() => continue,
                Err(error) => return Err(error),
            }
            self.delete(Key { pk: pk.clone(), sk }).await?;
        }
        Ok(())
    }

    /// The oldest alerts that wait for a destination, with their places, from this place on.
    pub(super) async fn page(
        &self,
        to: &str,
        from: String,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let Key { pk, .. } = self.space.waiting_alert(to, 0, "");
        self.store.query(Query { pk, from, until: None, limit }).await
    }

    /// All that wait for a destination, the oldest first; at most so many.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub(crate) async fn waiting(
        &self,
        to: &str,
        most: usize,
    ) -> Result<Vec<(String, Entry)>, StoreError> {
        let (mut all, mut from) = (Vec::new(), String::new());
        while all.len() < most {
            let limit = (most - all.len()).min(Page::MAX_ITEMS);
            let Page { items, next } = self.page(to, from, limit).await?;
            let read = |(sk, item): (String, Item)| Some((sk, read(&item).ok()?));
            all.extend(items.into_iter().filter_map(read));
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(all)
    }

    /// Whether an alert was sent to a destination.
    pub(super) async fn was_sent(&self, to: &str, id: &str) -> Result<bool, StoreError> {
        Ok(self.store.read(self.space.sent_alert(to, id)).await?.is_some())
    }

    /// Notes that an alert was sent, and then takes it out of the queue.
    pub(super) async fn sent(&self, to: &str, sk: &str, id: &str) -> Result<(), StoreError> {
        let now_ms = self.clock.now().wall_ms;
        let (name, version) = format(FORMAT);
        let note = Write {
            key: self.space.sent_alert(to, id),
            when: vec![],
            change: vec![
                Change::Set(name, version),
                Change::Set(AT.into(), Value::Int(now_ms)),
                ttl(now_ms.saturating_add(REMEMBER_MS)),
            ],
        };
        until_known_at_once(&*self.store, note).await?;
        self.dequeue(to, sk).await
    }

    /// Removes alerts about a tenant that no destination has yet, and those that were given up: by
    /// its surrogate, and by its outer id where that is known.
    ///
    /// # Errors
    ///
    /// The store's error: some may be left.
    pub(crate) async fn forget(
        &self,
        tenant: Surrogate,
        id: Option<&str>,
    ) -> Result<(), StoreError> {
        let queues = self.destinations.iter().flat_map(|to| {
            let to = to.name();
            [self.space.waiting_alert(to, 0, ""), self.space.dead_alert(to, 0, "")]
        });
        let queues: Vec<Key> = queues.chain([self.space.later_alert(0, "")]).collect();
        for Key { pk, .. } in queues {
            let mut query = Query { pk, from: String::new(), until: None, limit: Page::MAX_ITEMS };
            loop {
                let page = self.store.query(query.clone()).await?;
                for (sk, item) in page.items {
                    // One that cannot be read expires.
                    if read(&item).is_ok_and(|entry| entry.is_about(tenant, id)) {
                        self.delete(Key { pk: query.pk.clone(), sk }).await?;
                    }
                }
                match page.next {
                    Some(next) => query.from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Takes an alert out of a queue.
    pub(super) async fn dequeue(&self, to: &str, sk: &str) -> Result<(), StoreError> {
        let Key { pk, .. } = self.space.waiting_alert(to, 0, "");
        self.delete(Key { pk, sk: sk.to_owned() }).await
    }

    /// Notes that a destination has refused an alert, for lists of what waits.
    pub(super) async fn mark_refused(
        &self,
        to: &str,
        sk: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        let Key { pk, .. } = self.space.waiting_alert(to, 0, "");
        let why = why.chars().take(MAX_WORDS).collect();
        let write = Write {
            key: Key { pk, sk: sk.to_owned() },
            when: vec![When::Exists],
            change: vec![Change::Set(REFUSED.into(), Value::Text(why))],
        };
        until_known_at_once(&*self.store, write).await.map(|_| ())
    }

    /// Gives an alert up: it is kept for inspection, and sent no more.
    pub(super) async fn bury(&self, to: &str, sk: &str, entry: &Entry) -> Result<(), StoreError> {
        let Notification { id, at, .. } = &entry.notification;
        let key = self.space.dead_alert(to, unix_ms(*at), id);
        self.put(key, entry, KEEP_DEAD_MS).await?;
        self.dequeue(to, sk).await
    }

    async fn delete(&self, key: Key) -> Result<(), StoreError> {
        let write = Write { key, when: vec![When::Exists], change: vec![Change::Delete] };
        match until_known_at_once(&*self.store, write).await? {
            // Refused: another process has deleted it.
            (Written::Applied(_) | Written::Refused(_), _) => Ok(()),
        }
    }
}

impl std::fmt::Debug for AlertQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.destinations.iter().map(|to| to.name()).collect();
        f.debug_struct("AlertQueue").field("destinations", &names).finish_non_exhaustive()
    }
}

fn ttl(at_ms: i64) -> Change {
    Change::Set(Item::TTL.into(), Value::Int(at_ms.saturating_add(999).div_euclid(1_000)))
}

fn changes(entry: &Entry, ends_ms: i64) -> Vec<Change> {
    let Notification { id, kind, at, text, payload } = &entry.notification;
    let words = |name: &'static str, text: &str| Change::Set(name.into(), Value::Text(text.into()));
    let (name, version) = format(FORMAT);
    let mut all = vec![
        Change::Set(name, version),
        words(ID, id),
        words(KIND, kind),
        Change::Set(AT.into(), Value::Int(unix_ms(*at))),
        words(TEXT, text),
        words(PAYLOAD, payload),
        ttl(ends_ms),
    ];
    if let Some(why) = &entry.refused {
        all.push(words(REFUSED, why));
    }
    match &entry.about {
        About::Fact => {}
        About::Change { tenant, change } => all.extend([
            words(TENANT, &tenant.to_string()),
            Change::Set(CHANGE.into(), Value::Int(change.cast_signed())),
        ]),
        About::Key { tenant, key, until_ms } => all.extend([
            words(TENANT, &tenant.to_string()),
            words(KEY, key),
            Change::Set(UNTIL.into(), Value::Int(*until_ms)),
        ]),
    }
    all
}

/// Reads an entry.
pub(super) fn read(item: &Item) -> Result<Entry, StoreError> {
    check_format(item, FORMAT, "an alert")?;
    let entry = || {
        let text = |name| item.text(name).map(str::to_owned);
        let tenant = || Surrogate::parse(item.text(TENANT)?);
        let about = match (item.int(CHANGE), item.text(KEY)) {
            (None, None) => About::Fact,
            (Some(change), _) => {
                About::Change { tenant: tenant()?, change: change.cast_unsigned() }
            }
            (None, Some(key)) => {
                About::Key { tenant: tenant()?, key: key.to_owned(), until_ms: item.int(UNTIL)? }
            }
        };
        let notification = Notification {
            id: text(ID)?,
            kind: text(KIND)?,
            at: time_at(item.int(AT)?),
            text: text(TEXT)?,
            payload: text(PAYLOAD)?,
        };
        Some(Entry { notification, about, refused: text(REFUSED) })
    };
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "an alert cannot be read");
    entry().ok_or_else(damaged)
}

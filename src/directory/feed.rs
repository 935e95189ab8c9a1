//! The feed of changes: recent changes, so that no process trusts outdated reads for long.
//!
//! # Laws
//!
//! 1. A change is announced after it was made, and an announcement says only what to read again: it
//!    may come twice, or for a change that did not happen, and does no harm.
//! 2. The process that makes a change learns of it before it is announced, and before the caller is
//!    answered.
//! 3. A shard of the feed keeps [`KEPT`] announcements, the newest of creations and of changes, and
//!    counts all there ever were of each kind. A reader that finds more new ones of a kind than are
//!    kept knows that it has missed some of that kind. [`KEPT_MADE`] places are reserved for
//!    creations, and all others go to changes first: thousands of new tenants cast doubt only on
//!    unknown names, and a new key is announced whatever was changed before it. Announcements that
//!    are given up before they are written count as missed of both kinds.
//! 4. An announcement that cannot be written now is retried with the next look at the feed. One
//!    whose process dies is never made: that change is picked up when cached reads age out, as if
//!    there were no feed.
//! 5. A change of a tenant or of a key is announced before it is made, too, in a feed of its own
//!    ([`Feed::of_beginnings`]), and is not made before that is written. So a reader knows of which
//!    tenants there may be such changes: the reads of all others do not age while it follows.
//!
//! One query reads all shards, which together have fewer than 4 KB: one unit of DynamoDB. A write
//! goes to any shard, so that many writers seldom collide, and carries everything that waits in its
//! process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::{Surrogate, TenantRecord};
use crate::store::layout::{Space, check_format, format};
use crate::store::{
    Change, Item, Key, Query, Store, StoreError, StoreErrorKind, Value, When, Write,
};
use crate::store::{Page, Written};

/// Items of the feed.
const SHARDS: u8 = 4;

/// Announcements in a shard: 17 bytes each, so that an item stays below 1 KB, which is one write
/// unit.
const KEPT: usize = 50;

/// Places of these that are reserved for creations.
const KEPT_MADE: usize = 10;

/// Most announcements waiting in a process: the feed holds no more than that, and a reader that
/// finds a gap reads everything again.
const WAITING: usize = SHARDS as usize * KEPT;

/// How long the maker of a change waits for its announcement; after that it is made with the next
/// look at the feed, a second later.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(1);

/// Writes of one announcement, each at another shard, after concurrent writes or lost answers.
const TRIES: u8 = 16;

const FORMAT: i64 = 1;
/// Total numbers of announced changes and creations.
const CHANGED: &str = "c";
const MADE: &str = "m";
const RING: &str = "ring";

/// Bytes of one announcement: its kind and its subject.
const ENTRY: usize = 17;

/// The content of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum News {
    /// This tenant's record has changed.
    Tenant(Surrogate),
    /// A key of this tenant was revoked.
    Revoked(Surrogate),
    /// A credential or a tenant of this name was created, which may have been unknown before. See
    /// [`credential_tag`] and [`name_tag`].
    Made(u128),
}

impl News {
    fn is_made(self) -> bool {
        matches!(self, News::Made(_))
    }
}

/// The tag of a credential in [`News::Made`]: the beginning of its hash.
pub(crate) fn credential_tag(hash: &crate::identity::CredentialHash) -> u128 {
    let (first, _) = hash.hash.split_at(16);
    first.iter().fold(0, |tag, byte| tag << 8 | u128::from(*byte))
}

/// The tag in [`News::Made`] of a tenant that has just got its surrogate.
pub(crate) fn name_tag(id: impl AsRef<[u8]>) -> u128 {
    use sha2::{Digest, Sha256};
    // A key may be stored as its plain SHA-256: a tenant's tag must not collide with one.
    let hash = Sha256::new_with_prefix(b"tenant\0").chain_update(id.as_ref()).finalize();
    hash.iter().take(16).fold(0, |tag, byte| tag << 8 | u128::from(*byte))
}

/// A cache of directory data.
pub(crate) trait Hears: Send + Sync + 'static {
    /// A tenant's record has just changed to this.
    fn changed(&self, record: &Arc<TenantRecord>);
    /// Notes a change, in this process or another, of which the subject must be reread.
    fn hear(&self, news: News);
}

/// See [`Feed::tell_in_any_case`].
pub(super) struct Untold<'a> {
    feed: &'a Feed,
    news: Option<News>,
}

impl Untold<'_> {
    /// The outcome of the change is known, and its maker announces it.
    pub(super) fn known(mut self) {
        self.news = None;
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.news.take().into_iter().for_each(|news| self.feed.tell(news));
    }
}

impl FeedWaiter {
    /// Queues the news, if there is room.
    fn takes(&mut self, news: News) -> bool {
        let has_room = self.news.len() < WAITING;
        if has_room {
            self.news.push_back(news);
        }
        has_room
    }
}

/// A reader's position in each shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedPosition([Option<AnnouncedCount>; SHARDS as usize]);

impl FeedPosition {
    /// Whether nothing has been looked at yet.
    pub(crate) fn is_new(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Total numbers of creations and changes announced in a shard.
#[derive(Clone, Copy, Debug, Default)]
struct AnnouncedCount {
    made: i64,
    changed: i64,
}

/// The result of a look at the feed.
#[derive(Debug, Default)]
pub(crate) struct FeedLook {
    /// Announcements since the last look.
    pub(crate) news: Vec<News>,
    /// Further changes were missed.
    pub(crate) missed: bool,
    /// Further creations were missed.
    pub(crate) missed_made: bool,
}

impl FeedLook {
    /// Whether a shard may have had more than it keeps, which a first look cannot tell.
    pub(crate) fn may_lack(&self) -> bool {
        self.news.len() >= KEPT - KEPT_MADE
    }

    /// Adds a shard's new announcements.
    fn take(&mut self, before: Option<AnnouncedCount>, count: AnnouncedCount, ring: &[News]) {
        let kept = |is_made| ring.iter().filter(|news| news.is_made() == is_made).count();
        let new = |before: Option<i64>, now: i64, kept: usize| match before {
            None => (kept, false),
            // A table that was restored from a backup has an older count.
            Some(before) if now < before => (kept, true),
            Some(before) => {
                let new = usize::try_from(now - before).unwrap_or(usize::MAX);
                (new.min(kept), new > kept)
            }
        };
        let (of_made, missed) = new(before.map(|it| it.made), count.made, kept(true));
        self.missed_made |= missed;
        let (of_changed, missed) = new(before.map(|it| it.changed), count.changed, kept(false));
        self.missed |= missed;
        let (mut old_made, mut old) = (kept(true) - of_made, kept(false) - of_changed);
        self.news.extend(ring.iter().filter(|news| {
            let old = if news.is_made() { &mut old_made } else { &mut old };
            let is_new = *old == 0;
            *old = old.saturating_sub(1);
            is_new
        }));
    }
}

/// See the [module](self).
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    space: Space,
    /// The key of a shard.
    key_of: fn(&Space, u8) -> Key,
    /// Whether other processes may read the store.
    is_shared: bool,
    hears: OnceLock<Weak<dyn Hears>>,
    waiting: Mutex<FeedWaiter>,
    /// Its holder writes for all that wait, so that the writes of one process do not collide.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct FeedWaiter {
    news: VecDeque<News>,
    /// Number written or given up, so that each caller can tell whether its own were.
    done: u64,
    /// Given up for want of room: readers must learn that something is missing.
    dropped: i64,
}

impl Feed {
    pub(super) fn new(store: Arc<dyn Store>, space: Space) -> Self {
        let is_shared = store.promise().shared;
        let (hears, waiting, turn) = Default::default();
        Self { store, space, key_of: Space::changes, is_shared, hears, waiting, turn }
    }

    /// The feed of changes that begin: see law 5.
    pub(super) fn of_beginnings(store: Arc<dyn Store>, space: Space) -> Self {
        Self { key_of: Space::beginnings, ..Self::new(store, space) }
    }

    /// Returns once it is on record here that this change begins: only then it may be made.
    /// Where there is no room for it, it is not made: one that was dropped would count as written.
    pub(super) async fn begins(&self, news: News) -> Result<(), StoreError> {
        if self.is_shared && !self.waiting().takes(news) {
            self.written().await?; // those that could not be written before
            if !self.waiting().takes(news) {
                return Err(busy());
            }
        }
        self.written().await
    }

    /// From now on changes made here are reported to this listener.
    pub(crate) fn heard_by(&self, hears: Weak<dyn Hears>) {
        let _ = self.hears.set(hears); // there is one gate to a directory
    }

    /// A tenant's record was changed here to this.
    pub(super) fn changed(&self, record: &Arc<TenantRecord>) {
        if let Some(hears) = self.hears.get().and_then(Weak::upgrade) {
            hears.changed(record);
        }
    }

    /// Notifies this process, and queues the news for the others ([`announced`](Self::announced)).
    pub(super) fn tell(&self, news: News) {
        if let Some(hears) = self.hears.get().and_then(Weak::upgrade) {
            hears.hear(news);
        }
        self.announce(news);
    }

    /// Notifies when dropped: the future that makes a change may be dropped while its write is
    /// under way, and the change is made anyway.
    pub(super) fn tell_in_any_case(&self, news: News) -> Untold<'_> {
        Untold { feed: self, news: Some(news) }
    }

    /// Queues the news for the others ([`announced`](Self::announced)).
    pub(super) fn announce(&self, news: News) {
        if !self.is_shared {
            return;
        }
        let mut waiting = self.waiting();
        if !waiting.takes(news) {
            waiting.news.pop_front();
            waiting.done += 1;
            waiting.dropped = waiting.dropped.saturating_add(1);
            waiting.news.push_back(news);
        }
    }

    /// Returns when the announcements of this process so far are written, or could not be for a
    /// while: then they wait for the next call of this.
    pub(crate) async fn announced(&self) {
        if !self.is_shared {
            return;
        }
        match tokio::time::timeout(ANNOUNCE_WITHIN, self.written()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a change is announced later"),
            Err(_) => tracing::debug!("a change is announced later: the store is slow"),
        }
    }

    /// Writes the announcements of this process so far.
    async fn written(&self) -> Result<(), StoreError> {
        if !self.is_shared {
            return Ok(());
        }
        let until = {
            let waiting = self.waiting();
            waiting.done + waiting.news.len() as u64
        };
        while self.waiting().done < until {
            let _turn = self.turn.lock().await;
            if self.waiting().done < until {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Writes waiting announcements, as many as fit into a shard: no more changes than have
    /// guaranteed places, so that readers see them all. Announcements written by a writer that was
    /// cut off are written again by the next.
    async fn write(&self) -> Result<(), StoreError> {
        let (some, dropped) = {
            let waiting = self.waiting();
            let mut changes = 0;
            let fits = |news: &&News| {
                changes += usize::from(!news.is_made());
                changes <= KEPT - KEPT_MADE
            };
            let some = waiting.news.iter().take(KEPT).take_while(fits).copied();
            (some.collect::<Vec<News>>(), waiting.dropped)
        };
        if some.is_empty() {
            return Ok(());
        }
        let first = crate::random::u64().map_err(|_| busy())?;
        for n in 0..u64::from(TRIES) {
            let shard = (first.wrapping_add(n) % u64::from(SHARDS)) as u8;
            // Two tries at each shard: the first may not know its current item.
            let mut stands = None;
            for _ in 0..2 {
                let write = self.entry(shard, stands.as_ref(), &some, dropped)?;
                match self.store.write(write).await {
                    Ok(Written::Applied(_)) => {
                        let mut waiting = self.waiting();
                        // Those at the front may have been given up meanwhile.
                        let given_up = usize::try_from(waiting.dropped - dropped).unwrap_or(0);
                        let written = some.len().saturating_sub(given_up);
                        waiting.news.drain(..written);
                        waiting.done += written as u64;
                        waiting.dropped -= dropped;
                        return Ok(());
                    }
                    Ok(Written::Refused(item)) => stands = item,
                    Err(error) if error.kind == StoreErrorKind::Unknown => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(busy())
    }

    /// The write that adds these to a shard with this current item.
    fn entry(
        &self,
        shard: u8,
        stands: Option<&Item>,
        some: &[News],
        dropped: i64,
    ) -> Result<Write, StoreError> {
        let (count, mut ring) = match stands {
            Some(item) => read(item)?,
            None => (AnnouncedCount::default(), Vec::new()),
        };
        ring.extend_from_slice(some);
        let mut of_made = ring.iter().filter(|news| news.is_made()).count();
        while ring.len() > KEPT {
            let gives_way = of_made > KEPT_MADE;
            let oldest = ring.iter().position(|news| news.is_made() == gives_way);
            ring.remove(oldest.unwrap_or(0));
            of_made -= usize::from(gives_way);
        }
        let bytes = ring.iter().flat_map(|news| packed(*news)).collect();
        // Lost announcements count too: adding more than are kept makes the gap visible.
        let gap = if dropped > 0 { KEPT as i64 + 1 } else { 0 };
        let made = some.iter().filter(|news| news.is_made()).count() as i64;
        let changed = some.len() as i64 - made;
        let after = AnnouncedCount {
            made: count.made.saturating_add(made).saturating_add(gap),
            changed: count.changed.saturating_add(changed).saturating_add(gap),
        };
        Ok(Write {
            key: (self.key_of)(&self.space, shard),
            when: match stands {
                Some(_) => vec![
                    When::Equals(CHANGED.into(), Value::Int(count.changed)),
                    When::Equals(MADE.into(), Value::Int(count.made)),
                ],
                None => vec![When::Missing(CHANGED.into())],
            },
            change: vec![
                Change::Set(format(FORMAT).0, format(FORMAT).1),
                Change::Set(CHANGED.into(), Value::Int(after.changed)),
                Change::Set(MADE.into(), Value::Int(after.made)),
                Change::Set(RING.into(), Value::Bytes(bytes)),
            ],
        })
    }

    /// Whether other processes may announce anything.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Announcements since the last look: one query. A first look returns all that are kept.
    pub(crate) async fn look(&self, seen: &mut FeedPosition) -> Result<FeedLook, StoreError> {
        let pk = (self.key_of)(&self.space, 0).pk;
        let mut query = Query { pk, from: String::new(), until: None, limit: SHARDS.into() };
        let mut heard = FeedLook::default();
        // A look that fails half way has heard nothing: the next one hears all of it.
        let mut now = seen.clone();
        loop {
            let Page { items, next } = self.store.query(query.clone()).await?;
            for (shard, item) in items {
                let Some(seen) = shard.parse().ok().and_then(|n: usize| now.0.get_mut(n)) else {
                    continue;
                };
                let (count, ring) = read(&item)?;
                heard.take(*seen, count, &ring);
                *seen = Some(count);
            }
            let Some(next) = next else { break };
            query.from = next;
        }
        // Missing shards have had no announcements.
        now.0.iter_mut().for_each(|shard| *shard = Some(shard.unwrap_or_default()));
        *seen = now;
        Ok(heard)
    }

    fn waiting(&self) -> MutexGuard<'_, FeedWaiter> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> StoreError {
    StoreError::new(StoreErrorKind::Throttled, "too many changes are being announced")
}

fn packed(news: News) -> [u8; ENTRY] {
    let (kind, of) = match news {
        News::Tenant(tenant) => (b't', tenant.as_u128()),
        News::Revoked(tenant) => (b'r', tenant.as_u128()),
        News::Made(tag) => (b'm', tag),
    };
    let mut bytes = [kind; ENTRY];
    bytes[1..].copy_from_slice(&of.to_be_bytes());
    bytes
}

/// The total numbers of announcements in a shard, and the newest of each kind, in order.
fn read(item: &Item) -> Result<(AnnouncedCount, Vec<News>), StoreError> {
    check_format(item, FORMAT, "the feed of changes")?;
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "the feed of changes cannot be read");
    let count = item
        .int(MADE)
        .zip(item.int(CHANGED))
        .map(|(made, changed)| AnnouncedCount { made, changed });
    let (count, ring) = count.zip(item.bytes(RING)).ok_or_else(damaged)?;
    let news = |entry: &[u8]| {
        let (kind, of) = entry.split_first()?;
        let of = of.try_into().ok()?;
        Some(match kind {
            b't' => News::Tenant(Surrogate::from_bytes(of)),
            b'r' => News::Revoked(Surrogate::from_bytes(of)),
            b'm' => News::Made(u128::from_be_bytes(of)),
            _ => return None,
        })
    };
    let ring: Option<Vec<News>> = ring.chunks(ENTRY).map(news).collect();
    Ok((count, ring.ok_or_else(damaged)?))
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("is_shared", &self.is_shared).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, Promise, StoreFuture};
    use crate::testing::{Faulty, Odds};

    /// A store in memory, shared by several processes.
    #[derive(Clone)]
    struct Shared(Faulty);

    impl Store for Shared {
        fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
            self.0.read(key)
        }

        fn write(&self, write: Write) -> StoreFuture<Written> {
            self.0.write(write)
        }

        fn query(&self, query: Query) -> StoreFuture<Page> {
            self.0.query(query)
        }

        fn promise(&self) -> Promise {
            Promise { shared: true, ..self.0.promise() }
        }

        fn close(&self) -> StoreFuture<()> {
            self.0.close()
        }
    }

    fn feeds<const N: usize>(odds: Odds) -> (Faulty, [Feed; N]) {
        let faulty = Faulty::seeded(Memory::new(), 7, odds);
        let store: Arc<dyn Store> = Arc::new(Shared(faulty.clone()));
        (faulty, std::array::from_fn(|_| Feed::new(store.clone(), Space::new("test"))))
    }

    fn tenant(n: u128) -> News {
        News::Tenant(Surrogate::test(n))
    }

    /// Adds these to a shard, after so many were given up.
    async fn put(feed: &Feed, shard: u8, some: &[News], dropped: i64) {
        let stands = feed.store.read(feed.space.changes(shard)).await.unwrap();
        let write = feed.entry(shard, stands.as_ref(), some, dropped).unwrap();
        assert!(matches!(feed.store.write(write).await.unwrap(), Written::Applied(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_announce_at_once_is_heard_by_all_or_known_to_be_missing() {
        let odds = Odds { lose_request: 80, lose_reply: 80, delay: 200, ..Odds::default() };
        let (_, [a, b, c, reader]) = feeds(odds);
        let mut seen = FeedPosition::default();
        reader.look(&mut seen).await.unwrap();
        let mut heard = Vec::new();
        for round in 0..20u128 {
            for (n, feed) in [&a, &b, &c].into_iter().enumerate() {
                (0..5).for_each(|i| feed.announce(tenant(round * 100 + n as u128 * 5 + i)));
            }
            tokio::join!(a.announced(), b.announced(), c.announced());
            tokio::join!(a.announced(), b.announced(), c.announced());
            let now = reader.look(&mut seen).await.unwrap();
            assert!(!now.missed, "round {round}");
            heard.extend(now.news);
        }
        for round in 0..20u128 {
            (0..15).for_each(|i| assert!(heard.contains(&tenant(round * 100 + i)), "{round} {i}"));
        }
    }

    /// What is dropped for want of room would count as written.
    #[tokio::test(start_paused = true)]
    async fn a_beginning_without_room_is_refused_until_there_is_room() {
        let (faulty, []) = feeds(Odds::default());
        let store: Arc<dyn Store> = Arc::new(Shared(faulty.clone()));
        let feed = Feed::of_beginnings(store, Space::new("test"));
        faulty.odds(Odds { unavailable: 1_000, ..Odds::default() });
        for n in 0..=WAITING as u128 {
            feed.begins(tenant(n)).await.unwrap_err();
        }
        let of = |waiting: &FeedWaiter| (waiting.news.len(), waiting.dropped);
        assert_eq!(of(&feed.waiting()), (WAITING, 0));
        faulty.odds(Odds::default());
        feed.begins(tenant(1_000)).await.unwrap();
        assert!(feed.waiting().news.is_empty(), "all are on record");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_half_way_has_heard_nothing() {
        let (_, [feed]) = feeds(Odds::default());
        let mut seen = FeedPosition::default();
        feed.look(&mut seen).await.unwrap();
        put(&feed, 0, &[tenant(1)], 0).await;
        let damaged = feed.space.changes(SHARDS - 1);
        let damage = Change::Set(RING.into(), Value::Text("x".into()));
        let write = Write { key: damaged.clone(), when: vec![], change: vec![damage] };
        feed.store.write(write).await.unwrap();
        feed.look(&mut seen).await.unwrap_err();
        let change = vec![Change::Delete];
        feed.store.write(Write { key: damaged, when: vec![], change }).await.unwrap();
        assert_eq!(feed.look(&mut seen).await.unwrap().news, vec![tenant(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_was_away_for_long_knows_that_it_has_missed_some() {
        let (_, [writer, reader]) = feeds(Odds::default());
        let mut seen = FeedPosition::default();
        for n in 0..=(WAITING as u128) {
            writer.announce(tenant(n));
            writer.announced().await;
            if n == 0 {
                let first = reader.look(&mut seen).await.unwrap();
                assert_eq!((first.news, first.missed), (vec![tenant(0)], false));
            }
        }
        // Four shards with a part each: one of them more than it keeps.
        (0..WAITING as u128).for_each(|n| writer.announce(tenant(n)));
        writer.announced().await;
        assert!(reader.look(&mut seen).await.unwrap().missed);
        let after = reader.look(&mut seen).await.unwrap();
        assert_eq!((after.news, after.missed), (vec![], false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_takes_no_place_of_what_is_changed() {
        let (_, [writer, reader]) = feeds(Odds::default());
        let mut seen = FeedPosition::default();
        reader.look(&mut seen).await.unwrap();
        writer.announce(tenant(1));
        writer.announced().await;
        for n in 0..100 {
            (0..10).for_each(|i| writer.announce(News::Made(n * 10 + i)));
            writer.announced().await;
        }
        let heard = reader.look(&mut seen).await.unwrap();
        assert!(heard.news.contains(&tenant(1)) && !heard.missed && heard.missed_made);
        writer.announce(News::Made(7));
        writer.announced().await;
        let heard = reader.look(&mut seen).await.unwrap();
        assert_eq!(heard.news, [News::Made(7)], "and nothing twice");
        assert!(!heard.missed && !heard.missed_made);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_now_is_written_later() {
        let (store, [writer, reader]) = feeds(Odds::default());
        store.outage(true);
        writer.announce(tenant(1));
        writer.announced().await;
        store.outage(false);
        writer.announced().await;
        let heard = reader.look(&mut FeedPosition::default()).await.unwrap();
        assert_eq!(heard.news, [tenant(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_who_reads_knows_of_the_rest() {
        let (store, [writer, reader]) = feeds(Odds::default());
        writer.announce(tenant(0));
        writer.announced().await;
        let mut seen = FeedPosition::default();
        reader.look(&mut seen).await.unwrap();
        store.outage(true);
        (0..10_000).for_each(|n| writer.announce(tenant(n)));
        assert_eq!(writer.waiting().news.len(), WAITING);
        store.outage(false);
        writer.announced().await;
        assert!(reader.look(&mut seen).await.unwrap().missed);
        assert!(writer.waiting().news.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_is_noticed_though_what_follows_it_was_only_made() {
        let (_, [writer, reader]) = feeds(Odds::default());
        let changes: Vec<News> = (0..KEPT as u128).map(tenant).collect();
        for shard in 0..SHARDS {
            put(&writer, shard, &changes, 0).await;
        }
        let mut seen = FeedPosition::default();
        reader.look(&mut seen).await.unwrap();
        put(&writer, 0, &[News::Made(7)], 1).await;
        assert!(reader.look(&mut seen).await.unwrap().missed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_is_heard_though_thousands_were_changed_before() {
        let (_, [writer, reader]) = feeds(Odds::default());
        let changes: Vec<News> = (0..KEPT as u128).map(tenant).collect();
        let mut seen = FeedPosition::default();
        for shard in 0..SHARDS {
            put(&writer, shard, &changes, 0).await;
            reader.look(&mut seen).await.unwrap();
            put(&writer, shard, &[News::Made(shard.into())], 0).await;
            put(&writer, shard, &changes[..KEPT - KEPT_MADE], 0).await;
            let heard = reader.look(&mut seen).await.unwrap();
            assert!(heard.news.contains(&News::Made(shard.into())));
            assert_eq!(heard.news.len(), 1 + KEPT - KEPT_MADE, "and nothing twice");
            assert!(!heard.missed_made && !heard.missed);
        }
    }

    #[tokio::test]
    async fn a_shard_stays_below_one_unit_and_all_below_one_read() {
        let (_, [writer, _]) = feeds::<2>(Odds::default());
        let all = [tenant(u128::MAX); KEPT];
        let write = writer.entry(3, None, &all, 1).unwrap();
        let mut bytes = write.key.pk.len() + write.key.sk.len() + "pk".len() + "sk".len();
        for change in write.change {
            let Change::Set(name, value) = change else { panic!("{change:?}") };
            bytes += name.len()
                + match value {
                    Value::Bytes(bytes) => bytes.len(),
                    _ => 20,
                };
        }
        assert!(bytes < 1_024 - 64, "room for a long name of the space: {bytes}");
    }
}

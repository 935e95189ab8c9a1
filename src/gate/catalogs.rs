//! Catalogs in force: loaded, numbered in the store, and swapped when the plan file changes.
//!
//! The first process to see a new content publishes it as the next revision; going back to an
//! earlier file is a new publication. The revision decides whose limits win in a pool. A file that
//! cannot be loaded keeps the catalog that is in force.
//!
//! A publication also says in how many parts of its unit each meter is counted. What a meter was
//! first counted in holds for good, also while no file has it: pools, grants and use are stored as
//! numbers of such parts, and a file that would give these another meaning is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::scopes::Yields;
use crate::catalog::{Catalog, Zone};
use crate::clock::{Clock, time_at};
use crate::error::Error;
use crate::notice::notice;
use crate::policy::resolve::LiveCatalog;
use crate::store::layout::{self, Space, check_format};
use crate::store::{
    Change, Key, Page, Query, Store, StoreError, StoreErrorKind, Value, When, Write, Written,
    until_known,
};
use crate::text_file::{self, OffRuntime};

/// Format of a catalog revision.
const FORMAT: i64 = 1;
const HASH: &str = "hash";
const AT_MS: &str = "at_ms";
const ZONE: &str = "zone";
/// Parts of a unit by meter, as JSON.
const PARTS: &str = "parts";

/// Most changes of the time zone that are looked back on: what ran when an older one was made has
/// ended.
const ZONES: usize = 8;

/// The catalog in force, and how another comes into force.
pub(crate) struct Catalogs {
    pub(crate) source: PlanSource,
    /// Held from reading the plan file until it is in force: what was read first must not come
    /// into force last.
    reloads: tokio::sync::Mutex<()>,
    pub(crate) live: Arc<ArcSwap<LiveCatalog>>,
    /// What the gate's identification can yield, for each plan file that comes into force.
    yields: Yields,
    /// The app's routes, as it has named them: later plan files are held to them as well.
    pub(super) app_routes: ArcSwap<Vec<String>>,
    /// Why the plan file is not in force, as it was logged.
    failure: Mutex<Option<String>>,
    /// When the plans in force were published, Unix milliseconds, by the clock of that process.
    published_ms: AtomicI64,
    store: Arc<dyn Store>,
    space: Space,
    clock: Arc<dyn Clock>,
}

/// The result of the last check of the plan file.
#[derive(Default)]
pub(super) struct Looked {
    /// The content, if it could be read.
    content: Option<[u8; 32]>,
    /// The content that is broken, and need not be parsed again.
    broken: Option<[u8; 32]>,
}

/// The source of a plan file.
#[derive(Clone, Debug)]
pub(crate) enum PlanSource {
    /// A file that is checked again and again, read off the runtime.
    File(PathBuf, OffRuntime),
    /// Text that the host has handed in.
    Text(Arc<str>),
    /// Text that a test changes.
    #[cfg(any(test, feature = "testing"))]
    Shared(Arc<std::sync::Mutex<Arc<str>>>),
}

impl PlanSource {
    pub(crate) fn file(path: &Path) -> Self {
        Self::File(path.to_owned(), OffRuntime::default())
    }

    /// Where it is, if it is a file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            _ => None,
        }
    }

    /// Whether reading it may wait for a disk.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// The name for messages, and the text as it is now. A file is read beside the runtime, and
    /// given up when it does not answer.
    pub(crate) async fn read(&self) -> Result<(String, Arc<str>), Error> {
        let Self::File(path, files) = self else { return self.read_here() };
        let source = self.clone();
        let read = files.run(move || source.read_here()).await;
        read.map_err(|source| Error::File { path: path.display().to_string(), source })?
    }

    /// Reads it on this thread, which may block.
    pub(crate) fn read_here(&self) -> Result<(String, Arc<str>), Error> {
        match self {
            Self::Text(text) => Ok(("plans".to_owned(), text.clone())),
            #[cfg(any(test, feature = "testing"))]
            Self::Shared(text) => {
                let text = text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Ok(("plans".to_owned(), text.clone()))
            }
            Self::File(path, _) => {
                let error = |source| Error::File { path: path.display().to_string(), source };
                let text = text_file::text(path).map_err(error)?;
                Ok((path.display().to_string(), text.into()))
            }
        }
    }
}

/// Names the plans that a changed file no longer has: a word that was written wrong, or a file that
/// was written in place, moves all of their tenants.
fn warn_of_lost_plans(before: &Catalog, after: &Catalog) {
    let default = &after.plans[usize::from(after.default_plan.0)].name;
    let is_lost = |name: &&Arc<str>| after.plan(name).is_none();
    for plan in before.plans.iter().map(|plan| &plan.name).filter(is_lost) {
        notice!(
            warn,
            plan = plan,
            "the plan file no longer has this plan: its tenants are on {default} from now on, but \
             for those whose price another plan has, and exceptions that name it count for nothing"
        );
    }
}

/// Logs what a plan file warns of.
pub(super) fn warn_of(catalog: &Catalog) {
    for warning in &catalog.warnings {
        notice!(warn, line = warning.place.line, "{}", warning.message);
    }
}

/// The state of publications in the store.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Number of the newest publication; 0: there is none.
    pub(crate) revision: u64,
    /// The hash of its content.
    hash: Vec<u8>,
    /// When the first was published, Unix milliseconds.
    pub(crate) since_ms: Option<i64>,
    /// The time zones, each with when it came into force, in order.
    zones: Vec<(i64, String)>,
    /// When the newest was published, Unix milliseconds.
    pub(crate) newest_ms: Option<i64>,
    /// Parts of a unit by meter, as every publication since its first has them.
    parts: BTreeMap<String, u64>,
}

/// Publishes a catalog unless it is the newest one. `published` is what [`published`] has said.
pub(crate) async fn publish(
    store: &dyn Store,
    space: &Space,
    catalog: &Catalog,
    mut published: Published,
    now_ms: i64,
) -> Result<Published, Error> {
    let zone = catalog.timezone.name();
    let parts = catalog.meters.iter().map(|meter| (meter.name.to_string(), meter.scale));
    let parts = parts.collect::<BTreeMap<_, _>>();
    let json = serde_json::to_string(&parts)
        .map_err(|e| StoreError::new(StoreErrorKind::Invalid, format!("a catalog: {e}")))?;
    loop {
        published.refuse_other_parts(catalog)?;
        if published.hash.as_slice() == catalog.hash.as_slice() {
            return Ok(published);
        }
        let revision = published.revision + 1;
        let (name, version) = layout::format(FORMAT);
        let write = Write {
            key: space.catalog(revision),
            when: vec![When::Absent],
            change: vec![
                Change::Set(name, version),
                Change::Set(HASH.into(), Value::Bytes(catalog.hash.to_vec())),
                Change::Set(AT_MS.into(), Value::Int(now_ms)),
                Change::Set(ZONE.into(), Value::Text(zone.to_owned())),
                Change::Set(PARTS.into(), Value::Text(json.clone())),
            ],
        };
        match until_known(store, write).await? {
            Written::Applied(_) => {
                (published.revision, published.hash) = (revision, catalog.hash.to_vec());
                published.since_ms.get_or_insert(now_ms);
                published.newest_ms = Some(now_ms);
                published.is_in(zone, now_ms);
                published.counts(parts);
                return Ok(published);
            }
            // Another process was first, or this one with an answer that was lost: look again.
            Written::Refused(_) => published = self::published(store, space).await?,
        }
    }
}

/// Reads the state of publications.
pub(crate) async fn published(store: &dyn Store, space: &Space) -> Result<Published, StoreError> {
    let pk = space.catalog(0).pk;
    let mut from = String::new();
    let mut published = Published::default();
    loop {
        let query = Query { pk: pk.clone(), from, until: None, limit: Page::MAX_ITEMS };
        let page = store.query(query).await?;
        for (sk, item) in &page.items {
            check_format(item, FORMAT, "a catalog revision")?;
            published.revision = sk.parse().unwrap_or(0);
            published.hash = item.bytes(HASH).unwrap_or_default().to_vec();
            published.since_ms = published.since_ms.or(item.int(AT_MS));
            published.newest_ms = item.int(AT_MS);
            if let (Some(zone), Some(at_ms)) = (item.text(ZONE), item.int(AT_MS)) {
                published.is_in(zone, at_ms);
            }
            let parts = item.text(PARTS).map(serde_json::from_str).transpose().map_err(|_| {
                let message = format!("catalog revision {sk}: {PARTS} cannot be read");
                StoreError::new(StoreErrorKind::Corrupt, message)
            })?;
            published.counts(parts.unwrap_or_default());
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(published),
        }
    }
}

/// The hash of the newest publication after this one.
async fn newest_after(
    store: &dyn Store,
    space: &Space,
    revision: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Key { pk, sk: mut from } = space.catalog(revision + 1);
    let mut newest = None;
    loop {
        let query = Query { pk: pk.clone(), from, until: None, limit: Page::MAX_ITEMS };
        let page = store.query(query).await?;
        if let Some((_, item)) = page.items.last() {
            newest = item.bytes(HASH).map(<[u8]>::to_vec);
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(newest),
        }
    }
}

impl Published {
    /// A revision in this zone came into force then.
    fn is_in(&mut self, zone: &str, at_ms: i64) {
        if self.zones.last().is_none_or(|(_, last)| last != zone) {
            self.zones.push((at_ms, zone.to_owned()));
        }
        if self.zones.len() > ZONES {
            self.zones.remove(0);
        }
    }

    /// A publication counts meters in these parts. No earlier one counts them in others.
    fn counts(&mut self, parts: BTreeMap<String, u64>) {
        for (meter, parts) in parts {
            self.parts.entry(meter).or_insert(parts);
        }
    }

    /// Refuses a catalog under which stored amounts would mean something else.
    fn refuse_other_parts(&self, catalog: &Catalog) -> Result<(), Error> {
        for meter in &catalog.meters {
            let Some(known) = self.parts.get(&*meter.name).filter(|it| **it != meter.scale) else {
                continue;
            };
            let can_have = !meter.count.is_of_body();
            let help = if can_have {
                format!("write `parts = {known}` there, or ")
            } else {
                String::new()
            };
            return Err(Error::Parts(format!(
                "[meter.{0}] would be counted in parts of 1/{1}; what is stored of it is counted \
                 in parts of 1/{known}: {help}give the meter another name",
                meter.name, meter.scale
            )));
        }
        Ok(())
    }

    /// The catalog with the zones that were in force before its own.
    pub(crate) fn in_force(&self, mut catalog: Catalog) -> Arc<Catalog> {
        let known = self.zones.iter().filter_map(|(at_ms, name)| Some((*at_ms, Zone::new(name)?)));
        let over = known.fold(None, |before, (at_ms, zone)| {
            Some(match before {
                Some(before) => zone.after(before, at_ms),
                None => zone,
            })
        });
        if let Some(zone) = over.filter(|zone: &Zone| zone.name() == catalog.timezone.name()) {
            catalog.timezone = zone;
        }
        Arc::new(catalog)
    }
}

impl Catalogs {
    pub(super) fn new(
        source: PlanSource,
        live: Arc<ArcSwap<LiveCatalog>>,
        yields: Yields,
        (store, space): (Arc<dyn Store>, Space),
        clock: Arc<dyn Clock>,
        published_ms: Option<i64>,
    ) -> Self {
        let reloads = tokio::sync::Mutex::new(());
        let (app_routes, failure) = Default::default();
        let published_ms = published_ms.unwrap_or(i64::MIN).into();
        Self {
            source,
            reloads,
            live,
            yields,
            app_routes,
            failure,
            published_ms,
            store,
            space,
            clock,
        }
    }

    /// When the plans in force were published, Unix milliseconds.
    pub(super) fn published_ms(&self) -> i64 {
        self.published_ms.load(Ordering::Relaxed)
    }

    /// Notes when those were published that come into force.
    fn note_published(&self, published: &Published) {
        let at_ms = published.newest_ms.unwrap_or(i64::MIN);
        self.published_ms.store(at_ms, Ordering::Relaxed);
    }

    /// Why the plan file is not in force, if it is not.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets that, and returns what it was.
    fn set_failure(&self, failure: Option<String>) -> Option<String> {
        let mut last = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut last, failure)
    }

    /// Warns of each pattern of a plan file that the app has no route for, if the app has named
    /// its routes.
    fn warn_of_routes(&self, catalog: &Catalog) {
        let app = self.app_routes.load();
        if app.is_empty() {
            return;
        }
        for (line, message) in catalog.routes.without_counterpart(&app) {
            notice!(warn, line = line.unwrap_or_default(), "{message}");
        }
    }

    /// Reads the plan file, and puts it in force if its content is another. Returns whether it did.
    pub(super) async fn reload(&self) -> Result<bool, Error> {
        let _turn = self.reloads.lock().await;
        let (name, text) = self.source.read().await?;
        self.put_in_force(&name, &text).await
    }

    /// Puts the plans of a text that was read in force. Returns whether they differ from those
    /// before.
    async fn put_in_force(&self, name: &str, text: &str) -> Result<bool, Error> {
        let live = self.live.load_full();
        if crate::catalog::content_hash(text) == live.catalog.hash {
            return Ok(false);
        }
        let now_ms = self.clock.now().wall_ms;
        let catalog = Catalog::parse(name, text, time_at(now_ms))?;
        self.yields.check(name, &catalog)?;
        self.yields.tell(&catalog);
        let (store, space) = (&*self.store, &self.space);
        let published = published(store, space).await?;
        let published = publish(store, space, &catalog, published, now_ms).await?;
        let revision = published.revision;
        self.note_published(&published);
        warn_of(&catalog);
        self.warn_of_routes(&catalog);
        let catalog = published.in_force(catalog);
        self.live.rcu(|live| live.followed_by(catalog.clone(), revision));
        crate::telemetry::catalog_info(revision, Some(live.revision));
        warn_of_lost_plans(&live.catalog, &self.live.load().catalog);
        notice!(info, revision = revision, "a changed plan file is in force");
        Ok(true)
    }

    /// Limits under a later publication than the one in force here were seen in a pool. If the
    /// newest publication has the content that is in force, its number is, too: the file went to
    /// another content and back, and this process has not seen that. Otherwise its limits would
    /// never win again over those that others wrote meanwhile.
    pub(super) async fn catch_up(&self, seen: u64) -> Result<(), StoreError> {
        let _turn = self.reloads.lock().await;
        let live = self.live.load_full();
        if seen <= live.revision {
            return Ok(());
        }
        let (store, space) = (&*self.store, &self.space);
        if newest_after(store, space, live.revision).await?.as_deref() != Some(&live.catalog.hash) {
            return Ok(()); // the other file may be on its way here
        }
        let published = published(store, space).await?;
        if published.hash.as_slice() == live.catalog.hash.as_slice() {
            let revision = published.revision;
            self.note_published(&published);
            tracing::info!(revision, "the plan file in force was published anew elsewhere");
            crate::telemetry::catalog_info(revision, Some(live.revision));
            let catalog = published.in_force((*live.catalog).clone());
            self.live.rcu(|live| live.followed_by(catalog.clone(), revision));
        }
        Ok(())
    }

    /// Checks the plan file. A change since the last check waits for the next one: the file may be
    /// half written, and half a file may parse. The same failure is logged once, not every second.
    pub(super) async fn poll(&self, last: &mut Looked) {
        let _turn = self.reloads.lock().await;
        let mut broken = None;
        let put = match self.source.read().await {
            Ok((name, text)) => {
                let hash = Some(crate::catalog::content_hash(&text));
                if std::mem::replace(&mut last.content, hash) != hash || last.broken == hash {
                    return;
                }
                let put = self.put_in_force(&name, &text).await;
                broken = hash.filter(|_| matches!(put, Err(Error::Plans(_))));
                put
            }
            Err(error) => {
                last.content = None;
                Err(error)
            }
        };
        last.broken = broken;
        match put {
            Ok(_) => {
                // As loud as the failure: where warnings alone are read it would be the last line.
                if self.set_failure(None).is_some() {
                    notice!(warn, "the plan file is in force again");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.set_failure(Some(text.clone())).as_ref() != Some(&text) {
                    crate::telemetry::reload_failed();
                    let what = match error {
                        Error::Plans(_) => "is broken",
                        Error::File { .. } => "cannot be read",
                        Error::Parts(_) => "is refused",
                        _ => "could not be put into force",
                    };
                    notice!(error, "the plan file {what}: the previous one stays in force\n{text}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{Ask, ManualClock, testing};

    /// As on a network's disk that has stalled.
    #[tokio::test]
    async fn a_plan_file_whose_read_hangs_keeps_neither_requests_nor_the_end_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plans.toml");
        let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1000/day\"\n";
        std::fs::write(&path, plans).unwrap();
        let builder = testing::builder("").plans_file(&path);
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = builder.clock(clock).open().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();

        let PlanSource::File(_, files) = gate.inner.catalogs.source.clone() else {
            panic!("it is a file")
        };
        let (hold, held) = std::sync::mpsc::channel::<()>();
        tokio::spawn(async move { files.run(move || held.recv().is_ok()).await });
        tokio::task::yield_now().await;
        tokio::time::pause();
        let begun = Instant::now();
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let job = Ask::new(&acme, "job").cost("requests", 1);
            gate.admit(job).await.unwrap().settle();
        }
        assert!(begun.elapsed() < Duration::from_secs(61), "{:?}", begun.elapsed());
        let error = gate.reload().await.unwrap_err().to_string();
        assert!(error.contains("plans.toml") && error.contains("no answer within"), "{error}");
        let begun = Instant::now();
        gate.close().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        drop(hold);
    }

    /// An editor that writes in place, or a copy under way, may be seen between two of its writes.
    #[tokio::test(start_paused = true)]
    async fn a_plan_file_that_is_still_being_written_is_not_put_into_force() {
        let plans = |daily: u32| {
            format!("default-plan = \"free\"\n[plan.free]\nquota.requests = \"{daily}/day\"\n")
        };
        let file = testing::Plans::new(&plans(1000));
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = file.read_by(testing::builder("")).clock(clock).open().await.unwrap();
        let has = |text: &str| gate.catalog().hash == crate::catalog::content_hash(text);
        tokio::time::sleep(Duration::from_millis(500)).await;
        for daily in [1, 10, 100] {
            file.set(&plans(daily));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(has(&plans(1000)), "looked at once, and it has changed since");
        }
        file.set(&plans(2000));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(has(&plans(1000)), "looked at once");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(has(&plans(2000)), "the same at two looks in a row");
        assert_eq!(gate.inner.catalogs.live.load().revision, 2, "no half of it has been published");
        file.set(&plans(3000));
        assert!(gate.reload().await.unwrap() && has(&plans(3000)), "who asks does not wait");
        gate.close().await.unwrap();
    }
}

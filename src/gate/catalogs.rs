//! Catalogs in force: loaded, numbered in the store, and swapped when the plan file changes.
//!
//! The first process to see a new content publishes it as the next revision; going back to an
//! earlier file is a new publication. The revision decides whose limits win in a pool. A file that
//! cannot be loaded keeps the catalog that is in force.

use std::sync::Arc;

use super::Inner;
use crate::catalog::Catalog;
use crate::error::Error;
use crate::store::layout::{self, Space, check_format};
use crate::store::{
    Change, MAX_PAGE_ITEMS, Query, Store, StoreError, Value, When, Write, Written, until_known,
};

/// Format of a catalog revision.
const FORMAT: i64 = 1;
const HASH: &str = "hash";
const AT_MS: &str = "at_ms";

/// Where plans come from.
#[derive(Clone, Debug)]
pub(crate) enum PlanSource {
    /// A file, which is looked at again and again.
    File(String),
    /// Text that the host has handed in.
    Text(Arc<str>),
    /// Text that a test changes.
    #[cfg(any(test, feature = "testing"))]
    Shared(Arc<std::sync::Mutex<Arc<str>>>),
}

impl PlanSource {
    /// The name for messages, and the text as it is now.
    pub(crate) fn read(&self) -> Result<(String, Arc<str>), Error> {
        match self {
            Self::Text(text) => Ok(("plans".to_owned(), text.clone())),
            #[cfg(any(test, feature = "testing"))]
            Self::Shared(text) => {
                let text = text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Ok(("plans".to_owned(), text.clone()))
            }
            Self::File(path) => {
                let error = |source| Error::File { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(error)?;
                Ok((path.clone(), text.into()))
            }
        }
    }
}

/// A published catalog's revision, and the hash of its content.
pub(crate) type Published = (u64, Vec<u8>);

/// Publishes a catalog unless it is the newest one, and returns its revision. `newest` is what
/// [`newest`] has said.
pub(crate) async fn publish(
    store: &dyn Store,
    space: &Space,
    catalog: &Catalog,
    mut newest: Option<Published>,
    now_ms: i64,
) -> Result<u64, StoreError> {
    loop {
        if let Some((revision, hash)) = &newest
            && hash.as_slice() == catalog.hash.as_slice()
        {
            return Ok(*revision);
        }
        let revision = newest.map_or(1, |(revision, _)| revision + 1);
        let (name, version) = layout::format(FORMAT);
        let write = Write {
            key: space.catalog(revision),
            when: vec![When::Absent],
            change: vec![
                Change::Set(name, version),
                Change::Set(HASH.into(), Value::Bytes(catalog.hash.to_vec())),
                Change::Set(AT_MS.into(), Value::Int(now_ms)),
            ],
        };
        match until_known(store, write).await? {
            Written::Applied(_) => return Ok(revision),
            // Somebody was first, perhaps ourselves with an answer that was lost: look again.
            Written::Refused(_) => newest = self::newest(store, space).await?,
        }
    }
}

/// The catalog that was published last.
pub(crate) async fn newest(
    store: &dyn Store,
    space: &Space,
) -> Result<Option<Published>, StoreError> {
    let pk = space.catalog(0).pk;
    let mut from = String::new();
    let mut newest = None;
    loop {
        let query = Query { pk: pk.clone(), from, until: None, limit: MAX_PAGE_ITEMS };
        let page = store.query(query).await?;
        if let Some((sk, item)) = page.items.last() {
            check_format(item, FORMAT, "a catalog revision")?;
            let hash = item.bytes(HASH).unwrap_or_default().to_vec();
            newest = Some((sk.parse().unwrap_or(0), hash));
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(newest),
        }
    }
}

impl Inner {
    /// Looks at the plan file, and puts it into force if its content is another. `Ok(true)`: it
    /// did.
    pub(super) async fn reload(&self) -> Result<bool, Error> {
        let (name, text) = self.plans.read()?;
        let live = self.live.load_full();
        if crate::catalog::content_hash(&text) == live.catalog.hash {
            return Ok(false);
        }
        let now_ms = self.clock.now().wall_ms;
        let catalog = Catalog::parse(&name, &text, now_ms)?;
        let (store, space) = (&*self.store, &self.writer.space);
        let newest = newest(store, space).await?;
        let revision = publish(store, space, &catalog, newest, now_ms).await?;
        for warning in &catalog.warnings {
            tracing::warn!(line = warning.place.line, "{}", warning.message);
        }
        tracing::info!(revision, "a changed plan file is in force");
        crate::telemetry::catalog_info(revision, Some(live.revision));
        let catalog = Arc::new(catalog);
        self.live.rcu(|live| live.followed_by(catalog.clone(), revision));
        Ok(true)
    }
}

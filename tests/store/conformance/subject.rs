//! The subject of a law, and helpers for writing laws.

use std::sync::Arc;
#[cfg(feature = "dynamodb")]
use std::sync::atomic::{AtomicU32, Ordering};

use tallygate::store::{
    Change, Item, Key, Page, Query, Store, StoreError, StoreErrorKind, Value, When, Write, Written,
};

#[cfg(feature = "dynamodb")]
use crate::shared_table;

/// An empty store, and the way to reopen it.
pub(crate) struct Subject {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    open: Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>,
}

impl Subject {
    fn new(open: impl Fn() -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        Self { store: open(), open: Box::new(open) }
    }

    /// Closes and reopens the store, as another process would.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = (self.open)();
    }

    pub(crate) async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.store.write(write).await
    }

    /// Makes writes that must be applied, concurrently, so that a store may group them.
    pub(crate) async fn put_all(&self, writes: impl IntoIterator<Item = Write>) {
        let running: Vec<_> =
            writes.into_iter().map(|write| tokio::spawn(self.store.write(write))).collect();
        for write in running {
            let written = write.await.unwrap().unwrap();
            assert!(matches!(written, Written::Applied(_)), "{written:?}");
        }
    }

    pub(crate) async fn item(&self, key: &Key) -> Option<Item> {
        self.store.read(key.clone()).await.unwrap()
    }

    /// A page up to its limit, continued where the store has cut it.
    pub(crate) async fn page(&self, query: Query) -> Page {
        self.read_on(query).await.unwrap()
    }

    /// The same, or the store's error.
    pub(crate) async fn read_on(&self, query: Query) -> Result<Page, StoreError> {
        let (mut rest, mut all) = (query.clone(), Page::default());
        let most = query.limit.min(Page::MAX_ITEMS);
        loop {
            let page = self.store.query(rest.clone()).await?;
            assert!(page.items.len() <= rest.limit.min(Page::MAX_ITEMS), "more than was asked for");
            assert!(page.next.is_none() || !page.items.is_empty(), "a page that goes on is empty");
            all.items.extend(page.items);
            match page.next {
                Some(next) if all.items.len() < most => {
                    (rest.from, rest.limit) = (next, most - all.items.len());
                }
                next => return Ok(Page { next, ..all }),
            }
        }
    }

    /// The kind of error of a refused write; panics if it succeeds.
    pub(crate) async fn error(&self, write: Write) -> StoreErrorKind {
        self.store.write(write).await.expect_err("the write should fail").kind
    }
}

/// The reference store.
pub(crate) async fn memory() -> Result<Subject, String> {
    let table = tallygate::store::Memory::new();
    Ok(Subject::new(move || Arc::new(table.clone())))
}

/// The same, with pages cut short.
pub(crate) async fn cut_pages() -> Result<Subject, String> {
    let table = tallygate::store::Memory::new();
    Ok(Subject::new(move || {
        let store = tallygate::testing::Faulty::scripted(table.clone(), []);
        store.cut_pages(3);
        Arc::new(store)
    }))
}

/// The embedded store, in a file of its own.
#[cfg(feature = "redb")]
pub(crate) async fn redb() -> Result<Subject, String> {
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    Ok(Subject::new(move || {
        Arc::new(tallygate::store::Redb::open(dir.path().join("store.redb")).unwrap())
    }))
}

/// The table, in a DynamoDB that runs within this process.
#[cfg(feature = "dynamodb")]
pub(crate) async fn dynoxide() -> Result<Subject, String> {
    let db = dynoxide::Database::memory().map_err(|error| error.to_string())?;
    let endpoint = shared_table::serve(db).await.map_err(|error| error.to_string())?;
    new_table(&endpoint, "tallygate").await
}

/// The table, in Amazon's DynamoDB Local. All tests share its process, each has its own table.
#[cfg(feature = "dynamodb")]
pub(crate) async fn dynamodb_local() -> Result<Subject, String> {
    static TABLES: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await;
    let server = server.map_err(|error| error.to_string())??;
    let table = format!("table-{}", TABLES.fetch_add(1, Ordering::Relaxed));
    new_table(server.endpoint(), &table).await
}

/// A store in a new table there.
#[cfg(feature = "dynamodb")]
async fn new_table(endpoint: &str, table: &str) -> Result<Subject, String> {
    use tallygate::store::DynamoDb;

    let client = test_support::dynamodb::client(endpoint);
    let made = DynamoDb::create_table(&client, table, None).await;
    made.map_err(|error| error.to_string())?;
    let table = table.to_owned();
    // A thousand writes at once on a busy machine take longer than the service ever does.
    let patient = std::time::Duration::from_secs(60);
    let open = move || DynamoDb::new(client.clone(), table.clone()).within(patient);
    Ok(Subject::new(move || Arc::new(open())))
}

/// The subject, or `None` with a line that says why: never in CI, where a skipped store is a
/// failure.
pub(crate) fn get(name: &str, subject: Result<Subject, String>) -> Option<Subject> {
    test_support::skips::needed(name, subject)
}

pub(crate) fn key(pk: &str, sk: &str) -> Key {
    Key { pk: pk.into(), sk: sk.into() }
}

pub(crate) fn write<const W: usize, const C: usize>(
    key: &Key,
    when: [When; W],
    change: [Change; C],
) -> Write {
    Write { key: key.clone(), when: when.into(), change: change.into() }
}

pub(crate) fn set(name: &'static str, value: impl Into<Val>) -> Change {
    Change::Set(name.into(), value.into().0)
}

pub(crate) fn add(name: &'static str, by: i64) -> Change {
    Change::Add(name.into(), by)
}

pub(crate) fn item<const N: usize>(attributes: [(&'static str, Val); N]) -> Item {
    Item(attributes.into_iter().map(|(name, value)| (name.into(), value.0)).collect())
}

pub(crate) fn query(pk: &str, limit: usize) -> Query {
    Query { pk: pk.into(), from: String::new(), until: None, limit }
}

pub(crate) fn sort_keys(page: &Page) -> Vec<&str> {
    page.items.iter().map(|(sk, _)| sk.as_str()).collect()
}

/// A value, written as a literal.
pub(crate) struct Val(pub(crate) Value);

impl From<i64> for Val {
    fn from(n: i64) -> Self {
        Self(Value::Int(n))
    }
}

impl From<&str> for Val {
    fn from(text: &str) -> Self {
        Self(Value::Text(text.into()))
    }
}

impl From<Vec<u8>> for Val {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Value::Bytes(bytes))
    }
}

//! Lists of tenants against a sorted set, and what they read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::ManualClock;
use crate::store::layout::LIST_SHARDS;
use crate::store::{Memory, Promise, StoreFuture, Write, Written};

/// As in `listing.rs`.
const SPARE_ENTRIES: usize = 4;

/// A memory store that counts what is read from it, and ends each page after `short` items.
#[derive(Clone, Debug)]
struct Counting {
    memory: Memory,
    short: usize,
    items: Arc<AtomicUsize>,
    /// Queries.
    queries: Arc<AtomicUsize>,
    /// Reads of single items.
    reads: Arc<AtomicUsize>,
}

impl Counting {
    fn new(short: usize) -> Self {
        let (items, queries, reads) = Default::default();
        Self { memory: Memory::default(), short, items, queries, reads }
    }

    /// Items of queries, queries and reads since the last time.
    fn take(&self) -> [usize; 3] {
        [&self.items, &self.queries, &self.reads].map(|it| it.swap(0, Ordering::Relaxed))
    }
}

impl Store for Counting {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.memory.read(key)
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.memory.write(write)
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let limit = query.limit.min(self.short);
        let (items, read) = (self.items.clone(), self.memory.query(Query { limit, ..query }));
        Box::pin(async move {
            let page = read.await?;
            items.fetch_add(page.items.len(), Ordering::Relaxed);
            Ok(page)
        })
    }

    fn promise(&self) -> Promise {
        self.memory.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.memory.close()
    }
}

fn open(store: Arc<dyn Store>, space: Space, clock: Arc<ManualClock>) -> Directory {
    let alerts = AlertQueue::new(store.clone(), space.clone(), clock.clone(), Vec::new());
    Directory::new(store, space, clock, Default::default(), |_: &str| true, alerts.into())
}

async fn directory_of(store: &Counting, ids: impl IntoIterator<Item = String>) -> Directory {
    let clock = Arc::new(ManualClock::at_unix_ms(1_800_000_000_000));
    let space = Space::new("test");
    let directory = open(Arc::new(store.clone()), space, clock);
    for id in ids {
        directory.tenant(&id).save().await.unwrap();
    }
    directory
}

fn ids(tenants: &[Tenant]) -> Vec<String> {
    tenants.iter().map(|tenant| tenant.record().id.clone()).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_list_is_the_sorted_ids_behind_one_with_a_prefix(
        known in proptest::collection::btree_set("[ab#é𝄞]{1,4}", 0..60),
        (prefix, after) in ("[ab#é𝄞]{0,2}", "[ab#é𝄞]{0,4}"),
        (most, short) in (1..70_usize, 1..9_usize),
    ) {
        block_on(async {
            let directory = directory_of(&Counting::new(short), known.clone()).await;
            let listed = ids(&directory.list(&prefix, &after, most).await.unwrap());
            let wanted = known.into_iter().filter(|id| id.starts_with(&prefix) && *id > after);
            prop_assert_eq!(listed, wanted.take(most).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn pages_follow_one_another_and_read_no_more_than_they_show() {
    let store = Counting::new(usize::MAX);
    let all: BTreeSet<String> = (0..3_000).map(|n| format!("tenant-{n}")).collect();
    let directory = directory_of(&store, all.clone()).await;
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        store.take();
        let page = ids(&directory.list("", &after, 100).await.unwrap());
        let [entries, queries, reads] = store.take();
        // The page and a few for each partition; as few again for each further query, of a
        // partition that had more of the page than its share.
        let further = queries - usize::from(LIST_SHARDS);
        let most = 100 + SPARE_ENTRIES * (usize::from(LIST_SHARDS) + further);
        assert!(entries <= most, "{entries} entries for {} tenants", page.len());
        assert!(further <= 5, "{queries} queries for {} tenants", page.len());
        assert_eq!(reads, page.len(), "the record of each tenant");
        let is_last = page.len() < 100;
        listed.extend(page);
        if is_last {
            break;
        }
        after.clone_from(listed.last().unwrap());
    }
    assert_eq!(listed, Vec::from_iter(all));
}

#[tokio::test]
async fn the_longest_id_is_listed_and_is_a_prefix_and_a_place() {
    let longest = "𝄞".repeat(256);
    let directory = directory_of(&Counting::new(9), [longest.clone()]).await;
    for (prefix, after, found) in
        [("", "", 1), (&*longest, "", 1), ("", &*longest, 0), (&*longest, &*longest, 0)]
    {
        assert_eq!(directory.list(prefix, after, 10).await.unwrap().len(), found);
    }
    let too_long = "a".repeat(Key::MAX_SK_BYTES + 1);
    let refused = directory.list(&too_long, "", 10).await;
    assert!(matches!(refused, Err(DirectoryError::TenantId)), "{refused:?}");
}

/// Each within a second, among a million in a build with optimisation:
/// `TALLYGATE_TENANTS=1000000 cargo test --release --all-features --lib among_many -- --nocapture`.
#[cfg(feature = "redb")]
#[tokio::test]
async fn a_page_of_a_file_takes_as_long_among_many() {
    let tenants = std::env::var("TALLYGATE_TENANTS").map_or(2_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = crate::store::Redb::open(folder.path().join("list.redb")).unwrap();
    let clock = Arc::new(ManualClock::at_unix_ms(1_800_000_000_000));
    let space = Space::new("test");
    let directory = open(Arc::new(store), space, clock);
    let mut making = tokio::task::JoinSet::new();
    for n in 0..tenants {
        let edit = directory.tenant(&format!("tenant-{n:07}"));
        making.spawn(async move { edit.save().await.map(drop) });
        if making.len() == 512 {
            making.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    while let Some(made) = making.join_next().await {
        made.unwrap().unwrap();
    }
    let last = format!("tenant-{:07}", tenants - 1);
    for (prefix, after, found) in [("", "", 100), ("tenant-0001", "", 100), (&*last, "", 1)] {
        let begun = tokio::time::Instant::now();
        let page = directory.list(prefix, after, 100).await.unwrap();
        let took = begun.elapsed();
        println!("{prefix:?} among {tenants} tenants: {took:?}");
        let is_large = std::env::var_os("TALLYGATE_TENANTS").is_some();
        assert!(took < std::time::Duration::from_secs(if is_large { 1 } else { 20 }), "{took:?}");
        assert_eq!(page.len(), found);
    }
}

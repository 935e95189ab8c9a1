//! What a page of the list of tenants reads, of each store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tallygate::store::{DynamoDb, Memory, Page, Query, Redb, Store, StoreFuture};
use tallygate::{GateBuilder, testing};
use test_support::dynamodb::client;
use test_support::skips;

/// A store that counts the entries of the list that are read from it, and the queries for them.
#[derive(Clone)]
struct Counting {
    store: Arc<dyn Store>,
    entries: Arc<AtomicUsize>,
    queries: Arc<AtomicUsize>,
}

impl Store for Counting {
    fn query(&self, query: Query) -> StoreFuture<Page> {
        let is_of_list = query.pk.contains("#I#");
        let (entries, read) = (self.entries.clone(), self.store.query(query));
        if !is_of_list {
            return read; // a look for changes, which goes on meanwhile
        }
        self.queries.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let page = read.await?;
            entries.fetch_add(page.items.len(), Ordering::Relaxed);
            Ok(page)
        })
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }

    test_support::forward!(store: read, write, expire, promise);
}

const TENANTS: usize = 400;
const PAGE: usize = 100;
/// Partitions of the list, and entries that a query reads beyond a partition's share of the page.
const PARTITIONS: usize = 16;
const SPARE: usize = 4;

async fn pages_read_what_is_promised(store: impl Store) {
    let store =
        Counting { store: Arc::new(store), entries: Arc::default(), queries: Arc::default() };
    // It does nothing by itself while a page is counted.
    let service = "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-tenant\"\n\
                   [proxy]\ntrust = [\"127.0.0.0/8\"]\n[flush]\nmode = \"fast\"\n";
    let builder = GateBuilder::from_text(service).plans("default-plan = \"a\"\n[plan.a]\n");
    let clock = tallygate::ManualClock::at_unix_ms(testing::START_MS);
    let gate = builder.store(store.clone()).clock(clock).work_only().open().await.unwrap();
    let mut making = tokio::task::JoinSet::new();
    for n in 0..TENANTS {
        let edit = gate.directory().tenant(&format!("tenant-{n}"));
        making.spawn(async move { edit.save().await.map(drop) });
        if making.len() == 16 {
            making.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    while let Some(made) = making.join_next().await {
        made.unwrap().unwrap();
    }
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        store.entries.store(0, Ordering::Relaxed);
        store.queries.store(0, Ordering::Relaxed);
        let page = gate.directory().list("", &after, PAGE).await.unwrap();
        let entries = store.entries.load(Ordering::Relaxed);
        let queries = store.queries.load(Ordering::Relaxed);
        println!("{} tenants: {entries} entries by {queries} queries", page.len());
        let further = queries - PARTITIONS;
        assert!(entries <= PAGE + SPARE * PARTITIONS + SPARE * further, "{entries}, {queries}");
        assert!(further <= PARTITIONS, "{queries} queries");
        seen += page.len();
        let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
        after.clone_from(&last.record().id);
    }
    assert_eq!(seen, TENANTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_what_is_promised_of_each_store() {
    pages_read_what_is_promised(Memory::new()).await;
    let folder = tempfile::tempdir().unwrap();
    pages_read_what_is_promised(Redb::open(folder.path().join("store.redb")).unwrap()).await;
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("a page of DynamoDB Local", server) else { return };
    DynamoDb::create_table(&client(server.endpoint()), "listing", None).await.unwrap();
    pages_read_what_is_promised(DynamoDb::new(client(server.endpoint()), "listing")).await;
}

//! docs/admin.md: what the operator's lists cost among many tenants, in a file of redb. Reads of
//! the store are counted: they do not grow with the tenants. Times are for a build with
//! optimisation:
//!
//! ```sh
//! TALLYGATE_TENANTS=1000000 cargo test --release -p pages many_tenants -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use pages::admin::with_admin;
use serde_json::Value;
use tallygate::directory::Role;
use tallygate::store::{Item, Key, Page, Promise, Query, Redb, Store, StoreFuture, Write, Written};
use tallygate::{Ask, Gate, GateBuilder, Reason};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/month"
"#;

/// Tenants that are being made at once: their writes share transactions of the file.
const AT_ONCE: usize = 512;

/// Between two tries of a call that the store was too slow for.
const RETRY: Duration = Duration::from_millis(50);

/// A tenant that has used most of its quota, to be found at the top.
const BUSIEST: &str = "tenant-0000777";

/// Longest time of an answer, and of one in a small run, which shares its machine with others.
const WITHIN: Duration = Duration::from_secs(1);
const WITHIN_SMALL: Duration = Duration::from_secs(20);

/// Most reads of the store for a page of 100: those 100, and each partition of the list twice.
const OF_A_PAGE: usize = 100 + 2 * 16;
/// The same for the top: 256 tenants, each with its record and its pool, and the logs.
const OF_THE_TOP: usize = 2 * 256 + 64;

/// A store that counts what is read from it.
struct Counting {
    store: Redb,
    reads: Arc<AtomicUsize>,
}

impl Store for Counting {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read(key)
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.store.write(write)
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.query(query)
    }

    fn promise(&self) -> Promise {
        self.store.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}

/// A gate on the file, and how often its store was read.
async fn open(folder: &std::path::Path) -> (Gate, Arc<AtomicUsize>) {
    let pepper = folder.join("pepper");
    std::fs::write(&pepper, "a secret of at least sixteen bytes").unwrap();
    let service = format!(
        "flush.mode = \"fast\"\nidentity.unknown = \"create\"\n\
         [[identify]]\napi-key = \"authorization\"\n\
         pepper = [{{ id = \"1\", file = {pepper:?} }}]\n"
    );
    let reads = Arc::new(AtomicUsize::new(0));
    let store = Redb::open(folder.join("many.redb")).unwrap();
    let store = Counting { store, reads: reads.clone() };
    let builder = GateBuilder::from_text(&service).store(store).plans(PLANS);
    (builder.open().await.unwrap(), reads)
}

/// How many tenants, and how long an answer may take.
fn size() -> (usize, Duration) {
    match std::env::var("TALLYGATE_TENANTS") {
        Ok(tenants) => (tenants.parse().unwrap(), WITHIN),
        Err(_) => (2_000, WITHIN_SMALL),
    }
}

/// What was read of the store since the last time, less than so often, and how long it took.
fn within(what: &str, begun: Instant, (reads, most): (&AtomicUsize, usize)) {
    let (took, read) = (begun.elapsed(), reads.swap(0, Ordering::Relaxed));
    println!("{what}: {took:?}, {read} reads");
    assert!(took < size().1, "{what} took {took:?}");
    assert!(read <= most, "{what}: {read} reads, at most {most}");
}

/// The tenant calls once, and is in this process's memory from then on.
async fn call(gate: &Gate, id: &str, requests: u64) {
    let tenant = gate.tenant(id).await.unwrap();
    loop {
        match gate.admit(Ask::new(&tenant, "work").cost("requests", requests)).await {
            Ok(permit) => return permit.settle(),
            // The disk is behind: so many tenants never begin at once in a service.
            Err(refusal) => assert_eq!(refusal.reason, Reason::Unavailable),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn ask(app: &Router, token: &str, path: &str, cost: (&AtomicUsize, usize)) -> Value {
    cost.0.store(0, Ordering::Relaxed);
    let request = axum::http::Request::get(format!("/admin{path}"));
    let request = request.header("authorization", format!("Bearer {token}"));
    let begun = Instant::now();
    let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    within(&format!("GET {path}"), begun, cost);
    assert_eq!(status, 200, "{path}");
    serde_json::from_slice(&body).unwrap()
}

fn ids(answer: &Value) -> Vec<&str> {
    let tenants = answer["tenants"].as_array().unwrap();
    tenants.iter().map(|tenant| tenant["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_the_top_find_their_tenants_among_many() {
    let (tenants, _) = size();
    let folder = tempfile::tempdir().unwrap();
    let (gate, reads) = open(folder.path()).await;
    let mut calling = JoinSet::new();
    for n in 0..tenants {
        let gate = gate.clone();
        calling.spawn(async move { call(&gate, &format!("tenant-{n:07}"), 1).await });
        if calling.len() == AT_ONCE {
            calling.join_next().await.unwrap().unwrap();
        }
    }
    calling.join_all().await;
    call(&gate, BUSIEST, 900).await;
    let token = gate.directory().new_operator("kim@example.com", Role::Read).await.unwrap();
    let app = with_admin(&gate, Router::new());
    let get = async |path: &str, most| ask(&app, token.expose(), path, (&reads, most)).await;

    println!("among {tenants} tenants");
    let middle = format!("tenant-{:07}", tenants / 2);
    assert_eq!(ids(&get("/tenants?limit=100", OF_A_PAGE).await).len(), 100);
    let after = get(&format!("/tenants?after={middle}&limit=100"), OF_A_PAGE).await;
    assert_eq!(ids(&after)[0], format!("tenant-{:07}", tenants / 2 + 1));
    let found = get(&format!("/tenants?prefix={BUSIEST}"), OF_A_PAGE).await;
    assert_eq!(ids(&found), [BUSIEST]);
    // A filter looks at a bounded number of tenants, whatever it finds.
    let none = get("/tenants?payment=unpaid", 1_000 + 4 * 2 * 16).await;
    assert_eq!((ids(&none).len(), &none["read"]), (0, &1_000.into()));
    assert_ne!(none["next"], Value::Null);
    let top = get("/top", OF_THE_TOP).await;
    assert_eq!(ids(&top)[0], BUSIEST);
    println!("{} of them in use", top["in-use"]);
    gate.close().await.unwrap();
    drop((app, gate));

    // As `tallygate top` on the store: of tenants that this process has never seen.
    let (gate, reads) = open(folder.path()).await;
    let begun = Instant::now();
    reads.store(0, Ordering::Relaxed);
    let top = gate.top(50).await;
    // The log of each record that was written, a page at a time.
    within("top of the store", begun, (&reads, OF_THE_TOP + tenants / 500));
    assert_eq!(top.tenants[0]["id"], BUSIEST);
    assert_eq!((top.tenants[0]["share"].as_f64(), top.in_use), (Some(0.901), 0));
    assert_eq!(top.compared, Some(tenants));
    let begun = Instant::now();
    assert_eq!(gate.top(50).await.tenants, top.tenants);
    within("top asked again at once", begun, (&reads, 0));
    gate.close().await.unwrap();
}

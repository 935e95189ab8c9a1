//! Delay of changes: with the next request in the process that makes one, within two seconds in
//! every other, or by age if it could not be announced.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use sha2::Digest;
use tallygate::directory::{Grant, PaymentState, Tenant};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Write,
    Written,
};
use tallygate::testing::{self, START_MS};
use tallygate::{Admitted, Ask, Gate, GateBuilder, Identified, ManualClock, Usage};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "2/day"
    [plan.pro]
    quota.requests = "4/day"
    [plan.trial]
    quota.requests = "1000/day"
    expires = "14d"
    [plan.open]
    rate.default = "1000/s"
"#;

/// An in-memory store as several processes see it.
#[derive(Clone)]
struct Table {
    store: Memory,
    /// Calls to the feed of changes: polls and announcements.
    looks: Arc<AtomicU64>,
    /// Whether announcements fail, and whether those of changes that begin do.
    is_mute: Arc<AtomicBool>,
    no_beginnings: Arc<AtomicBool>,
    /// Reads of tenants, their names and their keys.
    reads: Arc<AtomicU64>,
    /// Whether writes are answered a second late.
    is_slow: Arc<AtomicBool>,
    /// Whether one process's reads of items fail, and whether its queries do.
    no_reads: Arc<AtomicBool>,
    no_queries: Arc<AtomicBool>,
    /// Partitions whose reads hang.
    hangs: Arc<Mutex<Option<String>>>,
    /// Reads of items take 10 ms while counted; the number in progress, and its maximum.
    counts: Arc<AtomicBool>,
    under_way: Arc<()>,
    most: Arc<AtomicUsize>,
}

impl Table {
    fn new() -> Self {
        let store = Memory::new();
        let (looks, is_mute, is_slow, no_reads, no_queries) = Default::default();
        let (hangs, counts, under_way, most) = Default::default();
        let (no_beginnings, reads) = Default::default();
        Self {
            store,
            looks,
            is_mute,
            no_beginnings,
            reads,
            is_slow,
            no_reads,
            no_queries,
            hangs,
            counts,
            under_way,
            most,
        }
    }
}

fn away<T: Send + 'static>() -> StoreFuture<T> {
    Box::pin(async { Err(StoreError::new(StoreErrorKind::Unavailable, "it is away")) })
}

fn is_feed(pk: &str) -> bool {
    pk.contains("#A#")
}

impl Store for Table {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        let is_of_tenant = ["#T#", "#N#", "#C#"].iter().any(|part| key.pk.contains(part));
        self.reads.fetch_add(u64::from(is_of_tenant), Ordering::Relaxed);
        if self.no_reads.load(Ordering::Relaxed) {
            return away();
        }
        if self.hangs.lock().unwrap().as_ref().is_some_and(|part| key.pk.contains(&**part)) {
            return Box::pin(std::future::pending());
        }
        if !self.counts.load(Ordering::Relaxed) {
            return self.store.read(key);
        }
        let (store, most, under_way) =
            (self.store.clone(), self.most.clone(), self.under_way.clone());
        Box::pin(async move {
            most.fetch_max(Arc::strong_count(&under_way), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            store.read(key).await
        })
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        if is_feed(&write.key.pk) && self.is_mute.load(Ordering::Relaxed) {
            return away();
        }
        if write.key.pk.contains("#O#") && self.no_beginnings.load(Ordering::Relaxed) {
            return away();
        }
        let (store, is_slow) = (self.store.clone(), self.is_slow.load(Ordering::Relaxed));
        Box::pin(async move {
            let written = store.write(write).await;
            if is_slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            written
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        if is_feed(&query.pk) {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
        if self.no_queries.load(Ordering::Relaxed) {
            return away();
        }
        self.store.query(query)
    }

    fn promise(&self) -> Promise {
        Promise { shared: true, ..self.store.promise() }
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }
}

struct World {
    clock: ManualClock,
    table: Table,
    service: String,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pepper = folder.path().join("pepper");
        std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
        let service = format!(
            "[store]\nkind = \"memory\"\n\
             [[identify]]\napi-key = \"authorization\"\n\
             pepper = [{{ id = \"1\", file = \"{}\" }}]\n\
             [[identify]]\nheader = \"x-tenant\"\n\
             [proxy]\ntrust = [\"10.0.0.0/8\"]\n\
             [flush]\nmode = \"fast\"",
            pepper.display()
        );
        let (clock, table) = (ManualClock::at_unix_ms(START_MS), Table::new());
        Self { clock, table, service, _folder: folder }
    }

    /// One process.
    async fn gate(&self) -> Gate {
        self.gate_at(self.table.clone()).await
    }

    async fn gate_at(&self, table: Table) -> Gate {
        let builder = GateBuilder::from_text(&self.service).plans(PLANS);
        builder.store(table).clock(self.clock.clone()).open().await.unwrap()
    }

    /// Advances the time of both tasks and gates.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(100);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.clock.advance(step);
            tokio::time::sleep(step).await;
        }
    }
}

async fn status(gate: &Gate, name: &str, value: &str) -> u16 {
    let mut request = Request::get("/").header(name, value).body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Peer("10.0.0.7:1".parse().unwrap()));
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let service = GateLayer::new(gate).layer(inner);
    service.oneshot(request).await.unwrap().status().as_u16()
}

async fn with_key(gate: &Gate, key: &str) -> u16 {
    status(gate, "authorization", &format!("Bearer {key}")).await
}

async fn new_key(gate: &Gate, tenant: &str) -> (String, Tenant) {
    let tenant = gate.directory().tenant(tenant).note("signed up").save().await.unwrap();
    let key = tenant.new_key("ci").await.unwrap();
    (key.expose().to_owned(), tenant)
}

fn grant(n: u64) -> Grant {
    Grant::new("gift-1", "requests", n)
}

#[tokio::test(start_paused = true)]
async fn a_change_acts_on_the_next_request_of_the_process_that_makes_it() {
    let w = World::new();
    let gate = w.gate().await;
    let (key, acme) = new_key(&gate, "acme").await;
    for expected in [200, 200, 429] {
        assert_eq!(with_key(&gate, &key).await, expected);
    }
    acme.edit().plan("pro").note("upgraded").save().await.unwrap();
    for expected in [200, 200, 429] {
        assert_eq!(with_key(&gate, &key).await, expected, "four a day");
    }
    acme.edit().grant(grant(2)).note("sorry").save().await.unwrap();
    for expected in [200, 200, 429] {
        assert_eq!(with_key(&gate, &key).await, expected, "two more");
    }
    let more = "quota.requests = \"8/day\"";
    acme.edit().override_(more, None, "a favour").note("more").save().await.unwrap();
    assert_eq!(with_key(&gate, &key).await, 200);
    acme.suspend("does not pay").await.unwrap();
    assert_eq!(with_key(&gate, &key).await, 403);
    acme.resume("pays").await.unwrap();
    assert_eq!(with_key(&gate, &key).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_is_refused_at_once_and_the_others_of_its_tenant_are_not() {
    let w = World::new();
    let gate = w.gate().await;
    let (key, acme) = new_key(&gate, "acme").await;
    let other = acme.new_key("other").await.unwrap();
    for key in [&*key, other.expose()] {
        assert_eq!(with_key(&gate, key).await, 200);
    }
    let keys = acme.keys().await.unwrap();
    let ci = keys.iter().find(|key| key.name == "ci").unwrap();
    acme.revoke_key(&ci.id).await.unwrap();
    assert_eq!(with_key(&gate, &key).await, 401);
    assert_eq!(with_key(&gate, other.expose()).await, 429, "known, and its quota is used up");
}

#[tokio::test(start_paused = true)]
async fn a_change_acts_whose_caller_goes_away_before_it_is_answered() {
    let mut refused = 0;
    for after_ms in [500, 1_500, 2_500] {
        let w = World::new();
        let gate = w.gate().await;
        let (key, acme) = new_key(&gate, "acme").await;
        let (revoked, globex) = new_key(&gate, "globex").await;
        let id = globex.keys().await.unwrap()[0].id.clone();
        for key in [&key, &revoked] {
            assert_eq!(with_key(&gate, key).await, 200);
        }
        w.table.is_slow.store(true, Ordering::Relaxed);
        let soon = Duration::from_millis(after_ms);
        let _ = tokio::time::timeout(soon, acme.edit().suspend().note("abuse").save()).await;
        let _ = tokio::time::timeout(soon, globex.revoke_key(&id)).await;
        w.table.is_slow.store(false, Ordering::Relaxed);
        with_key(&gate, &key).await;
        w.pass(Duration::from_secs(1)).await;
        let elsewhere = w.gate().await;
        // The rest of the quota does not matter.
        let is_refused = |status| matches!(status, 401 | 403);
        for key in [&key, &revoked] {
            let expected = is_refused(with_key(&elsewhere, key).await);
            assert_eq!(is_refused(with_key(&gate, key).await), expected, "after {after_ms} ms");
            refused += u32::from(expected);
        }
    }
    assert!(refused >= 3, "{refused}: some of the changes were made");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_and_revoked_is_unknown_and_not_unavailable() {
    let w = World::new();
    let gate = w.gate().await;
    let (key, acme) = new_key(&gate, "acme").await;
    let id = acme.keys().await.unwrap()[0].id.clone();
    acme.revoke_key(&id).await.unwrap();
    for _ in 0..3 {
        assert_eq!(with_key(&gate, &key).await, 401);
        assert_eq!(with_key(&gate, "acme").await, 401, "a key that is a tenant's name");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_or_a_tenant_that_was_tried_before_it_was_made_works_at_once() {
    let w = World::new();
    let (gate, elsewhere) = (w.gate().await, w.gate().await);
    let hash = sha2::Sha256::digest(b"a-key-of-another-system").into();
    for gate in [&gate, &elsewhere] {
        assert_eq!(with_key(gate, "a-key-of-another-system").await, 401);
        assert_eq!(with_key(gate, "a-key-that-is-never-made").await, 401);
        assert_eq!(status(gate, "x-tenant", "globex").await, 401);
    }
    let acme = gate.directory().tenant("acme").note("moved").save().await.unwrap();
    acme.import_key_sha256("old", hash).await.unwrap();
    gate.directory().tenant("globex").note("signed up").save().await.unwrap();
    assert_eq!(with_key(&gate, "a-key-of-another-system").await, 200);
    assert_eq!(status(&gate, "x-tenant", "globex").await, 200);

    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&elsewhere, "a-key-of-another-system").await, 200);
    assert_eq!(status(&elsewhere, "x-tenant", "globex").await, 200);
    assert_eq!(with_key(&elsewhere, "a-key-that-is-never-made").await, 401);
}

#[tokio::test(start_paused = true)]
async fn an_erased_tenant_is_unknown_at_once_and_elsewhere_within_two_seconds() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    for gate in [&here, &there] {
        assert_eq!(with_key(gate, &key).await, 200);
    }
    let named = |status: u16| matches!(status, 200 | 429);
    for gate in [&here, &there] {
        assert!(named(status(gate, "x-tenant", "acme").await));
    }
    let erased = here.directory().by("kim").erase("acme", "request 4711").await.unwrap();
    assert_eq!(with_key(&here, &key).await, 401);
    assert_eq!(status(&here, "x-tenant", "acme").await, 401);
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, &key).await, 401);
    assert_eq!(status(&there, "x-tenant", "acme").await, 401);
    let own = erased.record().id.clone();
    for gate in [&here, &there] {
        assert_eq!(status(gate, "x-tenant", &own).await, 401, "no caller names it");
    }

    // Another tenant of this id begins anew.
    let (other, next) = new_key(&there, "acme").await;
    assert_ne!(next.record().surrogate, acme.record().surrogate);
    for expected in [200, 200, 429] {
        assert_eq!(with_key(&there, &other).await, expected);
    }
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(status(&here, "x-tenant", "acme").await, 429, "known, and its quota is used up");
    let counted = async |id: &str| {
        let who = Identified::from(&here.tenant(id).await.unwrap());
        here.usage_report(&who).await.unwrap().meters[0].used
    };
    there.flush_now().await.unwrap();
    here.flush_now().await.unwrap();
    let (of_erased, of_next) = (counted(&own).await, counted("acme").await);
    assert!(of_erased == 2 && of_next == 2, "each its own: {of_erased}, {of_next}");
}

#[tokio::test(start_paused = true)]
async fn a_change_acts_in_other_processes_within_two_seconds() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    let old = acme.new_key("old").await.unwrap();
    assert_eq!(with_key(&there, &key).await, 200);
    assert_eq!(with_key(&there, old.expose()).await, 200);
    assert_eq!(with_key(&there, &key).await, 429);
    let eight = "quota.requests = \"8/day\"";
    for (n, served) in [("pro", 2), ("grant", 2), ("override", 4)] {
        w.pass(Duration::from_secs(3)).await;
        let edit = match n {
            "pro" => acme.edit().plan("pro"),
            "grant" => acme.edit().grant(grant(2)),
            _ => acme.edit().override_(eight, None, "a favour"),
        };
        edit.note("more").save().await.unwrap();
        w.pass(Duration::from_secs(2)).await;
        for _ in 0..served {
            assert_eq!(with_key(&there, &key).await, 200, "{n}");
        }
        assert_eq!(with_key(&there, &key).await, 429, "{n}");
    }
    acme.suspend("does not pay").await.unwrap();
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, &key).await, 403);
    acme.resume("pays").await.unwrap();
    let keys = acme.keys().await.unwrap();
    let id = &keys.iter().find(|key| key.name == "old").unwrap().id;
    acme.revoke_key(id).await.unwrap();
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, old.expose()).await, 401);
    assert_eq!(with_key(&there, &key).await, 429);
}

/// More simultaneous changes than the feed keeps: readers can tell that some are missing.
#[tokio::test(start_paused = true)]
async fn a_change_among_thousands_acts_in_other_processes_all_the_same() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    let (revoked, globex) = new_key(&here, "globex").await;
    for (key, tenant) in [(&key, &acme), (&revoked, &globex)] {
        tenant.edit().plan("trial").note("units at hand").save().await.unwrap();
        for _ in 0..3 {
            assert_eq!(with_key(&there, key).await, 200);
        }
    }
    w.pass(Duration::from_millis(1_500)).await; // between two polls
    acme.suspend("does not pay").await.unwrap();
    globex.revoke_key(&globex.keys().await.unwrap()[0].id).await.unwrap();
    change_thousands(&here).await;
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, &key).await, 403);
    assert_eq!(with_key(&there, &revoked).await, 401);
}

/// Changes more than the feed keeps, within a second.
async fn change_thousands(gate: &Gate) {
    let other = gate.directory().tenant("other").note("-").save().await.unwrap();
    for n in 0..1_000 {
        other.edit().plan(["free", "pro"][n % 2]).note("to and fro").save().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_tenants_that_are_made_put_nobody_else_in_doubt() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate_at(w.table.clone()).await);
    let (key, acme) = new_key(&here, "acme").await;
    let (revoked, globex) = new_key(&here, "globex").await;
    acme.edit().plan("open").note("no units").save().await.unwrap();
    for key in [&key, &revoked] {
        assert_eq!(with_key(&there, key).await, 200);
    }
    w.pass(Duration::from_millis(1_500)).await;
    globex.revoke_key(&globex.keys().await.unwrap()[0].id).await.unwrap();
    for n in 0..1_000 {
        let made = here.directory().tenant(&format!("t{n}")).note("imported").save().await;
        made.unwrap();
    }
    w.pass(Duration::from_secs(2)).await;
    w.table.counts.store(true, Ordering::Relaxed);
    assert_eq!(with_key(&there, &key).await, 200);
    assert_eq!(w.table.most.load(Ordering::Relaxed), 0, "it was not read again");
    assert_eq!(with_key(&there, &revoked).await, 401);
}

/// Then all cached entries are in doubt, and each caller is read again first.
#[tokio::test(start_paused = true)]
async fn after_thousands_of_changes_callers_are_read_again_a_few_at_a_time_and_all_are_served() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate_at(w.table.clone()).await);
    let mut keys = Vec::new();
    for n in 0..1_000 {
        keys.push(new_key(&here, &format!("t{n}")).await.0);
    }
    for key in &keys {
        assert_eq!(with_key(&there, key).await, 200);
    }
    w.pass(Duration::from_millis(1_500)).await;
    change_thousands(&here).await;
    w.pass(Duration::from_secs(2)).await;
    w.table.counts.store(true, Ordering::Relaxed);
    let mut calls = JoinSet::new();
    for key in keys {
        let there = there.clone();
        calls.spawn(async move { with_key(&there, &key).await });
    }
    assert_eq!(calls.join_all().await, [200; 1_000]);
    let most = w.table.most.load(Ordering::Relaxed);
    assert!((100..200).contains(&most), "{most} reads at once");
}

/// The store is unreachable from one process while another makes a change. Once it is back, the
/// change acts as soon as it would have without the outage.
#[tokio::test(start_paused = true)]
async fn what_was_changed_while_the_store_was_away_acts_within_two_seconds_of_its_return() {
    for (seconds, with_queries) in [(3, false), (3, true), (8, true), (45, true)] {
        let w = World::new();
        let (no_reads, no_queries) = Default::default();
        let table = Table { no_reads, no_queries, ..w.table.clone() };
        let (here, there) = (w.gate().await, w.gate_at(table.clone()).await);
        let (key, acme) = new_key(&here, "acme").await;
        acme.edit().plan("open").note("no units").save().await.unwrap();
        assert_eq!(with_key(&there, &key).await, 200);
        w.pass(Duration::from_secs(2)).await;
        table.no_reads.store(true, Ordering::Relaxed);
        table.no_queries.store(with_queries, Ordering::Relaxed);
        w.pass(Duration::from_secs(1)).await;
        acme.suspend("does not pay").await.unwrap();
        for _ in 0..seconds * 2 {
            assert_eq!(with_key(&there, &key).await, 200, "as last known");
            w.pass(Duration::from_millis(500)).await;
        }
        table.no_reads.store(false, Ordering::Relaxed);
        table.no_queries.store(false, Ordering::Relaxed);
        w.pass(Duration::from_secs(2)).await;
        let status = with_key(&there, &key).await;
        assert_eq!(status, 403, "away for {seconds} s, with queries: {with_queries}");
    }
}

/// Changed elsewhere: noticed through the feed, or by age.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_cannot_be_read_keeps_no_other_from_being_read_again() {
    for is_mute in [false, true] {
        let w = World::new();
        let (here, there) = (w.gate().await, w.gate_at(w.table.clone()).await);
        let (stuck, stuck_tenant) = new_key(&here, "stuck").await;
        let (key, acme) = new_key(&here, "acme").await;
        for key in [&stuck, &key] {
            assert_eq!(with_key(&there, key).await, 200);
        }
        w.pass(Duration::from_secs(16)).await;
        w.table.is_mute.store(is_mute, Ordering::Relaxed);
        stuck_tenant.edit().plan("pro").note("-").save().await.unwrap();
        *w.table.hangs.lock().unwrap() = Some(stuck_tenant.record().surrogate.to_string());
        w.pass(Duration::from_secs(1)).await;
        with_key(&there, &stuck).await; // read again in the background
        acme.suspend("does not pay").await.unwrap();
        with_key(&there, &key).await; // the same
        w.pass(Duration::from_secs(2)).await;
        assert_eq!(with_key(&there, &key).await, 403, "without announcements: {is_mute}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_could_announce_is_seen_by_its_age() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    assert_eq!(with_key(&there, &key).await, 200);
    w.table.is_mute.store(true, Ordering::Relaxed);
    acme.suspend("does not pay").await.unwrap();
    assert_eq!(with_key(&here, &key).await, 403, "here it is known");
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, &key).await, 200);
    w.pass(Duration::from_secs(29)).await;
    assert_eq!(with_key(&there, &key).await, 403);
}

/// Reads of the directory while a tenant calls once a second, by name and by key.
async fn reads_of_calls(w: &World, gate: &Gate, key: &str, seconds: u32) -> u64 {
    w.table.reads.store(0, Ordering::Relaxed);
    for _ in 0..seconds {
        with_key(gate, key).await;
        status(gate, "x-tenant", "acme").await;
        w.pass(Duration::from_secs(1)).await;
    }
    w.table.reads.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_tenant_is_not_read_again_for_minutes() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    reads_of_calls(&w, &there, &key, 5).await;
    assert_eq!(reads_of_calls(&w, &there, &key, 300).await, 0);

    // A change that has begun may be made at any time now, and never be announced.
    w.table.is_mute.store(true, Ordering::Relaxed);
    acme.edit().plan("trial").note("-").save().await.unwrap();
    let reads = reads_of_calls(&w, &there, &key, 120).await;
    assert!((8..=40).contains(&reads), "{reads}, by their age");
    reads_of_calls(&w, &there, &key, 30).await;
    assert_eq!(reads_of_calls(&w, &there, &key, 120).await, 0);

    // Nothing vouches for it while the feeds cannot be followed.
    w.table.no_queries.store(true, Ordering::Relaxed);
    let reads = reads_of_calls(&w, &there, &key, 120).await;
    assert!(reads >= 8, "{reads}, by their age");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_not_made_before_it_is_on_record_that_it_begins() {
    let w = World::new();
    let (here, there) = (w.gate().await, w.gate().await);
    let (key, acme) = new_key(&here, "acme").await;
    let id = acme.keys().await.unwrap()[0].id.clone();
    assert_eq!(with_key(&there, &key).await, 200);
    w.table.no_beginnings.store(true, Ordering::Relaxed);
    assert!(acme.suspend("does not pay").await.is_err() && acme.revoke_key(&id).await.is_err());
    w.pass(Duration::from_secs(35)).await;
    for gate in [&here, &there] {
        assert!(matches!(with_key(gate, &key).await, 200 | 429), "neither suspended nor revoked");
    }
    w.table.no_beginnings.store(false, Ordering::Relaxed);
    acme.suspend("does not pay").await.unwrap();
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(with_key(&there, &key).await, 403);
}

#[tokio::test(start_paused = true)]
async fn a_process_reads_the_feed_once_a_second_and_not_while_all_tenants_are_idle() {
    let w = World::new();
    let gate = w.gate().await;
    let (key, _) = new_key(&gate, "acme").await;
    with_key(&gate, &key).await;
    let looks = || w.table.looks.swap(0, Ordering::Relaxed);
    looks();
    w.pass(Duration::from_secs(10)).await;
    let busy = looks();
    assert!((9..=11).contains(&busy), "{busy} looks in 10 s");
    w.pass(Duration::from_secs(180)).await; // until the tenant is idle
    looks();
    w.pass(Duration::from_secs(360)).await;
    assert_eq!(looks(), 0, "the next caller is read first");
}

/// A request's handle outlives it, and reports late, after a change in another process.
#[tokio::test(start_paused = true)]
async fn late_usage_is_charged_to_the_plan_in_force_however_long_its_tenant_was_silent() {
    let w = World::new();
    let gate = async || {
        let builder = testing::builder(UNLIMITED_THEN_TWELVE);
        builder.store(w.table.clone()).clock(w.clock.clone()).open().await.unwrap()
    };
    let (here, there) = (gate().await, gate().await);
    here.directory().tenant("acme").note("signed up").save().await.unwrap();
    let usage = kept(&there).await;
    w.pass(Duration::from_secs(20 * 60)).await;
    let acme = here.directory().find("acme").await.unwrap().unwrap();
    acme.edit().plan("pro").note("limited").save().await.unwrap();
    w.pass(Duration::from_secs(3)).await;
    usage.add("tokens", 7);
    assert_eq!(tokens(&there, &w.clock).await, (7, 7));
}

const UNLIMITED_THEN_TWELVE: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    [plan.free]
    quota.tokens = "unlimited"
    [plan.pro]
    quota.tokens = "12/day"
"#;

#[tokio::test(start_paused = true)]
async fn a_trial_ends_for_work_by_a_kept_handle() {
    let w = World::new();
    let gate = w.gate().await;
    gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    let kept = gate.tenant("acme").await.unwrap();
    let work = async || gate.admit(Ask::new(&kept, "job")).await.map(|it| it.settle());
    work().await.unwrap();
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    acme.edit().plan("trial").note("tries it").save().await.unwrap();
    work().await.unwrap();
    w.pass(Duration::from_secs(2)).await;
    for _ in 0..13 {
        w.clock.advance(Duration::from_secs(86_400));
        w.pass(Duration::from_secs(1)).await;
        work().await.unwrap();
    }
    w.clock.advance(Duration::from_secs(86_400));
    assert!(work().await.is_err(), "14 days after its first request");
}

const STREAMS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    [plan.free]
    quota.tokens = "100/day"
    [plan.pro]
    quota.tokens = "1000/day"
"#;

/// What a handler of `acme` keeps of its request: an upgraded connection, or a job.
async fn kept(gate: &Gate) -> Usage {
    let request = Request::get("/ws").header("x-tenant", "acme").body(Empty::<Bytes>::new());
    let (keep, kept) = tokio::sync::oneshot::channel();
    let keep = Arc::new(std::sync::Mutex::new(Some(keep)));
    let inner = tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        let _ = keep.lock().unwrap().take().unwrap().send(usage);
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(""))) }
    });
    let response = GateLayer::new(gate).layer(inner).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    kept.await.unwrap()
}

/// The tokens in `GET /usage`: usage in the month, and in the day's quota.
async fn tokens(gate: &Gate, clock: &ManualClock) -> (u64, u64) {
    gate.flush_now().await.unwrap();
    clock.advance(Duration::from_secs(2)); // past the age of a cached reading
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|m| &*m.name == "tokens").unwrap();
    (meter.used.whole(), meter.limits[0].used.whole())
}

#[tokio::test]
async fn a_connection_that_is_kept_open_draws_from_the_day_that_runs() {
    let (gate, clock) = testing::gate(STREAMS);
    let usage = kept(&gate).await;
    usage.take("tokens", 60).await.unwrap();
    usage.add("tokens", 50);
    clock.advance(Duration::from_secs(3 * 86_400));
    assert_eq!(tokens(&gate, &clock).await, (50, 0), "a new day");
    usage.take("tokens", 90).await.unwrap();
    assert!(usage.take("tokens", 20).await.is_err(), "a hundred a day");
    // Ten of the units taken then were left.
    usage.add("tokens", 30);
    assert_eq!(tokens(&gate, &clock).await.0, 80);
    usage.add("tokens", 75);
    drop(usage);
    assert_eq!(tokens(&gate, &clock).await, (155, 95));
}

#[tokio::test]
async fn what_a_kept_connection_reports_is_of_the_day_that_runs() {
    let (gate, clock) = testing::gate(STREAMS);
    let usage = kept(&gate).await;
    usage.add("tokens", 50);
    clock.advance(Duration::from_secs(3 * 86_400));
    usage.add("tokens", 30);
    assert_eq!(tokens(&gate, &clock).await, (80, 30));
}

#[tokio::test]
async fn what_a_kept_connection_has_taken_is_of_the_day_on_which_it_took_it() {
    let day = Duration::from_secs(86_400);
    let (gate, clock) = testing::gate(STREAMS);
    let usage = kept(&gate).await;
    usage.take("tokens", 60).await.unwrap();
    clock.advance(day);
    usage.take("tokens", 90).await.unwrap();
    clock.advance(day);
    usage.take("tokens", 100).await.unwrap();
    clock.advance(day);
    usage.take("tokens", 5).await.unwrap();
    usage.add("tokens", 60 + 90 + 100 + 7);
    assert_eq!(tokens(&gate, &clock).await, (257, 7), "5 of them were taken today");
}

#[tokio::test]
async fn what_a_kept_connection_has_taken_it_has_however_many_days_it_uses_something_else() {
    let day = Duration::from_secs(86_400);
    let images = "[meter.images]\n    count = \"reported\"\n    [plan.free]";
    let plans = STREAMS.replace("[plan.free]", &format!("{images}\n    quota.images = \"50/day\""));
    let (gate, clock) = testing::gate(&plans);
    let usage = kept(&gate).await;
    clock.advance(day);
    usage.take("images", 20).await.unwrap();
    for _ in 0..12 {
        clock.advance(day);
        usage.take("tokens", 1).await.unwrap();
        usage.add("tokens", 1);
    }
    usage.add("images", 23);
    let who = testing::identified(&gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let images = report.meters.iter().find(|meter| &*meter.name == "images").unwrap();
    assert_eq!(images.limits[0].used, 3, "20 were taken before");
}

#[tokio::test]
async fn streams_of_a_suspended_tenant_get_nothing_more() {
    let (gate, clock) = testing::gate(STREAMS);
    let usage = kept(&gate).await;
    usage.take("tokens", 10).await.unwrap();
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    acme.suspend("does not pay").await.unwrap();
    let refused = usage.take("tokens", 1).await.unwrap_err();
    assert_eq!(refused.reason, tallygate::Reason::Suspended);
    usage.add("tokens", 15);
    assert_eq!(tokens(&gate, &clock).await.0, 15, "what was used is counted all the same");
    acme.resume("pays").await.unwrap();
    usage.take("tokens", 1).await.unwrap();
    // The plan is the current one, too.
    clock.advance(Duration::from_secs(60));
    assert!(usage.take("tokens", 200).await.is_err());
    acme.edit().plan("pro").note("upgraded").save().await.unwrap();
    usage.take("tokens", 200).await.unwrap();
}

#[tokio::test]
async fn a_stream_gets_nothing_more_after_its_trial() {
    let day = Duration::from_secs(86_400);
    let trial = STREAMS.replace("[plan.free]", "[plan.free]\n    expires = \"14d\"");
    let (gate, clock) = testing::gate(&trial);
    let usage = kept(&gate).await;
    for _ in 0..13 {
        clock.advance(day);
        usage.take("tokens", 10).await.unwrap();
        usage.add("tokens", 10);
    }
    clock.advance(day);
    let refused = usage.take("tokens", 1).await.unwrap_err();
    let over = tallygate::Reason::PaymentRequired(tallygate::decision::Payment::TrialOver);
    assert_eq!(refused.reason, over, "14 days after its first request");
    usage.add("tokens", 5);
    assert_eq!(tokens(&gate, &clock).await.1, 5, "what was used is counted all the same");
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    acme.edit().plan("pro").note("bought").save().await.unwrap();
    usage.take("tokens", 200).await.unwrap();
}

#[tokio::test]
async fn a_stream_gets_nothing_more_while_its_tenant_has_not_paid() {
    let unpaid = format!("[billing]\nunpaid = \"payment-required\"\n{STREAMS}");
    let plans = unpaid.replace("default-plan = \"free\"\n", "");
    let (gate, clock) = testing::gate(&format!("default-plan = \"free\"\n{plans}"));
    let usage = kept(&gate).await;
    usage.take("tokens", 10).await.unwrap();
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    acme.edit().payment(PaymentState::Unpaid).note("a year late").save().await.unwrap();
    let refused = usage.take("tokens", 1).await.unwrap_err();
    assert!(matches!(refused.reason, tallygate::Reason::PaymentRequired(_)), "{refused:?}");
    usage.add("tokens", 15);
    assert_eq!(tokens(&gate, &clock).await.0, 15, "what was used is counted all the same");
    acme.edit().payment(PaymentState::Good).note("paid").save().await.unwrap();
    usage.take("tokens", 1).await.unwrap();
}

//! Directory look-ups: one for all requests that wait for the same caller, and a limit on those in
//! progress. Beyond it, only callers that are not in memory are refused.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::store::{Item, Key, Memory, Store, StoreFuture};
use tallygate::{Gate, GateBuilder};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    rate.default = "1000/s"
"#;

/// A store whose reads wait for permission.
#[derive(Clone)]
struct Slow {
    store: Memory,
    /// Permits for reads; plenty while none is to wait.
    lets: Arc<Semaphore>,
    reads: Arc<AtomicUsize>,
}

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        let (this, read) = (self.clone(), self.store.read(key));
        Box::pin(async move {
            this.reads.fetch_add(1, Ordering::Relaxed);
            this.lets.acquire().await.unwrap().forget();
            read.await
        })
    }

    test_support::forward!(store: write, query, promise, close);
}

/// A gate over a slow store, with a key of `acme` that it has cached and one that it has not.
async fn slow() -> (Gate, Slow, String, String) {
    let lets = Arc::new(Semaphore::new(100_000));
    let store = Slow { store: Memory::new(), lets, reads: Arc::default() };
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\napi-key = \"authorization\"\n\
         pepper = [{{ id = \"1\", file = \"{}\" }}]\n[flush]\nmode = \"fast\"",
        pepper.display()
    );
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(store.clone());
    let gate = builder.open().await.unwrap();
    let (known, other) = (new_key(&gate, "acme").await, new_key(&gate, "other").await);
    assert_eq!(with_key(&gate, &known).await, 200);
    store.lets.forget_permits(usize::MAX);
    store.reads.store(0, Ordering::Relaxed);
    (gate, store, known, other)
}

async fn new_key(gate: &Gate, tenant: &str) -> String {
    let tenant = gate.directory().tenant(tenant).save().await.unwrap();
    tenant.new_key("ci").await.unwrap().expose().to_owned()
}

/// The status of a request with this key.
async fn with_key(gate: &Gate, key: &str) -> u16 {
    from(gate, key, None).await
}

/// The same from this address.
async fn from(gate: &Gate, key: &str, peer: Option<IpAddr>) -> u16 {
    let request = Request::get("/").header("authorization", format!("Bearer {key}"));
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    peer.map(|ip| request.extensions_mut().insert(Peer((ip, 7).into())));
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let service = GateLayer::new(gate).layer(inner);
    let response = service.oneshot(request).await;
    response.unwrap().status().as_u16()
}

/// Lets everything run until it waits.
async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

/// The statuses of concurrent requests with these keys, while `meanwhile` runs.
async fn at_once(
    gate: &Gate,
    keys: impl Iterator<Item = String>,
    meanwhile: impl Future<Output = ()>,
) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for key in keys {
        let gate = gate.clone();
        requests.spawn(async move { with_key(&gate, &key).await });
    }
    meanwhile.await;
    requests.join_all().await
}

#[tokio::test(start_paused = true)]
async fn first_requests_of_one_caller_at_once_are_one_look_up() {
    let (gate, store, _known, other) = slow().await;
    let statuses = at_once(&gate, (0..200).map(|_| other.clone()), async {
        settle().await;
        assert_eq!(store.reads.load(Ordering::Relaxed), 1, "one read for all who wait");
        store.lets.add_permits(100_000);
    });
    assert_eq!(statuses.await, [200; 200]);
}

#[tokio::test(start_paused = true)]
async fn with_64_look_ups_in_flight_others_wait_their_turn_and_who_is_known_is_served() {
    let (gate, store, known, _other) = slow().await;
    let statuses = at_once(&gate, (0..200).map(|i| format!("forged-{i}")), async {
        settle().await;
        assert_eq!(store.reads.load(Ordering::Relaxed), 64);
        for _ in 0..3 {
            assert_eq!(with_key(&gate, &known).await, 200);
        }
        store.lets.add_permits(100_000);
    });
    assert_eq!(statuses.await, [401; 200]);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_two_seconds_gets_503() {
    let (gate, store, known, other) = slow().await;
    let begun = tokio::time::Instant::now();
    let statuses = at_once(&gate, (0..200).map(|i| format!("forged-{i}")), async {});
    assert_eq!(statuses.await, [503; 200]);
    assert!(begun.elapsed() < Duration::from_millis(2_100), "{:?}", begun.elapsed());
    assert_eq!(with_key(&gate, &known).await, 200);
    store.lets.add_permits(100_000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(with_key(&gate, &other).await, 200);
}

/// Twenty thousand invented keys at once: from four addresses, and from as many addresses of one
/// network, of which a single line has more than it can count.
#[tokio::test(start_paused = true)]
async fn invented_keys_from_a_few_lines_keep_no_other_address_out() {
    let four = |n: u32| IpAddr::from(Ipv4Addr::new(203, 0, 113, (n % 4) as u8));
    let line = |n: u32| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)));
    for floods in [four, line] {
        let (gate, store, _known, other) = slow().await;
        let mut requests = JoinSet::new();
        for n in 0..20_000 {
            let gate = gate.clone();
            let key = format!("forged-{n}");
            requests.spawn(async move { from(&gate, &key, Some(floods(n))).await });
        }
        settle().await;
        let lets = store.lets.clone();
        // A read takes 10 ms, and 64 are in progress.
        let reads = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                lets.forget_permits(usize::MAX);
                lets.add_permits(64);
            }
        });
        let peer = IpAddr::from(Ipv4Addr::new(198, 51, 100, 9));
        assert_eq!(from(&gate, &other, Some(peer)).await, 200);
        reads.abort();
    }
}

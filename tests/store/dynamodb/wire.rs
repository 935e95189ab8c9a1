//! Wire faults: a write that may have been applied is never reported as not applied, and repeating
//! the identical write ends where one write would have.

use std::time::Duration;

use tallygate::store::{
    Change, DynamoDb, Item, Key, Store, StoreErrorKind, Value, When, Write, Written,
};
use test_support::dynamodb::client;

use super::proxy::{Fault, Proxy};
use crate::shared_table::serve;

/// Timeout of a call: short enough to notice a silent wire, long enough for a busy machine.
const WITHIN: Duration = Duration::from_secs(2);

/// Every fault, with the error of a write's first attempt (`None`: definite) and whether the server
/// has applied it by then.
const FAULTS: [(Fault, Option<StoreErrorKind>, bool); 11] = [
    (Fault::Pass, None, true),
    (Fault::CutInRequest, Some(StoreErrorKind::Unknown), false),
    (Fault::CutBefore, Some(StoreErrorKind::Unknown), false),
    (Fault::CutAfter, Some(StoreErrorKind::Unknown), true),
    (Fault::CutInReply, Some(StoreErrorKind::Unknown), true),
    (Fault::Silence, Some(StoreErrorKind::Unknown), true),
    (Fault::Late, Some(StoreErrorKind::Unknown), false),
    (Fault::Twice, None, true),
    (Fault::Error500 { applied: false }, Some(StoreErrorKind::Unknown), false),
    (Fault::Error500 { applied: true }, Some(StoreErrorKind::Unknown), true),
    (Fault::Throttled, Some(StoreErrorKind::Throttled), false),
];

/// A store behind a proxy, and one that goes straight to the server.
struct Wired {
    proxy: Proxy,
    store: DynamoDb,
    straight: DynamoDb,
}

impl Wired {
    async fn new() -> Self {
        let endpoint = serve(dynoxide::Database::memory().unwrap()).await.unwrap();
        DynamoDb::create_table(&client(&endpoint), "wired", None).await.unwrap();
        let proxy = Proxy::before(&endpoint).await;
        let store = DynamoDb::new(client(proxy.endpoint()), "wired").within(WITHIN);
        let straight = DynamoDb::new(client(&endpoint), "wired");
        Self { proxy, store, straight }
    }

    async fn stands(&self, key: &Key) -> Option<Item> {
        self.straight.read(key.clone()).await.unwrap()
    }

    /// Repeats the identical write until its outcome is definite. Also returns the number of
    /// attempts.
    async fn until_definite(&self, write: &Write) -> (Written, usize) {
        for tries in 1..=40 {
            match self.store.write(write.clone()).await {
                Ok(written) => return (written, tries),
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
        }
        panic!("no definite answer");
    }
}

fn key(sk: impl ToString) -> Key {
    Key { pk: "wire".into(), sk: sk.to_string() }
}

fn set(name: &'static str, n: i64) -> Change {
    Change::Set(name.into(), Value::Int(n))
}

fn is(name: &'static str, n: i64) -> When {
    When::Equals(name.into(), Value::Int(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_applied_is_unknown_and_sent_once() {
    let wired = Wired::new().await;
    for (n, (fault, kind, applied)) in FAULTS.into_iter().enumerate() {
        let slot = key(n);
        let put = Write { key: slot.clone(), when: vec![When::Absent], change: vec![set("n", 1)] };
        let before = wired.proxy.requests();
        wired.proxy.then([fault]);
        let answer = wired.store.write(put).await;
        assert_eq!(answer.as_ref().err().map(|error| error.kind), kind, "{fault:?}: {answer:?}");
        assert_eq!(wired.stands(&slot).await.is_some(), applied, "{fault:?}");
        assert_eq!(wired.proxy.requests() - before, 1, "{fault:?}: nothing repeats by itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_nothing_was_applied() {
    let Wired { proxy, store, .. } = Wired::new().await;
    proxy.close().await;
    let put = Write { key: key("nobody"), when: vec![], change: vec![set("n", 1)] };
    let error = store.write(put).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
}

/// The shapes of all writes: a slot that is written once, a lease's guarded step, a plain set, and
/// a guarded delete. Each with the item before and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeating_the_identical_write_ends_where_one_would() {
    let wired = Wired::new().await;
    for (n, (fault, ..)) in FAULTS.into_iter().enumerate() {
        let begin = || vec![set("free", 10), set("op", 0)];
        let take = vec![Change::Add("free".into(), -4), set("op", 1)];
        let shapes = [
            ("slot", vec![], vec![When::Absent], vec![set("op", 1)], Some((None, 1))),
            ("lease", begin(), vec![is("op", 0)], take, Some((Some(6), 1))),
            ("set", begin(), vec![], vec![set("op", 1)], Some((Some(10), 1))),
            ("delete", begin(), vec![is("op", 0)], vec![Change::Delete], None),
        ];
        for (shape, begin, when, change, after) in shapes {
            let key = key(format!("{shape}-{n}"));
            if !begin.is_empty() {
                let begin = Write { key: key.clone(), when: vec![], change: begin };
                wired.straight.write(begin).await.unwrap();
            }
            wired.proxy.then([fault]);
            let write = Write { key: key.clone(), when, change };
            let (written, tries) = wired.until_definite(&write).await;
            let what = format!("{shape}, {fault:?}, {tries} tries: {written:?}");
            // The answer has the stored item, whether this copy applied or an earlier one.
            let (Written::Applied(item) | Written::Refused(item)) = written;
            let seen = item.map(|item| (item.int("free"), item.int("op").unwrap()));
            assert_eq!(seen, after, "{what}");
            let stands = wired.stands(&key).await;
            let stands = stands.map(|item| (item.int("free"), item.int("op").unwrap()));
            assert_eq!(stands, after, "{what}");
        }
    }
}

/// Three writers take from one pool, each through its own chained entry, as leases do. Whatever the
/// wire does, every unit is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chained_writers_lose_and_make_no_unit() {
    const LIMIT: i64 = 1_000;
    let wired = std::sync::Arc::new(Wired::new().await);
    let pool = key("pool");
    let entries = ["a", "b", "c"];
    let mut begin = vec![set("free", LIMIT)];
    begin.extend(entries.map(|entry| set(entry, 0)));
    let begin = Write { key: pool.clone(), when: vec![], change: begin };
    wired.straight.write(begin).await.unwrap();
    // Not the silent one: it costs its whole time limit, and ends like an answer that was cut.
    let faults: Vec<Fault> =
        FAULTS.iter().map(|(fault, ..)| *fault).filter(|f| *f != Fault::Silence).collect();
    let mut seed = 42_u64;
    wired.proxy.then((0..400).map(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let nth = (seed >> 33) as usize % (2 * faults.len());
        faults.get(nth).copied().unwrap_or(Fault::Pass) // every second one
    }));
    let writers = entries.map(|entry| {
        let (wired, pool) = (wired.clone(), pool.clone());
        tokio::spawn(async move {
            let mut held = 0;
            for op in 0..40 {
                let n = 1 + op % 7;
                let take = Write {
                    key: pool.clone(),
                    when: vec![is(entry, held), When::AtLeast("free".into(), n)],
                    change: vec![Change::Add("free".into(), -n), set(entry, held + n)],
                };
                let (written, _) = wired.until_definite(&take).await;
                let (Written::Applied(item) | Written::Refused(item)) = written;
                let stands = item.unwrap().int(entry).unwrap();
                assert!(stands == held || stands == held + n, "{entry}: {held} + {n}: {stands}");
                held = stands;
            }
            held
        })
    });
    let mut held = 0;
    for (entry, writer) in entries.into_iter().zip(writers) {
        let knows = writer.await.unwrap();
        assert_eq!(wired.stands(&pool).await.unwrap().int(entry), Some(knows));
        held += knows;
    }
    assert_eq!(wired.stands(&pool).await.unwrap().int("free"), Some(LIMIT - held));
    assert!(held > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_tried_again_a_few_times() {
    let wired = Wired::new().await;
    wired.proxy.then([Fault::CutAfter, Fault::Error500 { applied: false }]);
    assert_eq!(wired.store.read(key("none")).await.unwrap(), None);
    assert_eq!(wired.proxy.requests(), 3);
    wired.proxy.then([Fault::CutAfter; 3]);
    let error = wired.store.read(key("none")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "a read has no outcome: {error}");
    assert_eq!(wired.proxy.requests(), 6);
}

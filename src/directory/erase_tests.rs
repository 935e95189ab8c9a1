//! Erasure against the memory store: what is left, after a death at each write, and in races.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tests::{Bed, Fault, Flaky, bed, find};
use super::*;
use crate::clock::time_at;
use crate::identity::hex;
use crate::notify::{Destination, Notification, Notifier, NotifierFuture, kinds};
use crate::store::{Memory, Promise, StoreFuture, Value, Write, Written};

/// In every text that a person has written.
const MARK: &str = "quixote";
const ID: &str = "quixote@example.com";
const WHY: &str = "request 4711";

/// A destination that takes all alerts.
struct Pager;

impl Notifier for Pager {
    fn name(&self) -> &str {
        "pager"
    }

    fn deliver(&self, _: Notification) -> NotifierFuture {
        Box::pin(async { Ok(()) })
    }
}

/// A store to which a process is slow to write.
struct Slow(Flaky, usize);

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.0.read(key)
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        let (store, yields) = (self.0.clone(), self.1);
        Box::pin(async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            store.write(write).await
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.0.query(query)
    }

    fn promise(&self) -> Promise {
        self.0.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.0.close()
    }
}

/// A directory of this store, with a destination of alerts.
fn open(bed: &Bed) -> Directory {
    open_slow(bed, 0)
}

/// The same in a process that is so slow.
fn open_slow(bed: &Bed, yields: usize) -> Directory {
    let store = Arc::new(Slow(bed.store.clone(), yields));
    let clock = Arc::new(bed.clock.clone());
    let (space, keys) = (Space::new("test"), (bed.peppers.clone(), KeyForm::default()));
    let pager = vec![Destination::new(Arc::new(Pager), false)];
    let alerts = AlertQueue::new(store.clone(), space.clone(), clock.clone(), pager);
    Directory::new(store, space, clock, keys, |_: &str| true, alerts.into())
}

/// A tenant with personal data in all places. Returns its surrogate and its working key.
async fn person(bed: &Bed) -> (Surrogate, NewKey) {
    let directory = open(bed).by("quixote-agent");
    let grant = |id: &str| Grant::new(id, "credits", 5).note("for Quixote");
    let late = time_at(bed.directory.now_ms() + 90 * 86_400_000);
    let edit = directory.tenant(ID).plan("pro").grant(grant("gift")).grant(grant("past"));
    let edit = edit.override_("concurrency = 9 # Quixote", None, "Quixote asked");
    let tenant = edit.note("Quixote signed up").save().await.unwrap();
    let tenant = tenant.edit().end_grant("past").note("quixote has had it").save().await.unwrap();
    let tenant = tenant.edit().plan("build").note("quixote again").save().await.unwrap();
    let key = tenant.new_key(KeyOptions::new("quixote-laptop").expires(late)).await.unwrap();
    let old = tenant.new_key("quixote-phone").await.unwrap();
    tenant.revoke_key(&old.id).await.unwrap();
    #[cfg(feature = "stripe")]
    directory.fix_line(tenant.record().surrogate, "il_1", &[grant("il_1.credits")]).await.unwrap();
    let of = kinds::LimitPassed {
        surrogate: tenant.record().surrogate,
        tenant: ID,
        plan: "pro",
        limit: "credits/day",
        percent: 80,
        at: 800,
        used: 800,
        limit_units: 1_000,
        window: (0, 86_400_000),
    };
    directory.inner.alerts.raise(&kinds::limit_passed(directory.now_ms(), of)).await.unwrap();
    (tenant.record().surrogate, key)
}

/// Every key, name and value of the store, as text.
async fn texts(memory: &Memory) -> Vec<String> {
    let mut texts = Vec::new();
    for key in memory.keys() {
        let item = memory.read(key.clone()).await.unwrap().unwrap();
        let values = item.0.into_iter().map(|(name, value)| match value {
            Value::Bytes(bytes) => format!("{name}={}", String::from_utf8_lossy(&bytes)),
            other => format!("{name}={other:?}"),
        });
        texts.push(format!("{key:?} {}", values.collect::<Vec<_>>().join(" ")));
    }
    texts
}

async fn marked(store: &Flaky) -> Vec<String> {
    let hash = hex(&Sha256::digest(ID));
    let mut texts = texts(&store.memory).await;
    texts.retain(|text| text.to_lowercase().contains(MARK) || text.contains(&hash));
    texts
}

/// Checks that the tenant is gone, and what is left of it.
async fn check_gone(bed: &Bed, surrogate: Surrogate, key: &NewKey, what: &str) {
    let marked = marked(&bed.store).await;
    assert!(marked.is_empty(), "{what}: {marked:#?}");
    assert_eq!(find(bed, key.expose()).await, None, "{what}");

    let directory = open(bed);
    assert!(directory.find(ID).await.unwrap().is_none(), "{what}");
    let listed = directory.list("", "", 9).await.unwrap();
    let id = format!("~erased-{surrogate}");
    assert_eq!(listed.iter().map(|it| &it.record().id).collect::<Vec<_>>(), [&id], "{what}");
    let erased = directory.find(&id).await.unwrap().unwrap();
    let record = erased.record();
    assert!(record.suspended && record.erased().is_some(), "{what}");
    assert_eq!((record.surrogate, record.plan.as_deref()), (surrogate, Some("build")));
    let keys = erased.keys().await.unwrap();
    assert!(keys.iter().all(|key| key.state == KeyState::Revoked && key.name.is_empty()));
    assert_eq!(keys.len(), 2, "{what}");

    let history = erased.history().await.unwrap();
    let of_erasure: Vec<_> = history.iter().filter(|it| it.edits == [Edit::Erased]).collect();
    let last = of_erasure.iter().find(|it| it.outcome == ChangeOutcome::Happened).unwrap();
    assert_eq!((last.note.as_deref(), last.actor.as_deref()), (Some(WHY), Some("root")));
    let rest: Vec<_> = history.iter().filter(|it| it.edits != [Edit::Erased]).collect();
    assert_eq!(rest.len(), 6, "{what}: {history:#?}");
    let is_bare = |it: &&&HistoryEntry| it.note.is_none() && it.actor.is_none();
    assert!(rest.iter().all(|it| is_bare(&it) && it.outcome == ChangeOutcome::Happened), "{what}");
    for id in ["gift", "past"] {
        let given = directory.was_given(surrogate, &Grant::new(id, "credits", 5)).await;
        assert!(given.unwrap(), "{what}: {id} is on record");
    }

    let next = directory.tenant(ID).save().await.unwrap();
    assert_ne!(next.record().surrogate, surrogate, "{what}");
    assert_eq!(next.record().version, 1);
    assert!(next.keys().await.unwrap().is_empty());
    let listed = directory.list(MARK, "", 9).await.unwrap();
    assert_eq!(listed.len(), 1, "{what}: the new tenant is listed");
}

async fn erase(bed: &Bed) -> Result<Tenant, DirectoryError> {
    open(bed).by("root").erase(ID, WHY).await
}

#[tokio::test]
async fn nothing_that_names_a_person_is_left_wherever_the_process_dies() {
    for fault in [Fault::Death, Fault::Reply, Fault::Request] {
        let (mut at, mut cut) = (0, 0);
        loop {
            let bed = bed();
            let (surrogate, key) = person(&bed).await;
            assert!(!marked(&bed.store).await.is_empty());
            bed.store.fail(&[(at, fault)]);
            let first = erase(&bed).await;
            let writes = bed.store.writes.load(Ordering::Relaxed);
            bed.store.fail(&[]);
            if let Err(error) = first {
                cut += 1;
                assert!(matches!(error, DirectoryError::Store(_)), "{error}");
                erase(&bed).await.unwrap();
            }
            check_gone(&bed, surrogate, &key, &format!("{fault:?} at write {at}")).await;
            if at >= writes {
                break;
            }
            at += 1;
        }
        assert!(at > 15, "each write was reached: {at}");
        assert_eq!(cut > 0, fault == Fault::Death, "{fault:?}: {cut}");
    }
}

#[tokio::test]
async fn an_erasure_that_was_cut_short_lets_nothing_in() {
    let bed = bed();
    let (surrogate, _) = person(&bed).await;
    // The record is written third: the entry, the grant that leaves, the record.
    bed.store.fail(&[(3, Fault::Death)]);
    erase(&bed).await.unwrap_err();
    bed.store.fail(&[]);
    let directory = open(&bed);
    let half = directory.find(ID).await.unwrap().unwrap();
    assert!(half.record().suspended && half.record().surrogate == surrogate);
    let listed = directory.list("", "", 9).await.unwrap();
    assert!(listed.is_empty(), "under neither id, and in no one's way: {listed:?}");
    let made = directory.tenant(ID).plan("pro").save().await;
    assert!(matches!(made, Err(DirectoryError::Erased)), "not before its id is free");
    erase(&bed).await.unwrap();
    assert!(directory.tenant(ID).plan("pro").save().await.is_ok());
}

#[tokio::test]
async fn an_erased_tenant_is_not_changed_and_makes_no_key() {
    let bed = bed();
    let (_, key) = person(&bed).await;
    let before = open(&bed).find(ID).await.unwrap().unwrap();
    let erased = erase(&bed).await.unwrap();
    for tenant in [&before, &erased] {
        for edit in [tenant.edit().resume(), tenant.edit().plan("pro").note("quixote")] {
            assert!(matches!(edit.save().await, Err(DirectoryError::Erased)));
        }
        let made = tenant.new_key("quixote").await;
        assert!(matches!(made, Err(DirectoryError::Erased)));
        assert!(matches!(tenant.ensure_key("quixote").await, Err(DirectoryError::Erased)));
        let rotated = tenant.rotate_key(&key.id, Duration::ZERO).await;
        assert!(matches!(rotated, Err(DirectoryError::NoKey(_))));
        tenant.revoke_key(&key.id).await.unwrap();
    }
    assert_eq!(marked(&bed.store).await, Vec::<String>::new());
    let again = erase(&bed).await;
    assert!(matches!(again, Err(DirectoryError::NoTenant)), "there is none of this name");
    let own = erased.record().id.clone();
    let same = open(&bed).erase(&own, "again").await.unwrap();
    assert_eq!(same.record(), erased.record(), "by its own id it is erased once");
}

#[tokio::test]
async fn a_reason_that_names_the_tenant_and_a_live_subscription_are_refused() {
    let bed = bed();
    let (_, key) = person(&bed).await;
    let directory = open(&bed);
    for (actor, why) in [("root", "Quixote@example.com wrote"), (ID, WHY)] {
        let refused = directory.by(actor).erase(ID, why).await;
        assert!(matches!(refused, Err(DirectoryError::NamesErased)));
    }
    let refused = directory.by("root").erase(ID, "").await;
    assert!(matches!(refused, Err(DirectoryError::Text { what: "a note", .. })));
    assert!(matches!(directory.erase("missing", WHY).await, Err(DirectoryError::NoTenant)));

    let says = |payment| Subscribed {
        id: "sub_1".to_owned(),
        plan: "pro".to_owned(),
        prices: Vec::new(),
        payment,
        since_ms: 0,
        anchor_ms: 0,
    };
    let sold =
        SoldAddon { name: "pack".to_owned(), prices: Vec::new(), quantity: 1, past_due_ms: None };
    let tenant = directory.find(ID).await.unwrap().unwrap();
    let linked = tenant.edit().account(Some("cus_1".to_owned()));
    let (ended, none) = (Edit::Subscribed(says(PaymentState::Canceled)), Edit::SoldAddons(vec![]));
    for (live, over) in [
        (Edit::Subscribed(says(PaymentState::Good)), ended.clone()),
        (Edit::Subscribed(says(PaymentState::Unpaid)), ended),
        (Edit::SoldAddons(vec![sold]), none),
    ] {
        linked.clone().with(live).save().await.unwrap();
        let refused = erase(&bed).await.unwrap_err();
        assert!(refused.to_string().starts_with("its customer cus_1 has a live"), "{refused}");
        tenant.edit().with(over).save().await.unwrap();
    }
    assert!(find(&bed, key.expose()).await.is_some(), "nothing was done");
    let erased = erase(&bed).await.unwrap();
    let before = directory.now_ms() - 1;
    let (record, now) = (erased.record(), directory.now_ms());
    assert_eq!(record.account, None);
    assert_eq!(record.era(now).account, None);
    assert_eq!(record.era(before).account, None, "linked in this very millisecond");
}

#[tokio::test]
async fn who_is_overtaken_by_an_erasure_leaves_nothing_behind() {
    for late in 0..200 {
        let bed = bed();
        let (surrogate, _) = person(&bed).await;
        let tenant_of = async |yields: usize| {
            let directory = open_slow(&bed, yields).by("quixote-agent");
            directory.find(ID).await.unwrap().unwrap()
        };
        let (editor, maker, ender) =
            (tenant_of(late % 29).await, tenant_of(late % 31).await, tenant_of(late % 5).await);
        let grant = Grant::new("more", "credits", 1).note("quixote");
        let edit = editor.edit().plan("pro").grant(grant).note("quixote").save();
        let key = maker.new_key("quixote-tablet");
        let first = ender.edit().end_grant("gift").note("quixote").save();
        let erasure = async {
            for _ in 0..late / 4 {
                tokio::task::yield_now().await;
            }
            // Others may keep changing it: then it is asked for again.
            loop {
                match erase(&bed).await {
                    Err(DirectoryError::Busy) => {}
                    erased => return erased,
                }
            }
        };
        let (_, key, _, erased) = tokio::join!(edit, key, first, erasure);
        let erased = erased.unwrap();
        assert_eq!(marked(&bed.store).await, Vec::<String>::new(), "late by {late}");
        let keys = erased.keys().await.unwrap();
        assert!(keys.iter().all(|key| key.state == KeyState::Revoked), "late by {late}");
        if let Ok(key) = key {
            assert_eq!(find(&bed, key.expose()).await, None, "late by {late}");
        }
        assert_eq!(erased.record().surrogate, surrogate);
    }
}

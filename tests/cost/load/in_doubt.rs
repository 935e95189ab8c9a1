//! Leases whose last call is in doubt: the call is repeated, and no other request waits for it.

use std::ops::Range;
use std::time::Duration;

use tallygate::store::{Change, Key, Memory, Query, Store, Value, When, Write, Written};
use tallygate::{CLOSE_WITHIN, Gate, testing};
use test_support::clocks::Paused;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::support::{Troubled, call, of};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/day per user"
"#;

async fn gate(store: &Troubled) -> Gate {
    let builder = testing::builder(PLANS).store(store.clone()).clock(Paused::now());
    builder.open().await.unwrap()
}

/// One concurrent call of each of a tenant's users. Returns how many were served.
async fn users(gate: &Gate, tenant: &str, users: usize) -> usize {
    users_of(gate, tenant, 0..users).await
}

async fn users_of(gate: &Gate, tenant: &str, users: Range<usize>) -> usize {
    let mut calls = JoinSet::new();
    for user in users {
        let (gate, tenant) = (gate.clone(), tenant.to_owned());
        calls.spawn(async move {
            let answer = call(&gate, of(&tenant, &format!("u{user}"))).await;
            if !tenant.starts_with('t') && tenant != "stuck" && answer.is_err() {
                println!("{tenant}: {answer:?}");
            }
            answer.is_ok()
        });
    }
    calls.join_all().await.into_iter().filter(|served| *served).count()
}

#[tokio::test(start_paused = true)]
async fn others_are_served_while_leases_of_one_tenant_are_in_doubt() {
    let store = Troubled::new(Memory::new(), Duration::from_millis(2), false);
    let gate = gate(&store).await;
    store.mark(true);
    assert_eq!(users(&gate, "stuck", 1).await, 1);
    store.mark(false);
    assert_eq!(users(&gate, "stuck", 400).await, 1, "the one that has its lease");
    for second in 0..20 {
        for n in 0..10 {
            let other = format!("other-{second}-{n}");
            assert_eq!(users(&gate, &other, 5).await, 5, "{other}");
        }
        // Meanwhile new users of the tenant in trouble keep coming.
        users(&gate, "stuck", 400 + second).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The number of tenants with 1,000 leases each; `TALLYGATE_TENANTS` overrides it.
fn tenants() -> usize {
    std::env::var("TALLYGATE_TENANTS").map_or(10, |n| n.parse().unwrap())
}

async fn closes_in_time(tenants: usize, each: usize, call: Duration) {
    let store = Troubled::new(Memory::new(), call, false);
    let gate = gate(&store).await;
    // Gives the flush something to write.
    assert_eq!(users(&gate, "served", 10).await, 10);
    store.for_everybody();
    // At most 16,384 callers are looked up at once: they come by a tenth of each tenant's users.
    let asked = Instant::now();
    for part in 0..10 {
        let mut all = JoinSet::new();
        for tenant in 0..tenants {
            let (gate, users) = (gate.clone(), part * each / 10..(part + 1) * each / 10);
            all.spawn(async move { users_of(&gate, &format!("t{tenant}"), users).await });
        }
        assert_eq!(all.join_all().await.into_iter().sum::<usize>(), 0);
    }
    // The renewer has 256 places for calls, and an unanswered one keeps its place for a second.
    while store.in_doubt() < tenants * each && asked.elapsed() < Duration::from_secs(3_600) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} leases in doubt after {:?}", store.in_doubt(), asked.elapsed());
    assert_eq!(store.in_doubt(), tenants * each);

    let begun = Instant::now();
    gate.close_within(CLOSE_WITHIN).await.unwrap();
    let took = begun.elapsed();
    println!("{tenants} x {each} leases in doubt: closed after {took:?}");
    assert!(took <= CLOSE_WITHIN + Duration::from_millis(100), "{took:?}");
    let log = store.logs().into_iter().next().unwrap();
    let query = Query { pk: log, from: String::new(), until: None, limit: 100 };
    let slots = store.memory.query(query).await.unwrap().items;
    assert!(slots.len() >= 2, "what was used is on record, and the log has its end: {slots:?}");
    let last = &slots.last().unwrap().1;
    assert!(last.int("seal").is_some(), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_keeps_its_deadline_with_leases_in_doubt() {
    closes_in_time(tenants(), 1_000, Duration::from_millis(5)).await;
}

/// Seals the gate's log, as a process does that presumes this one dead.
async fn seal(store: &Troubled) {
    let pk = store.logs().into_iter().next().unwrap();
    let query = Query { pk: pk.clone(), from: String::new(), until: None, limit: 100 };
    let slots = store.memory.query(query).await.unwrap().items;
    let (last, item) = slots.last().unwrap();
    let next = last.parse::<u64>().unwrap() + 1;
    let of_every_slot = item.0.iter().filter(|(name, _)| *name != "body");
    let change = of_every_slot.map(|(name, value)| Change::Set(name.clone(), value.clone()));
    let seal = Change::Set("seal".into(), Value::Int(1));
    let key = Key { pk, sk: format!("{next:020}") };
    let write = Write { key, when: vec![When::Absent], change: change.chain([seal]).collect() };
    assert!(matches!(store.memory.write(write).await.unwrap(), Written::Applied(_)));
}

#[tokio::test(start_paused = true)]
async fn closing_keeps_its_deadline_with_a_sealed_log_and_no_answer_to_a_new_one() {
    let store = Troubled::new(Memory::new(), Duration::from_millis(2), false);
    let gate = gate(&store).await;
    assert_eq!(users(&gate, "served", 10).await, 10);
    gate.flush_now().await.unwrap();
    seal(&store).await;
    store.no_new_logs();
    assert_eq!(users(&gate, "served", 10).await, 10);

    let begun = Instant::now();
    let closing = gate.close_within(CLOSE_WITHIN);
    let closed = tokio::time::timeout(10 * CLOSE_WITHIN, closing).await.expect("it ends");
    let took = begun.elapsed();
    assert!(took <= CLOSE_WITHIN + Duration::from_millis(100), "{took:?}");
    let error = closed.unwrap_err().to_string();
    assert!(error.contains("did not answer"), "says that something is left, and why: {error}");
}

//! Laws 1 and 5 under concurrent calls.

use tallygate::store::{StoreErrorKind, When, Write, Written};

use super::Subject;
use super::subject::{add, key, set, write};

const TASKS: usize = 64;
const CALLS: usize = 20;

/// Whether the write was applied. Throttled means it was not, so it is tried again.
async fn applied(at: &Subject, write: Write) -> bool {
    loop {
        match at.store.write(write.clone()).await {
            Ok(Written::Applied(_)) => return true,
            Ok(Written::Refused(_)) => return false,
            Err(error) if error.kind == StoreErrorKind::Throttled => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn many_tasks_take_exactly_what_there_is(at: Subject) {
    let at = std::sync::Arc::new(at);
    let pool = key("concurrency", "pool");
    let limit = TASKS * CALLS / 2;
    at.put_all([write(&pool, [], [set("free", limit as i64)])]).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (at, pool) = (at.clone(), pool.clone());
            tokio::spawn(async move {
                let mut taken = 0;
                for _ in 0..CALLS {
                    let take = write(&pool, [When::AtLeast("free".into(), 1)], [add("free", -1)]);
                    taken += usize::from(applied(&at, take).await);
                }
                taken
            })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!(taken, limit);
    assert_eq!(at.item(&pool).await.unwrap().int("free"), Some(0));
}

pub(crate) async fn a_slot_is_written_once(at: Subject) {
    let at = std::sync::Arc::new(at);
    for slot in 0..5 {
        let slot = key("concurrency", &format!("slot-{slot}"));
        let tasks: Vec<_> = (0..TASKS as i64)
            .map(|writer| {
                let (at, slot) = (at.clone(), slot.clone());
                tokio::spawn(async move {
                    let put = write(&slot, [When::Absent], [set("writer", writer)]);
                    applied(&at, put).await.then_some(writer)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await.unwrap());
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(at.item(&slot).await.unwrap().int("writer"), winners.pop());
    }
}

pub(crate) async fn a_read_after_an_answer_sees_the_write(at: Subject) {
    let at = std::sync::Arc::new(at);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let at = at.clone();
            tokio::spawn(async move {
                let pk = format!("strong-{task}");
                let k = key(&pk, "-");
                for n in 1..=10 {
                    assert!(applied(&at, write(&k, [], [set("n", n)])).await);
                    assert_eq!(at.item(&k).await.unwrap().int("n"), Some(n));
                    let page = at.page(super::subject::query(&pk, 1)).await;
                    assert_eq!(page.items[0].1.int("n"), Some(n));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

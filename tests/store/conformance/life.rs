//! Law 4, as far as a process can see it: closing and reopening.

use tallygate::store::{StoreErrorKind, When};

use super::Subject;
use super::subject::{item, key, query, set, sort_keys, write};

pub(crate) async fn calls_after_a_close_are_unavailable(at: Subject) {
    let k = key("life", "closed");
    at.put_all([write(&k, [], [set("n", 1)])]).await;
    at.store.close().await.unwrap();
    assert_eq!(at.error(write(&k, [], [set("n", 2)])).await, StoreErrorKind::Unavailable);
    assert_eq!(at.store.read(k).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    let page = at.store.query(query("life", 1)).await;
    assert_eq!(page.unwrap_err().kind, StoreErrorKind::Unavailable);
}

pub(crate) async fn a_close_may_be_repeated(at: Subject) {
    let both = tokio::join!(at.store.close(), at.store.close());
    assert!(both.0.is_ok() && both.1.is_ok());
    at.store.close().await.unwrap();
}

pub(crate) async fn an_opened_again_store_keeps_everything(mut at: Subject) {
    let all: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    at.put_all(all.iter().map(|sk| write(&key("life", sk), [], [set("sk-was", sk.as_str())])))
        .await;
    for round in 0..3 {
        at.reopen().await;
        let page = at.page(query("life", 99)).await;
        assert_eq!(sort_keys(&page), all);
        assert!(page.items.iter().all(|(sk, item)| item.text("sk-was") == Some(sk)));
        let k = key("rounds", &round.to_string());
        at.put_all([write(&k, [When::Absent], [set("n", round)])]).await;
    }
    assert_eq!(at.item(&key("rounds", "1")).await, Some(item([("n", 1.into())])));
}

pub(crate) async fn nothing_happens_before_a_future_is_polled(mut at: Subject) {
    let k = key("life", "never");
    drop(at.store.write(write(&k, [], [set("n", 1)])));
    at.reopen().await;
    assert_eq!(at.item(&k).await, None);
}

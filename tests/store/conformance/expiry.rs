//! Law 8: expired items are removed, in parts, and nothing else is.
//!
//! For stores that remove them themselves. One that leaves it to its service answers 0, and waiting
//! for it is impossible here; it keeps the laws about what stays.

use tallygate::store::{Change, MAX_EXPIRED_ITEMS, StoreErrorKind};

use super::Subject;
use super::subject::{Val, item, key, query, set, sort_keys, write};

/// Any instant; in seconds, because `ttl` is.
const AT: i64 = 1_800_000_000;

/// More parts than any table here has.
const PARTS: usize = 64;

/// Lets the store check the whole table, more than once. Returns the number of items removed.
async fn sweep(at: &Subject, now_ms: i64) -> usize {
    let mut removed = 0;
    for _ in 0..PARTS {
        let part = at.store.expire(now_ms).await.unwrap();
        assert!(part <= MAX_EXPIRED_ITEMS, "a call is bounded: {part}");
        removed += part;
    }
    removed
}

async fn put(at: &Subject, sk: &str, ttl: impl Into<Val>) {
    let change = [set("ttl", ttl), set("n", 1)];
    at.put_all([write(&key("expiry", sk), [], change)]).await;
}

pub(crate) async fn an_item_goes_after_its_time_and_never_before(at: Subject) {
    for (sk, ttl) in [("a", AT - 1), ("b", AT), ("c", AT + 1), ("d", AT + 86_400)] {
        put(&at, sk, ttl).await;
    }
    let mut left = vec!["a", "b", "c", "d"];
    for (now_ms, gone) in [
        (0, 0),
        (AT * 1_000 - 1_001, 0),
        (AT * 1_000 - 1, 1),
        (AT * 1_000, 1),
        (AT * 1_000 + 999, 0),
        (AT * 1_000 + 1_000, 1),
        (AT * 1_000 + 1_000, 0),
    ] {
        assert_eq!(sweep(&at, now_ms).await, gone, "at {now_ms}");
        left.drain(..gone);
        assert_eq!(sort_keys(&at.page(query("expiry", 9)).await), left);
    }
}

pub(crate) async fn nothing_but_a_whole_number_called_ttl_expires_an_item(at: Subject) {
    put(&at, "text", "1").await;
    put(&at, "bytes", b"1".to_vec()).await;
    put(&at, "endless", i64::MAX).await;
    let others = [set("TTL", 1), set("ttl_ms", 1), set("expires", 1)];
    at.put_all([
        write(&key("expiry", "others"), [], others),
        write(&key("ttl", "ttl"), [], [set("v", 1)]),
        write(&key("expiry", "empty"), [], [Change::Remove("n".into())]),
    ])
    .await;
    assert_eq!(sweep(&at, AT * 1_000).await, 0);
    let all = ["bytes", "empty", "endless", "others", "text"];
    assert_eq!(sort_keys(&at.page(query("expiry", 9)).await), all);
    assert!(at.item(&key("ttl", "ttl")).await.is_some());
}

pub(crate) async fn other_attributes_do_not_keep_an_item(at: Subject) {
    let k = key("expiry", "large");
    let change = [set("ttl", AT), set("b", vec![0; 300_000]), set("t", "text"), set("v", 1)];
    at.put_all([write(&k, [], change)]).await;
    assert_eq!(sweep(&at, AT * 1_000).await, 1);
    assert_eq!(at.item(&k).await, None);
}

pub(crate) async fn more_time_keeps_an_item_and_less_lets_it_go(at: Subject) {
    put(&at, "more", AT).await;
    put(&at, "none", AT).await;
    put(&at, "less", AT + 100).await;
    let change = |sk, change| write(&key("expiry", sk), [], [change]);
    at.put_all([
        change("more", set("ttl", AT + 100)),
        change("none", Change::Remove("ttl".into())),
        change("less", set("ttl", AT)),
    ])
    .await;
    assert_eq!(sweep(&at, AT * 1_000).await, 1);
    assert_eq!(sort_keys(&at.page(query("expiry", 9)).await), ["more", "none"]);
}

pub(crate) async fn what_is_more_than_a_part_goes_in_several(at: Subject) {
    let many = 2 * MAX_EXPIRED_ITEMS + 1;
    let expired = |n: usize| if n.is_multiple_of(2) { AT } else { AT + 1 };
    at.put_all((0..2 * many).map(|n| {
        let key = key(&format!("expiry-{}", n % 7), &format!("{n:05}"));
        write(&key, [], [set("ttl", expired(n)), set("n", 1)])
    }))
    .await;
    assert_eq!(sweep(&at, AT * 1_000).await, many);
    let mut left = 0;
    for pk in 0..7 {
        let page = at.page(query(&format!("expiry-{pk}"), 1_000)).await;
        left += page.items.len();
        assert!(page.items.iter().all(|(_, item)| item.int("ttl") == Some(AT + 1)));
    }
    assert_eq!(left, many);
}

pub(crate) async fn an_expired_item_is_an_item_until_it_goes(mut at: Subject) {
    let k = key("expiry", "again");
    put(&at, "again", 1).await;
    let stands = item([("ttl", 1.into()), ("n", 1.into())]);
    assert_eq!(at.item(&k).await, Some(stands.clone()));
    at.reopen().await;
    assert_eq!(at.item(&k).await, Some(stands));
    assert_eq!(sweep(&at, AT * 1_000).await, 1);
    at.reopen().await;
    assert_eq!(at.item(&k).await, None);
    put(&at, "again", AT + 1).await;
    assert_eq!(sweep(&at, AT * 1_000).await, 0);
    at.store.close().await.unwrap();
    let closed = at.store.expire(AT * 1_000).await.unwrap_err();
    assert_eq!(closed.kind, StoreErrorKind::Unavailable);
}

//! Law 7, and that reads return what was written.

use tallygate::store::{Item, Key, StoreErrorKind};

use super::Subject;
use super::subject::{item, key, query, set, write};

/// Room for keys and names, generously counted.
const OVERHEAD: usize = 100;

pub(crate) async fn an_item_of_nearly_the_bound_comes_back_whole(at: Subject) {
    let bytes: Vec<u8> = (0..Item::MAX_BYTES - OVERHEAD).map(|i| (i % 251) as u8).collect();
    let keys = [key("size", "1"), key("size", "2")];
    at.put_all(keys.iter().map(|key| write(key, [], [set("b", bytes.clone())]))).await;
    for key in &keys {
        assert_eq!(at.item(key).await.unwrap().bytes("b"), Some(&*bytes));
    }
    let page = at.page(query("size", 9)).await;
    let (first, rest) = page.items.split_first().unwrap();
    assert_eq!(first.1.bytes("b"), Some(&*bytes));
    assert!(!rest.is_empty() || page.next.is_some());
}

pub(crate) async fn an_item_above_the_bound_is_invalid_and_changes_nothing(at: Subject) {
    let k = key("size", "large");
    let too_large = write(&k, [], [set("b", vec![0; Item::MAX_BYTES])]);
    assert_eq!(at.error(too_large).await, StoreErrorKind::Invalid);
    assert_eq!(at.item(&k).await, None);

    let half = vec![0; Item::MAX_BYTES / 2];
    at.put_all([write(&k, [], [set("a", half.clone())])]).await;
    let grown = write(&k, [], [set("b", half.clone())]);
    assert_eq!(at.error(grown).await, StoreErrorKind::Invalid);
    assert_eq!(at.item(&k).await, Some(item([("a", half.into())])));
}

pub(crate) async fn keys_of_the_longest_length_work_and_longer_ones_are_invalid(at: Subject) {
    let (pk, sk) = ("p".repeat(Key::MAX_PK_BYTES), "s".repeat(Key::MAX_SK_BYTES));
    let longest = key(&pk, &sk);
    at.put_all([write(&longest, [], [set("n", 1)])]).await;
    assert_eq!(at.item(&longest).await, Some(item([("n", 1.into())])));
    assert_eq!(at.page(query(&pk, 9)).await.items.len(), 1);
    for longer in [key(&format!("{pk}p"), "s"), key("p", &format!("{sk}s"))] {
        assert_eq!(at.error(write(&longer, [], [set("n", 1)])).await, StoreErrorKind::Invalid);
    }
}

pub(crate) async fn every_kind_of_text_and_every_byte_comes_back(at: Subject) {
    let texts =
        ["", "plain", "Zürich", "日本語", "e\u{301} is not é", "👩‍👩‍👧", "\u{0}\u{1}", "'\"\\;--"];
    let bytes: Vec<u8> = (0..=255).collect();
    for (i, text) in texts.into_iter().enumerate() {
        let k = key("texts-ü", &format!("{i}-{}", text.replace('\u{0}', "0")));
        at.put_all([write(&k, [], [set("t", text), set("ключ", text), set("b", bytes.clone())])])
            .await;
        let expected =
            item([("t", text.into()), ("ключ", text.into()), ("b", bytes.clone().into())]);
        assert_eq!(at.item(&k).await, Some(expected));
    }
    let empty = key("texts-ü", "empty bytes");
    at.put_all([write(&empty, [], [set("b", Vec::new())])]).await;
    assert_eq!(at.item(&empty).await.unwrap().bytes("b"), Some(&[][..]));
}

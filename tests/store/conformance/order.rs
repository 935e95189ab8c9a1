//! Law 6: one partition, in byte order, in pages.

use tallygate::store::{Page, Query};

use super::Subject;
use super::subject::{add, key, query, set, sort_keys, write};

pub(crate) async fn sort_keys_are_in_byte_order(at: Subject) {
    // In UTF-16, or by any locale, some of these would swap: 'Z' < 'a', 'é' after 'z', and the
    // last two.
    let ordered = [
        "\u{1}",
        " ",
        "#",
        "-",
        "0",
        "10",
        "2",
        "Z",
        "a",
        "aa",
        "a\u{300}",
        "b",
        "z",
        "é",
        "\u{ff5e}",
        "\u{1f600}",
    ];
    assert!(
        ordered.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()),
        "the test is in order itself"
    );
    at.put_all(ordered.iter().rev().map(|sk| write(&key("order", sk), [], [set("n", 1)]))).await;
    assert_eq!(sort_keys(&at.page(query("order", 99)).await), ordered);
}

pub(crate) async fn pages_follow_each_other_without_gap_or_repeat(at: Subject) {
    let all: Vec<String> = (0..25).map(|n| format!("{n:03}")).collect();
    at.put_all(all.iter().map(|sk| write(&key("pages", sk), [], [add("n", 1)]))).await;
    for limit in [1, 2, 5, 24, 25, 26] {
        let mut seen = Vec::new();
        let mut next = Some(String::new());
        let mut pages = 0;
        while let Some(from) = next {
            let page = at.page(Query { from, ..query("pages", limit) }).await;
            assert!(page.items.len() <= limit);
            seen.extend(page.items.into_iter().map(|(sk, _)| sk));
            next = page.next;
            pages += 1;
            assert!(pages <= 30, "the pages come to an end");
        }
        assert_eq!(seen, all, "in pages of {limit}");
    }
}

pub(crate) async fn from_is_inclusive_and_until_is_exclusive(at: Subject) {
    at.put_all(["a", "b", "c", "d"].map(|sk| write(&key("range", sk), [], [set("n", 1)]))).await;
    let cases: [(&str, Option<&str>, &[&str]); 9] = [
        ("", None, &["a", "b", "c", "d"]),
        ("b", None, &["b", "c", "d"]),
        ("b!", None, &["c", "d"]),
        ("e", None, &[]),
        ("", Some("c"), &["a", "b"]),
        ("b", Some("d"), &["b", "c"]),
        ("b", Some("c!"), &["b", "c"]),
        ("c", Some("c"), &[]),
        ("d", Some("a"), &[]),
    ];
    for (from, until, expected) in cases {
        let until = until.map(str::to_owned);
        let page = at.page(Query { from: from.into(), until, ..query("range", 99) }).await;
        assert_eq!(sort_keys(&page), expected, "from {from:?}");
        assert_eq!(page.next, None);
    }
}

pub(crate) async fn a_partition_does_not_see_its_neighbours(at: Subject) {
    let partitions = ["a", "a#", "a#b", "aa", "b", "\u{1}", "a\u{1}", "a\u{10ffff}"];
    let sort_key = ["b", "x", "\u{1}", "\u{10ffff}"];
    for pk in partitions {
        at.put_all(sort_key.map(|sk| write(&key(pk, sk), [], [set("pk-was", pk)]))).await;
    }
    for pk in partitions {
        for limit in [1, 4, 99] {
            let page = at.page(query(pk, limit)).await;
            assert_eq!(page.items.len(), limit.min(4), "{pk:?}");
            for (_, item) in &page.items {
                assert_eq!(item.text("pk-was"), Some(pk));
            }
        }
        // The complete last page: no key of the next partition appears as the next one.
        let rest = at.page(Query { from: "x".into(), ..query(pk, 2) }).await;
        assert_eq!((sort_keys(&rest), rest.next.as_deref()), (vec!["x", "\u{10ffff}"], None));
    }
    // A partition and sort key that read the same when concatenated are not the same item.
    at.put_all([write(&key("p#q", "r"), [], [set("n", 1)])]).await;
    assert_eq!(at.item(&key("p", "q#r")).await, None);
    assert!(at.page(query("p", 9)).await.items.is_empty());
}

pub(crate) async fn a_page_never_holds_more_than_the_bound(at: Subject) {
    let n = Page::MAX_ITEMS + 1;
    at.put_all((0..n).map(|n| write(&key("bound", &format!("{n:05}")), [], [set("n", 1)]))).await;
    let page = at.page(query("bound", usize::MAX)).await;
    assert_eq!(page.items.len(), Page::MAX_ITEMS);
    let rest = at.page(Query { from: page.next.unwrap(), ..query("bound", usize::MAX) }).await;
    assert_eq!(sort_keys(&rest), [format!("{:05}", n - 1)]);
}

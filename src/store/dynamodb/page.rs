//! Pages: a range of sort keys as a key condition, and the service's answer as a [`Page`].
//!
//! The service takes one condition on the sort key. `BETWEEN` includes both ends while our range
//! excludes the last, so an item on that end is fetched and dropped. One item more than wanted is
//! requested: it gives the start of the next page, and its absence means there is none, without a
//! further call.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::{Item, Key, Page, Query, StoreError};
use super::item::{self, Attributes, PK, SK};

/// The key condition, with the values it names.
pub(super) fn condition(query: &Query) -> (String, HashMap<String, AttributeValue>) {
    let mut values = HashMap::new();
    let mut text = |placeholder: &str, text: &str| {
        values.insert(placeholder.to_owned(), AttributeValue::S(text.to_owned()));
    };
    text(":pk", &query.pk);
    let range = match (query.from.as_str(), query.until.as_deref()) {
        ("", None) => String::new(),
        ("", Some(until)) => {
            text(":until", until);
            format!(" AND {SK} < :until")
        }
        (from, None) => {
            text(":from", from);
            format!(" AND {SK} >= :from")
        }
        (from, Some(until)) => {
            text(":from", from);
            text(":until", until);
            format!(" AND {SK} BETWEEN :from AND :until")
        }
    };
    (format!("{PK} = :pk{range}"), values)
}

/// Whether no key can lie in the range: the service refuses such a query.
pub(super) fn is_empty(query: &Query) -> bool {
    query.until.as_deref().is_some_and(|until| query.from.as_str() >= until)
}

/// The page of an answer. `ended_at` is the last sort key examined, if the service stopped early.
pub(super) fn page(
    query: &Query,
    limit: usize,
    answer: Vec<Attributes>,
    ended_at: Option<&str>,
) -> Result<Page, StoreError> {
    let mut items = Vec::<(String, Item)>::with_capacity(answer.len());
    for attributes in answer {
        let sk = item::sort_key(&attributes)?.to_owned();
        if query.until.as_ref().is_some_and(|until| sk >= *until) {
            return Ok(Page { items, next: None });
        }
        if items.len() == limit {
            return Ok(Page { items, next: Some(sk) });
        }
        items.push((sk, item::item(attributes)?));
    }
    let next = ended_at.and_then(after);
    let ends = |next: &String| query.until.as_ref().is_some_and(|until| next >= until);
    Ok(Page { items, next: next.filter(|next| !ends(next)) })
}

/// The first sort key that may follow this one, by bytes; `None` if none can.
fn after(sk: &str) -> Option<String> {
    if sk.len() < Key::MAX_SK_BYTES {
        return Some(format!("{sk}\0"));
    }
    // No key is longer, so the successor differs before the end: at the last position where a
    // greater character fits into the remaining length.
    let mut rest = sk.chars();
    while let Some(last) = rest.next_back() {
        let next =
            (u32::from(last).saturating_add(1)..=u32::from(char::MAX)).find_map(char::from_u32);
        let fits = |c: &char| rest.as_str().len() + c.len_utf8() <= Key::MAX_SK_BYTES;
        if let Some(next) = next.filter(fits) {
            return Some(format!("{}{next}", rest.as_str()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(from: &str, until: Option<&str>) -> Query {
        let until = until.map(str::to_owned);
        Query { pk: "p".into(), from: from.into(), until, limit: 9 }
    }

    fn row(sk: &str) -> Attributes {
        let mut row = item::key(&super::super::super::Key { pk: "p".into(), sk: sk.into() });
        row.insert(item::ITEM_FORMAT.into(), item::number(item::FORMAT));
        row
    }

    #[test]
    fn only_what_is_named_is_sent() {
        for (from, until, expected) in [
            ("", None, "pk = :pk"),
            ("a", None, "pk = :pk AND sk >= :from"),
            ("", Some("b"), "pk = :pk AND sk < :until"),
            ("a", Some("b"), "pk = :pk AND sk BETWEEN :from AND :until"),
        ] {
            let (condition, values) = condition(&query(from, until));
            assert_eq!(condition, expected);
            assert_eq!(values.len(), condition.matches(':').count());
        }
        assert!(is_empty(&query("b", Some("b"))) && is_empty(&query("", Some(""))));
        assert!(!is_empty(&query("", None)) && !is_empty(&query("a", Some("b"))));
    }

    #[test]
    fn the_item_beyond_the_page_says_where_the_next_one_starts() {
        let all = || ["a", "b", "c"].map(row).to_vec();
        let page = |limit, until| page(&query("", until), limit, all(), None).unwrap();
        assert_eq!(page(2, None).next.as_deref(), Some("c"));
        assert_eq!(page(2, Some("c")).next, None);
        assert_eq!(page(3, None).next, None);
        assert_eq!(page(9, Some("b")).items.len(), 1);
    }

    #[test]
    fn a_page_that_the_service_cut_goes_on_behind_its_last_item() {
        let cut = |until| page(&query("", until), 9, vec![row("a")], Some("a")).unwrap().next;
        assert_eq!(cut(None).as_deref(), Some("a\0"));
        assert_eq!(cut(Some("b")).as_deref(), Some("a\0"));
        assert_eq!(cut(Some("a\0")), None);
    }

    #[test]
    fn nothing_lies_between_a_key_and_the_one_after() {
        let long = |end: &str| "s".repeat(Key::MAX_SK_BYTES - end.len()) + end;
        assert_eq!(after(&long("a")), Some(long("b")));
        // U+0080 takes two bytes, so the key before it must change further left.
        let shorter = "s".repeat(Key::MAX_SK_BYTES - 2) + "t";
        assert_eq!(after(&long("s\u{7f}")), Some(shorter));
        assert_eq!(after(&long("a\u{10ffff}")), Some("s".repeat(Key::MAX_SK_BYTES - 5) + "b"));
        assert_eq!(after(&long("\u{d7ff}")), Some(long("\u{e000}")));
        assert_eq!(after(&"\u{10ffff}".repeat(Key::MAX_SK_BYTES / 4)), None);
    }
}

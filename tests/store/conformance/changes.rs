//! Laws 2 and 7: the effects of changes, and that a faulty call has none.

use tallygate::store::{Change, StoreErrorKind, Value, When, Write, Written};

use super::Subject;
use super::subject::{add, item, key, query, set, write};

pub(crate) async fn each_change_does_what_it_says(at: Subject) {
    let k = key("changes", "each");
    let steps = [
        (set("n", 1), Some(item([("n", 1.into())]))),
        (set("n", "text now"), Some(item([("n", "text now".into())]))),
        (set("n", i64::MIN), Some(item([("n", i64::MIN.into())]))),
        (add("n", i64::MAX), Some(item([("n", (-1).into())]))),
        (add("m", -7), Some(item([("n", (-1).into()), ("m", (-7).into())]))),
        (add("m", 0), Some(item([("n", (-1).into()), ("m", (-7).into())]))),
        (Change::Remove("n".into()), Some(item([("m", (-7).into())]))),
        (Change::Remove("n".into()), Some(item([("m", (-7).into())]))),
        (Change::Remove("m".into()), Some(item([]))),
        (Change::Delete, None),
        (Change::Delete, None),
        (Change::Remove("n".into()), Some(item([]))),
    ];
    for (change, expected) in steps {
        let step = format!("{change:?}");
        let written = at.write(write(&k, [], [change])).await.unwrap();
        assert_eq!(written, Written::Applied(expected.clone()), "{step}");
        assert_eq!(at.item(&k).await, expected, "{step}");
    }
}

pub(crate) async fn changes_leave_other_attributes_alone(at: Subject) {
    let k = key("changes", "others");
    at.put_all([write(&k, [], [set("a", 1), set("b", 2), set("c", 3), set("d", 4)])]).await;
    let change = [set("a", 10), add("b", 20), Change::Remove("c".into())];
    let after = item([("a", 10.into()), ("b", 22.into()), ("d", 4.into())]);
    let written = at.write(write(&k, [], change)).await.unwrap();
    assert_eq!(written, Written::Applied(Some(after)));
}

pub(crate) async fn a_deleted_item_is_gone_and_can_come_again(at: Subject) {
    let (k, other) = (key("changes", "gone"), key("changes", "stays"));
    at.put_all([write(&k, [], [set("n", 1)]), write(&other, [], [set("n", 2)])]).await;
    at.put_all([write(&k, [When::Exists], [Change::Delete])]).await;
    assert_eq!(at.item(&k).await, None);
    assert_eq!(
        at.page(query("changes", 9)).await.items,
        [("stays".into(), item([("n", 2.into())]))]
    );
    at.put_all([write(&k, [When::Absent], [set("m", 3)])]).await;
    assert_eq!(at.item(&k).await, Some(item([("m", 3.into())])));
}

pub(crate) async fn a_sum_out_of_range_is_invalid_and_changes_nothing(at: Subject) {
    let k = key("changes", "range");
    let stands = item([("high", i64::MAX.into()), ("low", i64::MIN.into()), ("t", "x".into())]);
    let change = [set("high", i64::MAX), set("low", i64::MIN), set("t", "x")];
    at.put_all([write(&k, [], change)]).await;
    for wrong in [add("high", 1), add("low", -1), add("t", 1)] {
        let both = write(&k, [], [set("seen", 1), wrong]);
        assert_eq!(at.error(both).await, StoreErrorKind::Invalid);
        assert_eq!(at.item(&k).await, Some(stands.clone()));
    }
}

pub(crate) async fn a_malformed_call_is_invalid_and_changes_nothing(at: Subject) {
    let k = key("changes", "malformed");
    let names = |name: &'static str| {
        [
            write(&k, [], [set(name, 1)]),
            write(&k, [], [add(name, 1)]),
            write(&k, [], [Change::Remove(name.into())]),
            write(&k, [When::Missing(name.into())], [set("n", 1)]),
            write(&k, [When::Equals(name.into(), Value::Int(1))], [set("n", 1)]),
        ]
    };
    let mut wrong: Vec<Write> = vec![
        write(&k, [], []),
        write(&k, [], [set("n", 1), Change::Delete]),
        write(&k, [], [Change::Delete, Change::Delete]),
        write(&k, [], [set("n", 1), set("n", 1)]),
        write(&k, [], [add("n", 1), Change::Remove("n".into())]),
        write(&key("", "malformed"), [], [set("n", 1)]),
        write(&key("changes", ""), [], [set("n", 1)]),
    ];
    wrong.extend(names(""));
    wrong.extend(names("pk"));
    wrong.extend(names("sk"));
    wrong.extend(names("tallygate"));
    for write in wrong {
        assert_eq!(at.error(write.clone()).await, StoreErrorKind::Invalid, "{write:?}");
    }
    assert!(at.page(query("changes", 9)).await.items.is_empty());

    for read in [key("", "x"), key("x", "")] {
        assert_eq!(at.store.read(read).await.unwrap_err().kind, StoreErrorKind::Invalid);
    }
    for wrong in [query("", 1), query("changes", 0)] {
        assert_eq!(at.store.query(wrong).await.unwrap_err().kind, StoreErrorKind::Invalid);
    }
}

//! Laws 1 and 2: all conditions or nothing, and the stored item.

use tallygate::store::{Change, Value, When, Written};

use super::Subject;
use super::subject::{add, item, key, set, write};

pub(crate) async fn each_condition_holds_exactly_when_it_says(at: Subject) {
    let there = key("conditions", "there");
    let absent = key("conditions", "absent");
    at.put_all([write(&there, [], [set("n", 5), set("t", "x"), set("b", vec![0, 255])])]).await;
    let equals = |name: &'static str, value| When::Equals(name.into(), value);
    // The condition, whether it holds for the item, and whether it holds without one.
    let cases = [
        (When::Absent, false, true),
        (When::Exists, true, false),
        (equals("n", Value::Int(5)), true, false),
        (equals("n", Value::Int(6)), false, false),
        (equals("n", Value::Text("5".into())), false, false),
        (equals("t", Value::Text("x".into())), true, false),
        (equals("t", Value::Text("X".into())), false, false),
        (equals("t", Value::Bytes(b"x".into())), false, false),
        (equals("b", Value::Bytes(vec![0, 255])), true, false),
        (equals("b", Value::Bytes(vec![0])), false, false),
        (equals("none", Value::Int(0)), false, false),
        (When::Missing("none".into()), true, true),
        (When::Missing("n".into()), false, true),
        (When::AtLeast("n".into(), 5), true, false),
        (When::AtLeast("n".into(), 6), false, false),
        (When::AtLeast("t".into(), i64::MIN), false, false),
        (When::AtLeast("none".into(), i64::MIN), false, false),
        (When::Below("n".into(), 6), true, false),
        (When::Below("n".into(), 5), false, false),
        (When::Below("b".into(), i64::MAX), false, false),
        (When::Below("none".into(), i64::MAX), false, false),
    ];
    for (when, holds_there, holds_absent) in cases {
        for (key, holds) in [(&there, holds_there), (&absent, holds_absent)] {
            // Removing a missing attribute is a change that shows in no other case.
            let probe = write(key, [when.clone()], [Change::Remove("other".into())]);
            let applied = matches!(at.write(probe).await.unwrap(), Written::Applied(_));
            assert_eq!(applied, holds, "{when:?} on {}", key.sk);
            if *key == absent {
                at.put_all([write(&absent, [], [Change::Delete])]).await;
            }
        }
    }
}

pub(crate) async fn all_conditions_must_hold(at: Subject) {
    let k = key("conditions", "all");
    at.put_all([write(&k, [], [set("a", 1), set("b", 2)])]).await;
    let a = |n| When::Equals("a".into(), Value::Int(n));
    let b = |n| When::Equals("b".into(), Value::Int(n));
    for (when, applied) in
        [([a(1), b(2)], true), ([a(1), b(3)], false), ([a(0), b(2)], false), ([a(0), b(0)], false)]
    {
        let written = at.write(write(&k, when, [add("hits", 1)])).await.unwrap();
        assert_eq!(matches!(written, Written::Applied(_)), applied);
    }
    assert_eq!(at.item(&k).await.unwrap().int("hits"), Some(1));
}

pub(crate) async fn a_refused_write_changes_nothing_and_returns_the_item(at: Subject) {
    let k = key("conditions", "refused");
    let on_none = write(&k, [When::Exists], [set("n", 1)]);
    assert_eq!(at.write(on_none).await.unwrap(), Written::Refused(None));
    assert_eq!(at.item(&k).await, None);

    at.put_all([write(&k, [], [set("n", 1), set("t", "as it stood")])]).await;
    let stands = item([("n", 1.into()), ("t", "as it stood".into())]);
    let when = [When::Exists, When::AtLeast("n".into(), 2)];
    let change = [set("t", "changed"), add("n", 1), Change::Remove("x".into())];
    let refused = at.write(write(&k, when.clone(), change)).await.unwrap();
    assert_eq!(refused, Written::Refused(Some(stands.clone())));
    let refused = at.write(write(&k, when, [Change::Delete])).await.unwrap();
    assert_eq!(refused, Written::Refused(Some(stands.clone())));
    assert_eq!(at.item(&k).await, Some(stands));
}

pub(crate) async fn a_condition_is_tested_before_an_overflow(at: Subject) {
    let k = key("conditions", "overflow");
    at.put_all([write(&k, [], [set("n", i64::MAX)])]).await;
    let guarded = write(&k, [When::Below("n".into(), i64::MAX)], [add("n", 1)]);
    assert!(matches!(at.write(guarded).await.unwrap(), Written::Refused(Some(_))));
}

/// As in a lease: the complete old entry is the condition, so a duplicate cannot apply.
pub(crate) async fn an_exact_entry_lets_a_write_through_once(at: Subject) {
    let k = key("conditions", "entry");
    at.put_all([write(&k, [], [set("free", 10), set("entry", b"op 0".to_vec())])]).await;
    let take = write(
        &k,
        [
            When::Equals("entry".into(), Value::Bytes(b"op 0".into())),
            When::AtLeast("free".into(), 4),
        ],
        [add("free", -4), set("entry", b"op 1".to_vec())],
    );
    let after = item([("free", 6.into()), ("entry", b"op 1".to_vec().into())]);
    assert_eq!(at.write(take.clone()).await.unwrap(), Written::Applied(Some(after.clone())));
    for _ in 0..3 {
        let again = at.write(take.clone()).await.unwrap();
        assert_eq!(again, Written::Refused(Some(after.clone())));
    }
}

//! Random calls, answered by the store and by the simplest possible model: a list of items,
//! searched from the start. The model shares no code with any store.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tallygate::store::{Change, Item, Page, Query, StoreErrorKind, Value, When, Write, Written};

use super::Subject;
use super::subject::key;

/// Sequences of calls; each has partitions of its own.
const CASES: u32 = 48;

#[derive(Clone, Debug)]
enum Call {
    Write(Write),
    Query(Query),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Written(Written),
    Page(Page),
    Invalid,
}

/// Pairs of keys and their items, unordered.
#[derive(Default)]
struct Model(Vec<((String, String), Item)>);

impl Model {
    fn answer(&mut self, call: &Call) -> Answer {
        match call {
            Call::Write(write) => self.write(write).map_or(Answer::Invalid, Answer::Written),
            Call::Query(query) => Answer::Page(self.query(query)),
        }
    }

    fn write(&mut self, write: &Write) -> Option<Written> {
        let at = (write.key.pk.clone(), write.key.sk.clone());
        let place = self.0.iter().position(|(key, _)| *key == at);
        let old = place.map(|place| self.0[place].1.clone());
        for (i, change) in write.change.iter().enumerate() {
            let others = write.change.iter().enumerate().filter(|(j, _)| *j != i);
            for (_, other) in others {
                if *change == Change::Delete || name(change) == name(other) {
                    return None;
                }
            }
        }
        for when in &write.when {
            let value = |name: &str| old.as_ref()?.0.get(name).cloned();
            let holds = match when {
                When::Absent => old.is_none(),
                When::Exists => old.is_some(),
                When::Equals(name, wanted) => value(name) == Some(wanted.clone()),
                When::Missing(name) => value(name).is_none(),
                When::AtLeast(name, n) => matches!(value(name), Some(Value::Int(m)) if m >= *n),
                When::Below(name, n) => matches!(value(name), Some(Value::Int(m)) if m < *n),
            };
            if !holds {
                return Some(Written::Refused(old));
            }
        }
        let mut new = Some(old.unwrap_or_default());
        for change in &write.change {
            match (change, &mut new) {
                (Change::Set(name, value), Some(item)) => {
                    item.0.insert(name.clone(), value.clone());
                }
                (Change::Remove(name), Some(item)) => {
                    item.0.remove(name);
                }
                (Change::Add(name, by), Some(item)) => {
                    let old = match item.0.get(name) {
                        None => 0_i128,
                        Some(Value::Int(n)) => i128::from(*n),
                        Some(_) => return None,
                    };
                    let sum = i64::try_from(old + i128::from(*by)).ok()?;
                    item.0.insert(name.clone(), Value::Int(sum));
                }
                _ => new = None,
            }
        }
        if let Some(place) = place {
            self.0.swap_remove(place);
        }
        self.0.extend(new.clone().map(|item| (at, item)));
        Some(Written::Applied(new))
    }

    fn query(&self, query: &Query) -> Page {
        let mut items: Vec<(String, Item)> = Vec::new();
        for ((pk, sk), item) in &self.0 {
            let until = query.until.as_ref().is_none_or(|until| sk.as_bytes() < until.as_bytes());
            if *pk == query.pk && sk.as_bytes() >= query.from.as_bytes() && until {
                items.push((sk.clone(), item.clone()));
            }
        }
        items.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        let next = items.get(query.limit).map(|(sk, _)| sk.clone());
        items.truncate(query.limit);
        Page { items, next }
    }
}

fn name(change: &Change) -> Option<&str> {
    match change {
        Change::Set(name, _) | Change::Add(name, _) | Change::Remove(name) => Some(name),
        Change::Delete => None,
    }
}

pub(crate) async fn random_calls_are_answered_like_the_model(at: Subject) {
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let case = std::cell::Cell::new(0);
        TestRunner::new(config).run(&calls(), |calls| {
            case.set(case.get() + 1);
            let calls = calls.into_iter().map(|call| in_space(call, case.get()));
            runtime.block_on(agrees(&at, calls.collect()))
        })
    };
    tokio::task::spawn_blocking(run).await.unwrap().unwrap();
}

async fn agrees(at: &Subject, calls: Vec<Call>) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for call in calls {
        let result = match call.clone() {
            Call::Write(write) => at.store.write(write).await.map(Answer::Written),
            Call::Query(query) => at.read_on(query).await.map(Answer::Page),
        };
        let answer = match result {
            Ok(answer) => answer,
            Err(error) if error.kind == StoreErrorKind::Invalid => Answer::Invalid,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let expected = model.answer(&call);
        prop_assert!(agree(&answer, &expected), "{call:?}: {answer:?} is not {expected:?}");
    }
    for ((pk, sk), item) in &model.0 {
        prop_assert_eq!(at.item(&key(pk, sk)).await, Some(item.clone()));
    }
    Ok(())
}

/// Whether an answer matches the model's. If a page ends exactly with the last item, a store may
/// name a place beyond it; otherwise the place it names is after the page, with no item in between.
fn agree(answer: &Answer, expected: &Answer) -> bool {
    let (Answer::Page(page), Answer::Page(model)) = (answer, expected) else {
        return answer == expected;
    };
    let follows = match (&page.next, &model.next, page.items.last()) {
        (None, None, _) => true,
        (Some(_), None, None) | (None, Some(_), _) => false,
        (Some(next), None, Some((last, _))) => next > last,
        (Some(next), Some(first), Some((last, _))) => next > last && next <= first,
        (Some(next), Some(first), None) => next <= first,
    };
    page.items == model.items && follows
}

/// The call, moved to a part of the table that no other case has touched.
fn in_space(call: Call, case: u32) -> Call {
    match call {
        Call::Write(mut write) => {
            write.key.pk = format!("{case}#{}", write.key.pk);
            Call::Write(write)
        }
        Call::Query(query) => Call::Query(Query { pk: format!("{case}#{}", query.pk), ..query }),
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(prop_oneof![4 => write().prop_map(Call::Write), 1 => query()], 1..24)
}

fn pk() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a#", "aa"]).prop_map(String::from)
}

fn sk() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["-", "1", "10", "é", "\u{1f600}"]).prop_map(String::from)
}

fn attribute() -> impl Strategy<Value = tallygate::store::Name> {
    prop::sample::select(vec!["x", "y", "z"]).prop_map(Into::into)
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![-3..4_i64, prop::sample::select(vec![i64::MIN, i64::MAX])]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => number().prop_map(Value::Int),
        1 => prop::sample::select(vec!["", "t"]).prop_map(|text| Value::Text(text.into())),
        1 => prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        Just(When::Absent),
        Just(When::Exists),
        (attribute(), value()).prop_map(|(name, value)| When::Equals(name, value)),
        attribute().prop_map(When::Missing),
        (attribute(), number()).prop_map(|(name, n)| When::AtLeast(name, n)),
        (attribute(), number()).prop_map(|(name, n)| When::Below(name, n)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (attribute(), value()).prop_map(|(name, value)| Change::Set(name, value)),
        4 => (attribute(), number()).prop_map(|(name, by)| Change::Add(name, by)),
        2 => attribute().prop_map(Change::Remove),
        1 => Just(Change::Delete),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let when = prop::collection::vec(when(), 0..3);
    let change = prop::collection::vec(change(), 1..3);
    (pk(), sk(), when, change).prop_map(|(pk, sk, when, change)| Write {
        key: key(&pk, &sk),
        when,
        change,
    })
}

fn query() -> impl Strategy<Value = Call> {
    let from = prop_oneof![Just(String::new()), sk()];
    (pk(), from, prop::option::of(sk()), 1..7_usize)
        .prop_map(|(pk, from, until, limit)| Call::Query(Query { pk, from, until, limit }))
}

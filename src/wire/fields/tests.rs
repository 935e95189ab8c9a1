//! Reads the headers back with `sfv`, which shares no code with the writer.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sfv::{BareItem, FieldType, List, ListEntry, Parser};

use super::*;
use crate::amount::Amount;
use crate::decision::Source;

fn limit(name: &str) -> LimitState {
    LimitState {
        name: Arc::from(name),
        kind: LimitKind::Rate,
        meter: None,
        unit: Unit::Calls,
        limit: Amount::units(30),
        remaining: Amount::units(0),
        used: Amount::units(30),
        window: Some(Duration::from_secs(60)),
        resets_in: Some(Duration::from_millis(20_100)),
        resets_at_ms: None,
        source: Source::Process,
        past_soft: false,
        of_plan: true,
    }
}

fn month() -> LimitState {
    LimitState {
        kind: LimitKind::Quota,
        limit: Amount::units(10_000),
        remaining: Amount::units(1_204),
        used: Amount::units(8_796),
        window: Some(Duration::from_secs(2_592_000)),
        resets_in: Some(Duration::from_secs(864_000)),
        resets_at_ms: Some(864_000_500),
        ..limit("requests/month")
    }
}

fn ratelimit(limits: &[LimitState]) -> String {
    let mut out = String::new();
    let some = write_ratelimit(&mut out, limits).unwrap();
    assert_eq!(some, !out.is_empty());
    out
}

fn items(value: &str) -> Vec<(String, Vec<(String, BareItem)>)> {
    let list = Parser::new(value).parse::<List>().unwrap_or_else(|e| panic!("{value}: {e}"));
    let item = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => (
            item.bare_item.as_string().unwrap().as_str().to_owned(),
            item.params.iter().map(|(k, v)| (k.as_str().to_owned(), v.clone())).collect(),
        ),
        ListEntry::InnerList(_) => panic!("{value}: an inner list"),
    };
    // Our output is the canonical form, byte for byte.
    assert_eq!(list.serialize().as_deref(), Some(value));
    list.iter().map(item).collect()
}

fn number(params: &[(String, BareItem)], key: &str) -> Option<u64> {
    let value = &params.iter().find(|(k, _)| k == key)?.1;
    Some(u64::try_from(i64::from(value.as_integer().unwrap())).unwrap())
}

#[test]
fn writes_the_headers_of_the_draft() {
    let limits = [limit("search"), month()];
    assert_eq!(
        policy_header(&limits).unwrap(),
        r#""search";q=30;w=60, "requests/month";q=10000;w=2592000"#
    );
    assert_eq!(ratelimit(&limits), r#""search";r=0;t=21, "requests/month";r=1204;t=864000"#);
}

#[test]
fn writes_no_header_without_items() {
    assert_eq!(policy_header(&[]), None);
    let past = LimitState { past_soft: true, ..month() };
    assert_eq!(ratelimit(std::slice::from_ref(&past)), "");
    assert!(policy_header(std::slice::from_ref(&past)).is_some());
}

#[test]
fn names_units_that_are_not_requests() {
    let egress = LimitState {
        meter: Some(Arc::from("egress")),
        unit: Unit::Bytes,
        limit: Amount::units(1_000_000_000),
        ..month()
    };
    let credits = LimitState {
        meter: Some(Arc::from("credits")),
        unit: Unit::Other,
        limit: Amount::new(500_000, 1000),
        remaining: Amount::new(1_999, 1000),
        window: None,
        resets_in: None,
        ..month()
    };
    let flight = LimitState {
        kind: LimitKind::Concurrency,
        window: None,
        resets_in: None,
        ..limit("concurrency")
    };
    assert_eq!(
        policy_header(&[egress, credits.clone(), flight]).unwrap(),
        "\"requests/month\";q=1000000000;qu=\"content-bytes\";w=2592000, \
         \"requests/month\";q=500;tallygate-unit=\"credits\", \
         \"concurrency\";q=30;qu=\"concurrent-requests\""
    );
    assert_eq!(ratelimit(&[credits]), r#""requests/month";r=1"#);
}

#[test]
fn clamps_to_fifteen_digits() {
    let huge = LimitState {
        limit: Amount::units(u64::MAX),
        remaining: Amount::units(u64::MAX),
        ..month()
    };
    assert_eq!(
        ratelimit(std::slice::from_ref(&huge)),
        r#""requests/month";r=999999999999999;t=864000"#
    );
    items(&policy_header(&[huge]).unwrap());
}

#[test]
fn tells_legacy_clients_of_the_limit_nearest_to_its_end() {
    let told = |reset| {
        let mut headers = Vec::new();
        let past = LimitState { past_soft: true, remaining: Amount::units(0), ..month() };
        let limits =
            [LimitState { remaining: Amount::units(29), ..limit("search") }, month(), past];
        limit_headers(&limits, HeaderStyle::Legacy { reset }, Call::at(500), &mut headers);
        headers
    };
    let expected = |reset: &str| {
        vec![
            ("x-ratelimit-limit", "10000".to_owned()),
            ("x-ratelimit-remaining", "1204".to_owned()),
            ("x-ratelimit-reset", reset.to_owned()),
        ]
    };
    assert_eq!(told(LegacyReset::Delta), expected("864000"));
    assert_eq!(told(LegacyReset::Epoch), expected("864001"));
    assert_eq!(told(LegacyReset::Rfc3339), expected("1970-01-11T00:00:01Z"));
}

#[test]
fn sends_nothing_when_off() {
    let mut headers = Vec::new();
    limit_headers(&[month()], HeaderStyle::Off, Call::default(), &mut headers);
    assert_eq!(headers, []);
}

#[test]
fn names_what_scripts_may_read_and_no_name_twice() {
    let draft = HeaderStyle::Draft11;
    let of = |told: &[&str], style| {
        let told: Vec<_> = told.iter().map(|line| line.as_bytes()).collect();
        expose(&told, style).map(Cow::into_owned)
    };
    assert_eq!(of(&[], draft).as_deref(), Some(EXPOSE));
    assert_eq!(of(&[""], draft).as_deref(), Some(EXPOSE));
    let rest = Some("RateLimit-Policy, Retry-After");
    assert_eq!(of(&["ETag, ratelimit"], draft).as_deref(), rest);
    assert_eq!(of(&["ETag", "Link ,\tRATELIMIT"], draft).as_deref(), rest);
    assert_eq!(of(&["RateLimit", "ETag,RateLimit-Policy,Retry-After"], draft), None);
    assert_eq!(of(&["*"], HeaderStyle::Off).as_deref(), Some("Retry-After"));
    let bytes = expose(&[b"\xFF, RateLimit"], draft);
    assert_eq!(bytes.as_deref(), rest, "whatever else a line holds");
}

fn any_limit() -> impl Strategy<Value = LimitState> {
    let seconds = proptest::option::of(any::<u64>());
    let unit = prop_oneof![Just(Unit::Calls), Just(Unit::Bytes), Just(Unit::Other)];
    (any::<String>(), any::<String>(), any::<(u64, u64, u64)>(), seconds, unit).prop_map(
        |(name, meter, (scale, limit_, remaining), seconds, unit)| LimitState {
            name: name.into(),
            meter: Some(meter.into()),
            unit,
            limit: Amount::new(limit_, scale),
            remaining: Amount::new(remaining, scale),
            window: seconds.map(Duration::from_secs),
            resets_in: seconds.map(Duration::from_secs),
            ..limit("")
        },
    )
}

proptest! {
    #[test]
    fn whatever_a_limit_is_called_the_headers_parse(
        limits in proptest::collection::vec(any_limit(), 1..5)
    ) {
        let policies = items(&policy_header(&limits).unwrap());
        let states = items(&ratelimit(&limits));
        prop_assert_eq!((policies.len(), states.len()), (limits.len(), limits.len()));
        for ((limit, (_, policy)), (_, state)) in limits.iter().zip(&policies).zip(&states) {
            let written = |amount: Amount| Some(amount.whole().min(MAX_INTEGER));
            prop_assert_eq!(number(policy, "q"), written(limit.limit));
            prop_assert_eq!(number(state, "r"), written(limit.remaining));
            let seconds = limit.window.map(|w| w.as_secs().min(MAX_INTEGER));
            prop_assert_eq!(number(policy, "w"), seconds.map(|s| s.max(1)));
            prop_assert_eq!(number(state, "t"), seconds);
        }
    }

    #[test]
    fn printable_names_round_trip(name in "[ -~]{0,40}") {
        let read = items(&ratelimit(&[limit(&name)]));
        prop_assert_eq!(&read[0].0, &name);
    }

    #[test]
    fn other_names_stay_apart(
        a in "[a-zA-Z0-9/é\u{0}-\u{1f}😀-]{1,8}",
        b in "[a-z/é\u{7f}😀-]{1,8}",
    ) {
        let read = |name: &str| items(&ratelimit(&[limit(name)])).remove(0).0;
        prop_assert_eq!(a == b, read(&a) == read(&b));
    }
}

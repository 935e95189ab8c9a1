//! `import api-gateway` and `import tower-governor` on whatever they are given: they never panic,
//! what they print is a legal plan file, and no limit in it is beyond the source's.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::home::{Home, Ran};

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9 /\u{1b}\n-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![Just("items".to_owned()), "[a-z]{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|all| Value::Object(Map::from_iter(all))),
        ]
    })
}

/// Replaces one node of a document, by its number in the order of reading.
fn replace(node: &mut Value, left: &mut usize, by: &Value) {
    if *left == 0 {
        *node = by.clone();
    }
    *left = left.wrapping_sub(1);
    match node {
        _ if *left == usize::MAX => {}
        Value::Array(items) => items.iter_mut().for_each(|it| replace(it, left, by)),
        Value::Object(fields) => fields.values_mut().for_each(|it| replace(it, left, by)),
        _ => {}
    }
}

/// A document of the right shape with any value at any place, or in place of all of it.
fn nearly(document: Value) -> impl Strategy<Value = Value> {
    (0..40_usize, any_json()).prop_map(move |(mut at, by)| {
        let mut document = document.clone();
        replace(&mut document, &mut at, &by);
        document
    })
}

fn usage_plans() -> Value {
    json!({ "items": [{
        "id": "c7y23b", "name": "basic", "productCode": "p", "tags": { "a": "b" },
        "apiStages": [{ "apiId": "a", "stage": "prod",
            "throttle": { "/pets/GET": { "burstLimit": 20, "rateLimit": 10.0 } } }],
        "throttle": { "burstLimit": 100, "rateLimit": 50.0 },
        "quota": { "limit": 100, "offset": 1, "period": "MONTH" },
    }] })
}

fn keys() -> Value {
    json!({ "items": [{
        "id": "k1", "name": "acme", "value": "apikey1234abcdefghij0123456789",
        "customerId": "c1", "enabled": true, "stageKeys": [], "tags": {},
    }] })
}

const PLANS: [&str; 4] = ["import", "api-gateway", "--usage-plans", "plans.json"];

#[track_caller]
fn ends_well(ran: &Ran, of: &str) {
    let is_error = ran.code == 2 && ran.stderr.contains("error: ");
    assert!(ran.code == 0 || is_error, "{of}\n{}: {}", ran.code, ran.stderr);
}

/// What the plans of a file give, as `plans show` reads it, which is checked as by `plans check`.
#[track_caller]
fn shown(home: &Home, toml: &str) -> Vec<Value> {
    home.write("written.toml", toml);
    home.run(&["plans", "check", "written.toml"]).ok();
    let lines = home.run(&["plans", "show", "written.toml", "--json"]).ok();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Numbers of every size.
fn sizes(bits: u32) -> impl Strategy<Value = u64> {
    (0..=bits, any::<u64>()).prop_map(|(bits, n)| n.checked_shr(64 - bits).unwrap_or(0))
}

/// A limit of a plan, by the beginning of its id.
fn limit<'a>(plan: &'a Value, id: &str) -> Option<&'a Value> {
    let mut all = plan["limits"].as_object().unwrap().iter();
    all.find(|(name, _)| name.starts_with(id)).map(|(_, limit)| limit)
}

fn number(of: &Value) -> u128 {
    of.as_u64().map_or_else(|| of.as_str().unwrap().parse().unwrap(), u128::from)
}

/// A rate as it was written, and as its source had it: requests, and the seconds for them as a
/// fraction.
struct Rates<'a> {
    written: &'a Value,
    requests: u128,
    seconds: (u128, u128),
    burst: u128,
}

impl Rates<'_> {
    /// Holds the rate against its source, and what was said against the rate.
    #[track_caller]
    fn hold(&self, said: &str) {
        let (over, under) = self.seconds;
        let written = number(&self.written["amount"]) * over;
        let source = number(&self.written["per_seconds"]) * under * self.requests;
        assert!(written <= source, "faster than the source: {}\n{said}", self.written);
        let is_sayable = over * 1_000_000_000 >= under * self.requests;
        assert!(!is_sayable || written * 2 >= source, "slow: {}\n{said}", self.written);
        assert_eq!(said.contains("is slower"), written < source, "{}\n{said}", self.written);
        let burst = number(&self.written["burst"]);
        assert!(burst <= self.burst, "a greater burst: {}\n{said}", self.written);
        assert_eq!(said.contains("less than the burst"), burst < self.burst, "{said}");
    }
}

/// A throttle and a quota of a usage plan.
#[derive(Clone, Debug)]
struct Source {
    rate: (u64, i32),
    burst: u64,
    limit: u64,
}

impl Source {
    fn any() -> impl Strategy<Value = Self> {
        let (rate, burst) = ((sizes(49), -15..=4_i32), sizes(64));
        (rate, burst, sizes(64)).prop_map(|(rate, burst, limit)| Self { rate, burst, limit })
    }

    fn json(&self, id: usize) -> String {
        let ((number, exponent), burst, limit) = (self.rate, self.burst, self.limit);
        format!(
            r#"{{ "id": "p{id}", "quota": {{ "limit": {limit}, "period": "DAY" }},
            "throttle": {{ "rateLimit": {number}e{exponent}, "burstLimit": {burst} }} }}"#
        )
    }

    /// Holds the plan against it, and what was said against both.
    #[track_caller]
    fn hold(&self, plan: &Value, said: &str) {
        let tens = |n: i32| 10_u128.pow(n.max(0).unsigned_abs());
        let (number_, exponent) = self.rate;
        let (requests, seconds) = (u128::from(number_) * tens(exponent), tens(-exponent));
        let once = limit(plan, "once requests").map(|it| number(&it["amount"]));
        let Some(rate) = limit(plan, "rate default") else {
            let is_slow = requests * 3_600 < seconds || self.burst == 0;
            assert!(is_slow && once == Some(0), "{plan}\n{said}");
            return assert!(said.contains("prepaid, by grants alone"), "{said}");
        };
        let of = Rates { written: rate, requests, seconds: (seconds, 1), burst: self.burst.into() };
        of.hold(said);
        match limit(plan, "quota requests/day").map(|it| number(&it["amount"])) {
            Some(written) => {
                assert!(written <= self.limit.into() && written > 0, "{plan}");
                let is_less = written < self.limit.into();
                assert_eq!(said.contains("less than its quota"), is_less, "{said}");
            }
            None => assert!(self.limit == 0 && once == Some(0), "{plan}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn usage_plans_of_any_shape_are_a_legal_file_or_an_error(plans in nearly(usage_plans())) {
        let home = Home::empty();
        home.write("plans.json", &plans.to_string());
        let ran = home.run(&PLANS);
        ends_well(&ran, &plans.to_string());
        if ran.code == 0 {
            shown(&home, &ran.stdout);
        }
    }

    #[test]
    fn keys_of_any_shape_are_read_or_an_error(
        keys in nearly(keys()),
        in_plan in nearly(json!({ "items": [{ "id": "k1", "type": "API_KEY" }] })),
    ) {
        let home = Home::empty();
        home.write("plans.json", &usage_plans().to_string());
        home.run(&[&PLANS[..], &["--output", "plans.toml"]].concat()).ok();
        home.write("keys.json", &keys.to_string());
        home.write("basic.json", &in_plan.to_string());
        let how = ["--keys", "keys.json", "--plan-keys", "c7y23b=basic.json", "--dry-run"];
        let ran = home.run(&[&PLANS[..], &how].concat());
        ends_well(&ran, &format!("{keys}\n{in_plan}"));
    }

    #[test]
    fn no_plan_admits_more_than_its_usage_plan(
        sources in prop::collection::vec(Source::any(), 1..12),
    ) {
        let home = Home::empty();
        let items: Vec<_> = sources.iter().enumerate().map(|(n, it)| it.json(n)).collect();
        home.write("plans.json", &format!("{{ \"items\": [{}] }}", items.join(",")));
        let ran = home.run(&PLANS);
        prop_assert_eq!(ran.code, 0, "{}", ran.stderr);
        for (n, (plan, source)) in shown(&home, &ran.stdout).iter().zip(&sources).enumerate() {
            let of_plan = format!("note: p{n}: ");
            let said = ran.stderr.lines().filter(|line| line.starts_with(&of_plan));
            source.hold(plan, &said.collect::<Vec<_>>().join("\n"));
        }
    }

    #[test]
    fn no_rate_admits_more_than_tower_governors(
        each in sizes(64).prop_map(|n| n.max(1)),
        burst in sizes(32).prop_map(|n| n.max(1)),
        unit in prop::sample::select(vec![
            ("--per-second", 1_000_000_000_u128),
            ("--per-millisecond", 1_000_000),
            ("--per-nanosecond", 1),
        ]),
    ) {
        let home = Home::empty();
        let (each_, burst_) = (each.to_string(), burst.to_string());
        // `plans show` has the limits that all callers of a tenant share.
        let numbers = [unit.0, &each_, "--burst-size", &burst_, "--per", "tenant"];
        let ran = home.run(&[&["import", "tower-governor"], &numbers[..]].concat());
        ends_well(&ran, &numbers.join(" "));
        let (interval, second) = (u128::from(each) * unit.1, 1_000_000_000);
        if interval > 3_600 * second {
            let said = ran.fails(2);
            prop_assert!(said.contains("slower than one request an hour"), "{}", said);
            return Ok(());
        }
        prop_assert_eq!(ran.code, 0, "{}", ran.stderr);
        let plans = shown(&home, &ran.stdout);
        let written = limit(&plans[0], "rate default").unwrap();
        let seconds = (interval, second);
        Rates { written, requests: 1, seconds, burst: burst.into() }.hold(&ran.stderr);
    }
}

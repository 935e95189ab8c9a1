//! `import api-gateway` on whatever it is given: it never panics.

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn usage_plans_of_any_shape_are_a_file_or_an_error(plans in nearly(usage_plans())) {
        let home = Home::empty();
        home.write("plans.json", &plans.to_string());
        let ran = home.run(&PLANS);
        ends_well(&ran, &plans.to_string());
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
}

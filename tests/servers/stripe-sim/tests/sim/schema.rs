//! Whether its answers keep to Stripe's published schema: the OpenAPI file that stripe-mock's Go
//! module carries, read where Go keeps modules. Every call of `published.rs` is looked at, and the
//! objects of every event that follows.
//!
//! The rule: an answer has each field that the schema requires and none that it does not name, and
//! each value is one that the schema takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::start;
use crate::published::calls;

/// As in `tests/servers/get-stripe-mock`.
const MODULE: &str = "github.com/stripe/stripe-mock@v0.203.0";

/// Deepest nesting that is looked into; the schema refers to itself.
const DEPTH: usize = 24;

/// Stripe's OpenAPI file; `None`, with a line that says why, where it cannot be had.
fn spec() -> Option<Value> {
    let asked = Command::new("go").args(["env", "GOMODCACHE"]).output().ok();
    let modules = asked.and_then(|asked| String::from_utf8(asked.stdout).ok());
    let file = modules.map(|modules| -> PathBuf {
        Path::new(modules.trim()).join(MODULE).join("embedded/openapi/spec3.json")
    });
    match file.and_then(|file| std::fs::read(file).ok()) {
        Some(text) => Some(serde_json::from_slice(&text).unwrap()),
        None => {
            println!("skipped: Stripe's OpenAPI file (run tests/servers/get-stripe-mock)");
            None
        }
    }
}

/// The schema of an answer to this call.
fn of_call<'a>(spec: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let of: Vec<&str> = template.split('/').collect();
        of.len() == parts.len() && of.iter().zip(&parts).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let paths = spec["paths"].as_object().unwrap();
    // `/v1/customers/search` rather than `/v1/customers/{customer}`.
    let template = paths.keys().filter(fits).min_by_key(|path| path.matches('{').count())?;
    let answers = &spec["paths"][template][method.to_lowercase()]["responses"];
    Some(&answers["200"]["content"]["application/json"]["schema"])
}

/// What is wrong with a value, by where it stands.
fn check(spec: &Value, schema: &Value, value: &Value, at: &str, depth: usize) -> Vec<String> {
    if depth > DEPTH {
        return Vec::new();
    }
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return check(spec, &spec["components"]["schemas"][name], value, at, depth + 1);
    }
    if value.is_null() {
        let nullable = schema["nullable"] == true || schema == &json!({});
        return if nullable { vec![] } else { vec![format!("{at}: null")] };
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let tried = options.iter().map(|option| check(spec, option, value, at, depth + 1));
        return tried.min_by_key(Vec::len).unwrap_or_default();
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !fits {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let mut faults = Vec::new();
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        faults.push(format!("{at}: {value} is none of {words:?}"));
    }
    let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    if value.as_str().is_some_and(|text| text.chars().count() as u64 > most) {
        faults.push(format!("{at}: longer than {most}"));
    }
    for (n, one) in value.as_array().into_iter().flatten().enumerate() {
        faults.extend(check(spec, &schema["items"], one, &format!("{at}[{n}]"), depth + 1));
    }
    let (Some(object), Some(fields)) = (value.as_object(), schema["properties"].as_object()) else {
        return faults;
    };
    for (name, value) in object {
        match fields.get(name) {
            Some(field) => {
                faults.extend(check(spec, field, value, &format!("{at}.{name}"), depth + 1));
            }
            None if schema["additionalProperties"].is_object() => {}
            None => faults.push(format!("{at}.{name}: not in the schema")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            faults.push(format!("{at}.{name}: missing"));
        }
    }
    faults
}

#[tokio::test]
async fn every_answer_and_event_keeps_to_stripes_published_schema() {
    let Some(spec) = spec() else { return };
    let (_sim, client) = start().await;
    let mut faults = Vec::new();
    let mut looked_at = 0;
    for (method, path, form) in calls(&client).await {
        let answer = client.call(method, &path, &form, None).await.unwrap().ok();
        let schema = of_call(&spec, method, &path).unwrap_or_else(|| panic!("{method} {path}"));
        faults.extend(check(&spec, schema, &answer, &format!("{method} {path}"), 0));
        looked_at += 1;
    }
    let events = client.get("/v1/events", "limit=100").await.ok();
    let mut kinds = BTreeMap::<String, usize>::new();
    for event in events["data"].as_array().unwrap() {
        let kind = event["type"].as_str().unwrap();
        let object = &event["data"]["object"];
        let schema = json!({ "$ref": "#/components/schemas/event" });
        faults.extend(check(&spec, &schema, event, kind, 0));
        let name = object["object"].as_str().unwrap();
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        faults.extend(check(&spec, &schema, object, &format!("{kind} object"), 0));
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    println!("{looked_at} answers, events: {kinds:?}");
    assert!(looked_at >= 36 && kinds.len() >= 15);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_schema_check_finds_what_it_is_for() {
    let spec = json!({ "components": { "schemas": { "inner": {
        "type": "object", "required": ["id"],
        "properties": { "id": { "type": "string", "maxLength": 3 } },
    } } } });
    let schema = json!({
        "type": "object", "required": ["a"],
        "properties": {
            "a": { "type": "integer" },
            "b": { "anyOf": [{ "type": "string" }, { "$ref": "#/components/schemas/inner" }],
                   "nullable": true },
            "c": { "type": "array", "items": { "enum": ["x"], "type": "string" } },
        },
    });
    let faults = |value: Value| check(&spec, &schema, &value, "", 0).len();
    for good in [json!({ "a": 1, "b": null, "c": ["x"] }), json!({ "a": 1, "b": { "id": "abc" } })]
    {
        assert_eq!(faults(good.clone()), 0, "{good}");
    }
    for wrong in [
        json!({ "a": "1" }),
        json!({}),
        json!({ "a": null }),
        json!({ "a": 1, "z": 1 }),
        json!({ "a": 1, "b": { "id": "long" } }),
        json!({ "a": 1, "c": ["y"] }),
    ] {
        assert_eq!(faults(wrong.clone()), 1, "{wrong}");
    }
}

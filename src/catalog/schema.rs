//! The JSON Schema (draft-07) of a plan file, for editors: printed from the parser's tables, so
//! that the two cannot drift. Committed as `docs/plans.schema.json`.
//!
//! It covers keys, types and the form of the small languages. Checks that need the whole file
//! (names, sums, prices, limits below a cost) are left to the parser.

use serde_json::{Map, Value, json};

use super::form::{Form, Names, Shape};
use super::keys::TOP;
use super::numbers::{BYTE_UNITS, MULTIPLIERS};
use super::words::{DURATIONS, QUOTA_PERIODS, RATE_PERIODS, RATE_PERIODS_IN_FULL, TERMS};

/// The JSON Schema of a plan file.
pub fn schema() -> Value {
    let mut schema = object(&TOP);
    schema.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".into(), json!("tallygate plans.toml"));
    Value::Object(schema)
}

fn object(shape: &Shape) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in shape.keys {
        let mut value = value(&key.form);
        value.insert("description".into(), json!(key.about));
        properties.insert(key.name.to_owned(), Value::Object(value));
    }
    let mut object = map(json!({ "type": "object", "additionalProperties": false }));
    if !shape.required.is_empty() {
        object.insert("required".into(), json!(shape.required));
    }
    object.insert("properties".into(), Value::Object(properties));
    object
}

fn value(form: &Form) -> Map<String, Value> {
    let number = format!(r"{NUMBER}({})?", either([units(&MULTIPLIERS), units(&BYTE_UNITS)]));
    map(match form {
        Form::Text => json!({ "type": "string" }),
        Form::Word(words) => json!({ "enum": words }),
        Form::Words(words) => json!({ "type": "array", "minItems": 1, "items": { "enum": words } }),
        Form::Texts => one_or_many(json!({ "type": "string" })),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Count => json!({ "type": "integer", "minimum": 1 }),
        Form::Percents => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": 1 },
                    "examples": [[80, 100]] })
        }
        // Editors see a TOML date as a string of this form.
        Form::Date => words(r"\d{4}-\d{2}-\d{2}".into(), &["2027-03-31"]),
        Form::Duration => words(format!(r"\d+({})", units(&DURATIONS)), &["7d", "90min"]),
        Form::Term => words(format!(r"\d+({})", units(&TERMS)), &["1y", "6mo"]),
        Form::Amount => or_integer(words(number, &["64KB", "1M"])),
        Form::Fraction => or_integer(words(format!(r"{number}(/{NUMBER})?"), &["1/1000", "2.5"])),
        Form::RateWords => {
            let periods = [units(&RATE_PERIODS), units(&RATE_PERIODS_IN_FULL)].join("|");
            let tail = format!(r"( +burst {number})?( +per {NAME})?( +burst {number})?");
            let pattern = format!(r"{number}( +{NAME})? */ *({periods}){tail}");
            words(pattern, &["50/s burst 100", "100k input-tokens/min", "20/s per key"])
        }
        Form::QuotaWords => {
            let periods = units(&QUOTA_PERIODS);
            let pattern = format!(r"unlimited|prepaid|{number}( */ *({periods})( +per {NAME})?)?");
            words(
                pattern,
                &["10k/month", "1GB/month", "5k/day per user", "500", "unlimited", "prepaid"],
            )
        }
        Form::Limits(form, shape) => {
            let one = json!({ "anyOf": [value(form), object(shape)] });
            one_or_many(one)
        }
        Form::Feature => json!({ "type": ["boolean", "integer", "string"] }),
        Form::Table(shape) => Value::Object(object(shape)),
        Form::Each(names, form) => each(*names, form),
        Form::Payment(words, shape) => {
            let plan = json!({ "type": "string", "examples": words });
            json!({ "anyOf": [plan, object(shape)] })
        }
        Form::WordOr(words, shape) => json!({ "anyOf": [{ "enum": words }, object(shape)] }),
    })
}

/// A number with an optional part after the point.
const NUMBER: &str = r"\d+(\.\d+)?";

/// A name, as accepted by [`super::words::is_name`].
const NAME: &str = "[A-Za-z0-9][A-Za-z0-9_-]*";

fn each(names: Names, form: &Form) -> Value {
    match names {
        Names::Outer => json!({ "type": "object", "additionalProperties": value(form) }),
        _ => json!({
            "type": "object",
            "patternProperties": { format!("^{NAME}$"): value(form) },
            "additionalProperties": false,
        }),
    }
}

fn words(pattern: String, examples: &[&str]) -> Value {
    json!({ "type": "string", "pattern": format!("^({pattern})$"), "examples": examples })
}

fn or_integer(value: Value) -> Value {
    json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, value] })
}

fn one_or_many(one: Value) -> Value {
    let many = json!({ "type": "array", "minItems": 1, "items": one.clone() });
    json!({ "anyOf": [one, many] })
}

fn units<T>(units: &[(&str, T)]) -> String {
    either(units.iter().map(|(word, _)| (*word).to_owned()))
}

fn either(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().collect::<Vec<_>>().join("|")
}

/// The members of a JSON object; `json!` of an object always is one.
fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}

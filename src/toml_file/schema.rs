//! The JSON Schema (draft-07) of a file, for editors: printed from the keys that the parser checks.
//!
//! It covers keys, types and the form of strings. Checks that need the whole file are left to the
//! parser.

use serde_json::{Map, Value, json};

use super::form::{Form, Names, Shape};

/// The JSON Schema of a file with these keys.
pub(crate) fn schema(shape: &Shape, title: &str) -> Value {
    let mut schema = object(shape);
    schema.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".into(), json!(title));
    Value::Object(schema)
}

fn object(shape: &Shape) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in shape.keys {
        let mut value = map(value(&key.form));
        value.insert("description".into(), json!(key.about));
        properties.insert(key.name.to_owned(), Value::Object(value));
    }
    let mut object = map(json!({ "type": "object", "additionalProperties": false }));
    let single: Vec<_> = shape.required.iter().filter(|group| group.len() == 1).collect();
    if !single.is_empty() {
        object.insert("required".into(), single.iter().map(|group| group[0]).collect());
    }
    if let Some(group) = shape.required.iter().find(|group| group.len() > 1) {
        let one = group.iter().map(|name| json!({ "required": [name] }));
        object.insert("oneOf".into(), one.collect());
    }
    object.insert("properties".into(), Value::Object(properties));
    object
}

fn value(form: &Form) -> Value {
    match form {
        Form::Text => json!({ "type": "string" }),
        Form::Word(words) => json!({ "enum": words }),
        Form::Words(words) => json!({ "type": "array", "minItems": 1, "items": { "enum": words } }),
        Form::Filled => json!({ "type": "string", "minLength": 1 }),
        Form::Texts(least) => one_or_many(json!({ "type": "string" }), *least),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Count => json!({ "type": "integer", "minimum": 1 }),
        Form::Counted(kind) => words(format!(r"\d+({})", units(kind.units)), kind.examples),
        Form::Own(own) => (own.schema)(),
        Form::Or(form, shape) => json!({ "anyOf": [value(form), object(shape)] }),
        Form::Several(form, shape, _) => {
            one_or_many(json!({ "anyOf": [value(form), object(shape)] }), 1)
        }
        Form::Table(shape) => Value::Object(object(shape)),
        Form::Tables(shape) => {
            json!({ "type": "array", "minItems": 1, "items": object(shape) })
        }
        Form::TablesOrNone(shape) => json!({ "type": "array", "items": object(shape) }),
        Form::Each(names, form) => each(names, form),
    }
}

fn each(names: &Names, form: &Form) -> Value {
    match names.pattern {
        None => json!({ "type": "object", "additionalProperties": value(form) }),
        Some(pattern) => json!({
            "type": "object",
            "patternProperties": { format!("^{pattern}$"): value(form) },
            "additionalProperties": false,
        }),
    }
}

/// A string of this pattern.
pub(crate) fn words(pattern: String, examples: &[&str]) -> Value {
    json!({ "type": "string", "pattern": format!("^({pattern})$"), "examples": examples })
}

fn one_or_many(one: Value, least: usize) -> Value {
    let many = json!({ "type": "array", "minItems": least, "items": one.clone() });
    json!({ "anyOf": [one, many] })
}

/// The words of a list of units as alternatives of a pattern.
pub(crate) fn units<T>(units: &[(&str, T)]) -> String {
    units.iter().map(|(word, _)| *word).collect::<Vec<_>>().join("|")
}

/// The members of a JSON object; `json!` of an object always is one.
fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}

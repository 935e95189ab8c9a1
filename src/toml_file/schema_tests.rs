//! Schemas in tests: the committed ones against the parsers' keys, and what they accept.

use std::path::Path;

/// `TALLYGATE_WRITE_SCHEMA=1 cargo test --lib committed_schema` rewrites the file.
pub(crate) fn is_committed(schema: serde_json::Value, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("TALLYGATE_WRITE_SCHEMA").is_some() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let committed = serde_json::from_str::<serde_json::Value>(&committed).ok();
    assert!(
        committed == Some(schema),
        "{file} is not what the parser takes: run `TALLYGATE_WRITE_SCHEMA=1 cargo test --lib \
         committed_schema` and commit it"
    );
}

/// Whether a schema accepts a value: the part of draft-07 that ours uses.
pub(crate) fn takes(schema: &serde_json::Value, value: &toml::Value) -> bool {
    let text = |key: &str| schema.get(key).and_then(|word| word.as_str());
    let list = |key: &str| schema.get(key).and_then(|list| list.as_array());
    let kind = match value {
        toml::Value::String(_) | toml::Value::Datetime(_) => "string",
        toml::Value::Integer(_) => "integer",
        toml::Value::Float(_) => "number",
        toml::Value::Boolean(_) => "boolean",
        toml::Value::Array(_) => "array",
        toml::Value::Table(_) => "object",
    };
    let written = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of_kind = match schema.get("type") {
        Some(serde_json::Value::Array(kinds)) => kinds.iter().any(|k| k == kind),
        Some(one) => one == kind,
        None => true,
    };
    of_kind
        && list("anyOf").is_none_or(|any| any.iter().any(|schema| takes(schema, value)))
        && list("oneOf")
            .is_none_or(|one| one.iter().filter(|schema| takes(schema, value)).count() == 1)
        && schema.get("minLength").is_none_or(|least| *least == 1 && !written.is_empty())
        && list("enum").is_none_or(|words| words.iter().any(|word| *word == *written))
        && text("pattern").is_none_or(|p| regex::Regex::new(p).unwrap().is_match(&written))
        && value.as_integer().is_none_or(|n| {
            schema.get("minimum").and_then(|least| least.as_i64()).is_none_or(|least| n >= least)
        })
        && value.as_array().is_none_or(|items| {
            let least = schema.get("minItems").and_then(|least| least.as_u64()).unwrap_or(0);
            items.len() as u64 >= least
                && schema.get("items").is_none_or(|of| items.iter().all(|item| takes(of, item)))
        })
        && value.as_table().is_none_or(|table| takes_table(schema, table))
}

fn takes_table(schema: &serde_json::Value, table: &toml::Table) -> bool {
    let required = schema.get("required").and_then(|list| list.as_array());
    let has = |key: &serde_json::Value| table.contains_key(key.as_str().unwrap());
    required.is_none_or(|keys| keys.iter().all(has))
        && table.iter().all(|(key, value)| {
            if let Some(of) = schema.get("properties").and_then(|all| all.get(key)) {
                return takes(of, value);
            }
            let patterns = schema.get("patternProperties").and_then(|all| all.as_object());
            let matches = |p: &str| regex::Regex::new(p).unwrap().is_match(key);
            if let Some((_, of)) = patterns.into_iter().flatten().find(|(p, _)| matches(p)) {
                return takes(of, value);
            }
            match schema.get("additionalProperties") {
                Some(serde_json::Value::Bool(open)) => *open,
                Some(of) => takes(of, value),
                None => true,
            }
        })
}

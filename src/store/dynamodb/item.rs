//! Conversion between items and keys and DynamoDB's attributes.
//!
//! Every item carries the version of this encoding. An item without it, or with another one, was
//! written by something else: it is reported, neither partly read nor overwritten.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::super::{Item, Key, Name, StoreError, StoreErrorKind, Value};

/// The attribute that holds the encoding's version. `apply::check_name` keeps other attributes from
/// using this name.
pub(super) use super::super::ITEM_FORMAT;

/// The encoding version of this binary.
pub(super) const FORMAT: i64 = 1;

/// The table's key attributes.
pub(super) const PK: &str = "pk";
pub(super) const SK: &str = "sk";

/// The attributes of an item as the service returns them.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// The key of an item, as used in a request.
pub(super) fn key(key: &Key) -> Attributes {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    [(PK.to_owned(), text(&key.pk)), (SK.to_owned(), text(&key.sk))].into()
}

/// A value as an attribute.
pub(super) fn value(value: &Value) -> AttributeValue {
    match value {
        Value::Int(n) => number(*n),
        Value::Text(text) => AttributeValue::S(text.clone()),
        Value::Bytes(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
    }
}

/// A whole number as an attribute. DynamoDB keeps 38 digits, so none is lost.
pub(super) fn number(n: i64) -> AttributeValue {
    AttributeValue::N(n.to_string())
}

/// The sort key of a returned item.
pub(super) fn sort_key(attributes: &Attributes) -> Result<&str, StoreError> {
    match attributes.get(SK) {
        Some(AttributeValue::S(sk)) => Ok(sk),
        _ => Err(corrupt("an item has no sort key")),
    }
}

/// A returned item.
pub(super) fn item(attributes: Attributes) -> Result<Item, StoreError> {
    check_format(&attributes)?;
    let named = attributes.into_iter().filter(|(name, _)| !is_ours(name));
    named
        .map(|(name, attribute)| {
            let value = match attribute {
                AttributeValue::N(digits) => digits.parse().ok().map(Value::Int),
                AttributeValue::S(text) => Some(Value::Text(text)),
                AttributeValue::B(bytes) => Some(Value::Bytes(bytes.into_inner())),
                _ => None,
            };
            let value = value.ok_or_else(|| corrupt("an attribute is of a type we never write"))?;
            Ok((Name::Owned(name), value))
        })
        .collect::<Result<_, _>>()
        .map(Item)
}

fn is_ours(name: &str) -> bool {
    matches!(name, PK | SK | ITEM_FORMAT)
}

fn check_format(attributes: &Attributes) -> Result<(), StoreError> {
    let found = match attributes.get(ITEM_FORMAT) {
        Some(AttributeValue::N(digits)) if digits.parse() == Ok(FORMAT) => return Ok(()),
        Some(AttributeValue::N(digits)) => format!("format {digits}"),
        _ => "no format".to_owned(),
    };
    Err(corrupt(format!(
        "an item of the table has {found}, this binary reads {FORMAT}: run a binary that is at \
         least as new as the one that wrote it, and let nothing else write to the table"
    )))
}

fn corrupt(message: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(format: Option<&str>, n: AttributeValue) -> Attributes {
        let mut attributes = key(&Key { pk: "p".into(), sk: "s".into() });
        attributes.insert("n".into(), n);
        if let Some(format) = format {
            attributes.insert(ITEM_FORMAT.into(), AttributeValue::N(format.into()));
        }
        attributes
    }

    #[test]
    fn what_goes_in_comes_back() {
        for sent in [
            Value::Int(i64::MIN),
            Value::Int(i64::MAX),
            Value::Text(String::new()),
            Value::Bytes(vec![0, 255]),
        ] {
            let read = item(attributes(Some("1"), value(&sent))).unwrap();
            assert_eq!(read, Item([("n".into(), sent)].into()));
        }
    }

    #[test]
    fn an_unknown_format_is_named() {
        let error = item(attributes(Some("2"), number(1))).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(error.message.contains("has format 2, this binary reads 1"), "{error}");
        let error = item(attributes(None, number(1))).unwrap_err();
        assert!(error.message.contains("has no format, this binary reads 1"), "{error}");
    }

    #[test]
    fn what_we_never_write_is_corrupt() {
        for strange in [
            AttributeValue::N("1.5".into()),
            AttributeValue::N("9223372036854775808".into()),
            AttributeValue::Bool(true),
        ] {
            let error = item(attributes(Some("1"), strange)).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
        }
    }
}

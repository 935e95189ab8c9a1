//! Usage events, and their JSON shapes.
//!
//! | shape | id | tenant | meter | quantity | when |
//! |---|---|---|---|---|---|
//! | our own | `id` | `tenant` | `meter` | `quantity` | `timestamp` |
//! | a marketplace's | `id` | `TenantID` | `ProductCode` | `Quantity` | `Timestamp` |
//!
//! - `[ingest.products]` maps product codes to meters.
//! - CloudEvents 1.0: `source` and `id` together are the id, as `LENGTH:SOURCE#ID` with the length
//!   of the source in bytes: either may hold any character. The rest is in `data`, in one of the
//!   shapes above; if missing there, `subject` is the tenant, `type` the meter, `time` the time.
//! - EventBridge: `detail` is in one of the shapes above; if missing there, the envelope's `id` and
//!   `time` count.
//!
//! A quantity is a whole number, or one in quotes. A time is RFC 3339, or whole seconds since 1970;
//! without one, the event counts on arrival. Only the event's own id counts: a queue's message id
//! differs from one delivery to the next.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::clock::time_at;
use serde_json::{Map, Value};

/// Longest id, in bytes.
pub(super) const MAX_ID: usize = 512;

/// Most units of one event: 15 digits, as everywhere.
pub(super) const MAX_QUANTITY: u64 = 999_999_999_999_999;

/// Units used by a tenant, as reported by another service.
/// [`Ingest::events`](crate::ingest::Ingest::events) counts them, each id once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageEvent {
    /// Its id, unique within its tenant: 1 to 512 bytes.
    pub id: String,
    /// The tenant's outer id.
    pub tenant: String,
    /// The meter, by its name in the plan file.
    pub meter: String,
    /// Units, at most 15 digits.
    pub quantity: u64,
    /// Time of use; `None`: the time of arrival.
    pub at: Option<SystemTime>,
}

/// The reason an event cannot be read. Includes names of keys, never values.
/// [`Ingest::read`](crate::ingest::Ingest::read) returns it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableEvent(pub(crate) String);

impl UnreadableEvent {
    pub(super) fn too_large() -> Self {
        Self("a quantity has at most 15 digits".into())
    }
}

impl UsageEvent {
    /// An event without a time of use: it counts on arrival.
    pub fn new(
        id: impl Into<String>,
        tenant: impl Into<String>,
        meter: impl Into<String>,
        quantity: u64,
    ) -> Self {
        let (id, tenant, meter) = (id.into(), tenant.into(), meter.into());
        Self { id, tenant, meter, quantity, at: None }
    }

    /// Sets the time of use.
    #[must_use]
    pub fn at(mut self, at: SystemTime) -> Self {
        self.at = Some(at);
        self
    }

    /// Reads an event in any of the [shapes](self). `products` maps product codes to meters.
    pub(crate) fn read(
        value: &Value,
        products: &BTreeMap<String, String>,
    ) -> Result<Self, UnreadableEvent> {
        let Value::Object(outer) = value else {
            return Err(UnreadableEvent("an event is a JSON object".into()));
        };
        let empty = Map::new();
        let (inner, envelope) = match (outer.get("detail"), outer.contains_key("specversion")) {
            (Some(Value::Object(detail)), _) => (detail, Envelope::EventBridge),
            (_, true) => match outer.get("data") {
                Some(Value::Object(data)) => (data, Envelope::CloudEvents),
                None => (&empty, Envelope::CloudEvents),
                Some(_) => return Err(UnreadableEvent("`data` is not a JSON object".into())),
            },
            _ => (outer, Envelope::None),
        };
        let event = Self {
            id: id(outer, inner, envelope)?,
            tenant: match text(inner, &["tenant", "TenantID"])? {
                None if envelope == Envelope::CloudEvents => text(outer, &["subject"])?,
                found => found,
            }
            .ok_or_else(|| missing("tenant"))?
            .to_owned(),
            meter: meter(outer, inner, envelope, products)?,
            quantity: quantity(inner)?,
            at: match when(inner, &["timestamp", "Timestamp"])? {
                None if envelope != Envelope::None => when(outer, &["time"])?,
                found => found,
            }
            .map(time_at),
        };
        event.check()?;
        Ok(event)
    }

    /// Checks that apply to every event, even one built by a program.
    pub(super) fn check(&self) -> Result<(), UnreadableEvent> {
        if self.id.is_empty() || self.id.len() > MAX_ID {
            return Err(UnreadableEvent(format!("an id has 1 to {MAX_ID} bytes")));
        }
        if self.quantity > MAX_QUANTITY {
            return Err(UnreadableEvent::too_large());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Envelope {
    None,
    CloudEvents,
    EventBridge,
}

type Object = Map<String, Value>;

fn id(outer: &Object, inner: &Object, envelope: Envelope) -> Result<String, UnreadableEvent> {
    let own = text(inner, &["id", "Id", "EventID"])?;
    let id = match envelope {
        // Only both together are unique: CloudEvents 1.0, section "id".
        Envelope::CloudEvents => {
            let (source, id) = (text(outer, &["source"])?, text(outer, &["id"])?);
            let source = source.ok_or_else(|| missing("source"))?;
            id.map(|id| format!("{}:{source}#{id}", source.len()))
        }
        Envelope::EventBridge => match own {
            Some(own) => Some(own.to_owned()),
            None => text(outer, &["id"])?.map(str::to_owned),
        },
        Envelope::None => own.map(str::to_owned),
    };
    id.ok_or_else(|| missing("id"))
}

fn meter(
    outer: &Object,
    inner: &Object,
    envelope: Envelope,
    products: &BTreeMap<String, String>,
) -> Result<String, UnreadableEvent> {
    if let Some(code) = text(inner, &["ProductCode"])? {
        let meter = products.get(code).cloned();
        let unknown = "`[ingest.products]` has no such `ProductCode`";
        return meter.ok_or_else(|| UnreadableEvent(unknown.into()));
    }
    let meter = match text(inner, &["meter"])? {
        None if envelope == Envelope::CloudEvents => text(outer, &["type"])?,
        found => found,
    };
    meter.map(str::to_owned).ok_or_else(|| missing("meter"))
}

fn quantity(from: &Object) -> Result<u64, UnreadableEvent> {
    let value = from.get("quantity").or_else(|| from.get("Quantity"));
    let value = value.ok_or_else(|| missing("quantity"))?;
    let units = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    units.ok_or_else(|| UnreadableEvent("`quantity` is a whole number".into()))
}

fn when(from: &Object, keys: &[&str]) -> Result<Option<i64>, UnreadableEvent> {
    let Some((key, value)) = keys.iter().find_map(|key| Some((key, from.get(*key)?))) else {
        return Ok(None);
    };
    let at_ms = match value {
        Value::Null => return Ok(None),
        Value::Number(seconds) => seconds.as_i64().and_then(|s| s.checked_mul(1_000)),
        Value::String(text) => {
            text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
        }
        _ => None,
    };
    let wrong = || UnreadableEvent(format!("`{key}` is a time of RFC 3339, or seconds since 1970"));
    at_ms.map(Some).ok_or_else(wrong)
}

/// The first of these keys, which is text.
fn text<'a>(from: &'a Object, keys: &[&str]) -> Result<Option<&'a str>, UnreadableEvent> {
    match keys.iter().find_map(|key| Some((key, from.get(*key)?))) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text)),
        Some((key, _)) => Err(UnreadableEvent(format!("`{key}` is not text"))),
    }
}

fn missing(key: &str) -> UnreadableEvent {
    UnreadableEvent(format!("`{key}` is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<UsageEvent, String> {
        let products = BTreeMap::from([("prod-1".to_owned(), "calls".to_owned())]);
        let value = serde_json::from_str(json).unwrap();
        UsageEvent::read(&value, &products).map_err(|malformed| malformed.to_string())
    }

    fn calls(id: &str) -> UsageEvent {
        UsageEvent::new(id, "acme", "calls", 3).at(time_at(1_773_748_800_000))
    }

    #[test]
    fn every_shape_says_the_same() {
        let inner = r#""TenantID":"acme","ProductCode":"prod-1","Quantity":3"#;
        let at = r#""2026-03-17T12:00:00Z""#;
        let shapes = [
            (
                "e1",
                format!(
                    r#"{{"id":"e1","tenant":"acme","meter":"calls","quantity":"3",
                    "timestamp":{at}}}"#
                ),
            ),
            ("e1", format!(r#"{{"id":"e1",{inner},"Timestamp":1773748800}}"#)),
            ("b1", format!(r#"{{"version":"0","id":"b1","time":{at},"detail":{{{inner}}}}}"#)),
            (
                "e1",
                format!(
                    r#"{{"id":"b1","time":1,"detail":{{"id":"e1",{inner},"Timestamp":{at}}}}}"#
                ),
            ),
            (
                "6:/phone#e1",
                format!(
                    r#"{{"specversion":"1.0","id":"e1","source":"/phone","type":"calls",
                    "subject":"acme","time":{at},"data":{{"quantity":3}}}}"#
                ),
            ),
        ];
        for (id, json) in shapes {
            assert_eq!(read(&json), Ok(calls(id)), "{json}");
        }
        // Without a time of its own: used on arrival.
        for time in ["", r#","timestamp":null"#, &format!(r#","time":{at}"#)] {
            let json =
                format!(r#"{{"id":"e1","tenant":"acme","meter":"calls","quantity":3{time}}}"#);
            assert_eq!(read(&json), Ok(UsageEvent { at: None, ..calls("e1") }), "{json}");
        }
    }

    #[test]
    fn cloud_events_of_two_sources_are_two_events() {
        let id = |source: &str, id: &str| {
            let json = format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"calls",
                "subject":"acme","data":{{"quantity":3}}}}"#
            );
            read(&json).unwrap().id
        };
        assert_ne!(id("/a#b", "c"), id("/a", "b#c"));
        assert_ne!(id("1:/a", "b"), id("/a", "1:b"));
        assert_eq!(id("/a", "b"), id("/a", "b"));
    }

    #[test]
    fn the_longest_id_and_the_largest_quantity_are_taken() {
        let event = |id: usize, n| UsageEvent::new("x".repeat(id), "acme", "calls", n).check();
        assert_eq!(event(MAX_ID, MAX_QUANTITY), Ok(()));
        assert!(event(MAX_ID + 1, 1).is_err());
        assert!(event(1, MAX_QUANTITY + 1).is_err());
    }

    #[test]
    fn says_what_is_wrong_and_shows_no_value() {
        let wrong = [
            ("[]", "an event is a JSON object"),
            (r#"{"tenant":"t","meter":"m","quantity":1}"#, "`id` is missing"),
            (r#"{"id":"e","subject":"t","meter":"m","quantity":1}"#, "`tenant` is missing"),
            (r#"{"id":"e","tenant":"t","type":"m","quantity":1}"#, "`meter` is missing"),
            (r#"{"id":"e","tenant":"t","meter":"m"}"#, "`quantity` is missing"),
            (r#"{"id":"e","tenant":"t","meter":"m","quantity":1.5}"#, "`quantity` is a whole"),
            (r#"{"id":"e","tenant":"t","meter":"m","quantity":-1}"#, "`quantity` is a whole"),
            (r#"{"id":"e","tenant":"t","meter":"m","quantity":"+1"}"#, "`quantity` is a whole"),
            (r#"{"id":7,"tenant":"t","meter":"m","quantity":1}"#, "`id` is not text"),
            (r#"{"id":"","tenant":"t","meter":"m","quantity":1}"#, "an id has 1 to 512 bytes"),
            (r#"{"id":"e","TenantID":"t","ProductCode":"s3cret","Quantity":1}"#, "[ingest.prod"),
            (
                r#"{"id":"e","tenant":"t","meter":"m","quantity":1,"timestamp":"now"}"#,
                "`timestamp` is a time",
            ),
        ];
        for (json, part) in wrong {
            let said = read(json).unwrap_err();
            assert!(said.contains(part), "{json}: {said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}

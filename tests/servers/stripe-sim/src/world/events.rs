//! Events: snapshots, which contain the object, and thin ones, which only name it.

use serde_json::{Value, json};

use super::{Acting, Outcome, PAGING, Params, World, allow, page, text};
use crate::clock;

impl World {
    /// Makes an event with a snapshot of the object, and queues it.
    pub(crate) fn emit(&mut self, kind: &str, object: &Value, previous: Option<Value>) -> Value {
        let version = self.settings.api_version.clone();
        let mut data = json!({ "object": self.rendered(object, &version) });
        if let Some(previous) = previous {
            data["previous_attributes"] = previous;
        }
        let mut event = json!({
            "id": self.next_id("evt"),
            "object": "event",
            "api_version": version,
            "created": self.now(),
            "data": data,
            "livemode": self.settings.livemode,
            "pending_webhooks": u8::from(self.settings.webhook_url.is_some()),
            "request": { "id": null, "idempotency_key": null },
            "type": kind,
        });
        if let Acting::Connected(account) = &self.acting {
            event["account"] = json!(account);
        }
        self.outgoing.push_back((kind.to_owned(), event.clone()));
        self.put("event", event)
    }

    /// Makes a thin event. What is sent names the object; the data is fetched from `/v2`.
    pub(crate) fn emit_thin(&mut self, kind: &str, related: Value, data: Value) -> Value {
        let thin = json!({
            "id": self.next_id("evt"),
            "object": "v2.core.event",
            "type": kind,
            "livemode": self.settings.livemode,
            "created": clock::rfc3339(self.now()),
            "context": match &self.acting {
                Acting::Connected(account) => json!(account),
                _ => Value::Null,
            },
            "reason": null,
            "related_object": related,
        });
        let mut full = thin.clone();
        full["data"] = data;
        self.put("v2 event", full);
        self.outgoing.push_back((kind.to_owned(), thin.clone()));
        thin
    }

    pub(super) fn list_events(&mut self, params: &Params) -> Outcome {
        let own = ["type", "types", "created"];
        allow(params, &[own.as_slice(), &PAGING].concat())?;
        let kind = params.get("type").and_then(Value::as_str);
        let kinds = params.get("types").and_then(Value::as_array);
        let since = params.get("created").and_then(|created| created.get("gte"));
        let since = since.and_then(Value::as_str).and_then(|at| at.parse::<i64>().ok());
        let wanted = self.table("event").rev().filter(|event| {
            kind.is_none_or(|kind| text(event, "type") == kind)
                && kinds.is_none_or(|kinds| kinds.contains(&event["type"]))
                && since.is_none_or(|since| event["created"].as_i64() >= Some(since))
        });
        page("/v1/events", params, wanted.cloned())
    }
}

//! An event bus of EventBridge: an event for each alert.

use std::fmt;

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::operation::put_events::PutEventsOutput;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use serde_json::{Map, Value};
use tallygate::notify::{NotDelivered, Notification, Notifier, NotifierFuture};

use crate::answer;

const SERVICE: &str = "EventBridge";

/// The source of every event.
const SOURCE: &str = "tallygate";

/// Alerts to an event bus of Amazon EventBridge.
///
/// An event's source is `tallygate`, its detail type the alert's kind, its time the alert's. The
/// detail is the JSON document of a webhook, and with it `id`: the alert's own, for EventBridge
/// gives a repetition another id.
pub struct EventBridgeNotifier {
    name: String,
    client: Client,
    bus: String,
}

impl EventBridgeNotifier {
    /// A destination of this name, as [`Notifier::name`] has it, with the host's client. The bus is
    /// a name, such as `default`, or an ARN.
    pub fn new(name: impl Into<String>, client: Client, bus: impl Into<String>) -> Self {
        Self { name: name.into(), client, bus: bus.into() }
    }

    fn event(&self, alert: Notification) -> Option<PutEventsRequestEntry> {
        let event = PutEventsRequestEntry::builder()
            .event_bus_name(&self.bus)
            .source(SOURCE)
            .time(alert.at.into())
            .detail(detail(&alert)?)
            .detail_type(alert.kind);
        Some(event.build())
    }
}

impl Notifier for EventBridgeNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver(&self, alert: Notification) -> NotifierFuture {
        let event = self.event(alert);
        let call = self.client.put_events();
        Box::pin(async move {
            let event = event.ok_or_else(|| {
                NotDelivered::Refused("the alert's document is no JSON object".to_owned())
            })?;
            taken(&answer::of(SERVICE, call.entries(event).send()).await?)
        })
    }
}

/// The alert's document with its id.
fn detail(alert: &Notification) -> Option<String> {
    let mut document: Map<String, Value> = serde_json::from_str(&alert.payload).ok()?;
    document.insert("id".to_owned(), alert.id.as_str().into());
    serde_json::to_string(&document).ok()
}

/// A 200 says that the request was read. Whether its one event was taken is in its entry.
fn taken(answer: &PutEventsOutput) -> Result<(), NotDelivered> {
    match answer.entries() {
        [entry] if answer.failed_entry_count() == 0 && entry.event_id().is_some() => Ok(()),
        [entry] if entry.error_code().is_some() => {
            Err(answer::refusal(SERVICE, None, entry.error_code()))
        }
        _ => Err(answer::later(SERVICE, "answered without the id of an event")),
    }
}

impl fmt::Debug for EventBridgeNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBridgeNotifier").field("name", &self.name).finish_non_exhaustive()
    }
}

//! Meters, their events and summaries.
//!
//! Refused at once: an unknown event name, a taken identifier, a timestamp outside the window, a
//! value that is no whole number. Accepted and rejected later: no customer, or one that does not
//! exist. Not published by Stripe, and assumed here: a rejected event keeps its identifier taken.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Outcome, Params, World, allow, page, required, shape, text, whole};
use crate::answer::Refusal;
use crate::clock;

/// Limit on identifiers and event names.
const MAX_NAME: usize = 100;

/// An event that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct MeterEvent {
    /// Id of its meter: the one that was active when it arrived.
    meter: String,
    pub(crate) identifier: String,
    pub(crate) value: i64,
    pub(crate) timestamp: i64,
    received: i64,
    /// Whether it counts: not rejected, not cancelled.
    counts: bool,
}

/// The taker of an identifier, and when.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    at: i64,
    event_name: String,
    customer: String,
}

/// An event rejected after it was accepted.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    meter: String,
    identifier: String,
    code: String,
    at: i64,
}

/// A customer's usage of a meter in a period: the truth, whatever the summaries show yet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Total {
    /// The meter's event name.
    pub event_name: String,
    /// The customer.
    pub customer: String,
    /// The first second of the period, Unix: of the customer's subscription to the meter, or the
    /// month in UTC if there is none.
    pub period_start: i64,
    /// The first second after it.
    pub period_end: i64,
    /// The sum of the values.
    pub total: i64,
    /// Number of events in the sum.
    pub events: u64,
}

impl World {
    pub(crate) fn create_meter(&mut self, params: &Params) -> Outcome {
        let known = [
            "display_name",
            "event_name",
            "default_aggregation",
            "customer_mapping",
            "value_settings",
            "event_time_window",
            "expand",
        ];
        allow(params, &known)?;
        let (display_name, event_name) =
            (required(params, "display_name")?, required(params, "event_name")?);
        let formula = params.get("default_aggregation").and_then(|a| a.get("formula"));
        let formula = formula.and_then(Value::as_str).unwrap_or_default();
        if !["sum", "count", "last"].contains(&formula) {
            return Err(Refusal::missing("default_aggregation[formula]"));
        }
        if self.meter(event_name).is_some() {
            let message = format!("An active meter already exists with event name '{event_name}'.");
            return Err(Refusal::invalid(None, Some("event_name"), message));
        }
        let mut meter = shape(include_str!("../shapes/meter.json"));
        meter["id"] = json!(self.next_id("mtr"));
        meter["created"] = json!(self.now());
        meter["updated"] = json!(self.now());
        meter["livemode"] = json!(false);
        meter["display_name"] = json!(display_name);
        meter["event_name"] = json!(event_name);
        meter["default_aggregation"] = json!({ "formula": formula });
        meter["customer_mapping"] = json!({
            "event_payload_key": key_of(params, "customer_mapping", "stripe_customer_id"),
            "type": "by_id",
        });
        meter["value_settings"] =
            json!({ "event_payload_key": key_of(params, "value_settings", "value") });
        Ok(self.put("meter", meter))
    }

    pub(super) fn deactivate_meter(&mut self, id: &str) -> Outcome {
        let mut meter = self.get("meter", id)?;
        meter["status"] = json!("inactive");
        meter["status_transitions"] = json!({ "deactivated_at": self.now() });
        Ok(self.put("meter", meter))
    }

    pub(super) fn take_meter_event(&mut self, params: &Params) -> Outcome {
        allow(params, &["event_name", "payload", "identifier", "timestamp", "expand"])?;
        let event_name = required(params, "event_name")?;
        let payload = params.get("payload").and_then(Value::as_object);
        let payload = payload.ok_or_else(|| Refusal::missing("payload"))?;
        let meter = self.meter(event_name).cloned().ok_or_else(|| {
            let message = format!("No active meter found for event name '{event_name}'.");
            Refusal::invalid(Some("resource_missing"), Some("event_name"), message).final_()
        })?;
        let value_key = text(&meter["value_settings"], "event_payload_key");
        let given = payload.get(value_key).and_then(Value::as_str);
        let given = given.ok_or_else(|| Refusal::missing(&format!("payload[{value_key}]")))?;
        let value: i64 = given.parse().map_err(|_| {
            let message = format!("The value must be a whole number; got {given}.");
            let param = format!("payload[{value_key}]");
            Refusal::invalid(Some("meter_event_invalid_value"), Some(&param), message).final_()
        })?;
        let now = self.now();
        let timestamp = self.timestamp(params)?;
        let identifier = match params.get("identifier").and_then(Value::as_str) {
            Some(given) if given.len() > MAX_NAME => {
                let message = format!("Identifiers have at most {MAX_NAME} characters.");
                return Err(Refusal::invalid(None, Some("identifier"), message).final_());
            }
            Some(given) => given.to_owned(),
            None => self.next_id("identifier"),
        };
        self.refuse_taken(&identifier)?;

        let customer_key = text(&meter["customer_mapping"], "event_payload_key");
        let customer = payload.get(customer_key).and_then(Value::as_str).unwrap_or_default();
        let rejected = self.reject_next.take().or_else(|| self.wrong_with(customer));
        let taken =
            Taken { at: now, event_name: event_name.to_owned(), customer: customer.to_owned() };
        self.identifiers.insert(identifier.clone(), taken);
        let event = MeterEvent {
            meter: text(&meter, "id").to_owned(),
            identifier: identifier.clone(),
            value,
            timestamp,
            received: now,
            counts: rejected.is_none(),
        };
        let of = (event_name.to_owned(), customer.to_owned());
        self.meter_events.entry(of).or_default().push(event);
        if let Some(code) = rejected {
            let meter = text(&meter, "id").to_owned();
            self.rejected.push(Rejected { meter, identifier: identifier.clone(), code, at: now });
        }
        Ok(json!({
            "object": "billing.meter_event",
            "created": now,
            "event_name": event_name,
            "identifier": identifier,
            "livemode": false,
            "payload": payload,
            "timestamp": timestamp,
        }))
    }

    fn timestamp(&self, params: &Params) -> Result<i64, Refusal> {
        let now = self.now();
        let timestamp = whole(params, "timestamp")?.unwrap_or(now);
        let refuse = |code: &str, message: String| {
            Err(Refusal::invalid(Some(code), Some("timestamp"), message).final_())
        };
        let earliest = now.saturating_sub(self.settings.timestamp_back_s);
        if timestamp < earliest {
            let message = format!(
                "The event timestamp cannot be more than 35 days in past. Expected a timestamp \
                 greater than or equal to {earliest}."
            );
            return refuse("timestamp_too_far_in_past", message);
        }
        let latest = now.saturating_add(self.settings.timestamp_ahead_s);
        if timestamp > latest {
            let message = format!(
                "The event timestamp cannot be more than 5 minutes in the future. Expected a \
                 timestamp less than or equal to {latest}."
            );
            return refuse("timestamp_in_future", message);
        }
        Ok(timestamp)
    }

    fn refuse_taken(&self, identifier: &str) -> Result<(), Refusal> {
        let window = self.settings.identifier_window_s;
        let taken = self.identifiers.get(identifier);
        if taken.is_some_and(|taken| self.now() - taken.at < window) {
            let message = format!("An event already exists with identifier {identifier}.");
            return Err(Refusal::invalid(None, None, message).final_());
        }
        Ok(())
    }

    /// Errors that Stripe detects only later.
    fn wrong_with(&self, customer: &str) -> Option<String> {
        let code = match self.find("customer", customer) {
            _ if customer.is_empty() => "meter_event_no_customer_defined",
            None => "meter_event_customer_not_found",
            Some(customer) if customer["deleted"] == json!(true) => {
                "meter_event_customer_not_found"
            }
            Some(_) => return None,
        };
        Some(code.to_owned())
    }

    pub(super) fn adjust(&mut self, params: &Params) -> Outcome {
        allow(params, &["event_name", "type", "cancel", "expand"])?;
        let event_name = required(params, "event_name")?.to_owned();
        if required(params, "type")? != "cancel" {
            return Err(Refusal::missing("type"));
        }
        let identifier = params.get("cancel").and_then(|cancel| cancel.get("identifier"));
        let identifier = identifier.and_then(Value::as_str).unwrap_or_default().to_owned();
        let window = self.settings.identifier_window_s;
        let taken = self.identifiers.get(&identifier).cloned();
        let taken = taken.filter(|t| t.event_name == event_name && self.now() - t.at < window);
        let Some(taken) = taken else {
            return Err(Refusal::no_such("meter event", &identifier, "cancel[identifier]"));
        };
        let events = self.meter_events.get_mut(&(taken.event_name, taken.customer));
        for event in events.into_iter().flatten().filter(|e| e.identifier == identifier) {
            event.counts = false;
        }
        Ok(json!({
            "object": "billing.meter_event_adjustment",
            "cancel": { "identifier": identifier },
            "event_name": event_name,
            "livemode": false,
            "status": "complete",
            "type": "cancel",
        }))
    }

    pub(super) fn summaries(&mut self, id: &str, params: &Params) -> Outcome {
        let own = ["customer", "start_time", "end_time", "value_grouping_window"];
        let known = [own.as_slice(), &super::PAGING].concat();
        allow(params, &known)?;
        let meter = self.get("meter", id)?;
        let customer = required(params, "customer")?;
        let bound = |name| whole(params, name)?.ok_or_else(|| Refusal::missing(name));
        let (start, end) = (bound("start_time")?, bound("end_time")?);
        let (grain, step) = match params.get("value_grouping_window").and_then(Value::as_str) {
            None => (60, end.saturating_sub(start)),
            Some("hour") => (3_600, 3_600),
            Some("day") => (86_400, 86_400),
            Some(_) => return Err(Refusal::missing("value_grouping_window")),
        };
        for (name, at) in [("start_time", start), ("end_time", end)] {
            if at.rem_euclid(grain) != 0 {
                let message = format!("{name} must be aligned with boundaries of {grain} seconds.");
                return Err(Refusal::invalid(None, Some(name), message));
            }
        }
        if start >= end {
            let message = "start_time must be before end_time.".to_owned();
            return Err(Refusal::invalid(None, Some("start_time"), message));
        }
        let visible = self.now().saturating_sub(self.settings.summary_lag_s);
        let of = (text(&meter, "event_name").to_owned(), customer.to_owned());
        let events = self.meter_events.get(&of).map(Vec::as_slice).unwrap_or_default();
        let formula = text(&meter["default_aggregation"], "formula");
        let grouped = step < end - start || grain > 60;
        let mut data = Vec::new();
        let mut from = start;
        while from < end {
            let window = from..from + step;
            let seen = events.iter().filter(|event| {
                event.meter == id
                    && event.counts
                    && event.received <= visible
                    && window.contains(&event.timestamp)
            });
            let (value, any) = aggregate(formula, seen);
            // Without grouping there is one summary for the range, even an empty one.
            if any || !grouped {
                data.push(json!({
                    "id": format!("mtrusg_{id}_{customer}_{from}"),
                    "object": "billing.meter_event_summary",
                    "aggregated_value": value,
                    "start_time": from,
                    "end_time": from + step,
                    "livemode": false,
                    "meter": id,
                }));
            }
            from += step;
        }
        data.reverse();
        page(&format!("/v1/billing/meters/{id}/event_summaries"), params, data.into_iter())
    }

    /// Everything counted, by event name, customer and period.
    pub(crate) fn totals(&self) -> Vec<Total> {
        let mut totals = BTreeMap::<(&str, &str, (i64, i64)), (i64, u64)>::new();
        for ((event_name, customer), events) in &self.meter_events {
            let anchor = self.anchor_of(event_name, customer);
            for event in events.iter().filter(|event| event.counts) {
                let period = anchor
                    .as_ref()
                    .and_then(|(at, every, n)| clock::period(*at, every, *n, event.timestamp))
                    .unwrap_or_else(|| clock::month(event.timestamp));
                let sum = totals.entry((event_name, customer, period)).or_default();
                *sum = (sum.0.saturating_add(event.value), sum.1 + 1);
            }
        }
        let named =
            totals.into_iter().map(|((event_name, customer, period), (total, events))| Total {
                event_name: event_name.to_owned(),
                customer: customer.to_owned(),
                period_start: period.0,
                period_end: period.1,
                total,
                events,
            });
        named.collect()
    }

    /// A customer's counted usage within `[from, until)`, for an invoice.
    pub(super) fn metered(&self, meter: &str, customer: &str, from: i64, until: i64) -> i64 {
        let event_name = self.find("meter", meter).map(|meter| text(meter, "event_name"));
        let of = (event_name.unwrap_or_default().to_owned(), customer.to_owned());
        let events = self.meter_events.get(&of).into_iter().flatten();
        let within = events.filter(|e| e.counts && (from..until).contains(&e.timestamp));
        within.fold(0_i64, |sum, event| sum.saturating_add(event.value)).max(0)
    }

    /// Reports the rejected events that are due, one report per meter.
    pub(super) fn report_rejected(&mut self) {
        let now = self.now();
        let due = now.saturating_sub(self.settings.report_after_s);
        // Oldest first, since the clock never goes back.
        if self.rejected.first().is_none_or(|rejected| rejected.at > due) {
            return;
        }
        let (due, rest) =
            std::mem::take(&mut self.rejected).into_iter().partition(|r: &Rejected| r.at <= due);
        self.rejected = rest;
        let mut by_meter = BTreeMap::<String, Vec<Rejected>>::new();
        for rejected in Vec::from_iter(due) {
            by_meter.entry(rejected.meter.clone()).or_default().push(rejected);
        }
        for (meter, rejected) in by_meter {
            self.report(&meter, &rejected, now);
        }
    }

    fn report(&mut self, meter: &str, rejected: &[Rejected], now: i64) {
        let mut types = BTreeMap::<&str, Vec<&Rejected>>::new();
        for one in rejected {
            types.entry(&one.code).or_default().push(one);
        }
        let sample = |one: &&Rejected| {
            json!({
                "error_message": format!("The event was rejected: {}.", one.code),
                "request": { "identifier": one.identifier },
            })
        };
        let types: Vec<Value> = types
            .into_iter()
            .map(|(code, all)| {
                // Stripe carries samples, not the full list.
                let samples: Vec<Value> = all.iter().take(10).map(sample).collect();
                json!({ "code": code, "error_count": all.len(), "sample_errors": samples })
            })
            .collect();
        let first = rejected.iter().map(|one| one.at).min().unwrap_or(now);
        let data = json!({
            "developer_message_summary":
                format!("There is {} invalid event", rejected.len()),
            "reason": { "error_count": rejected.len(), "error_types": types },
            "validation_start": clock::rfc3339(first),
            "validation_end": clock::rfc3339(now),
        });
        let related = json!({
            "id": meter, "type": "billing.meter", "url": format!("/v1/billing/meters/{meter}"),
        });
        self.emit_thin("v1.billing.meter.error_report_triggered", related, data);
    }

    /// The active meter with this event name.
    fn meter(&self, event_name: &str) -> Option<&Value> {
        self.table("meter")
            .find(|m| text(m, "event_name") == event_name && text(m, "status") == "active")
    }

    /// Anchor, interval and count of the customer's subscription to a meter.
    fn anchor_of(&self, event_name: &str, customer: &str) -> Option<(i64, String, i64)> {
        let meter = self.table("meter").find(|m| text(m, "event_name") == event_name)?;
        let of = self.table("subscription").filter(|s| text(s, "customer") == customer);
        for subscription in of {
            let items = subscription["items"]["data"].as_array().into_iter().flatten();
            for item in items {
                let recurring = &item["price"]["recurring"];
                if recurring["meter"] == meter["id"] {
                    let anchor = subscription["billing_cycle_anchor"].as_i64()?;
                    let count = recurring["interval_count"].as_i64().unwrap_or(1);
                    return Some((anchor, text(recurring, "interval").to_owned(), count));
                }
            }
        }
        None
    }
}

fn key_of(params: &Params, group: &str, otherwise: &str) -> String {
    let key = params.get(group).and_then(|group| group.get("event_payload_key"));
    key.and_then(Value::as_str).unwrap_or(otherwise).to_owned()
}

/// The aggregated value, and whether there were any events.
fn aggregate<'a>(formula: &str, events: impl Iterator<Item = &'a MeterEvent>) -> (i64, bool) {
    let (mut sum, mut count, mut last) = (0_i64, 0_i64, None::<&MeterEvent>);
    for event in events {
        sum = sum.saturating_add(event.value);
        count += 1;
        if last.is_none_or(|known| known.timestamp <= event.timestamp) {
            last = Some(event);
        }
    }
    let value = match formula {
        "count" => count,
        "last" => last.map_or(0, |event| event.value),
        _ => sum,
    };
    (value, count > 0)
}

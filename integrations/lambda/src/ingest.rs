//! Usage events from SQS and EventBridge, counted once each.
//!
//! | invoked by | events | answer |
//! |---|---|---|
//! | SQS | one per message body, plain or wrapped by EventBridge | `batchItemFailures` |
//! | EventBridge | the event itself | an error if a retry may count it |
//! | any other caller | one event, or a list | the same |
//!
//! Event formats are those of [`tallygate::ingest`]. For SQS, enable `ReportBatchItemFailures` on
//! the event source, so that only uncounted messages are redelivered.
//!
//! A message is counted under its event's id, never the queue's: a redelivery carries the same
//! event, a producer's repeat is another message. An event that can never count is kept as a dead
//! letter ([`Ingest::dead_letters`](tallygate::ingest::Ingest::dead_letters)) before it is
//! answered; for SQS it is also reported as failed, so that the queue's own redrive policy sees it.

use lambda_http::Error;
use lambda_http::lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::ingest::{Counted, NotCounted};

use crate::run::serve;

/// Serves a function that counts usage events, until SIGTERM has closed the gate.
///
/// # Errors
///
/// As [`run`](crate::run).
///
/// # Panics
///
/// As [`run`](crate::run).
pub async fn run_ingest(gate: &Gate) -> Result<(), Error> {
    let counting = gate.clone();
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let gate = counting.clone();
        async move { count(&gate, &event.payload).await }
    });
    serve(gate, Runtime::new(handler)).await
}

/// Counts one invocation's events and returns the value to answer it with. For functions that do
/// more than this.
///
/// # Errors
///
/// Unless the invocation is an SQS batch: some of its events were not counted, but a retry may
/// count them.
pub async fn count(gate: &Gate, payload: &Value) -> Result<Value, Error> {
    if let Some(records) = messages_of(payload) {
        return Ok(json!({ "batchItemFailures": failures(gate, records).await }));
    }
    let bodies: Vec<String> = match payload {
        Value::Array(events) => events.iter().map(Value::to_string).collect(),
        event => vec![event.to_string()],
    };
    let answers = counted(gate, &bodies).await;
    let failed: Vec<&NotCounted> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    if let Some(why) = failed.iter().find(|why| why.is_retryable()) {
        return Err(why.to_string().into());
    }
    if !failed.is_empty() {
        tracing::warn!(events = failed.len(), "kept as dead letters");
    }
    Ok(Value::Null)
}

/// The messages of an SQS batch.
fn messages_of(payload: &Value) -> Option<&Vec<Value>> {
    let records = payload.get("Records")?.as_array()?;
    let is_sqs = |record: &Value| record["eventSource"] == "aws:sqs";
    records.iter().all(is_sqs).then_some(records)
}

/// The messages of an SQS batch that were not counted.
async fn failures(gate: &Gate, records: &[Value]) -> Vec<Value> {
    let body = |record: &Value| record["body"].as_str().unwrap_or_default().to_owned();
    let bodies: Vec<String> = records.iter().map(body).collect();
    let answers = counted(gate, &bodies).await;
    let failed = records.iter().zip(answers).filter(|(_, answer)| answer.is_err());
    failed.map(|(record, _)| json!({ "itemIdentifier": record["messageId"] })).collect()
}

async fn counted(gate: &Gate, bodies: &[String]) -> Vec<Result<Counted, NotCounted>> {
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    gate.ingest().messages(&bodies).await
}

#[cfg(test)]
mod tests {
    use tallygate::testing;

    use super::*;

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.calls]
        [plan.free]
        quota.calls = "100/month"
    "#;

    fn message(id: &str, body: &str) -> Value {
        json!({ "messageId": id, "eventSource": "aws:sqs", "body": body })
    }

    fn event(id: &str) -> String {
        format!(r#"{{"id":"{id}","tenant":"acme","meter":"calls","quantity":1}}"#)
    }

    #[tokio::test]
    async fn of_ten_messages_one_is_poison_and_one_comes_twice() {
        let (gate, _clock) = testing::gate(PLANS);
        let mut records: Vec<Value> =
            (0..8).map(|n| message(&format!("m{n}"), &event(&format!("e{n}")))).collect();
        records.insert(3, message("poison", "{}"));
        records.push(message("again", &event("e0")));
        let batch = json!({ "Records": records });
        for _ in 0..2 {
            let answer = count(&gate, &batch).await.unwrap();
            assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": "poison" }] }));
        }
        let who = testing::identified(&gate, "acme").await;
        let usage = gate.usage_reply(&who, None).await;
        let usage: Value = serde_json::from_slice(&usage.body).unwrap();
        let used = usage["meters"].as_array().unwrap().iter().find(|m| m["name"] == "calls");
        assert_eq!(used.unwrap()["used"], 8);
        assert_eq!(gate.ingest().dead_letters("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_event_of_the_bus_is_answered_and_poison_is_not_sent_again() {
        let (gate, _clock) = testing::gate(PLANS);
        let of_bus = json!({
            "version": "0", "id": "b1", "detail-type": "usage", "source": "phone",
            "detail": { "tenant": "acme", "meter": "calls", "quantity": 2 },
        });
        assert_eq!(count(&gate, &of_bus).await.unwrap(), Value::Null);
        assert_eq!(count(&gate, &json!({ "detail": {} })).await.unwrap(), Value::Null);
        assert_eq!(gate.ingest().dead_letters("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_may_count_the_next_time_is_an_error() {
        let (gate, _clock) = testing::gate(PLANS);
        gate.close().await.unwrap();
        let one: Value = serde_json::from_str(&event("e")).unwrap();
        assert!(count(&gate, &one).await.is_err());
        let batch = json!({ "Records": [message("m", &event("e"))] });
        let answer = count(&gate, &batch).await.unwrap();
        assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "m");
    }
}

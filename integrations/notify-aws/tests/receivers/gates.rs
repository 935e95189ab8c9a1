//! Whole gates: a quota that is used up, and a receiver that fails at first.

use std::time::Duration;

use serde_json::Value;
use tallygate::notify::Notifier;
use tallygate::{Ask, Gate, ManualClock, testing};
use tokio::time::sleep;

use crate::server::{Server, TOPIC};
use crate::{eventbridge, sns};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = { limit = "10/day", alert = [100] }
"#;

async fn with(notifier: impl Notifier) -> Gate {
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    testing::builder(PLANS).clock(clock).notifier(notifier).open().await.unwrap()
}

async fn use_up(gate: &Gate) {
    let acme = gate.tenant("acme").await.unwrap();
    for _ in 0..12 {
        if let Ok(permit) = gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await {
            permit.settle();
        }
    }
}

/// Until none waits, and the gate is closed: no other was sent.
async fn until_delivered(gate: Gate) {
    while !gate.waiting_alerts().await.unwrap().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    gate.close().await.unwrap();
}

#[tokio::test]
async fn an_alert_reaches_a_topic_that_failed_and_then_no_more() {
    let mut server = Server::start([sns::error(503, "ServiceUnavailable"), sns::taken()]).await;
    let gate = with(server.topic(TOPIC)).await;
    use_up(&gate).await;
    let failed = server.got().await.form();
    let taken = server.got().await.form();
    until_delivered(gate).await;
    assert!(!server.has_more());
    assert_eq!(failed, taken);
    assert_eq!(taken["Subject"], "acme has used all of jobs/day (10 on plan free)");
    let document: Value = serde_json::from_str(&taken["Message"]).unwrap();
    assert_eq!(document["type"], "tallygate.quota.exhausted");
    assert_eq!(document["data"]["tenant"], "acme");
}

#[tokio::test]
async fn an_alert_reaches_a_bus_that_throttled_and_then_no_more() {
    let throttled = eventbridge::failed("ThrottlingException");
    let mut server = Server::start([throttled, eventbridge::taken()]).await;
    let gate = with(server.bus()).await;
    use_up(&gate).await;
    let failed = server.got().await.body;
    let taken = server.got().await.body;
    until_delivered(gate).await;
    assert!(!server.has_more());
    assert_eq!(failed, taken);
    let body: Value = serde_json::from_str(&taken).unwrap();
    assert_eq!(body["Entries"][0]["DetailType"], "tallygate.quota.exhausted");
}

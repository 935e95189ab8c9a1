//! Alerts of billing: each is raised by its own trouble, once in its period.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tallygate::notify::{Notification, Notifier, NotifierFuture};
use tokio::time;

use crate::bench::{Bench, NOW, fault, use_at};

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;

/// Keeps what it is sent.
#[derive(Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<Vec<Notification>>>);

impl Notifier for Inbox {
    fn name(&self) -> &str {
        "inbox"
    }

    fn deliver(&self, of: Notification) -> NotifierFuture {
        self.0.lock().unwrap().push(of);
        Box::pin(async { Ok(()) })
    }
}

impl Inbox {
    /// Kind and document of each alert of billing, in order.
    fn read(&self) -> Vec<(String, Value)> {
        let data = |of: &Notification| serde_json::from_str::<Value>(&of.payload).unwrap();
        let all = self.0.lock().unwrap();
        let all = all.iter().filter(|of| of.kind.starts_with("tallygate.billing."));
        all.map(|of| (of.kind.clone(), data(of)["data"].clone())).collect()
    }
}

/// Lets the gate look for trouble once, which it does each minute, and send what it finds. The
/// clock of the runtime is stopped meanwhile: nothing else is under way in a test.
async fn look() {
    time::pause();
    for _ in 0..75 {
        time::advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    time::resume();
}

fn kinds(inbox: &Inbox) -> Vec<String> {
    inbox.read().into_iter().map(|(kind, _)| kind).collect()
}

#[tokio::test]
async fn reports_that_fail_for_two_intervals_are_one_an_hour() {
    let (bench, inbox) = (Bench::new().await, Inbox::default());
    bench.customer("acme").await;
    let gate = bench.another_notifying(&inbox).await;
    use_at(&gate, "acme", "requests", 5).await;
    gate.report_now().await.unwrap();
    let reported = NOW;
    let all =
        json!({ "on": "", "times": 0, "do": { "status": { "code": 503, "should_retry": false } } });
    bench.sim.fault(serde_json::from_value(all).unwrap());
    gate.report_now().await.unwrap_err();
    look().await;
    bench.pass(29 * MINUTE);
    look().await;
    assert_eq!(kinds(&inbox), [""; 0], "the next report repeats what failed");
    bench.pass(MINUTE);
    look().await;
    let late = ("tallygate.billing.late".to_owned(), json!({ "reported_until": reported }));
    assert_eq!(inbox.read(), std::slice::from_ref(&late));
    look().await;
    assert_eq!(inbox.read().len(), 1, "once an hour");
    bench.pass(HOUR);
    look().await;
    assert_eq!(inbox.read(), [late.clone(), late.clone()]);

    bench.sim.heal();
    gate.report_now().await.unwrap();
    bench.pass(HOUR);
    look().await;
    bench.pass(HOUR);
    look().await;
    assert_eq!(inbox.read().len(), 2, "reports succeed");
    gate.close().await.unwrap();
}

#[tokio::test]
async fn what_waits_for_an_operator_is_one_a_day() {
    let (bench, inbox) = (Bench::new().await, Inbox::default());
    bench.customer("acme").await;
    let gate = bench.another_notifying(&inbox).await;
    look().await;
    assert_eq!(kinds(&inbox), [""; 0]);
    fault(&bench, 1, &json!({ "status": { "code": 400, "should_retry": false } }));
    use_at(&gate, "acme", "requests", 5).await;
    let waits = gate.report_now().await.unwrap().stopped;
    assert_eq!(waits.len(), 1);
    for _ in 0..2 {
        look().await;
        let waits = ("tallygate.billing.waits".to_owned(), json!({ "items": 1 }));
        assert_eq!(inbox.read(), [waits]);
    }
    bench.pass(24 * HOUR);
    look().await;
    assert_eq!(kinds(&inbox), ["tallygate.billing.waits"; 2]);
    assert!(gate.decide_stopped(&waits[0], true).await.unwrap());
    gate.report_now().await.unwrap();
    bench.pass(24 * HOUR);
    look().await;
    assert_eq!(inbox.read().len(), 2, "nothing waits any more");
    gate.close().await.unwrap();
}

#[tokio::test]
async fn an_audit_with_gaps_is_one_a_day() {
    let (bench, inbox) = (Bench::new().await, Inbox::default());
    let customer = bench.customer("acme").await;
    let gate = bench.another_notifying(&inbox).await;
    use_at(&gate, "acme", "requests", 5).await;
    gate.report_now().await.unwrap();
    assert!(gate.audit().await.unwrap().is_clean());
    look().await;
    assert_eq!(kinds(&inbox), [""; 0]);
    let form = format!(
        "event_name=api_requests&identifier=foreign&payload[stripe_customer_id]={customer}\
         &payload[value]=3&timestamp={NOW}"
    );
    bench.sim.call("POST", "/v1/billing/meter_events", &form);
    for _ in 0..2 {
        let gaps = gate.audit().await.unwrap().gaps().count();
        assert_eq!(gaps, 1);
        look().await;
        let drift = ("tallygate.billing.drift".to_owned(), json!({ "gaps": 1 }));
        assert_eq!(inbox.read(), [drift]);
    }
    bench.pass(24 * HOUR);
    gate.audit().await.unwrap();
    look().await;
    assert_eq!(kinds(&inbox), ["tallygate.billing.drift"; 2]);
    gate.close().await.unwrap();
}

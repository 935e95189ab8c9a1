//! Topics and event buses that the service file names, and what a host hands in for them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallygate::notify::{Notification, Notifier, NotifierFuture};
use tallygate::store::Memory;
use tallygate::{Ask, Gate, GateBuilder, ManualClock, testing};
use tokio::time::sleep;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "10/day"
"#;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

/// Keeps the kinds of what it is sent.
#[derive(Clone)]
struct Inbox(&'static str, Arc<Mutex<Vec<String>>>);

impl Inbox {
    fn new(name: &'static str) -> Self {
        Self(name, Arc::default())
    }

    fn kinds(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

impl Notifier for Inbox {
    fn name(&self) -> &str {
        self.0
    }

    fn deliver(&self, of: Notification) -> NotifierFuture {
        self.1.lock().unwrap().push(of.kind);
        Box::pin(async { Ok(()) })
    }
}

/// A gate in memory with these destinations in its service file.
fn with(notify: &str) -> GateBuilder {
    let service = format!("identify = []\n[store]\nkind = \"memory\"\n{notify}");
    GateBuilder::from_text(&service).plans(PLANS)
}

/// Passes 80 % of a quota, and uses it up.
async fn use_up(gate: &Gate) {
    gate.directory().tenant("acme").save().await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    for _ in 0..12 {
        if let Ok(permit) = gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await {
            permit.settle();
        }
    }
}

async fn refused(builder: GateBuilder) -> String {
    builder.open().await.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_the_service_file_takes_its_events_over_what_the_host_hands_in() {
    let both = format!(
        "[[notify]]\nname = \"ops\"\nsns = \"{TOPIC}\"\nevents = [\"quota.exhausted\"]\n\
         [[notify]]\neventbridge = \"default\""
    );
    let builder = with(&both);
    let pair = |name: &str, address: &str| vec![(name.to_owned(), address.to_owned())];
    assert_eq!(builder.sns_topics().unwrap(), pair("ops", TOPIC));
    assert_eq!(builder.event_buses().unwrap(), pair("eventbridge", "default"));
    let (topic, bus, own) = (Inbox::new("ops"), Inbox::new("eventbridge"), Inbox::new("own"));
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let builder = builder.clock(clock).notifier(own.clone()).notifier(topic.clone());
    let gate = builder.notifier(bus.clone()).open().await.unwrap();
    use_up(&gate).await;
    while !gate.waiting_alerts().await.unwrap().is_empty() || bus.kinds().is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(topic.kinds(), ["tallygate.quota.exhausted"]);
    let all = ["tallygate.quota.threshold", "tallygate.quota.exhausted"];
    assert_eq!((bus.kinds(), own.kinds()), (all.map(str::to_owned).into(), bus.kinds()));
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_topic_or_a_bus_without_a_client_keeps_the_gate_from_opening_and_says_what_to_add() {
    for (line, place, feature) in [
        (&*format!("sns = \"{TOPIC}\""), "a topic of SNS", "`sns`"),
        ("eventbridge = \"default\"", "an event bus of EventBridge", "`eventbridge`"),
    ] {
        let named = format!("[[notify]]\nname = \"ops\"\n{line}");
        for builder in [with(&named), with(&named).notifier(Inbox::new("other"))] {
            let said = refused(builder).await;
            for word in ["`ops`", place, "tallygate-notify-aws", feature, "hand_in("] {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }
}

/// The command and such: it writes alerts, and the service sends them.
#[tokio::test]
async fn a_process_that_sends_no_alerts_needs_no_client_and_writes_them() {
    let store = Memory::new();
    let named = format!("[[notify]]\nsns = \"{TOPIC}\"\nevents = [\"quota.exhausted\"]");
    let builder = with(&named).store(store.clone()).sends_alerts(false);
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = builder.clock(clock.clone()).open().await.unwrap();
    use_up(&gate).await;
    while gate.waiting_alerts().await.unwrap().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let waiting = gate.waiting_alerts().await.unwrap();
    let [(to, alert, None)] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!((&**to, &*alert.kind), ("sns", "tallygate.quota.exhausted"));
    gate.close().await.unwrap();

    let topic = Inbox::new("sns");
    let service = with(&named).store(store).clock(clock).notifier(topic.clone());
    let service = service.open().await.unwrap();
    while !service.waiting_alerts().await.unwrap().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(topic.kinds(), ["tallygate.quota.exhausted"]);
    service.close().await.unwrap();
}

#[tokio::test]
async fn what_is_handed_in_for_a_webhook_is_another_destination_of_its_name() {
    let named = "[[notify]]\nname = \"ops\"\nslack = { file = \"no-such-file\" }";
    let builder = with(named).sends_alerts(false).notifier(Inbox::new("ops"));
    let said = refused(builder).await;
    assert!(said.contains("two destinations of alerts are named `ops`"), "{said}");
}

#[test]
fn an_address_may_be_kept_elsewhere_and_is_checked_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topic");
    let builder = with(&format!("[[notify]]\nsns = {{ file = '{}' }}", path.display()));
    let said = |builder: &GateBuilder| builder.sns_topics().unwrap_err().to_string();
    assert!(said(&builder).contains("notify.sns: "), "{}", said(&builder));
    // A reference that leads to another secret.
    std::fs::write(&path, "sk_live_hush\n").unwrap();
    let wrong = said(&builder);
    assert!(wrong.contains("named by its ARN") && !wrong.contains("hush"), "{wrong}");
    std::fs::write(&path, format!("{TOPIC}\n")).unwrap();
    assert_eq!(builder.sns_topics().unwrap(), [("sns".to_owned(), TOPIC.to_owned())]);
    assert!(builder.event_buses().unwrap().is_empty());
}

//! Alerts of whole gates: what is raised, by how many processes, when it arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::Value;
use tallygate::directory::{KeyOptions, PaymentState};
use tallygate::notify::{NotDelivered, Notification, Notifier, NotifierFuture};
use tallygate::store::Memory;
use tallygate::testing::{Faulty, Odds};
use tallygate::{Ask, Clock, Gate, ManualClock, Trouble, testing};
use test_support::clocks::Paused;
use tokio::time::sleep;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "10/day"
    [plan.soft]
    quota.jobs = { limit = "10/day", over = "allow", alert = [50, 100, 150] }
"#;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Keeps what it is sent; fails while a test has it fail.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<(Vec<Notification>, bool)>>);

impl Inbox {
    fn fails(&self, fails: bool) {
        self.0.lock().unwrap().1 = fails;
    }

    fn all(&self) -> Vec<Notification> {
        self.0.lock().unwrap().0.clone()
    }

    /// Kind and document of each, in order.
    fn read(&self) -> Vec<(String, Value)> {
        let data = |of: &Notification| serde_json::from_str::<Value>(&of.payload).unwrap();
        self.all().iter().map(|of| (of.kind.clone(), data(of)["data"].clone())).collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.all().into_iter().map(|of| of.kind).collect()
    }
}

impl Notifier for Inbox {
    fn name(&self) -> &str {
        "inbox"
    }

    fn deliver(&self, of: Notification) -> NotifierFuture {
        let inbox = self.clone();
        Box::pin(async move {
            let (all, fails) = &mut *inbox.0.lock().unwrap();
            if *fails {
                return Err(NotDelivered::Later("503".into()));
            }
            all.push(of);
            Ok(())
        })
    }
}

async fn open(store: &Memory, clock: &(impl Clock + Clone), inbox: &Inbox) -> Gate {
    let builder = testing::builder(PLANS).store(store.clone()).clock(clock.clone());
    builder.notifier(inbox.clone()).open().await.unwrap()
}

async fn work(gate: &Gate, tenant: &str, jobs: u64) {
    let tenant = gate.tenant(tenant).await.unwrap();
    for _ in 0..jobs {
        if let Ok(permit) = gate.admit(Ask::new(&tenant, "job").cost("jobs", 1)).await {
            permit.settle();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_tells_of_its_thresholds_and_its_end_once_a_window() {
    let (store, inbox) = (Memory::new(), Inbox::default());
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = open(&store, &clock, &inbox).await;
    for _ in 0..2 {
        work(&gate, "acme", 12).await;
        sleep(Duration::from_secs(10)).await;
        work(&gate, "acme", 5).await;
        clock.advance(DAY);
        sleep(Duration::from_secs(10)).await;
    }
    let read = inbox.read();
    let kinds = inbox.kinds();
    let one = ["tallygate.quota.threshold", "tallygate.quota.exhausted"];
    assert_eq!(kinds, [one, one].concat());
    let (_, data) = &read[1];
    assert_eq!((&data["tenant"], &data["plan"]), (&"acme".into(), &"free".into()));
    assert_eq!((&data["limit"], &data["percent"]), (&"jobs/day".into(), &100.into()));
    assert_eq!((&data["used"], &data["limit_units"]), (&10.into(), &10.into()));
    assert!(data["window_start"].as_str().unwrap().ends_with("T00:00:00Z"), "{data}");
    assert_ne!(read[1].1["window_start"], read[3].1["window_start"]);
    let ids: BTreeSet<_> = inbox.all().into_iter().map(|of| of.id).collect();
    assert_eq!(ids.len(), 4);
    gate.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn beyond_a_soft_limit_it_tells_what_was_used_in_all() {
    let (store, clock, inbox) = (Memory::new(), Paused::now(), Inbox::default());
    let gate = open(&store, &clock, &inbox).await;
    gate.directory().tenant("acme").plan("soft").save().await.unwrap();
    work(&gate, "acme", 15).await;
    sleep(Duration::from_secs(10)).await;
    let sent: Vec<_> = inbox.read().into_iter().map(|(_, data)| data["percent"].clone()).collect();
    assert_eq!(sent, [50, 100, 150]);
    let (_, last) = inbox.read().pop().unwrap();
    assert_eq!((&last["used"], &last["plan"]), (&15.into(), &"soft".into()));
}

/// Of whole gates on one store, in any order of use, ends and failures: each alert of each window
/// arrives once, and each tenant's in order.
async fn fleet(steps: Vec<(u8, u8, u8, bool)>) {
    let (store, inbox) = (Memory::new(), Inbox::default());
    // Its time goes on by itself no further than tokio's: no task has a day's work to do.
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(open(&store, &clock, &inbox).await);
    }
    let mut windows = BTreeMap::<String, BTreeSet<i64>>::new();
    for (node, tenant, jobs, restarts) in steps {
        let at = usize::from(node % 3);
        let tenant = format!("t{}", tenant % 3);
        windows
            .entry(tenant.clone())
            .or_default()
            .insert(clock.now().wall_ms.div_euclid(86_400_000));
        work(&nodes[at], &tenant, u64::from(jobs)).await;
        inbox.fails(jobs % 4 == 0);
        if restarts {
            nodes[at].close().await.unwrap();
            nodes[at] = open(&store, &clock, &inbox).await;
        }
        sleep(Duration::from_secs(3)).await;
        clock.advance(Duration::from_secs(u64::from(jobs) * 700));
    }
    inbox.fails(false);
    // Every tenant uses up the window, so that both alerts are due.
    for tenant in windows.keys() {
        work(&nodes[0], tenant, 40).await;
    }
    sleep(Duration::from_secs(330)).await;
    let mut seen = BTreeMap::<(String, String), Vec<i64>>::new();
    for (_, data) in inbox.read() {
        let text = |name: &str| data[name].as_str().unwrap().to_owned();
        let of = (text("tenant"), text("window_start"));
        seen.entry(of).or_default().push(data["percent"].as_i64().unwrap());
    }
    for ((tenant, window), percents) in &seen {
        let expected: &[_] = &[80, 100];
        assert!(expected.starts_with(percents), "{tenant} {window}: {percents:?}");
    }
    let now = jiff_day(clock.now().wall_ms);
    for tenant in windows.keys() {
        let last = seen.iter().rfind(|((of, _), _)| of == tenant);
        let Some(((_, window), percents)) = last else { panic!("{tenant}: {seen:?}") };
        assert!(window.starts_with(&now), "{tenant} {window} {now}");
        assert_eq!(percents, &[80, 100], "{tenant} {window}");
    }
}

fn jiff_day(at_ms: i64) -> String {
    let days = at_ms.div_euclid(86_400_000) - testing::START_MS.div_euclid(86_400_000);
    // The start is the 17th of March, and no run takes a fortnight.
    format!("2026-03-{:02}", 17 + days)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn of_several_processes_each_alert_comes_once_a_window_in_order(
        steps in proptest::collection::vec(
            (0..3_u8, 0..3_u8, 0..12_u8, proptest::bool::weighted(0.2)),
            1..20,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(fleet(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_plan_and_trouble_with_payments_are_sent_once_each() {
    let (store, clock, inbox) = (Memory::new(), Paused::now(), Inbox::default());
    let gate = open(&store, &clock, &inbox).await;
    let acme = gate.directory().tenant("acme").plan("free").save().await.unwrap();
    acme.edit().plan("soft").save().await.unwrap();
    acme.edit().plan("soft").note("again").save().await.unwrap();
    acme.edit().payment(PaymentState::PastDue).save().await.unwrap();
    acme.edit().payment(PaymentState::Unpaid).save().await.unwrap();
    acme.edit().payment(PaymentState::Good).save().await.unwrap();
    acme.edit().default_plan().save().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let sent: Vec<String> = inbox.all().into_iter().map(|of| of.text).collect();
    assert_eq!(
        sent,
        [
            "acme goes from free to soft",
            "the payments of acme are past-due",
            "the payments of acme are unpaid",
            "acme goes from soft to the default plan",
        ]
    );
    assert_eq!(inbox.read()[3].1["to"], Value::Null);
}

/// The record's write is lost after its alert was written: nothing is sent of what did not happen,
/// and what happened in the end is sent once.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_cut_off_is_sent_if_it_happened() {
    let (clock, inbox) = (Paused::now(), Inbox::default());
    let (mut cut, mut sent) = (0, BTreeSet::new());
    for calls in 0..20_u64 {
        let store = Faulty::scripted(Memory::new(), []);
        let builder = testing::builder(PLANS).store(store.clone()).clock(clock);
        let gate = builder.notifier(inbox.clone()).open().await.unwrap();
        let acme = gate.directory().tenant("acme").plan("free").save().await.unwrap();
        // The process dies within the call of this number: the save is dropped there.
        store.odds(Odds { delay: 1_000, ..Odds::default() });
        let before = store.calls();
        let save = acme.edit().plan("soft").save();
        let cut_off = async {
            while store.calls() < before + calls {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let finished = tokio::select! {
            biased;
            () = cut_off => false,
            saved = save => saved.is_ok(),
        };
        store.odds(Odds::default());
        cut += usize::from(!finished);
        sleep(Duration::from_secs(60)).await;
        let record = gate.directory().find("acme").await.unwrap().unwrap().record().clone();
        let happened = record.plan.as_deref() == Some("soft");
        let all = std::mem::take(&mut inbox.0.lock().unwrap().0);
        assert_eq!(all.len(), usize::from(happened), "after {calls} calls");
        sent.insert(happened);
    }
    assert!(cut > 4 && sent.len() == 2, "{cut} {sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_about_to_expire_a_week_before() {
    let (store, inbox) = (Memory::new(), Inbox::default());
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let service = "[[identify]]\napi-key = \"x-api-key\"\n\
                   pepper = [{ id = \"1\", file = \"PEPPER\" }]\n[store]\nkind = \"memory\"";
    let pepper = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(pepper.path(), "a pepper of a test, which is long enough").unwrap();
    let service = service.replace("PEPPER", pepper.path().to_str().unwrap());
    let builder = tallygate::GateBuilder::from_text(&service).plans(PLANS);
    let builder = builder.store(store).clock(clock.clone()).notifier(inbox.clone());
    let gate = builder.open().await.unwrap();
    let acme = gate.directory().tenant("acme").save().await.unwrap();
    let ends = |days: u32| clock.now().wall() + DAY * days;
    let key = |name: &str, at: SystemTime| KeyOptions::new(name).expires(at);
    acme.new_key(key("soon", ends(5))).await.unwrap();
    acme.new_key("endless").await.unwrap();
    let revoked = acme.new_key(key("revoked", ends(30))).await.unwrap();
    let moved = acme.new_key(key("moved", ends(30))).await.unwrap();
    acme.revoke_key(&revoked.id).await.unwrap();
    acme.expire_key(&moved.id, ends(20)).await.unwrap();
    let pass = async |time: Duration| {
        clock.advance(time);
        sleep(Duration::from_secs(70)).await;
    };
    pass(13 * DAY - HOUR).await;
    assert_eq!(inbox.kinds(), [""; 0]);
    pass(2 * HOUR).await;
    assert_eq!(inbox.kinds(), ["tallygate.key.expiring"]);
    // A day after the others would have been due.
    pass(11 * DAY).await;
    let [(_, data)] = &*inbox.read() else { panic!("{:?}", inbox.read()) };
    assert_eq!((&data["name"], &data["key"]), (&"moved".into(), &moved.id.as_str().into()));
}

#[tokio::test(start_paused = true)]
async fn usage_that_cannot_be_written_is_raised_once_an_hour_when_the_store_is_back() {
    let (clock, inbox) = (Paused::now(), Inbox::default());
    let store = Faulty::scripted(Memory::new(), []);
    let builder = testing::builder(PLANS).store(store.clone()).clock(clock);
    let gate = builder.notifier(inbox.clone()).open().await.unwrap();
    work(&gate, "acme", 1).await;
    sleep(Duration::from_secs(5)).await;
    work(&gate, "acme", 1).await;
    store.outage(true);
    sleep(Duration::from_secs(300)).await;
    assert!(inbox.all().is_empty());
    store.outage(false);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(inbox.kinds(), ["tallygate.usage.late"]);
    assert!(gate.health().troubles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_is_trouble_and_its_alerts_can_be_listed() {
    let (store, clock, inbox) = (Memory::new(), Paused::now(), Inbox::default());
    let gate = open(&store, &clock, &inbox).await;
    inbox.fails(true);
    work(&gate, "acme", 10).await;
    sleep(HOUR).await;
    let health = gate.health();
    let [Trouble::AlertsWait { destination, waiting: 2, oldest, error }] = &*health.troubles else {
        panic!("{health:?}")
    };
    assert_eq!((&**destination, &**error), ("inbox", "503"));
    assert!(health.is_ready() && *oldest > HOUR - Duration::from_secs(400), "{health}");
    let waiting = gate.waiting_alerts().await.unwrap();
    let kinds: Vec<_> = waiting.iter().map(|(to, of, _)| (&**to, &*of.kind)).collect();
    let (near, end) = ("tallygate.quota.threshold", "tallygate.quota.exhausted");
    assert_eq!(kinds, [("inbox", near), ("inbox", end)]);
    let tested = gate.test_alerts().await;
    assert_eq!(tested, [("inbox".to_owned(), Err(NotDelivered::Later("503".into())))]);
    inbox.fails(false);
    assert_eq!(gate.test_alerts().await, [("inbox".to_owned(), Ok(()))]);
    sleep(Duration::from_secs(301)).await;
    assert_eq!(inbox.kinds(), ["tallygate.test", near, end]);
    assert!(gate.health().troubles.is_empty() && gate.waiting_alerts().await.unwrap().is_empty());
}

/// All that waits is listed, however much it is.
#[tokio::test(start_paused = true)]
async fn no_alert_that_waits_is_left_out_of_the_list() {
    let (store, clock) = (Memory::new(), Paused::now());
    let never = Inbox::default();
    let builder = testing::builder(PLANS).store(store).clock(clock).notifier(never);
    let gate = builder.sends_alerts(false).open().await.unwrap();
    let acme = gate.directory().tenant("acme").plan("free").save().await.unwrap();
    for n in 0..1_100 {
        let plan = if n % 2 == 0 { "soft" } else { "free" };
        acme.edit().plan(plan).save().await.unwrap();
    }
    assert_eq!(gate.waiting_alerts().await.unwrap().len(), 1_100);
}

/// A command that ends at once writes what it does for the service to send.
#[tokio::test(start_paused = true)]
async fn what_a_program_of_a_moment_does_is_sent_by_the_service() {
    let (store, clock, inbox) = (Memory::new(), Paused::now(), Inbox::default());
    let gate = open(&store, &clock, &inbox).await;
    gate.directory().tenant("acme").plan("free").save().await.unwrap();
    let never = Inbox::default();
    let service = testing::builder(PLANS).store(store).clock(clock).notifier(never.clone());
    let command = service.sends_alerts(false).open().await.unwrap();
    command.directory().tenant("acme").plan("soft").save().await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(inbox.kinds(), ["tallygate.plan.changed"]);
    assert!(never.all().is_empty());
}

#[tokio::test]
async fn names_of_destinations_are_checked() {
    struct Named(&'static str);
    impl Notifier for Named {
        fn name(&self) -> &str {
            self.0
        }

        fn deliver(&self, _: Notification) -> NotifierFuture {
            Box::pin(async { Ok(()) })
        }
    }
    for (names, ok) in [(["a", "b"], true), (["a", "a"], false), (["a", "A b"], false)] {
        let builder = testing::builder(PLANS);
        let builder = names.into_iter().fold(builder, |builder, it| builder.notifier(Named(it)));
        assert_eq!(builder.open().await.is_ok(), ok, "{names:?}");
    }
}

//! Tests of the reporter against `stripe-sim`, over the real sink: death at every call, lost
//! replies, outages, two reporters at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stripe_sim::{Settings, Sim};
use tokio::sync::Notify;

use super::super::decisions::DecidedBy;
use super::super::entries::DecidedEntry;
use super::*;
use crate::amount::Atoms;
use crate::billing::due::BillingTerms;
use crate::billing::outbox::OutboxEntry;
use crate::billing::sink::SinkFuture;
use crate::billing::sink::{Delivery, MeterEvent, SinkError, Sum};
use crate::billing::stripe::{Stripe, StripeSettings};
use crate::clock::ManualClock;
use crate::config::{Secret, StripeMode};
use crate::ids::{Surrogate, WriterId};
use crate::ledger::totals::PeriodUse;
use crate::store::{Item, Key, Memory, Page, Promise, Query, StoreFuture, Written};
use crate::testing::{Faulty, Odds};

/// 17 March 2026, 12:00 UTC: initial time of the clocks.
const NOW: i64 = 1_773_748_800;
const HOUR: u32 = 3_600;

/// Every call that a reporter makes. A call missing from this list fails the tests: it would be an
/// untested place to die.
const CALLS: [&str; 9] = [
    "read M", // whether the table was restored
    "time", "read B",  // the item
    "write U", // a minute of its own
    "write B", // frozen, marked, delivered, summed, void, verified
    "send", "sum", "read E",  // was it reported as rejected?
    "write M", // the ledger's id
];

/// Whether the process dies before a call, or after it took effect and before it is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Dies {
    Before,
    After,
}

/// A store and a sink whose process dies at the n-th call: that call never ends.
#[derive(Clone)]
struct Mortal {
    store: Arc<dyn Store>,
    sink: Arc<dyn BillingSink>,
    life: Arc<Life>,
}

struct Life {
    calls: AtomicU64,
    dies_at: u64,
    how: Dies,
    dead: Notify,
    /// The calls made.
    made: Mutex<Vec<String>>,
}

impl Mortal {
    fn call<T: Send + 'static>(
        &self,
        name: String,
        call: impl Future<Output = T> + Send + 'static,
    ) -> SinkFuture<T> {
        assert!(CALLS.contains(&name.as_str()), "a call that is not in the list: {name}");
        let life = self.life.clone();
        Box::pin(async move {
            let n = life.calls.fetch_add(1, Ordering::SeqCst);
            life.made.lock().unwrap().push(name);
            if n == life.dies_at && life.how == Dies::Before {
                life.dead.notify_one();
                std::future::pending::<()>().await;
            }
            let answer = call.await;
            if n == life.dies_at {
                life.dead.notify_one();
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// `read B` of an item whose partition is `1#space#B#..`.
fn name(verb: &str, key: &Key) -> String {
    format!("{verb} {}", key.pk.split('#').nth(2).unwrap())
}

impl Store for Mortal {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.call(name("read", &key), self.store.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.call(name("write", &write.key), self.store.write(write))
    }

    fn query(&self, _: Query) -> StoreFuture<Page> {
        panic!("a run queries nothing")
    }

    fn promise(&self) -> Promise {
        self.store.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}

impl BillingSink for Mortal {
    fn account(&self) -> String {
        self.sink.account()
    }

    fn time(&self) -> SinkFuture<Result<i64, SinkError>> {
        self.call("time".to_owned(), self.sink.time())
    }

    fn send(&self, event: MeterEvent) -> SinkFuture<Delivery> {
        self.call("send".to_owned(), self.sink.send(event))
    }

    fn sum(&self, sum: Sum) -> SinkFuture<Result<i64, SinkError>> {
        self.call("sum".to_owned(), self.sink.sum(sum))
    }
}

/// A Stripe with a meter, a customer, and one item that is owed.
struct Bench {
    sim: Sim,
    customer: String,
    store: Arc<dyn Store>,
    clock: ManualClock,
}

impl Bench {
    async fn new(store: impl Store) -> Self {
        let sim = Sim::start(Settings::default()).await.unwrap();
        assert!(sim.stand_at(NOW));
        let meter = "display_name=x&event_name=api&default_aggregation[formula]=sum";
        post(&sim, "/v1/billing/meters", meter).await;
        let customer = post(&sim, "/v1/customers", "").await;
        let clock = ManualClock::at_unix_ms(NOW * 1_000);
        Self { sim, customer, store: Arc::new(store), clock }
    }

    fn sink(&self) -> Stripe {
        let settings = StripeSettings {
            key: Secret::new("sk_test_x"),
            mode: StripeMode::Test,
            account: "main".to_owned(),
            base: self.sim.url(),
            calls_per_s: Some(100_000),
        };
        Stripe::new(settings).unwrap()
    }

    async fn reporter(&self) -> Reporter {
        self.reporter_with(Arc::new(self.sink())).await
    }

    async fn reporter_with(&self, sink: Arc<dyn BillingSink>) -> Reporter {
        let clock = Arc::new(self.clock.clone());
        loop {
            // A faulty store may refuse.
            let opened = Reporter::open(self.store.clone(), sink.clone(), clock.clone(), "s").await;
            if let Ok(reporter) = opened {
                return reporter;
            }
        }
    }

    /// The amount owed for the one item, at 10 atoms to the unit, in a period that began a day ago.
    fn due(&self, used: u64) -> DueUse {
        let id = ItemId {
            account: self.customer.as_str().into(),
            tenant: Surrogate::test(1),
            meter: "requests".into(),
            scale: 1,
            period_ms: (NOW - 86_400) * 1_000,
        };
        let terms = BillingTerms {
            customer: self.customer.clone(),
            event: "api".to_owned(),
            atoms_per_unit: 10,
            overage: false,
            ends_ms: (NOW + 30 * 86_400) * 1_000,
            overrun: None,
            carry: true,
        };
        DueUse { id, used: Atoms(used), over: Atoms::NONE, terms }
    }

    fn pass(&self, seconds: u32) {
        self.sim.advance(seconds);
        self.clock.advance(Duration::from_secs(seconds.into()));
    }

    fn billed(&self) -> i64 {
        self.sim.totals().iter().map(|total| total.total).sum()
    }

    /// Runs until everything is verified, and returns the item.
    async fn drain(&self, used: u64) -> Outbox {
        let reporter = self.reporter().await;
        let due = self.due(used);
        for _ in 0..60 {
            let _ = reporter.run(vec![due.clone()]).await;
            let outbox = reporter.outbox(&due.id).await;
            if let Ok(outbox) = outbox
                && outbox.pending.is_none()
                && outbox.sent.is_empty()
                && outbox.settled.value == used / 10
            {
                return outbox;
            }
            self.pass(7 * HOUR);
        }
        panic!("never drained: {:?}", reporter.outbox(&due.id).await);
    }
}

/// Posts a form by hand, and returns the id.
async fn post(sim: &Sim, path: &str, form: &str) -> String {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    let request = http::Request::post(format!("{}{path}", sim.url()))
        .header("authorization", "Bearer sk_test_x")
        .body(Full::new(bytes::Bytes::from(form.to_owned())))
        .unwrap();
    let pool = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let body = pool.request(request).await.unwrap().into_body().collect().await.unwrap();
    let object: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    object["id"].as_str().unwrap().to_owned()
}

fn fault(sim: &Sim, json: &str) {
    sim.fault(serde_json::from_str(json).unwrap());
}

#[tokio::test]
async fn what_was_used_is_billed_in_whole_units_and_verified_a_day_later() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let report = reporter.run(vec![bench.due(59)]).await.unwrap();
    assert_eq!((report.sent, report.units, report.open), (1, 5, 0));
    assert_eq!(report.oldest_s, None, "what is sent has no age");
    assert_eq!(bench.billed(), 5);
    // Nothing new: nothing is sent, and only the time is asked for.
    let calls = bench.sim.calls().len();
    reporter.run(vec![bench.due(59)]).await.unwrap();
    assert_eq!(bench.sim.calls().len(), calls + 1);
    bench.pass(900);
    assert_eq!(reporter.run(vec![bench.due(100)]).await.unwrap().units, 5);
    bench.pass(25 * HOUR);
    let report = reporter.run(vec![bench.due(100)]).await.unwrap();
    assert_eq!((report.verified, bench.billed()), (2, 10));
}

#[tokio::test]
async fn the_ledgers_use_is_summed_by_account_and_period_over_writers_and_days() {
    use crate::catalog::{Zone, local_day};
    use crate::ledger::log::LogWriter;
    use crate::ledger::record::{Rows, UseKey};
    use crate::sheets::use_row::RowAtoms;

    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let (account, at_ms) = (Some(Arc::from(bench.customer.as_str())), NOW * 1_000);
    let day = local_day(at_ms, &Zone::utc());
    let id = bench.due(0).id;
    let key = |day, account: &Option<Arc<str>>| UseKey {
        tenant: id.tenant,
        part: 0,
        meter: id.meter.clone(),
        scale: 1,
        period_ms: id.period_ms,
        day,
        account: account.clone(),
    };
    for incarnation in [7, 8] {
        let writer = Writer { space: Space::new("s"), incarnation: WriterId::test(incarnation) };
        let mut rows = Rows::default();
        rows.uses.insert(key(day - 1, &account), RowAtoms { used: Atoms(20), over: Atoms(3) });
        rows.uses.insert(key(day, &account), RowAtoms { used: Atoms(9), over: Atoms(0) });
        rows.uses.insert(key(day, &None), RowAtoms { used: Atoms(4), over: Atoms(0) });
        let registration = LogWriter::registration(&writer, day, at_ms);
        bench.store.write(registration).await.unwrap();
        for body in rows.pack(at_ms, None) {
            bench.store.write(LogWriter::new(writer.clone()).slot(&body)).await.unwrap();
        }
    }
    let used = reporter.used().await.unwrap();
    let of = |id: Option<ItemId>| {
        used.iter().find(|used| used.id == id).map(|used| (used.atoms.0, used.over.0))
    };
    assert_eq!(used.len(), 2);
    assert_eq!(of(Some(id)), Some((58, 6)));
    assert_eq!(of(None), Some((8, 0)), "use without an account is named, and never billed");
}

#[tokio::test]
async fn of_overage_only_what_was_drawn_beyond_is_sent() {
    let bench = Bench::new(Memory::new()).await;
    let mut due = bench.due(1_000);
    (due.over, due.terms.overage) = (Atoms(100), true);
    bench.reporter().await.run(vec![due]).await.unwrap();
    assert_eq!(bench.billed(), 10);
}

#[tokio::test]
async fn no_entry_is_dated_before_its_period_began() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    // Two tenants of one customer, whose period began half a second ago: one minute of it is over.
    let due = |tenant| {
        let mut due = bench.due(50);
        (due.id.tenant, due.id.period_ms) = (Surrogate::test(tenant), NOW * 1_000 - 500);
        due
    };
    reporter.run(vec![due(1), due(2)]).await.unwrap();
    assert_eq!(bench.billed(), 5, "a minute is one entry's");
    bench.pass(60);
    reporter.run(vec![due(1), due(2)]).await.unwrap();
    assert_eq!(bench.billed(), 10);
    let calls = bench.sim.calls();
    let sent = calls.iter().filter(|call| call.call.ends_with("meter_events"));
    let dated = sent.map(|call| call.params["timestamp"].as_str().unwrap().parse().unwrap());
    assert_eq!(dated.collect::<Vec<i64>>(), [NOW, NOW + 60]);
}

#[tokio::test]
async fn a_short_period_without_a_free_minute_is_carried_or_named() {
    for carry in [true, false] {
        let bench = Bench::new(Memory::new()).await;
        let reporter = bench.reporter().await;
        // It began and ended within a minute.
        let mut due = bench.due(50);
        due.id.period_ms = (NOW + 10) * 1_000;
        due.terms.ends_ms = (NOW + 50) * 1_000;
        due.terms.carry = carry;
        bench.pass(20);
        reporter.run(vec![due.clone()]).await.unwrap();
        due.used = Atoms(70);
        bench.pass(600);
        let report = reporter.run(vec![due.clone()]).await.unwrap();
        let (dates, too_old) = (dated(&bench.sim), report.too_old);
        let outbox = reporter.outbox(&due.id).await.unwrap();
        let is_named = reporter.inner.is_too_old(&due, &outbox, NOW + 620).await.unwrap();
        assert_eq!(is_named, !carry, "in the audit");
        if carry {
            assert_eq!((dates, too_old), (vec![NOW + 10, NOW + 600], vec![]));
        } else {
            assert_eq!((dates, too_old), (vec![NOW + 10], vec![due.id.clone()]));
        }
    }
}

#[tokio::test]
async fn what_is_older_than_stripe_takes_is_carried_or_named() {
    for carry in [true, false] {
        let bench = Bench::new(Memory::new()).await;
        let reporter = bench.reporter().await;
        let mut due = bench.due(50);
        due.terms.carry = carry;
        reporter.run(vec![due.clone()]).await.unwrap();
        // The period ends in 30 days. 32 days after its end it can still be dated into it.
        due.used = Atoms(70);
        bench.pass(62 * 24 * HOUR);
        let report = reporter.run(vec![due.clone()]).await.unwrap();
        assert_eq!((report.units, bench.billed()), (2, 7), "carry: {carry}");
        // 34 days after it that is too near to what Stripe refuses.
        due.used = Atoms(100);
        bench.pass(2 * 24 * HOUR);
        let report = reporter.run(vec![due.clone()]).await.unwrap();
        let ends_s = due.terms.ends_ms / 1_000;
        let calls = bench.sim.calls();
        let mut sent = calls.iter().filter(|call| call.call.ends_with("meter_events"));
        let last: i64 =
            sent.next_back().unwrap().params["timestamp"].as_str().unwrap().parse().unwrap();
        if carry {
            assert_eq!((report.units, bench.billed(), report.too_old.len()), (3, 10, 0));
            assert!(last >= ends_s, "in the open period");
        } else {
            assert_eq!((report.units, bench.billed()), (0, 7));
            assert!(last < ends_s, "in its own period");
            assert_eq!(report.too_old, [due.id.clone()]);
            let again = reporter.run(vec![due.clone()]).await.unwrap();
            assert_eq!(again.too_old, [due.id.clone()], "named in every run");
            let outbox = reporter.outbox(&due.id).await.unwrap();
            assert_eq!((outbox.settled.value, outbox.sent.len()), (7, 0), "the rest is verified");
        }
    }
}

#[tokio::test]
async fn a_rejection_that_was_reported_makes_the_units_owed_again() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let reject = r#"{"on": "POST /v1/billing/meter_events",
        "do": {"reject": {"code": "meter_event_customer_not_found"}}}"#;
    fault(&bench.sim, reject);
    reporter.run(vec![bench.due(50)]).await.unwrap();
    assert_eq!(bench.billed(), 0);
    bench.pass(25 * HOUR);
    let report = reporter.run(vec![bench.due(50)]).await.unwrap();
    assert_eq!((report.doubtful.len(), report.sent), (1, 0), "a zero alone proves nothing");
    let calls = bench.sim.calls();
    let sent = calls.iter().find(|call| call.call.ends_with("meter_events")).unwrap();
    reporter.note_rejected(sent.params["identifier"].as_str().unwrap()).await.unwrap();
    let outbox = bench.drain(50).await;
    assert_eq!((bench.billed(), outbox.requeued), (5, 1));
}

#[tokio::test]
async fn an_entry_that_is_refused_stops_until_an_operator_decides() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let refuse = r#"{"on": "POST /v1/billing/meter_events", "do": {"status": {"code": 400}}}"#;
    fault(&bench.sim, refuse);
    let report = reporter.run(vec![bench.due(50)]).await.unwrap();
    assert_eq!((report.stopped.len(), report.open), (1, 1));
    let oldest_s = report.oldest_s;
    assert!(oldest_s.is_some_and(|at_s| at_s > 0 && at_s % 60 == 0), "{oldest_s:?}");
    let again = reporter.run(vec![bench.due(70)]).await.unwrap();
    assert_eq!((again.stopped.len(), bench.billed()), (1, 0), "named in every run");
    let item = again.stopped[0].item.clone();
    let by = DecidedBy { actor: Some("kim"), reason: Some("paid by wire") };
    assert!(reporter.decide(&again.stopped[0], false, by).await.unwrap());
    let two_lines = DecidedBy { reason: Some("a\nb"), ..by };
    assert!(!reporter.decide(&again.stopped[0], false, by).await.unwrap(), "it was decided");
    let decided = reporter.decided([&item].into_iter()).await.unwrap();
    let [DecidedEntry { decision, .. }] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!((decision.actor.as_deref(), decision.counts), (Some("kim"), false));
    assert_eq!(decision.reason.as_deref(), Some("paid by wire"));
    assert!(two_lines.about((String::new(), 0), true, 0).is_err());
    bench.drain(70).await;
    assert_eq!(bench.billed(), 7);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_stops_an_entry_once_its_sums_are_zero() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    for (times, code) in [(1, 503), (0, 400)] {
        let status = format!(r#"{{"code": {code}, "applied": false, "should_retry": false}}"#);
        let on = r#""on": "POST /v1/billing/meter_events""#;
        fault(&bench.sim, &format!(r#"{{{on}, "times": {times}, "do": {{"status": {status}}}}}"#));
    }
    let mut stopped = Vec::new();
    for _ in 0..40 {
        stopped.push(reporter.run(vec![bench.due(50)]).await.unwrap().stopped.len());
        bench.pass(HOUR);
    }
    let first = stopped.iter().position(|stopped| *stopped == 1).unwrap();
    assert!((30..32).contains(&first), "two zeros, 6 h apart, a day after the first send: {first}");
    assert!(stopped[first..].iter().all(|stopped| *stopped == 1));
}

#[tokio::test]
async fn a_clock_that_steps_stops_the_run() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let inner = reporter.inner.clone();
    let anchor = Anchor { service_s: NOW, at: inner.clock.now() };
    bench.clock.step_wall(-6_000);
    let mut report = Report::default();
    inner.look_after(&bench.due(50), Pass::Send, anchor, &mut report).await;
    assert_eq!((report.failed.len(), bench.sim.calls().len() - 2), (1, 0));
}

/// Timestamps of the events that Stripe received, in order of arrival.
fn dated(sim: &Sim) -> Vec<i64> {
    let calls = sim.calls();
    let sent = calls.iter().filter(|call| call.call.ends_with("meter_events"));
    sent.map(|call| call.params["timestamp"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn an_entry_is_dated_by_stripes_clock_however_long_the_run_has_gone_on() {
    let bench = Bench::new(Memory::new()).await;
    let inner = bench.reporter().await.inner.clone();
    let anchor = Anchor { service_s: NOW, at: inner.clock.now() };
    bench.pass(600);
    bench.clock.step_wall(5_000); // as far as clocks may drift apart
    let mut report = Report::default();
    inner.look_after(&bench.due(50), Pass::Send, anchor, &mut report).await;
    assert_eq!((report.sent, report.failed), (1, vec![]));
    assert_eq!(dated(&bench.sim), [NOW + 600]);
}

/// Restores the table from a backup in which all of this was owed, with Stripe to be asked what was
/// sent since.
async fn comes_back(bench: &Bench, due: &DueUse) {
    use crate::sheets::use_row::RowAtoms;

    let (space, at_ms) = (Space::new("s"), bench.clock.now().wall_ms);
    let change = restored::wait(at_ms).to_vec();
    bench.store.write(Write { key: space.ledger(), when: vec![], change }).await.unwrap();
    let ItemId { account, tenant, meter, scale, period_ms } = due.id.clone();
    let (account, atoms) = (Some(account), RowAtoms { used: due.used, over: due.over });
    let owed = vec![PeriodUse { account, tenant, meter, scale, period_ms, atoms }];
    restored::mark(&*bench.store, &space, owed, at_ms).await.unwrap();
    let word = restored::SentSinceCopy::AskStripe;
    assert!(restored::say(&*bench.store, &space, word).await.unwrap());
}

#[tokio::test]
async fn what_the_backup_owed_of_a_period_that_is_over_is_billed_once_in_minutes_of_its_own() {
    let bench = Bench::new(Memory::new()).await;
    let reporter = bench.reporter().await;
    let mut due = bench.due(50);
    // It began and ended within a minute.
    due.id.period_ms = (NOW - 86_400 + 20) * 1_000;
    due.terms.ends_ms = (NOW + 20) * 1_000;
    // Since the copy others sent some of it, in its first minute and in its last two.
    let sink = bench.sink();
    for (value, timestamp_s) in [(1, NOW - 86_400 + 20), (1, NOW - 60), (1, NOW - 120)] {
        let (customer, event) = (bench.customer.clone(), due.terms.event.clone());
        let identifier = format!("of before, at {timestamp_s}");
        let sent = MeterEvent { identifier, customer, event, value, timestamp_s };
        assert!(matches!(sink.send(sent).await, Delivery::Delivered));
    }
    bench.pass(HOUR);
    comes_back(&bench, &due).await;
    bench.pass(7 * HOUR);
    let report = reporter.run(vec![due.clone()]).await.unwrap();
    assert_eq!((report.units, report.failed), (2, vec![]), "the other three were sent");
    assert_eq!((bench.billed(), dated(&bench.sim).last()), (5, Some(&(NOW - 180))));
}

#[tokio::test]
async fn identifiers_are_short_and_their_own() {
    let bench = Bench::new(Memory::new()).await;
    let origin = bench.reporter().await.inner.origin.clone();
    let due = bench.due(0);
    let entry = |k| OutboxEntry {
        k,
        customer: String::new(),
        event: String::new(),
        value: 1,
        atoms: Atoms(1),
        minute_s: 0,
    };
    let one = origin.identifier(&due.id, &entry(1));
    assert!(one.len() < 100 && one == origin.identifier(&due.id, &entry(1)));
    let mut other = due.id.clone();
    other.period_ms += 1;
    assert_ne!(one, origin.identifier(&other, &entry(1)));
    assert_ne!(one, origin.identifier(&due.id, &entry(2)));
    let elsewhere = Bench::new(Memory::new()).await.reporter().await.inner.origin.clone();
    assert_ne!(one, elsewhere.identifier(&due.id, &entry(1)), "another table");
}

#[tokio::test]
async fn two_reporters_over_a_faulty_store_bill_once() {
    for seed in 0..12 {
        let odds = Odds { unavailable: 40, lose_request: 40, lose_reply: 60, ..Odds::default() };
        let bench = Bench::new(Faulty::seeded(Memory::new(), seed, odds)).await;
        let (one, two) = (bench.reporter().await, bench.reporter().await);
        for round in 1..=10 {
            let due = bench.due(round * 33);
            let (a, b) = tokio::join!(one.run(vec![due.clone()]), two.run(vec![due]));
            drop((a, b));
            bench.pass(1_000);
        }
        bench.drain(330).await;
        assert_eq!(bench.billed(), 33, "seed {seed}");
    }
}

/// Stripe's treatment of the first process's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Taken,
    /// Accepts it, and every answer is lost.
    Unanswered,
    /// Every request is lost.
    Unheard,
    /// Accepts it, drops it later, and reports that.
    ThrownAway,
}

impl Fate {
    fn befall(self, sim: &Sim) {
        let (times, what) = match self {
            Fate::Taken => return,
            Fate::Unanswered => (4, r#""lose""#),
            Fate::Unheard => (4, r#""cut""#),
            Fate::ThrownAway => (1, r#"{"reject": {"code": "meter_event_customer_not_found"}}"#),
        };
        let on = "POST /v1/billing/meter_events";
        fault(sim, &format!(r#"{{"on": "{on}", "times": {times}, "do": {what}}}"#));
    }

    /// Delivers the webhook about it to a running process.
    async fn report(self, bench: &Bench) {
        let calls = bench.sim.calls();
        let sent = calls.iter().find(|call| call.call.ends_with("meter_events"));
        if let Some(sent) = sent.filter(|_| self == Fate::ThrownAway) {
            let identifier = sent.params["identifier"].as_str().unwrap();
            bench.reporter().await.note_rejected(identifier).await.unwrap();
        }
    }
}

/// One case: the first process dies at its n-th call, Stripe does this to its event, time passes,
/// another process continues. False if the run ended before its n-th call.
async fn dies_at(n: u64, how: Dies, fate: Fate, outage_s: u32) -> (bool, Vec<String>) {
    let bench = Bench::new(Memory::new()).await;
    fate.befall(&bench.sim);
    let life = Arc::new(Life {
        calls: AtomicU64::new(0),
        dies_at: n,
        how,
        dead: Notify::new(),
        made: Mutex::default(),
    });
    let sink = Arc::new(bench.sink());
    let mortal = Mortal { store: bench.store.clone(), sink, life: life.clone() };
    let clock = Arc::new(bench.clock.clone());
    let first = async {
        let store: Arc<dyn Store> = Arc::new(mortal.clone());
        let reporter = Reporter::open(store, Arc::new(mortal.clone()), clock, "s").await.unwrap();
        reporter.run(vec![bench.due(50)]).await.unwrap();
        fate.report(&bench).await;
        // Verified, or asked about; then asked about again.
        for hours in [26, 7] {
            bench.pass(hours * HOUR);
            reporter.run(vec![bench.due(50)]).await.unwrap();
        }
    };
    let died = tokio::select! {
        () = first => false,
        () = life.dead.notified() => true,
    };
    bench.sim.heal();
    fate.report(&bench).await;
    bench.pass(outage_s);
    let outbox = bench.drain(80).await;
    let case = format!("call {n}, {how:?}, {fate:?}, outage {outage_s} s");
    assert_eq!(bench.billed(), 8, "{case}: {outbox:?}");
    let made = life.made.lock().unwrap().clone();
    (died, made)
}

/// More calls than any run makes: further ones fail the test.
const MOST_CALLS: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_every_call_bills_once_after_any_outage() {
    let room = Arc::new(Semaphore::new(16));
    let mut cases = JoinSet::new();
    for n in 0..MOST_CALLS {
        for how in [Dies::Before, Dies::After] {
            for fate in [Fate::Taken, Fate::Unanswered, Fate::Unheard, Fate::ThrownAway] {
                for outage_s in [HOUR, 25 * HOUR, 36 * 24 * HOUR] {
                    let room = room.clone();
                    cases.spawn(async move {
                        let _permit = room.acquire().await.unwrap();
                        (n, fate, dies_at(n, how, fate, outage_s).await)
                    });
                }
            }
        }
    }
    let mut deaths = 0;
    let mut last = BTreeMap::new();
    let mut hits = BTreeMap::<String, u32>::new();
    while let Some(case) = cases.join_next().await {
        let (n, fate, (died, made)) = case.unwrap();
        if died {
            deaths += 1;
            let last = last.entry(fate).or_insert(n);
            *last = n.max(*last);
            *hits.entry(made.last().cloned().unwrap_or_default()).or_default() += 1;
        }
    }
    println!("{deaths} deaths; last call died at: {last:?}; by the call died at: {hits:?}");
    assert_eq!(last.len(), 4);
    assert!(*last.values().max().unwrap() < MOST_CALLS - 1, "more calls than the test dies at");
    for call in CALLS {
        assert!(hits.contains_key(call), "nobody died at {call}");
    }
}

/// Sends and questions in order: customers of meter events, and `sum`.
fn order(sim: &Sim, from: usize) -> Vec<String> {
    let calls = sim.calls();
    let of = calls[from..].iter().filter_map(|call| {
        if call.call.ends_with("meter_events") {
            return call.params["payload"]["stripe_customer_id"].as_str().map(str::to_owned);
        }
        call.call.ends_with("event_summaries").then(|| "sum".to_owned())
    });
    of.collect()
}

#[tokio::test]
async fn those_near_their_periods_end_go_first_and_questions_last() {
    let bench = Bench::new(Memory::new()).await;
    // One at a time, so that the order is visible.
    let reporter = bench.reporter_with(Arc::new(OneByOne(bench.sink()))).await;
    let due = |n: i64, used| {
        let mut due = bench.due(used);
        due.id.tenant = Surrogate::test(n.unsigned_abs().into());
        due.terms.customer = format!("cus_{n}");
        // The first ends last; the last has ended.
        due.terms.ends_ms = (NOW + (6 - n) * 7_200 - 3_600) * 1_000;
        due
    };
    let all = |used| (0..7).map(|n| due(n, used)).collect::<Vec<_>>();
    let from = bench.sim.calls().len();
    assert_eq!(reporter.run(all(50)).await.unwrap().sent, 7);
    let ending: Vec<String> = (0..7).rev().map(|n| format!("cus_{n}")).collect();
    assert_eq!(order(&bench.sim, from), ending);
    // A day later everything is due for verification, and more is owed for three.
    bench.pass(25 * HOUR);
    let from = bench.sim.calls().len();
    let mut later = all(50);
    for n in [0, 3, 6] {
        later[n].used = Atoms(90);
    }
    assert_eq!(reporter.run(later).await.unwrap().sent, 3);
    let order = order(&bench.sim, from);
    assert_eq!(order[..3], ["cus_6", "cus_3", "cus_0"]);
    assert!(order.len() > 3 && order[3..].iter().all(|call| call == "sum"), "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_is_under_way_for_a_customer_and_meter() {
    let bench = Bench::new(Memory::new()).await;
    bench.sim.set(|settings| settings.latency_ms = 20);
    // Three customers, eight items each.
    let due = (0..24_u128).map(|n| {
        let mut due = bench.due(50);
        due.id.tenant = Surrogate::test(n);
        due.terms.customer = format!("cus_{}", n % 3);
        due
    });
    let due: Vec<DueUse> = due.collect();
    let report = bench.reporter().await.run(due).await.unwrap();
    assert_eq!((report.sent, report.open), (24, 0));
    let calls = bench.sim.calls();
    let sent: Vec<_> = calls.iter().filter(|call| call.call.ends_with("meter_events")).collect();
    // A second call at the same time would have been refused, and repeated.
    assert_eq!(sent.len(), 24);
    assert!(sent.iter().all(|call| call.status == Some(200)));
}

/// A sink that takes one event at a time.
struct OneByOne(Stripe);

impl BillingSink for OneByOne {
    fn account(&self) -> String {
        self.0.account()
    }

    fn at_once(&self) -> usize {
        1
    }

    fn time(&self) -> SinkFuture<Result<i64, SinkError>> {
        self.0.time()
    }

    fn send(&self, event: MeterEvent) -> SinkFuture<Delivery> {
        self.0.send(event)
    }

    fn sum(&self, sum: Sum) -> SinkFuture<Result<i64, SinkError>> {
        self.0.sum(sum)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_drains_near_the_rate_that_is_allowed() {
    // Many customers, one call each: below its own limit the service refuses none.
    // `TALLYGATE_DRAIN=100000@1000` sets the number and the rate, `TALLYGATE_LATENCY` the ms that
    // each call takes.
    let asked = std::env::var("TALLYGATE_DRAIN").ok();
    let asked = asked.as_deref().and_then(|asked| asked.split_once('@'));
    let (items, allowed) = match asked {
        Some((items, allowed)) => (items.parse().unwrap(), allowed.parse().unwrap()),
        None => (300, 100),
    };
    let latency = std::env::var("TALLYGATE_LATENCY").map_or(100, |ms| ms.parse().unwrap());
    let bench = Bench::new(Memory::new()).await;
    let due: Vec<DueUse> = (0..items)
        .map(|n: u128| {
            let mut due = bench.due(50);
            due.id.tenant = Surrogate::test(n);
            // An event for a missing customer is accepted anyway, and rejected later.
            due.terms.customer = format!("cus_{n}");
            due
        })
        .collect();
    bench.sim.set(|settings| settings.calls_per_s = Some(allowed));
    bench.sim.set(|settings| settings.latency_ms = latency);
    let settings = StripeSettings {
        key: Secret::new("sk_test_x"),
        mode: StripeMode::Test,
        account: "main".to_owned(),
        base: bench.sim.url(),
        calls_per_s: Some(allowed * 9 / 10),
    };
    let sink = Arc::new(Stripe::new(settings).unwrap());
    let clock = Arc::new(bench.clock.clone());
    let reporter = Reporter::open(bench.store.clone(), sink, clock, "s").await.unwrap();
    let begun = tokio::time::Instant::now();
    let report = reporter.run(due).await.unwrap();
    let rate = report.sent as f64 / begun.elapsed().as_secs_f64();
    let calls = bench.sim.calls().len() - 2;
    println!("{items} items: {calls} calls, {rate:.0} a second of {allowed} allowed");
    assert_eq!(u128::from(report.sent), items);
    // One call each, one for the time, and a few that came too fast on a busy machine.
    assert!((items + 1..=items + 1 + items / 100).contains(&(calls as u128)), "{calls} calls");
    assert!(rate >= f64::from(allowed) * 0.8, "{rate:.0} of {allowed} a second");
}

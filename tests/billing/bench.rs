//! A gate over a store in memory, a Stripe beside it, and one clock for both.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stripe_sim::{Settings, Sim, signature};
use tallygate::notify::Notifier;
use tallygate::store::{Change, Key, Memory, Store, StoreFuture, Write, Written};
use tallygate::testing::{START_MS, time_at};
use tallygate::{Ask, Gate, GateBuilder, ManualClock};
use test_support::gates::{self, ByHeader};

/// The initial time of the clocks, in Unix seconds.
pub(crate) const NOW: i64 = START_MS / 1_000;

pub(crate) const KEY: &str = "sk_test_thekeythatneverleaks";
pub(crate) const SECRET: &str = "whsec_thesecretthatneverleaks";

const PLANS: &str = r#"
    default-plan = "free"
    [meter.requests]
    stripe = { event = "api_requests", send = "all" }
    [meter.jobs]
    stripe = { event = "jobs", send = "overage" }
    [meter.credits]
    [plan.free]
    quota.requests = "1k/cycle"
    quota.jobs     = "10/cycle"
    [plan.team]
    stripe         = { price = ["team_monthly", "team_yearly"] }
    quota.credits  = "prepaid"
    quota.requests = "100k/cycle"
    quota.jobs     = { limit = "100/cycle", over = "bill", stop = "1k" }
    feature.seats  = 5
    [plan.payg]
    stripe         = { price = "payg_monthly" }
    quota.credits  = "prepaid"
    quota.requests = "100k/cycle"
    quota.jobs     = { limit = "0/cycle", over = "bill", stop = "1k" }
    [addon.seats]
    stripe = { price = "seat_monthly" }
    adds   = { feature.seats = 1, quota.requests = "1k/cycle" }
    [topup.pack]
    stripe  = { price = "pack" }
    adds    = { credits = "50" }
    expires = "30d"
    [billing]
    past-due          = { grace = "7d", then = "free" }
    unpaid            = "payment-required"
    canceled          = "free"
    on-payment-method = "payg"
    on-final-failure  = "cancel"
"#;

/// A store in memory shared by several gates, which counts what billing writes.
#[derive(Clone)]
pub(crate) struct Shared {
    memory: Arc<Memory>,
    /// Writes of tenants, customers, webhooks and rejections.
    changes: Arc<AtomicU64>,
    /// Every key written.
    keys: Arc<Mutex<BTreeSet<Key>>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { memory: Arc::new(Memory::new()), changes: Arc::default(), keys: Arc::default() }
    }

    /// A backup: every item as it is now.
    pub(crate) async fn copy(&self) -> Self {
        let copy = Self::new();
        for key in self.keys() {
            let Some(item) = self.memory.read(key.clone()).await.unwrap() else { continue };
            let change = item.0.into_iter().map(|(name, value)| Change::Set(name, value)).collect();
            copy.write(Write { key, when: vec![], change }).await.unwrap();
        }
        copy
    }

    /// Every key written so far.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.keys.lock().unwrap().iter().cloned().collect()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

impl Store for Shared {
    fn write(&self, write: Write) -> StoreFuture<Written> {
        let kind = write.key.pk.split('#').nth(2).unwrap_or_default();
        if ["S", "W", "T", "H", "E"].contains(&kind) {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        self.keys.lock().unwrap().insert(write.key.clone());
        self.memory.write(write)
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    test_support::forward!(memory: read, query, promise);
}

pub(crate) struct Bench {
    pub(crate) sim: Sim,
    pub(crate) store: Shared,
    pub(crate) clock: ManualClock,
    pub(crate) gate: Gate,
    home: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let settings = Settings { webhook_secrets: vec![SECRET.to_owned()], ..Settings::default() };
        let sim = Sim::start(settings).await.unwrap();
        assert!(sim.stand_at(NOW));
        for event in ["api_requests", "jobs"] {
            sim.create_meter(event).unwrap();
        }
        let home = tempfile::tempdir().unwrap();
        let (store, clock) = (Shared::new(), ManualClock::at_unix_ms(START_MS));
        let gate = open(&sim, store.clone(), &clock, &home).await;
        Self { sim, store, clock, gate, home }
    }

    /// Another process on the same table.
    pub(crate) async fn another(&self) -> Gate {
        open(&self.sim, self.store.clone(), &self.clock, &self.home).await
    }

    /// The bench on a table restored from this backup and made fit for use.
    pub(crate) async fn restored(self, copy: Shared) -> Self {
        drop(self.gate);
        let Self { sim, clock, home, .. } = self;
        let made = builder(&sim, copy.clone(), &clock, &home);
        made.restore(tallygate::SinceCopy::Free).await.unwrap();
        let gate = open(&sim, copy.clone(), &clock, &home).await;
        Self { sim, store: copy, clock, gate, home }
    }

    /// Another process, with a clock of its own.
    pub(crate) async fn another_at(&self, clock: &ManualClock) -> Gate {
        open(&self.sim, self.store.clone(), clock, &self.home).await
    }

    /// Another process, which reports by itself or only looks, as the operator's command does.
    pub(crate) async fn another_that(&self, sends_reports: bool) -> Gate {
        let builder = builder(&self.sim, self.store.clone(), &self.clock, &self.home);
        builder.sends_reports(sends_reports).open().await.unwrap()
    }

    /// Another process, which reports only when it is asked, and sends alerts to this destination.
    pub(crate) async fn another_notifying(&self, to: &(impl Notifier + Clone)) -> Gate {
        let builder = builder(&self.sim, self.store.clone(), &self.clock, &self.home);
        builder.sends_reports(false).notifier(to.clone()).open().await.unwrap()
    }

    /// Another process, with `before` replaced by `after` in its plan file.
    pub(crate) async fn another_with(&self, before: &str, after: &str) -> Gate {
        assert!(PLANS.contains(before), "{before}");
        let builder = builder(&self.sim, self.store.clone(), &self.clock, &self.home);
        builder.plans(&PLANS.replace(before, after)).open().await.unwrap()
    }

    /// A process over another store, if it starts.
    pub(crate) async fn try_over(&self, store: impl Store) -> Option<Gate> {
        builder(&self.sim, store, &self.clock, &self.home).open().await.ok()
    }

    /// A process with this key in this mode, if it starts.
    pub(crate) async fn try_key(&self, key: &str, mode: &str) -> Result<Gate, tallygate::Error> {
        let home = tempfile::tempdir().unwrap();
        let service = format!("{}\nmode = \"{mode}\"\n", service(&self.sim, home.path(), key));
        let builder = GateBuilder::from_text(&service).plans(PLANS).store(self.store.clone());
        builder.clock(self.clock.clone()).identify(ByHeader).open().await
    }

    /// A tenant created a day ago, so that its period has minutes for its reports.
    pub(crate) async fn tenant(&self, id: &str) {
        let made = self.gate.directory().tenant(id).anchor(time_at(START_MS - 86_400_000));
        made.note("signed up").save().await.unwrap();
    }

    /// The same with a customer.
    pub(crate) async fn customer(&self, id: &str) -> String {
        self.tenant(id).await;
        self.gate.ensure_customer(id).await.unwrap()
    }

    pub(crate) async fn use_(&self, tenant: &str, meter: &str, units: u64) {
        use_at(&self.gate, tenant, meter, units).await;
    }

    pub(crate) fn pass(&self, seconds: u32) {
        self.sim.advance(seconds);
        self.clock.advance(Duration::from_secs(seconds.into()));
    }

    pub(crate) async fn report(&self) -> tallygate::billing::report::Report {
        self.gate.report_now().await.unwrap()
    }

    /// What Stripe counts of an event.
    pub(crate) fn billed(&self, event: &str) -> i64 {
        let totals = self.sim.totals();
        totals.iter().filter(|total| total.event_name == event).map(|total| total.total).sum()
    }

    /// Sends a webhook as Stripe would; returns the status.
    pub(crate) async fn webhook(&self, event: &Value) -> u16 {
        webhook_at(&self.gate, event, self.sim.now()).await
    }

    /// Every event Stripe has made that this test has not passed on yet, oldest first.
    pub(crate) async fn deliver(&self, seen: &mut usize) -> Vec<String> {
        let list = self.sim.call("GET", "/v1/events?limit=100", "");
        let mut events = list["data"].as_array().unwrap().clone();
        events.reverse();
        let mut kinds = Vec::new();
        for event in events.iter().skip(*seen) {
            assert_eq!(self.webhook(event).await, 200, "{event}");
            kinds.push(event["type"].as_str().unwrap().to_owned());
        }
        *seen = events.len();
        kinds
    }

    /// The plan in force for the tenant's next request.
    pub(crate) async fn plan(&self, tenant: &str) -> String {
        plan_at(&self.gate, tenant).await
    }
}

pub(crate) async fn plan_at(gate: &Gate, tenant: &str) -> String {
    let who = tallygate::testing::identified(gate, tenant).await;
    let reply = gate.usage_reply(&who, None).await;
    let usage: Value = serde_json::from_slice(&reply.body).unwrap();
    usage["plan"]["name"].as_str().or(usage["plan"].as_str()).unwrap().to_owned()
}

pub(crate) async fn use_at(gate: &Gate, tenant: &str, meter: &str, units: u64) {
    let tenant = gate.tenant(tenant).await.unwrap();
    let ask = Ask::new(&tenant, "work").cost(meter, units);
    gate.admit(ask).await.unwrap().settle();
}

/// Grants prepaid units to a tenant on plan `team`.
pub(crate) async fn pack(bench: &Bench, units: u64) {
    let tenant = bench.gate.directory().tenant("acme").plan("team");
    let pack = tallygate::directory::Grant::new("pack", "jobs", units).source("topup");
    tenant.grant(pack).note("t").save().await.unwrap();
}

pub(crate) async fn webhook_at(gate: &Gate, event: &Value, now: i64) -> u16 {
    let body = event.to_string();
    let signed = signature(&[SECRET.to_owned()], now, body.as_bytes());
    gate.stripe_webhook(signed.as_bytes(), body.as_bytes()).await.status
}

/// The id of an object made at Stripe.
pub(crate) fn make(bench: &Bench, path: &str, form: &str) -> String {
    let made = bench.sim.call("POST", path, form);
    made["id"].as_str().unwrap_or_else(|| panic!("{path}: {made}")).to_owned()
}

/// Makes Stripe answer this many meter events so; 0 for all of them.
pub(crate) fn fault(bench: &Bench, times: u32, kind: &Value) {
    let line = json!({ "on": "POST /v1/billing/meter_events", "times": times, "do": kind });
    bench.sim.fault(serde_json::from_value(line).unwrap());
}

async fn open(sim: &Sim, store: impl Store, clock: &ManualClock, home: &tempfile::TempDir) -> Gate {
    builder(sim, store, clock, home).open().await.unwrap()
}

fn builder(
    sim: &Sim,
    store: impl Store,
    clock: &ManualClock,
    home: &tempfile::TempDir,
) -> GateBuilder {
    let service = service(sim, home.path(), KEY);
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(store).clock(clock.clone());
    builder.identify(ByHeader)
}

/// The service file; `[stripe]` is its last table.
fn service(sim: &Sim, home: &Path, key: &str) -> String {
    gates::billed(home, key, SECRET, &sim.url())
}

/// An event about an object, made at this second.
pub(crate) fn event(id: &str, kind: &str, created: i64, object: &Value) -> Value {
    json!({
        "id": id, "object": "event", "type": kind, "created": created, "livemode": false,
        "data": { "object": object },
    })
}

/// A subscription with one item, as events show it.
pub(crate) fn subscription(id: &str, customer: &str, status: &str, price: &str) -> Value {
    subscription_of(id, customer, status, price, 1)
}

pub(crate) fn subscription_of(
    id: &str,
    customer: &str,
    status: &str,
    price: &str,
    quantity: u64,
) -> Value {
    json!({
        "id": id, "object": "subscription", "customer": customer, "status": status,
        "start_date": NOW - 100, "created": NOW - 100, "billing_cycle_anchor": NOW - 100,
        "items": { "object": "list", "data": [{
            "id": format!("si_{id}"), "quantity": quantity, "current_period_start": NOW - 100,
            "price": { "id": format!("price_{price}"), "lookup_key": price },
        }] },
    })
}

//! What [`Gate::explain`] says just before a request, beside what the log of decisions has of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::tests::{Dice, logged};
use crate::decision::Outcome;
use crate::decision_log::DecisionRecord;
use crate::directory::{Grant, PaymentState};
use crate::identity::{Caller, Identify, Identity, RequestView};
use crate::ledger::totals::FRESH_MS;
use crate::testing::{OpenRequest, START_MS};
use crate::{Gate, GateBuilder, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.gifts]
    [meter.jobs]
    parts = 10
    [route.scan]
    match = "POST /scan"
    cost  = { requests = 2, pages = 3 }
    [route.chat]
    match = "POST /chat"
    [route.job]
    match = "POST /job/{id}"
    cost  = { jobs = "1.5" }
    [route.gift]
    match = "POST /gift"
    cost  = { gifts = 1 }
    [route.export]
    match = "POST /export"
    needs = "exports"
    cost  = { pages = 5 }
    [route.write]
    match = "POST /write"
    needs-permission = "items:write"
    [route.tried]
    match   = "POST /tried"
    enforce = "shadow"
    cost    = { pages = 9 }
    [route.look]
    match = "GET /look"
    free  = true
    [plan.free]
    concurrency    = 4
    rate.default   = "30/min burst 8"
    rate.scan      = ["10/min burst 4", "20 pages/min burst 12 per user"]
    quota.requests = ["90/hour per user", "60/hour per key", "300/day"]
    quota.pages    = "70/hour"
    quota.gifts    = "5"
    quota.jobs     = "20/day"
    [plan.pro]
    extends         = "free"
    concurrency     = 8
    quota.pages     = { limit = "40/hour", over = "allow", stop = "60" }
    quota.jobs      = { limit = "9/day", over = "allow" }
    feature.exports = true
    [plan.soft]
    extends     = "free"
    quota.pages = [{ limit = "20/hour", over = "allow", stop = "45" }, "200/day"]
    [plan.trial]
    extends = "free"
    enforce = "shadow"
    [billing]
    past-due = { grace = "1d", then = "free" }
    unpaid   = "payment-required"
    canceled = "free"
"#;

const TENANTS: [(&str, &str); 7] = [
    ("acme", "free"),
    ("globex", "pro"),
    ("initech", "soft"),
    ("umbrella", "trial"),
    ("hooli", "free"),
    ("stark", "pro"),
    ("wayne", "free"),
];

const REQUESTS: [(&str, &str); 10] = [
    ("POST", "/scan"),
    ("POST", "/chat"),
    ("POST", "/chat"),
    ("POST", "/job/7"),
    ("POST", "/gift"),
    ("POST", "/export"),
    ("POST", "/write"),
    ("POST", "/tried"),
    ("GET", "/look"),
    ("GET", "/elsewhere"),
];

/// Callers as a test names them.
struct ByHeader;

impl Identify for ByHeader {
    fn identify(&self, view: &dyn RequestView) -> Identity {
        let text = |name| view.header(name).and_then(|it| std::str::from_utf8(it).ok());
        let Some(tenant) = text("x-tenant") else { return Identity::Absent };
        let caller = Caller::new(tenant);
        let caller = text("x-permission").into_iter().fold(caller, Caller::permission);
        Identity::Tenant(text("x-user").into_iter().fold(caller, Caller::user))
    }
}

/// A request with an empty body.
struct Asked {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    /// What its caller may do.
    held: Vec<String>,
}

impl RequestView for Asked {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(known, _)| *known == name)?;
        Some(value.as_bytes())
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        self.header(name).into_iter().collect()
    }

    fn body_length(&self) -> Option<u64> {
        Some(0)
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }
}

/// A gate with its tenants, and what comes of their requests.
struct Life {
    gate: Gate,
    clock: ManualClock,
    dice: Dice,
    /// Keys of acme and of globex: their text, and whether they have the permission.
    keys: Vec<(String, bool)>,
    open: Vec<OpenRequest>,
    /// What was said of the request at this instant: no two are at one.
    said: BTreeMap<i64, Value>,
}

impl Life {
    async fn begin(file: &std::path::Path, no_scope: &str) -> Self {
        let service = format!(
            "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n\
             [[identify]]\napi-key = \"x-api-key\"\n[identity]\nno-scope = \"{no_scope}\"\n\
             [decisions]\nfile = {file:?}\nadmissions = 7\nmax-bytes = \"1GB\"\n"
        );
        let clock = ManualClock::at_unix_ms(START_MS);
        let builder = GateBuilder::from_text(&service).plans(PLANS).clock(clock.clone());
        let gate = builder.identify(ByHeader).open().await.unwrap();
        let mut keys = Vec::new();
        for (id, plan) in TENANTS {
            let tenant = gate.directory().tenant(id).plan(plan).save().await.unwrap();
            for may in [false, true] {
                let options = crate::directory::KeyOptions::new("k");
                let options = if may { options.permission("items:write") } else { options };
                if ["acme", "globex"].contains(&id) {
                    let key = tenant.new_key(options).await.unwrap();
                    keys.push((key.expose().to_owned(), may));
                }
            }
        }
        let (dice, open, said) = (Dice(11), Vec::new(), BTreeMap::new());
        Self { gate, clock, dice, keys, open, said }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.dice.below(all.len() as u64) as usize]
    }

    fn asked(&mut self) -> Asked {
        let (method, path) = self.one_of(&REQUESTS);
        let (mut headers, mut held) = (Vec::new(), Vec::new());
        if self.dice.below(4) == 0 {
            let (key, may) = self.keys[self.dice.below(self.keys.len() as u64) as usize].clone();
            headers.push(("x-api-key", key));
            held.extend(may.then(|| "items:write".to_owned()));
        } else {
            headers.push(("x-tenant", self.one_of(&TENANTS).0.to_owned()));
            if let Some(user) = self.one_of(&[None, Some("ann"), Some("bob")]) {
                headers.push(("x-user", user.to_owned()));
            }
            if self.dice.below(2) == 0 {
                headers.push(("x-permission", "items:write".to_owned()));
                held.push("items:write".to_owned());
            }
        }
        Asked { method, path, headers, held }
    }

    /// One request, and what is said of it just before.
    async fn decide(&mut self) {
        let asked = self.asked();
        let named: Vec<_> =
            asked.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let who = crate::testing::identified_by(&self.gate, &named).await;
        let said = self.gate.explain(&who, asked.method, asked.path, Some(&asked.held)).await;
        let at_ms = crate::clock::Clock::now(&self.clock).wall_ms;
        let mut said = said.unwrap();
        said["open"] = self.open.len().into();
        assert!(self.said.insert(at_ms, said).is_none());
        match OpenRequest::admit(&self.gate, &asked).await {
            Ok(admitted) => self.open.push(admitted),
            Err(refusal) => drop(refusal.expect("no route is open to all")),
        }
    }

    /// Requests end, time passes, and now and then an operator or Stripe changes a tenant.
    async fn go_on(&mut self, most_open: usize) {
        while self.open.len() > most_open || (self.dice.below(9) > 3 && !self.open.is_empty()) {
            let at = self.dice.below(self.open.len() as u64) as usize;
            let outcome = match self.dice.below(4) {
                0 => Outcome::Failed,
                _ => Outcome::Complete { status: 200 },
            };
            self.open.swap_remove(at).end(outcome);
        }
        let pause_ms = match self.dice.below(200) {
            0 => self.dice.below(1_500_000),
            1..=60 => self.dice.below(900),
            _ => 0,
        };
        self.clock.advance(Duration::from_millis(1 + pause_ms));
        match self.dice.below(100) {
            0 => self.change().await,
            1 => self.gate.flush_now().await.unwrap(),
            _ => {}
        }
    }

    async fn change(&mut self) {
        let id = self.one_of(&["hooli", "stark", "wayne"]);
        let tenant = self.gate.directory().find(id).await.unwrap().unwrap();
        let n = self.dice.below(1_000_000);
        let edit = match (id, self.dice.below(3)) {
            ("hooli", 0) => tenant.edit().suspend(),
            ("hooli", _) => tenant.edit().resume(),
            ("stark", n) => {
                let states = [PaymentState::Unpaid, PaymentState::PastDue, PaymentState::Good];
                tenant.edit().payment(states[n as usize])
            }
            (_, 0) => tenant.edit().grant(Grant::new(format!("g{}", n % 4), "gifts", 2)),
            (_, 1) => tenant.edit().override_("quota.pages = \"30/hour\"", None, "smaller"),
            (_, _) => tenant.edit().end_overrides(),
        };
        edit.note("a change").save().await.unwrap();
    }
}

/// Whether a limit of what was said has less left than is asked of it.
fn is_short(said: &Value, name: &str) -> bool {
    let limits = said["limits"].as_array().unwrap();
    let short = |it: &Value| it["asked"].as_f64() > it["remaining"].as_f64();
    limits.iter().any(|it| it["name"] == *name && short(it))
}

/// Whether more was logged to be used of a limit than was said, and as much was said of it within
/// the second before: a pool of the store is read once a second.
fn is_stale(all: &BTreeMap<i64, Value>, record: &DecisionRecord, name: &str) -> bool {
    let used = |of: &Value| {
        let limits = of["limits"].as_array().unwrap();
        let limit = limits.iter().find(|it| it["name"] == *name && it["kind"] == "quota")?;
        limit["used"].as_f64()
    };
    let said = &all[&record.at_ms];
    let mut before = all.range(record.at_ms - FRESH_MS + 1..record.at_ms);
    let is_more = used(&serde_json::to_value(record).unwrap()) > used(said);
    is_more && before.any(|(_, it)| it["tenant"] == said["tenant"] && used(it) == used(said))
}

/// Holds each record against what was said. Returns how often each verdict and reason came, and how
/// often another limit was named than was said, of several that were short, and a verdict of a pool
/// that had been read before.
fn compared(
    all: &BTreeMap<i64, Value>,
    records: &[DecisionRecord],
) -> (BTreeMap<String, usize>, [usize; 2]) {
    let (mut came, mut others, mut stale) = (BTreeMap::new(), 0, 0);
    for record in records {
        let said = &all[&record.at_ms];
        let line = || format!("said {said}\nlogged {}", serde_json::to_string(record).unwrap());
        if said["verdict"] != *record.verdict {
            let limit = record.limit.as_deref();
            assert!(limit.is_some_and(|it| is_stale(all, record, it)), "{}", line());
            stale += 1;
            continue;
        }
        let of = |text: Option<&str>| Value::from(text);
        assert_eq!(said["plan"], of(record.plan.as_deref()), "{}", line());
        assert_eq!(said["route"], of(record.route.as_deref()), "{}", line());
        let limit = record.limit.as_deref();
        if said["limit"] != of(limit) {
            assert!(limit.is_some_and(|it| is_short(said, it)), "{}", line());
            assert!(is_short(said, said["limit"].as_str().unwrap()), "{}", line());
            others += 1;
        } else if said["reason"] != of(record.reason.as_deref()) {
            // What it lacks is held by open requests, of which it is not said that they may end.
            assert_eq!(limit, Some("gifts/once"), "{}", line());
            assert_eq!(said["reason"], "payment-required", "{}", line());
            assert_eq!(record.reason.as_deref(), Some("quota-exceeded"), "{}", line());
            assert!(said["open"].as_u64() > Some(0), "{}", line());
        }
        let reason = record.reason.as_deref().unwrap_or_default();
        *came.entry(format!("{} {reason}", record.verdict)).or_default() += 1;
    }
    (came, [others, stale])
}

/// Lives for so many requests with at most so many open. Returns what was said, and the log of it.
async fn life(
    n: usize,
    most_open: usize,
    no_scope: &str,
) -> (BTreeMap<i64, Value>, Vec<DecisionRecord>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.ndjson");
    let mut life = Life::begin(&file, no_scope).await;
    for at in 1..=n {
        life.decide().await;
        life.go_on(most_open).await;
        if at % 4_000 == 0 {
            tokio::time::sleep(Duration::from_millis(120)).await; // the queue is written
        }
    }
    life.open.clear();
    life.gate.close().await.unwrap();
    (life.said, logged(&file))
}

#[tokio::test]
async fn ten_thousand_sampled_decisions_are_as_was_said_before() {
    let (said, records) = life(16_000, 12, "tenant").await;
    let (came, [others, stale]) = compared(&said, &records);
    assert!(records.len() >= 10_000, "{} of {}: {came:?}", records.len(), said.len());
    let n = records.len();
    assert!(stale <= n / 1_000 && others <= n / 20, "{stale} stale, {others} other of {n}");
    println!(
        "{} requests, {n} logged, {others} by another limit, {stale} stale: {came:?}",
        said.len()
    );
}

/// A caller without a user or a key, where that is refused.
#[tokio::test]
async fn a_scope_that_the_caller_lacks_is_said() {
    let (said, records) = life(2_000, 12, "refuse").await;
    let (came, _) = compared(&said, &records);
    assert!(came.keys().any(|it| it.ends_with("scope-missing")), "{came:?}");
    let (said, records) = life(2_000, 12, "skip").await;
    compared(&said, &records);
}

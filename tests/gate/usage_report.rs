//! `GET /usage`: unlimited quotas, grants, and the tenant's status, in the words of docs/http.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tallygate::directory::{Grant, PaymentState};
use tallygate::store::{Item, Key, Memory, Page, Query, Store, StoreFuture};
use tallygate::testing;
use tallygate::{Ask, Gate, ManualClock};
use test_support::forward;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [meter.mails]
    [plan.free]
    quota.requests = ["100/day", "5/day per key"]
    quota.jobs     = "unlimited"
    quota.mails    = "10"
    [plan.trial]
    expires = "1d"
    [billing]
    unpaid = "payment-required"
"#;

async fn usage(gate: &Gate) -> Value {
    let who = testing::identified(gate, "acme").await;
    serde_json::from_slice(&gate.usage_reply(&who, None).await.body).unwrap()
}

fn meter<'a>(usage: &'a Value, name: &str) -> &'a Value {
    usage["meters"].as_array().unwrap().iter().find(|meter| meter["name"] == name).unwrap()
}

#[tokio::test]
async fn an_unlimited_quota_is_told_with_nulls() {
    let (gate, _clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = Ask::new(&acme, "job").cost("jobs", 7);
    gate.admit(ask).await.unwrap().settle();
    let usage = usage(&gate).await;
    let period = &usage["period"];
    let told = json!([{
        "id": "jobs/cycle", "scope": "tenant", "limit": null, "used": 7, "remaining": null,
        "starts_at": period["start"], "resets_at": period["end"],
    }]);
    assert_eq!(meter(&usage, "jobs")["limits"], told);
    // A scoped quota is shared by all callers that have no value for the scope.
    let limits = meter(&usage, "requests")["limits"].as_array().unwrap();
    let limits: Vec<_> = limits.iter().map(|limit| (&limit["limit"], &limit["scope"])).collect();
    assert_eq!(limits, [(&json!(100), &json!("tenant")), (&json!(5), &json!("key"))]);
}

#[tokio::test]
async fn a_grant_says_whether_the_plan_gave_it() {
    let (gate, _clock) = testing::gate(PLANS);
    let grant = Grant::new("in_1.0.mails", "mails", 20).source("topup");
    gate.directory().tenant("acme").grant(grant).save().await.unwrap();
    let usage = usage(&gate).await;
    let of = |grant: &Value| [&grant["source"], &grant["id"], &grant["limit"]].map(Value::clone);
    let grants = meter(&usage, "mails")["grants"].as_array().unwrap().iter().map(of);
    let told = [
        [json!("plan"), json!("mails/once"), json!(10)],
        [json!("grant"), json!("in_1.0.mails"), json!(20)],
    ];
    assert_eq!(grants.collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn the_status_says_why_every_call_is_refused() {
    let (gate, clock) = testing::gate(PLANS);
    let acme = gate.directory().tenant("acme").plan("trial").save().await.unwrap();
    let status = async || usage(&gate).await["status"].as_str().unwrap().to_owned();
    let handle = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&handle, "job").cost("jobs", 1)).await.unwrap().settle();
    assert_eq!(status().await, "active");
    clock.advance(std::time::Duration::from_secs(2 * 86_400));
    assert_eq!(status().await, "trial-over");
    let acme =
        acme.edit().default_plan().payment(PaymentState::Unpaid).note("-").save().await.unwrap();
    clock.advance(std::time::Duration::from_secs(31));
    assert_eq!(status().await, "payment-required");
    let acme = acme.edit().payment(PaymentState::PastDue).note("-").save().await.unwrap();
    clock.advance(std::time::Duration::from_secs(31));
    assert_eq!(status().await, "active");
    acme.suspend("abuse").await.unwrap();
    clock.advance(std::time::Duration::from_secs(31));
    assert_eq!(status().await, "suspended");
}

/// A customer that looks at its usage page after signing up has used nothing of its trial.
#[tokio::test]
async fn a_look_at_the_usage_begins_no_trial() {
    let (gate, clock) = testing::gate(PLANS);
    gate.directory().tenant("acme").plan("trial").save().await.unwrap();
    let status = async || usage(&gate).await["status"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(status().await, "active");
        clock.advance(std::time::Duration::from_secs(2 * 86_400));
    }
    let acme = gate.tenant("acme").await.unwrap(); // nor does a worker that makes ready
    clock.advance(std::time::Duration::from_secs(2 * 86_400));
    let work = async || gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await;
    work().await.unwrap().settle();
    clock.advance(std::time::Duration::from_secs(86_399));
    work().await.unwrap().settle();
    assert_eq!(status().await, "active");
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(status().await, "trial-over");
    work().await.unwrap_err();
}

#[tokio::test]
async fn at_midnight_what_was_used_the_day_before_is_still_told() {
    let (gate, clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let use_some = async |units| {
        let ask = Ask::new(&acme, "job").cost("jobs", units);
        gate.admit(ask).await.unwrap().settle();
    };
    use_some(7).await;
    clock.advance(std::time::Duration::from_secs(12 * 3_600));
    assert_eq!(meter(&usage(&gate).await, "jobs")["used"], 7);
    use_some(2).await;
    assert_eq!(meter(&usage(&gate).await, "jobs")["used"], 9);
    let who = testing::identified(&gate, "acme").await;
    let query = "meter=jobs&from=2026-03-17&to=2026-03-19";
    let history: Value =
        serde_json::from_slice(&gate.history_reply(&who, query).await.body).unwrap();
    let days = history["rows"].as_array().unwrap().iter().map(|row| &row["used"]);
    assert_eq!(days.collect::<Vec<_>>(), [7, 2]);
}

#[tokio::test]
async fn the_history_answers_as_many_days_as_it_says_whatever_the_clocks_do() {
    for zone in ["UTC", "Europe/Berlin"] {
        let (gate, _clock) = testing::gate(&format!("timezone = \"{zone}\"\n{PLANS}"));
        let who = testing::identified(&gate, "acme").await;
        let midnight = if zone == "UTC" { "T00:00:00Z" } else { "T00:00:00%2B01:00" };
        // 1,100 days, and one more.
        for (to, status) in [("2026-03-24", 200), ("2026-03-25", 400)] {
            let query = format!("meter=jobs&from=2023-03-20{midnight}&to={to}{midnight}");
            let reply = gate.history_reply(&who, &query).await;
            let said: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(reply.status, status, "{query}: {said}");
            match status {
                200 => assert_eq!(said["rows"].as_array().unwrap().len(), 1_100),
                _ => assert!(said["detail"].as_str().unwrap().contains("1100 rows")),
            }
        }
    }
}

#[tokio::test]
async fn usage_is_read_through_a_kept_handle_as_by_a_caller() {
    let (gate, clock) = testing::gate(PLANS);
    let acme = gate.tenant("acme").await.unwrap();
    let read = async || {
        let report = gate.usage_report(&tallygate::Identified::from(&acme)).await.unwrap();
        let jobs = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap().used;
        (report.plan.to_string(), report.status.to_string(), jobs.whole())
    };
    let job = || Ask::new(&acme, "job").cost("jobs", 7);
    gate.admit(job()).await.unwrap().settle();
    assert_eq!(read().await, ("free".into(), "active".into(), 7));
    assert_eq!(usage(&gate).await["plan"], "free");
    // However long it was kept.
    let tenant = gate.directory().find("acme").await.unwrap().unwrap();
    tenant.edit().plan("trial").note("-").save().await.unwrap();
    clock.advance(std::time::Duration::from_secs(3_600));
    gate.admit(job()).await.unwrap().settle();
    assert_eq!(read().await, ("trial".into(), "active".into(), 14));
}

/// A store that answers no read while it is silent.
struct Silent(Memory, Arc<AtomicBool>);

impl Store for Silent {
    forward!(0: write, promise, close);

    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        match self.1.load(Ordering::Relaxed) {
            true => Box::pin(std::future::pending()),
            false => self.0.read(key),
        }
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        match self.1.load(Ordering::Relaxed) {
            true => Box::pin(std::future::pending()),
            false => self.0.query(query),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_usage_ends_while_the_store_is_silent() {
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"10/day\"\n";
    let silent = Arc::new(AtomicBool::new(false));
    let store = Silent(Memory::new(), silent.clone());
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = testing::builder(plans).store(store).clock(clock.clone()).open().await.unwrap();
    let who = (&gate.tenant("acme").await.unwrap()).into();
    assert_eq!(gate.usage_reply(&who, None).await.status, 200);
    silent.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_secs(60));
    for within in [31, 1] {
        let within = Duration::from_secs(within);
        let reply = tokio::time::timeout(within, gate.usage_reply(&who, None)).await;
        assert_eq!(reply.expect("an answer").status, 503);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    silent.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gate.usage_reply(&who, None).await.status, 200);
}

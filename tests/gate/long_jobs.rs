//! Jobs of ten hours, over the end of a month, with all that runs beside them: what they hold, what
//! they use afterwards, and their place among those in flight.

use std::time::Duration;

use tallygate::store::Memory;
use tallygate::testing::{self, Plans, START_MS};
use tallygate::{Ask, Clock, Gate, Now, Permit, Reason};
use test_support::clocks::Paused;
use test_support::stores::Shared;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.tokens]
    count = "reported"
    [route.convert]
    match = []
    cost  = { requests = 0, pages = 10 }
    [plan.free]
    concurrency  = 1
    quota.tokens = "1000/month"
    quota.pages  = "100/month"
    [plan.pro]
    extends = "free"
    quota.tokens = "5000/month"
"#;

/// Seven in the evening of 31 March, five hours before the month ends.
const EVENING_MS: i64 = 1_774_983_600_000;

/// The paused runtime's time, from that evening on.
struct Evening(Paused);

impl Clock for Evening {
    fn now(&self) -> Now {
        let now = self.0.now();
        Now { wall_ms: now.wall_ms + EVENING_MS - START_MS, ..now }
    }
}

async fn opened(plans: &Plans, store: &Memory, clock: Paused) -> Gate {
    let builder = plans.read_by(testing::builder("")).store(Shared(store.clone()));
    builder.clock(Evening(clock)).open().await.unwrap()
}

async fn hours(n: u64) {
    tokio::time::sleep(Duration::from_secs(n * 3_600)).await;
}

/// Units of a meter used in March, and in April.
async fn by_month(gate: &Gate, tenant: &str, meter: &str) -> (u64, u64) {
    gate.flush_now().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await; // past the age of a cached reading
    let who = testing::identified(gate, tenant).await;
    let query = format!("meter={meter}&from=2026-03-01&to=2026-05-01&granularity=month");
    let reply = gate.history_reply(&who, &query).await;
    let history: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let of = |month: &str| {
        let rows = history["rows"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row["start"].as_str().unwrap().starts_with(month));
        rows.map(|row| row["used"].as_u64().unwrap()).sum()
    };
    (of("2026-03"), of("2026-04"))
}

/// What counts against the quota of the month that runs, and what of that is held.
async fn this_month(gate: &Gate, tenant: &str, meter: &str) -> (u64, u64) {
    let who = testing::identified(gate, tenant).await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|of| &*of.name == meter).unwrap();
    (meter.limits[0].used.whole(), meter.held.whole())
}

/// A job that may use 200 tokens before it asks for more. The host keeps nothing but its permit.
async fn begun(gate: &Gate, tenant: &str, op: &str) -> Permit {
    let tenant = gate.tenant(tenant).await.unwrap();
    gate.admit(Ask::new(&tenant, op).cost("tokens", 200)).await.unwrap()
}

/// Whether a job takes the one place that its tenant has.
async fn is_busy(gate: &Gate, tenant: &str) -> bool {
    let tenant = gate.tenant(tenant).await.unwrap();
    match gate.admit(Ask::new(&tenant, "other")).await {
        Ok(permit) => {
            permit.cancel();
            false
        }
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::Concurrency);
            true
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_uses_what_it_holds_and_then_what_the_month_that_runs_has() {
    let (plans, store) = (Plans::new(PLANS), Memory::new());
    let gate = opened(&plans, &store, Paused::now()).await;
    let mut jobs = Vec::new();
    for op in ["convert", "no-route"] {
        jobs.push((op, begun(&gate, op, op).await));
    }
    for hour in 0..10 {
        for (tenant, permit) in &jobs {
            permit.usage().add("tokens", 30);
            assert!(is_busy(&gate, tenant).await, "{tenant}, hour {hour}: it is in flight");
        }
        hours(1).await;
    }
    for (tenant, permit) in jobs {
        // Tokens of six hours, and 20 of the seventh, were held since March; the rest is April's.
        assert_eq!(this_month(&gate, tenant, "tokens").await, (100, 0), "{tenant}");
        // In April a thousand are included, and what the job takes is held of them.
        let usage = permit.usage();
        usage.take("tokens", 900).await.unwrap();
        assert!(usage.take("tokens", 1).await.is_err(), "{tenant}");
        usage.add("tokens", 400);
        assert_eq!(this_month(&gate, tenant, "tokens").await, (1_000, 500), "{tenant}");

        gate.directory().tenant(tenant).plan("pro").note("paid").save().await.unwrap();
        usage.take("tokens", 4_000).await.unwrap();
        permit.settle();
        assert_eq!(this_month(&gate, tenant, "tokens").await, (500, 0), "the rest goes back");
        assert!(!is_busy(&gate, tenant).await, "{tenant}");
        let pages = if tenant == "convert" { 10 } else { 0 };
        let (march, april) = by_month(&gate, tenant, "pages").await;
        assert_eq!(march + april, pages, "{tenant}: {march} and {april}");
        assert_eq!(by_month(&gate, tenant, "tokens").await, (200, 500), "{tenant}: as held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_says_nothing_for_ten_hours_loses_nothing() {
    let (plans, store, clock) = (Plans::new(PLANS), Memory::new(), Paused::now());
    let gate = opened(&plans, &store, clock).await;
    let mut jobs = Vec::new();
    for (tenant, truth) in [("ann", None), ("bob", Some(150)), ("cid", Some(260))] {
        jobs.push((tenant, begun(&gate, tenant, "convert").await, truth));
    }
    hours(10).await;
    for (tenant, permit, truth) in jobs {
        assert!(is_busy(&gate, tenant).await, "{tenant}: it is in flight");
        match truth {
            None => permit.settle(),
            Some(truth) => permit.settle_with("tokens", truth),
        }
        assert!(!is_busy(&gate, tenant).await, "{tenant}");
        // March's units were held for it; what they do not cover is April's.
        let beyond = truth.unwrap_or(200).saturating_sub(200);
        assert_eq!(this_month(&gate, tenant, "tokens").await, (beyond, 0), "{tenant}");
    }
    gate.close().await.unwrap();
    let again = opened(&plans, &store, clock).await;
    for (tenant, used) in [("ann", 200), ("bob", 150), ("cid", 260)] {
        let (march, april) = by_month(&again, tenant, "tokens").await;
        assert_eq!(march + april, used, "{tenant}: on record");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_under_a_new_plan_file() {
    let (plans, store) = (Plans::new(PLANS), Memory::new());
    let gate = opened(&plans, &store, Paused::now()).await;
    let permit = begun(&gate, "ann", "convert").await;
    permit.usage().take("tokens", 500).await.unwrap();
    permit.usage().add("tokens", 300);
    plans
        .set(&PLANS.replace("[route.convert]", "[route.other]").replace("1000/month", "900/month"));
    gate.reload().await.unwrap();
    assert_eq!(this_month(&gate, "ann", "tokens").await, (500, 200));
    permit.usage().take("tokens", 400).await.unwrap();
    assert!(permit.usage().take("tokens", 1).await.is_err(), "900 a month");
    permit.settle_with("tokens", 850);
    assert_eq!(this_month(&gate, "ann", "tokens").await, (850, 0));
    assert!(!is_busy(&gate, "ann").await);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_suspended_tenant_takes_nothing_more() {
    let (gate, _clock) = testing::gate(PLANS);
    let permit = begun(&gate, "ann", "convert").await;
    let ann = gate.directory().find("ann").await.unwrap().unwrap();
    ann.suspend("does not pay").await.unwrap();
    let refused = permit.usage().take("tokens", 1).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Suspended);
    permit.settle_with("tokens", 250);
    assert_eq!(this_month(&gate, "ann", "tokens").await, (250, 0), "what was used is counted");
}

/// A job that takes a little, its tenant is changed, it takes a little more, and so on; others use
/// what is left. It reports at its end what it took.
#[tokio::test]
async fn a_job_keeps_what_it_holds_over_any_number_of_changes() {
    for (changes, all_taken) in [(7, true), (12, true), (30, true), (80, false)] {
        let plans = "default-plan = \"free\"\n[meter.tokens]\n[meter.pages]\n[plan.free]\n\
                     quota.tokens = \"1000/day\"\nquota.pages = \"9/day\"";
        let (gate, _clock) = testing::gate(plans);
        let acme = gate.tenant("acme").await.unwrap();
        let job = gate.admit(Ask::new(&acme, "job").cost("tokens", 5)).await.unwrap();
        let mut taken = 5;
        for n in 0..changes {
            let grant = tallygate::directory::Grant::new(format!("g{n}"), "pages", 1);
            let edit = gate.directory().tenant("acme").grant(grant);
            edit.save().await.unwrap();
            let edit = gate.directory().tenant("acme").end_grant(format!("g{n}"));
            edit.save().await.unwrap();
            match job.usage().take("tokens", 5).await {
                Ok(()) => taken += 5,
                Err(refusal) => assert_eq!(refusal.reason, Reason::Unavailable),
            }
        }
        assert_eq!(taken == 5 + 5 * changes, all_taken, "{changes} changes: {taken}");
        let mut others = 0;
        while let Ok(permit) = gate.admit(Ask::new(&acme, "other").cost("tokens", 5)).await {
            permit.settle();
            others += 5;
        }
        job.settle_with("tokens", taken);
        assert_eq!(others + taken, 1_000, "{changes} changes");
        let (used, held) = this_month(&gate, "acme", "tokens").await;
        assert_eq!((used, held), (1_000, 0), "{changes} changes");
    }
}

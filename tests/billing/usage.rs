//! Use, and what Stripe counts of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tallygate::Outcome;
use tallygate::store::{Change, Key, Store, Value as Stored, Write};
use tallygate::testing::{OpenRequest, START_MS, time_at};
use test_support::gates;
use test_support::requests::Call;
use tokio::time::Instant;

use crate::bench::{Bench, KEY, SECRET, event, fault, pack, subscription, use_at};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_is_sent_once_and_use_before_the_customer_never() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    bench.use_("acme", "requests", 5).await;
    assert_eq!(bench.report().await.sent, 0);
    let customer = bench.gate.ensure_customer("acme").await.unwrap();
    assert_eq!(bench.gate.ensure_customer("acme").await.unwrap(), customer, "found, not made");
    assert_eq!(bench.report().await.sent, 0, "what was used before is nobody's bill");
    bench.use_("acme", "requests", 7).await;
    let report = bench.report().await;
    assert_eq!((report.sent, report.units, bench.billed("api_requests")), (1, 7, 7));
    bench.pass(60);
    assert_eq!(bench.report().await.sent, 0);
    bench.use_("acme", "requests", 3).await;
    let other = bench.another().await;
    use_at(&other, "acme", "requests", 2).await;
    other.flush_now().await.unwrap();
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 12, "over all processes");
    other.report_now().await.unwrap();
    assert_eq!(bench.billed("api_requests"), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_of_many_processes_are_one_event_a_tenant_meter_and_report() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    for tenant in ["acme", "globex"] {
        bench.customer(tenant).await;
        bench.gate.directory().tenant(tenant).plan("payg").note("t").save().await.unwrap();
    }
    for report in 1..=3_i64 {
        for n in 0..40 {
            let gate = if n % 2 == 0 { &bench.gate } else { &other };
            for tenant in ["acme", "globex"] {
                use_at(gate, tenant, "requests", 1).await;
                use_at(gate, tenant, "jobs", 1).await;
            }
        }
        other.flush_now().await.unwrap();
        assert_eq!(bench.report().await.sent, 4, "two tenants, two meters");
        let counted = (bench.billed("api_requests"), bench.billed("jobs"));
        assert_eq!(counted, (report * 80, report * 80));
        bench.pass(60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overage_is_what_passes_the_included_units_and_stays_owed_after_a_change_of_plan() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let mut bought = subscription("sub_1", &customer, "active", "team_monthly");
    bought["billing_cycle_anchor"] = json!(bench.sim.now() - 86_400); // a cycle of its own
    let made = event("evt_0", "customer.subscription.created", bench.sim.now(), &bought);
    assert_eq!(bench.webhook(&made).await, 200);
    let other = bench.another().await;
    use_at(&other, "acme", "jobs", 90).await;
    other.flush_now().await.unwrap();
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 0, "100 are included");
    use_at(&other, "acme", "jobs", 45).await;
    other.flush_now().await.unwrap();
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 35);
    let gone = subscription("sub_1", &customer, "canceled", "team_monthly");
    let gone = event("evt_1", "customer.subscription.deleted", bench.sim.now(), &gone);
    assert_eq!(bench.webhook(&gone).await, 200);
    assert_eq!(bench.plan("acme").await, "free", "as `canceled` says");
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 35);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_a_stream_has_taken_beyond_a_quota_what_it_used_is_owed() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    let reported = "[meter.jobs]\n    count = \"reported\"\n    hold  = \"10\"";
    let gate = bench.another_with("[meter.jobs]", reported).await;
    let stream = OpenRequest::admit(&gate, &Call::new("POST", "/work", [("x-tenant", "acme")]))
        .await
        .unwrap();
    // The hold and two draws: 30 in all.
    for _ in 0..3 {
        stream.usage().take("jobs", 10).await.unwrap();
    }
    stream.usage().add("jobs", 15);
    stream.end(Outcome::Complete { status: 200 });
    gate.flush_now().await.unwrap();
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_reporters_and_lost_answers_bill_once() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let other = bench.another().await;
    for round in 0..4 {
        let lose = json!({ "on": "POST /v1/billing/meter_events", "times": 2, "do": "lose" });
        bench.sim.fault(serde_json::from_value(lose).unwrap());
        use_at(&other, "acme", "requests", 10).await;
        bench.use_("acme", "requests", 1).await;
        other.flush_now().await.unwrap();
        let (one, two) = tokio::join!(bench.gate.report_now(), other.report_now());
        drop((one, two));
        bench.pass(600 + round);
    }
    bench.sim.heal();
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 44);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_sends_what_is_owed() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.use_("acme", "requests", 9).await;
    bench.gate.close().await.unwrap();
    assert_eq!(bench.billed("api_requests"), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_beside_a_stripe_that_hangs_ends_in_time_and_loses_nothing() {
    for (on, applied) in [
        ("POST /v1/billing/meter_events", false),
        ("POST /v1/billing/meter_events", true),
        ("GET", false),
    ] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        bench.use_("acme", "requests", 9).await;
        let hang = json!({ "on": on, "times": 0, "do": { "hang": { "applied": applied } } });
        bench.sim.fault(serde_json::from_value(hang).unwrap());
        let begun = Instant::now();
        let within = Duration::from_secs(2);
        bench.gate.close_within(within).await.unwrap();
        assert!(begun.elapsed() < within + Duration::from_secs(1), "{:?}", begun.elapsed());
        bench.sim.heal();
        // Another process continues with it, and knows what may have been sent.
        bench.pass(60);
        let other = bench.another().await;
        other.report_now().await.unwrap();
        assert_eq!(bench.billed("api_requests"), 9, "{on}, applied: {applied}");
        assert!(other.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_period_leaves_is_sent_soon_after_its_end() {
    let bench = Bench::new().await;
    // This tenant's period ends in ten minutes, the other's in a month.
    let year_ms = 365 * 86_400_000;
    bench.tenant("globex").await;
    let acme = bench.gate.directory().tenant("acme").anchor(time_at(START_MS + 600_000 - year_ms));
    acme.note("signed up").save().await.unwrap();
    for tenant in ["acme", "globex"] {
        bench.gate.ensure_customer(tenant).await.unwrap();
        bench.use_(tenant, "requests", 5).await;
    }
    // Seconds on the runtime's clock, in which the task wakes, pass by themselves.
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(bench.billed("api_requests"), 10, "the first report");
    bench.pass(540);
    for tenant in ["acme", "globex"] {
        bench.use_(tenant, "requests", 2).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.billed("api_requests"), 10, "nothing is near");
    bench.pass(60 + 61);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.billed("api_requests"), 12, "what has ended, and nothing else");
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(bench.billed("api_requests"), 14, "the next report");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_paid_for_in_advance_is_not_overage() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    pack(&bench, 50).await;
    let other = bench.another().await;
    for _ in 0..16 {
        use_at(&other, "acme", "jobs", 10).await;
    }
    other.flush_now().await.unwrap();
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 10, "100 of the plan, 50 of the pack, 10 beyond");
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

/// Units that Stripe counts beyond this quota, used in these amounts on days after the first.
/// `GET /usage` reports the same as over.
async fn overage_of(quota: &str, uses: &[(u32, u64)]) -> i64 {
    let bench = Bench::new().await;
    let team = r#"{ limit = "100/cycle", over = "bill", stop = "1k" }"#;
    let gate = bench.another_with(team, quota).await;
    bench.customer("acme").await;
    let term = "term = { from = 2025-04-01, every = \"1y\" }";
    let tenant = bench.gate.directory().tenant("acme").plan("team");
    tenant.override_(term, None, "its contract").note("t").save().await.unwrap();
    let (mut day, mut shown) = (0, BTreeMap::new());
    for (at, units) in uses {
        bench.pass((at - day) * 86_400);
        day = *at;
        use_patiently(&bench, &gate, *units).await;
        gate.flush_now().await.unwrap();
        gate.report_now().await.unwrap();
        let (period, over) = over_shown(&gate, "acme").await;
        shown.insert(period, over);
    }
    bench.pass(3_600);
    gate.report_now().await.unwrap();
    assert!(gate.audit().await.unwrap().is_clean(), "{quota}");
    let billed = bench.billed("jobs");
    assert_eq!(shown.into_values().sum::<i64>(), billed, "shown, then billed: {quota}");
    billed
}

/// Uses units of `acme`, like a client that retries after a 503.
async fn use_patiently(bench: &Bench, gate: &tallygate::Gate, units: u64) {
    let tenant = gate.tenant("acme").await.unwrap();
    for _ in 0..20 {
        let ask = tallygate::Ask::new(&tenant, "work").cost("jobs", units);
        match gate.admit(ask).await {
            Ok(permit) => return permit.settle(),
            Err(refusal) => assert_eq!(refusal.reason, tallygate::Reason::Unavailable),
        }
        bench.pass(1);
    }
    panic!("units never came");
}

/// The use beyond included units in `GET /usage`, and its period.
async fn over_shown(gate: &tallygate::Gate, tenant: &str) -> (String, i64) {
    let who = tallygate::testing::identified(gate, tenant).await;
    let reply = gate.usage_reply(&who, None).await;
    let usage: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let meters = usage["meters"].as_array().unwrap();
    let jobs = meters.iter().find(|meter| meter["name"] == "jobs").unwrap();
    let begins = usage["period"]["start"].as_str().unwrap().to_owned();
    (begins, jobs["over"].as_i64().unwrap())
}

/// It is the 17th of March; the billing period began on the 16th.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overage_is_owed_whatever_window_the_quota_has() {
    for (limit, uses, owed) in [
        ("100/month", &[(0, 200), (16, 200)][..], 200),
        ("100/month", &[(0, 200), (31, 100)], 100),
        ("100/year", &[(0, 100), (31, 100)], 100),
        ("100/hour", &[(0, 90), (1, 120)], 20),
        ("10/day", &[(0, 20), (1, 20), (31, 20)], 30),
        ("100/week", &[(0, 60), (1, 60), (20, 160)], 80),
        ("100/cycle", &[(0, 150), (16, 50), (31, 110)], 110),
        ("0/cycle", &[(0, 5), (31, 6)], 11),
        // A new term begins on the 1st of April, within the billing period.
        ("100/term", &[(0, 120), (10, 5), (20, 110), (31, 7)], 42),
    ] {
        let quota = format!("{{ limit = \"{limit}\", over = \"bill\" }}");
        assert_eq!(overage_of(&quota, uses).await, owed, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_beyond_two_quotas_is_owed_once() {
    let quotas = r#"[{ limit = "10/day", over = "bill" }, { limit = "100/month", over = "bill" }]"#;
    assert_eq!(overage_of(quotas, &[(0, 60), (1, 60), (2, 10)]).await, 50 + 50 + 10);
    let denies = r#"[{ limit = "1k/day" }, { limit = "100/month", over = "bill" }]"#;
    assert_eq!(overage_of(denies, &[(0, 130), (1, 5)]).await, 35);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overage_outlives_the_plan_that_billed_it_and_begins_with_none() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let plan = async |plan: &str| {
        let tenant = bench.gate.directory().tenant("acme").plan(plan);
        tenant.note("t").save().await.unwrap();
    };
    plan("team").await;
    bench.use_("acme", "jobs", 130).await;
    plan("free").await;
    // No report has seen it on the plan that bills.
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 30);
    plan("payg").await;
    bench.use_("acme", "jobs", 7).await;
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 37);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_a_damaged_record_keeps_no_other_from_being_billed() {
    let bench = Bench::new().await;
    for tenant in ["acme", "globex"] {
        bench.customer(tenant).await;
        bench.use_(tenant, "requests", 10).await;
    }
    bench.gate.flush_now().await.unwrap();
    let globex = bench.gate.directory().find("globex").await.unwrap().unwrap();
    let key = Key { pk: format!("1#default#T#{}", globex.record().surrogate), sk: "-".into() };
    assert!(bench.store.read(key.clone()).await.unwrap().is_some());
    let damage = vec![Change::Set("record".into(), Stored::Bytes(b"{".to_vec()))];
    bench.store.write(Write { key, when: vec![], change: damage }).await.unwrap();
    let report = bench.another().await.report_now().await.unwrap();
    assert_eq!(bench.billed("api_requests"), 10, "{report:?}");
    let failed: Vec<_> = report.failed.iter().map(|(item, _)| item.tenant).collect();
    assert_eq!(failed, [globex.record().surrogate]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_less_than_a_unit_is_sent_once_the_plan_file_has_a_smaller_unit() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let home = tempfile::tempdir().unwrap();
    let path = |file: &str| home.path().join(file).display().to_string();
    let plans = |unit: &str| {
        let stripe = format!("{{ event = \"api_requests\", send = \"all\"{unit} }}");
        let text = format!(
            "default-plan = \"free\"\n[meter.requests]\nstripe = {stripe}\n\
             [plan.free]\nquota.requests = \"1M/cycle\"\n"
        );
        std::fs::write(path("plans.new"), text).unwrap();
        std::fs::rename(path("plans.new"), path("plans.toml")).unwrap();
    };
    plans(", unit = \"k\"");
    let service = gates::billed(home.path(), KEY, SECRET, &bench.sim.url());
    let builder = tallygate::GateBuilder::from_text(&service).plans_file(path("plans.toml"));
    let builder = builder.store(bench.store.clone()).clock(bench.clock.clone());
    let gate = builder.open().await.unwrap();
    use_at(&gate, "acme", "requests", 1_500).await;
    gate.report_now().await.unwrap();
    assert_eq!(bench.billed("api_requests"), 1, "a thousand");
    plans("");
    assert!(gate.reload().await.unwrap());
    for _ in 0..3 {
        bench.pass(3_600);
        gate.report_now().await.unwrap();
    }
    let audit = gate.audit().await.unwrap();
    let gaps: Vec<_> = audit.gaps().map(|(_, gap)| gap.clone()).collect();
    assert_eq!(bench.billed("api_requests"), 1 + 500, "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_refused_after_a_lost_answer_is_billed_once() {
    for at_once in [true, false] {
        let bench = Bench::new().await;
        bench.customer("acme").await;
        bench.use_("acme", "requests", 10).await;
        if at_once {
            fault(&bench, 1, &json!("lose")); // it counts; and the client repeats it
        } else {
            let lost = json!({ "code": 503, "applied": true, "should_retry": false });
            fault(&bench, 1, &json!({ "status": lost }));
            assert_eq!(bench.report().await.open, 1);
            bench.pass(900);
        }
        fault(&bench, 1, &json!({ "status": { "code": 400, "should_retry": false } }));
        let stopped = bench.report().await.stopped;
        for item in &stopped {
            assert!(bench.gate.decide_stopped(item, false).await.unwrap());
        }
        bench.pass(900);
        bench.report().await;
        bench.pass(32 * 3_600);
        bench.report().await;
        assert_eq!(bench.billed("api_requests"), 10, "stopped: {}", stopped.len());
    }
}

//! The audit: clean if everything is consistent, and naming each planted gap.

use serde_json::json;
use tallygate::billing::audit::{Audit, Gap, Line};
use tallygate::store::{Change, Key, Query, Store, Value, When, Write};
use tallygate::{Amount, Trouble};

use crate::bench::{Bench, NOW, fault, use_at};

/// Every gap, with the meter it is in.
fn named(audit: &Audit) -> Vec<(String, Gap)> {
    audit.gaps().map(|(line, gap)| (line.meter.to_string(), gap.clone())).collect()
}

async fn audited(bench: &Bench) -> Audit {
    bench.gate.audit().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_is_owed_sent_and_counted() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.customer("globex").await;
    bench.gate.directory().tenant("acme").plan("team").note("t").save().await.unwrap();
    let other = bench.another().await;
    for (tenant, meter, units) in
        [("acme", "requests", 40), ("acme", "jobs", 130), ("globex", "requests", 3)]
    {
        use_at(&other, tenant, meter, units).await;
    }
    other.flush_now().await.unwrap();
    bench.report().await;
    let audit = audited(&bench).await;
    assert_eq!(named(&audit), []);
    assert!(audit.is_clean(), "{audit:#?}");
    let line = |meter: &str, account: &str| {
        let mut lines = audit.lines.iter();
        let line = lines.find(|l| &*l.meter == meter && l.account.as_deref() == Some(account));
        line.unwrap().clone()
    };
    let jobs = line("jobs", &customer);
    assert!(jobs.recorded == 130 && jobs.owed == 30 && jobs.frozen == 30 && jobs.sent == 30);
    let requests = line("requests", &customer);
    assert!(requests.recorded == 40 && requests.owed == 40 && requests.sent == 40);
    let total =
        |event: &str| audit.totals.iter().find(|t| t.event == event && t.customer == customer);
    assert_eq!(total("jobs").unwrap().counted, 30);
    // Unused units held by a lease bound what may have been served unrecorded.
    let pool = audit.pools.iter().find(|p| &*p.limit == "requests/cycle").unwrap();
    assert!(pool.balanced);
    assert_eq!(pool.taken, pool.recorded.whole() + pool.unrecorded.whole());
    // Once closed, the lease is given back: served equals recorded.
    other.close().await.unwrap();
    let audit = audited(&bench).await;
    assert!(audit.is_clean());
    for pool in &audit.pools {
        assert_eq!((pool.taken, pool.unrecorded), (pool.recorded, Amount::units(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_without_a_customer_is_named_and_what_waits_passes() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    bench.use_("acme", "requests", 5).await;
    bench.use_("acme", "credits", 0).await;
    let no_account = ("requests".to_owned(), Gap::NoAccount { amount: Amount::units(5) });
    let audit = audited(&bench).await;
    assert_eq!(named(&audit), std::slice::from_ref(&no_account));
    assert!(!audit.is_clean());
    bench.gate.ensure_customer("acme").await.unwrap();
    bench.use_("acme", "requests", 7).await;
    let waiting = ("requests".to_owned(), Gap::Waiting { units: 7 });
    assert_eq!(named(&audited(&bench).await), [no_account.clone(), waiting]);
    bench.report().await;
    assert_eq!(named(&audited(&bench).await), [no_account]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_without_an_answer_refused_and_thrown_away_are_named() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let fault = |what: serde_json::Value| {
        let on = json!({ "on": "POST /v1/billing/meter_events", "times": 4, "do": what });
        bench.sim.fault(serde_json::from_value(on).unwrap());
    };
    fault(json!("cut"));
    bench.use_("acme", "requests", 5).await;
    bench.report().await;
    bench.sim.heal();
    let audit = audited(&bench).await;
    assert_eq!(named(&audit), [("requests".to_owned(), Gap::Open { k: 1, units: 5 })]);
    assert!(audit.is_clean(), "it finds out by itself");
    bench.pass(60);
    bench.report().await;
    assert_eq!(named(&audited(&bench).await), []);

    fault(json!({ "reject": { "code": "meter_event_customer_not_found" } }));
    bench.use_("acme", "requests", 2).await;
    bench.pass(60);
    bench.report().await;
    bench.sim.heal();
    let counted = ("requests".to_owned(), Gap::Counted { sent: 7, counted: 5 });
    assert_eq!(named(&audited(&bench).await), std::slice::from_ref(&counted));
    bench.pass(26 * 3_600);
    bench.report().await;
    let doubtful = ("requests".to_owned(), Gap::Doubtful { k: 2, units: 2, sum: 0 });
    assert_eq!(named(&audited(&bench).await), [doubtful, counted]);

    fault(json!({ "status": { "code": 400 } }));
    bench.use_("acme", "requests", 1).await;
    bench.report().await;
    bench.sim.heal();
    let audit = audited(&bench).await;
    let stopped = |gap: &Gap| matches!(gap, Gap::Stopped { k: 3, units: 1, .. });
    assert!(audit.gaps().any(|(_, gap)| stopped(gap)), "{audit:#?}");
    let report = bench.report().await;
    let waits = report.stopped;
    let items = waits.len() + report.doubtful.len();
    assert_eq!(bench.gate.health().troubles, [Trouble::BillingWaits { items }]);
    assert!(bench.gate.decide_stopped(&waits[0], false).await.unwrap(), "owed, and sent anew");
    assert!(!bench.gate.decide_stopped(&waits[0], false).await.unwrap(), "decided once");
    bench.pass(60);
    assert_eq!(bench.report().await.stopped, []);
    let items = items - waits.len();
    assert_eq!(bench.gate.health().troubles, [Trouble::BillingWaits { items }]);
    let audit = audited(&bench).await;
    assert!(!audit.gaps().any(|(_, gap)| matches!(gap, Gap::Stopped { .. })), "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_has_sent_is_named() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.use_("acme", "requests", 5).await;
    bench.report().await;
    let form = format!(
        "event_name=api_requests&identifier=foreign&payload[stripe_customer_id]={customer}\
         &payload[value]=3&timestamp={NOW}"
    );
    bench.sim.call("POST", "/v1/billing/meter_events", &form);
    let counted = Gap::Counted { sent: 5, counted: 8 };
    let audit = audited(&bench).await;
    assert_eq!(named(&audit), [("requests".to_owned(), counted)]);
    assert!(!audit.is_clean());
}

/// The keys of one partition.
async fn keys(bench: &Bench, pk: &str) -> Vec<Key> {
    let query = Query { pk: pk.to_owned(), from: String::new(), until: None, limit: 100 };
    let page = bench.store.query(query).await.unwrap();
    page.items.into_iter().map(|(sk, _)| Key { pk: pk.to_owned(), sk }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_a_log_and_a_pool_that_does_not_balance_are_named() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    let other = bench.another().await;
    use_at(&other, "acme", "requests", 5).await;
    other.flush_now().await.unwrap();
    other.close().await.unwrap();
    assert!(audited(&bench).await.broken_logs.is_empty());

    // A slot beyond the end of a writer's log, as a restore of half a table would leave.
    let mut holed = 0;
    for writer in keys(&bench, "1#default#R#202603").await {
        let (_, writer) = writer.sk.split_once('#').unwrap();
        let log = keys(&bench, &format!("1#default#L#{writer}")).await;
        let Some(last) = log.last() else { continue };
        let item = bench.store.read(last.clone()).await.unwrap().unwrap();
        let n: u64 = last.sk.parse().unwrap();
        let key = Key { pk: last.pk.clone(), sk: format!("{:020}", n + 2) };
        let change = item.0.into_iter().map(|(name, value)| Change::Set(name, value)).collect();
        bench.store.write(Write { key, when: vec![When::Absent], change }).await.unwrap();
        holed += 1;
    }
    assert!(holed > 0);
    let audit = audited(&bench).await;
    assert_eq!(audit.broken_logs.len(), holed);
    assert!(audit.broken_logs[0].contains("of a usage log is missing"), "{audit:#?}");
    assert!(!audit.is_clean());
    let line = audit.lines.iter().find(|line| &*line.meter == "requests").unwrap();
    assert_eq!(line.recorded, 5, "what stands before the hole counts");
    assert!(audit.pools.iter().all(|pool| pool.balanced));

    let pool = &audit.pools[0];
    let pk = format!(
        "1#default#Q#{}#{}#{:032x}#{}",
        pool.tenant,
        pool.limit,
        0,
        tallygate::testing::unix_ms(pool.start())
    );
    let key = Key { pk, sk: "-".to_owned() };
    let spent = Change::Set("spent".into(), Value::Int(1_000));
    bench.store.write(Write { key, when: vec![], change: vec![spent] }).await.unwrap();
    let audit = audited(&bench).await;
    assert!(audit.pools.iter().any(|pool| !pool.balanced), "{:#?}", audit.pools);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_about_a_stopped_entry_decides_no_later_one() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.use_("acme", "requests", 10).await;
    fault(&bench, 2, &json!({ "status": { "code": 400, "should_retry": false } }));
    let read = bench.report().await.stopped.remove(0);
    // The first operator: it is owed. It is sent with what was used since, and refused again.
    assert!(bench.gate.decide_stopped(&read, false).await.unwrap());
    bench.use_("acme", "requests", 500).await;
    bench.pass(60);
    assert_eq!(bench.report().await.stopped.len(), 1);
    // The second, of the same report: those 10 are to be forgiven.
    let decided = bench.gate.decide_stopped(&read, true).await.unwrap();
    bench.pass(60);
    bench.report().await;
    assert!(!decided, "another was faster; billed {} of 510", bench.billed("api_requests"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_an_operator_has_forgiven_is_named_no_more() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    bench.use_("acme", "requests", 10).await;
    fault(&bench, 1, &json!({ "status": { "code": 400, "should_retry": false } }));
    let stopped = bench.report().await.stopped;
    assert!(bench.gate.decide_stopped(&stopped[0], true).await.unwrap());
    for _ in 0..3 {
        bench.pass(25 * 3_600);
        let report = bench.report().await;
        assert_eq!(report.doubtful, []);
    }
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_record_is_damaged_is_named_and_the_others_are_audited() {
    let bench = Bench::new().await;
    let mut surrogates = Vec::new();
    for tenant in ["acme", "globex", "initech", "umbrella"] {
        bench.customer(tenant).await;
        bench.use_(tenant, "requests", 10).await;
        let found = bench.gate.directory().find(tenant).await.unwrap().unwrap();
        surrogates.push(found.record().surrogate);
    }
    bench.report().await;
    assert!(audited(&bench).await.is_clean());
    // The record of one, the outbox of another and a pool of the third.
    let of = |n: usize, kind: &str| {
        let is = |key: &&Key| {
            let pk = &key.pk;
            pk.contains(&format!("#{kind}#")) && pk.contains(&surrogates[n].to_string())
        };
        bench.store.keys().iter().find(is).unwrap().clone()
    };
    for (key, name) in [(of(1, "T"), "record"), (of(2, "B"), "body"), (of(3, "Q"), "free")] {
        let damage = vec![Change::Set(name.into(), Value::Bytes(b"{".to_vec()))];
        bench.store.write(Write { key, when: vec![], change: damage }).await.unwrap();
    }
    let audit = bench.another().await.audit().await.unwrap();
    let mut failed: Vec<_> = audit.failed.iter().map(|(tenant, _)| *tenant).collect();
    let mut damaged = surrogates[1..].to_vec();
    failed.sort();
    damaged.sort();
    assert_eq!(failed, damaged);
    assert!(!audit.is_clean());
    let sent = |line: &&Line| line.tenant == surrogates[0];
    assert_eq!(audit.lines.iter().find(sent).unwrap().sent, 10);
    assert!(audit.lines.iter().all(|line| line.gaps.is_empty()), "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_renamed_within_the_period_leaves_the_audit_clean() {
    let bench = Bench::new().await;
    bench.sim.create_meter("api_v2").unwrap();
    let customer = bench.customer("acme").await;
    bench.use_("acme", "requests", 100).await;
    bench.report().await;
    let gate = bench.another_with("event = \"api_requests\"", "event = \"api_v2\"").await;
    for pass_s in [60, 26 * 3_600, 26 * 3_600] {
        use_at(&gate, "acme", "requests", 10).await;
        bench.pass(pass_s);
        gate.report_now().await.unwrap();
        let audit = gate.audit().await.unwrap();
        assert!(audit.is_clean(), "{:?}", named(&audit));
    }
    let outside = format!(
        "event_name=api_requests&identifier=foreign&payload[stripe_customer_id]={customer}\
         &payload[value]=3&timestamp={NOW}"
    );
    bench.sim.call("POST", "/v1/billing/meter_events", &outside);
    let audit = gate.audit().await.unwrap();
    let counted = Gap::Counted { sent: 100, counted: 103 };
    assert_eq!(named(&audit), [("requests".to_owned(), counted)], "under the former name too");
}

//! Changes that meet: late webhooks, moved customers, ended subscriptions, restored tables.

use std::time::Duration;

use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::billing::SentSinceCopy;
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::testing::{time_at, unix_ms};

use crate::bench::{
    Bench, KEY, NOW, event, make, subscription, subscription_of, use_at, webhook_at,
};
use crate::periods::hurry;

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";
const DAY: i64 = 86_400;
const HOUR: u32 = 3_600;

/// What Stripe counts of requests between two instants, as far as whole minutes tell.
pub(crate) fn counted(bench: &Bench, customer: &str, from_s: i64, until_s: i64) -> i64 {
    let meters = bench.sim.call("GET", "/v1/billing/meters", "");
    let mut meters = meters["data"].as_array().unwrap().iter();
    let meter = meters.find(|meter| meter["event_name"] == "api_requests").unwrap();
    let meter = meter["id"].as_str().unwrap();
    let (from_s, until_s) = (from_s - from_s.rem_euclid(60), until_s - until_s.rem_euclid(60));
    let of = format!("customer={customer}&start_time={from_s}&end_time={until_s}");
    let path = format!("/v1/billing/meters/{meter}/event_summaries?{of}");
    let sums = bench.sim.call("GET", &path, "");
    let sums = sums["data"].as_array().unwrap_or_else(|| panic!("{sums}")).clone();
    sums.iter().map(|sum| sum["aggregated_value"].as_f64().unwrap() as i64).sum()
}

/// A subscription to plan `team`, begun and anchored at this second.
fn team(id: &str, customer: &str, status: &str, at_s: i64) -> Value {
    let mut made = subscription(id, customer, status, "team_monthly");
    for field in ["start_date", "created", "billing_cycle_anchor"] {
        made[field] = json!(at_s);
    }
    made
}

/// The event of its begin.
pub(crate) fn begun(id: &str, customer: &str, at_s: i64) -> Value {
    event(&format!("evt_{id}_begun"), CREATED, at_s, &team(id, customer, "active", at_s))
}

/// The event of its end.
pub(crate) fn ended(id: &str, customer: &str, from_s: i64, at_s: i64) -> Value {
    let mut made = team(id, customer, "canceled", from_s);
    made["ended_at"] = json!(at_s);
    event(&format!("evt_{id}_ended"), DELETED, at_s, &made)
}

async fn tell(bench: &Bench, event: &Value) {
    assert_eq!(bench.webhook(event).await, 200);
}

async fn used(gate: &Gate, units: u64) {
    use_at(gate, "acme", "requests", units).await;
    gate.flush_now().await.unwrap();
}

/// Enough reports for all that is owed; one sends two entries of an item at most.
async fn report(bench: &Bench, gate: &Gate) {
    for _ in 0..3 {
        let report = gate.report_now().await.unwrap();
        assert!(report.too_old.is_empty() && report.failed.is_empty(), "{report:?}");
        bench.pass(60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_during_and_after_a_subscription_is_dated_so_though_both_its_webhooks_are_late() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.pass(HOUR);
    used(&bench.gate, 1).await;
    bench.pass(300);
    let begun_s = bench.sim.now();
    bench.pass(300);
    used(&bench.gate, 20).await;
    bench.pass(300);
    let ended_s = bench.sim.now();
    bench.pass(300);
    used(&bench.gate, 300).await;
    bench.pass(300);
    tell(&bench, &begun("sub_1", &customer, begun_s)).await;
    tell(&bench, &ended("sub_1", &customer, begun_s, ended_s)).await;
    used(&bench.gate, 400).await;
    bench.pass(60);
    report(&bench, &bench.gate).await;
    let of = |from_s, until_s| counted(&bench, &customer, from_s, until_s);
    let is = [of(NOW - DAY, begun_s), of(begun_s, ended_s), of(ended_s, ended_s + DAY)];
    assert_eq!(is, [1, 20, 700]);
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_a_subscription_that_follows_another_is_dated_into_it_though_both_are_late() {
    // Between two full minutes there is a time to date usage into, or there is none.
    for (gap, too_old) in [(290, "carry"), (30, "carry"), (290, "name"), (30, "name")] {
        let bench = Bench::new().await;
        let mode = format!("test\"\ntoo-old = \"{too_old}");
        let gate = bench.try_key(KEY, &mode).await.unwrap();
        let customer = bench.customer("acme").await;
        let first_s = bench.sim.now();
        tell(&bench, &begun("sub_1", &customer, first_s)).await;
        bench.pass(HOUR);
        used(&gate, 1).await;
        bench.pass(310);
        let ended_s = bench.sim.now();
        bench.pass(gap);
        let begun_s = bench.sim.now();
        bench.pass(600);
        used(&gate, 20).await;
        bench.pass(600);
        tell(&bench, &ended("sub_1", &customer, first_s, ended_s)).await;
        tell(&bench, &begun("sub_2", &customer, begun_s)).await;
        bench.pass(60);
        used(&gate, 300).await;
        bench.pass(60);
        report(&bench, &gate).await;
        let of = |from_s, until_s| counted(&bench, &customer, from_s, until_s);
        let is = [of(first_s, ended_s), of(ended_s, begun_s + 59), of(begun_s + 59, NOW + DAY)];
        assert_eq!(is, [1, 0, 320], "{gap} s between them, {too_old}");
        assert!(gate.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_before_a_subscriptions_end_is_dated_before_it_though_its_tenant_has_moved_since() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    let begun_s = bench.sim.now();
    tell(&bench, &begun("sub_1", &first, begun_s)).await;
    bench.pass(HOUR);
    used(&bench.gate, 10).await;
    bench.pass(300);
    let ended_s = bench.sim.now();
    bench.pass(300);
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    bench.pass(120);
    tell(&bench, &ended("sub_1", &first, begun_s, ended_s)).await;
    used(&bench.gate, 5).await;
    bench.pass(60);
    report(&bench, &bench.gate).await;
    let of = |customer: &str, from_s, until_s| counted(&bench, customer, from_s, until_s);
    assert_eq!([of(&first, begun_s, ended_s), of(&first, ended_s, NOW + DAY)], [10, 0]);
    assert_eq!(of(&second, NOW, NOW + DAY), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_before_a_subscription_stays_out_of_it_though_its_tenant_has_moved_since() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    bench.pass(HOUR);
    used(&bench.gate, 1).await;
    bench.pass(300);
    let begun_s = bench.sim.now();
    bench.pass(300);
    used(&bench.gate, 20).await;
    bench.pass(300);
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    let moved_s = bench.sim.now();
    bench.pass(60);
    used(&bench.gate, 5).await;
    bench.pass(60);
    tell(&bench, &begun("sub_1", &first, begun_s)).await;
    bench.pass(120);
    report(&bench, &bench.gate).await;
    let of = |customer: &str, from_s, until_s| counted(&bench, customer, from_s, until_s);
    assert_eq!([of(&first, NOW - DAY, begun_s), of(&first, begun_s, NOW + DAY)], [1, 20]);
    assert_eq!([of(&second, NOW - DAY, moved_s), of(&second, moved_s, NOW + DAY)], [0, 5]);
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_dated_after_a_late_begin_is_not_billed_again_by_a_restored_table() {
    for (at_s, ends) in [(0, false), (3, false), (0, true), (3, true)] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        bench.pass(HOUR + at_s);
        let begun_s = bench.sim.now();
        bench.pass(600);
        used(&bench.gate, 10).await;
        bench.pass(600);
        let ended_s = bench.sim.now();
        bench.pass(130);
        used(&bench.gate, 300).await;
        bench.pass(130);
        tell(&bench, &begun("sub_1", &customer, begun_s)).await;
        if ends {
            tell(&bench, &ended("sub_1", &customer, begun_s, ended_s)).await;
        }
        used(&bench.gate, 5).await;
        bench.pass(120);
        let copy = bench.store.copy().await;
        report(&bench, &bench.gate).await;
        assert_eq!(bench.billed("api_requests"), 315);
        let bench = bench.restored(copy).await;
        assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
        bench.pass(7 * HOUR);
        report(&bench, &bench.gate).await;
        assert_eq!(bench.billed("api_requests"), 315, "begun at :{at_s:02}, ended: {ends}");
        assert!(bench.gate.audit().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_a_new_customer_is_not_billed_again_by_a_restored_table_after_late_webhooks() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    let begun_s = bench.sim.now();
    bench.pass(HOUR);
    used(&bench.gate, 1).await;
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    bench.pass(600);
    used(&bench.gate, 20).await;
    bench.pass(600);
    // A cycle of the former customer's, which ended with the move.
    tell(&bench, &begun("sub_1", &first, begun_s)).await;
    used(&bench.gate, 300).await;
    bench.pass(120);
    let copy = bench.store.copy().await;
    report(&bench, &bench.gate).await;
    assert_eq!(bench.billed("api_requests"), 321);
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOUR);
    report(&bench, &bench.gate).await;
    assert_eq!(bench.billed("api_requests"), 321);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_table_sends_of_one_period_is_not_taken_for_what_it_owes_of_the_next() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.pass(HOUR);
    let begun_s = bench.sim.now();
    bench.pass(303);
    let ended_s = bench.sim.now();
    bench.pass(303);
    used(&bench.gate, 16).await;
    bench.pass(123);
    tell(&bench, &begun("sub_1", &customer, begun_s)).await;
    tell(&bench, &ended("sub_1", &customer, begun_s, ended_s)).await;
    bench.pass(63);
    let again_s = bench.sim.now();
    tell(&bench, &begun("sub_2", &customer, again_s)).await;
    bench.pass(603);
    used(&bench.gate, 96).await;
    let copy = bench.store.copy().await;
    let bench = bench.restored(copy).await;
    assert!(bench.gate.resume_reports(SentSinceCopy::AskStripe).await.unwrap());
    bench.pass(7 * HOUR);
    report(&bench, &bench.gate).await;
    assert_eq!(bench.billed("api_requests"), 112);
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_at_a_custom_price_dates_usage_until_its_end_and_not_after_it() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let begun_s = bench.sim.now();
    tell(&bench, &begun("sub_1", &customer, begun_s)).await;
    bench.pass(HOUR);
    let mut custom = team("sub_1", &customer, "active", begun_s);
    custom["items"]["data"][0]["price"] = json!({ "id": "price_custom", "lookup_key": null });
    tell(&bench, &event("evt_2", UPDATED, bench.sim.now(), &custom)).await;
    bench.pass(HOUR);
    used(&bench.gate, 10).await;
    bench.pass(300);
    let ended_s = bench.sim.now();
    custom["status"] = json!("canceled");
    custom["ended_at"] = json!(ended_s);
    tell(&bench, &event("evt_3", DELETED, ended_s, &custom)).await;
    bench.pass(300);
    report(&bench, &bench.gate).await;
    let of = |from_s, until_s| counted(&bench, &customer, from_s, until_s);
    assert_eq!([of(begun_s, ended_s), of(ended_s, ended_s + DAY)], [10, 0]);
    // An anchor of the directory's own counts from now on.
    let now_ms = bench.sim.now() * 1_000;
    bench.gate.directory().tenant("acme").anchor(time_at(now_ms)).note("t").save().await.unwrap();
    bench.pass(60);
    used(&bench.gate, 7).await;
    let lines = bench.gate.audit().await.unwrap().lines;
    let lines: Vec<_> =
        lines.iter().map(|line| (unix_ms(line.period()), line.recorded.whole())).collect();
    assert!(lines.contains(&(now_ms, 7)), "{now_ms}: {lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_addon_without_a_plan_ends_once_the_account_is_cleared() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("team").note("t").save().await.unwrap();
    let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
    tell(&bench, &event("evt_2", CREATED, NOW, &seats)).await;
    let acme = || bench.gate.directory().tenant("acme").note("t");
    let held = acme().save().await.unwrap();
    assert_eq!(held.record().addons.len(), 1);
    let cleared = acme().account(None).save().await.unwrap();
    assert!(cleared.record().addons.is_empty(), "paid for by no customer of acme");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_use_of_before_a_move_is_owed_by_the_former_customer_though_its_addon_has_ended() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("team").note("t").save().await.unwrap();
    let seats = subscription_of("sub_2", &first, "active", "seat_monthly", 3);
    tell(&bench, &event("evt_2", CREATED, NOW, &seats)).await;
    bench.pass(HOUR);
    used(&bench.gate, 150).await;
    bench.pass(300);
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    let moved_s = bench.sim.now();
    bench.pass(300);
    let at = |id: &str, units, at_s: i64| {
        UsageEvent::new(id, "acme", "requests", units).at(time_at(at_s * 1_000))
    };
    let late = vec![at("before", 7, moved_s - 60), at("after", 9, moved_s + 60)];
    let answers = bench.gate.ingest().events(late).await;
    assert_eq!(answers, [Ok(Counted::Now), Ok(Counted::Now)]);
    bench.pass(60);
    report(&bench, &bench.gate).await;
    let of = |customer: &str, from_s, until_s| counted(&bench, customer, from_s, until_s);
    assert_eq!([of(&first, NOW - DAY, moved_s), of(&first, moved_s, NOW + DAY)], [157, 0]);
    assert_eq!([of(&second, NOW - DAY, moved_s), of(&second, moved_s, NOW + DAY)], [0, 9]);
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

/// What was billed of the 10 units that a subscription leaves, two minutes after a change that a
/// process makes: another than the one that reports, or the same. No whole report has been made
/// meanwhile.
async fn billed_after(is_other: bool, change: impl AsyncFnOnce(&Bench, &Gate, &str)) -> i64 {
    let bench = Bench::new().await;
    tokio::time::pause();
    let customer = bench.customer("acme").await;
    bench.gate.close_within(Duration::from_millis(1)).await.ok();
    let gate = match is_other {
        true => bench.try_over(test_support::stores::Shared(bench.store.clone())).await.unwrap(),
        false => bench.another().await,
    };
    let now_s = bench.sim.now();
    let made = begun("sub_1", &customer, now_s);
    assert_eq!(webhook_at(&gate, &made, now_s).await, 200);
    bench.pass(HOUR);
    used(&gate, 1).await;
    hurry(36).await; // the first report is made after 30 s, the next after 15 minutes
    assert_eq!(bench.billed("api_requests"), 1);
    bench.pass(HOUR);
    used(&gate, 10).await;
    hurry(70).await;
    bench.pass(70);
    assert_eq!(bench.billed("api_requests"), 1);
    match is_other {
        true => {
            let other =
                bench.try_over(test_support::stores::Shared(bench.store.clone())).await.unwrap();
            change(&bench, &other, &customer).await;
        }
        false => change(&bench, &gate, &customer).await,
    }
    hurry(10).await;
    bench.pass(120);
    hurry(120).await;
    let billed = bench.billed("api_requests");
    tokio::time::resume();
    billed - 1
}

#[tokio::test]
async fn what_an_ended_subscription_leaves_is_sent_within_two_minutes() {
    for is_other in [false, true] {
        let billed = billed_after(is_other, async |bench, gate, customer| {
            let now_s = bench.sim.now();
            let over = ended("sub_1", customer, NOW, now_s);
            assert_eq!(webhook_at(gate, &over, now_s).await, 200);
        });
        assert_eq!(billed.await, 10, "by another process: {is_other}");
    }
}

#[tokio::test]
async fn what_a_move_to_another_customer_leaves_is_sent_within_two_minutes() {
    for is_other in [false, true] {
        let billed = billed_after(is_other, async |bench, gate, _| {
            let second = make(bench, "/v1/customers", "name=second");
            gate.link_customer("acme", &second).await.unwrap();
        });
        assert_eq!(billed.await, 10, "by another process: {is_other}");
    }
}

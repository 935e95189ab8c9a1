//! Subscriptions that have ended or never began: their effect on the tenant's assigned plan, on
//! later changes by an operator, and on cycles.

use serde_json::{Value, json};
use tallygate::directory::{PaymentState, TenantRecord};
use tallygate::testing::unix_ms;
use tallygate::{Ask, Gate};

use crate::bench::{Bench, NOW, event, plan_at, subscription, webhook_at};

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";

const DAY: u32 = 86_400;

async fn record(gate: &Gate, tenant: &str) -> TenantRecord {
    gate.directory().find(tenant).await.unwrap().unwrap().record().as_ref().clone()
}

/// Uses all jobs that are left, and returns how many there were.
async fn drain(gate: &Gate) -> u64 {
    let acme = gate.tenant("acme").await.unwrap();
    let mut used = 0;
    while let Ok(permit) = gate.admit(Ask::new(&acme, "work").cost("jobs", 1)).await {
        permit.settle();
        used += 1;
        assert!(used < 2_000, "nothing refuses");
    }
    used
}

/// A subscription to plan `team` whose cycle begins now.
fn begun(bench: &Bench, customer: &str, id: &str, status: &str) -> Value {
    let mut made = subscription(id, customer, status, "team_monthly");
    for second in ["billing_cycle_anchor", "start_date", "created"] {
        made[second] = json!(bench.sim.now());
    }
    made
}

/// The same subscription after it has ended.
fn over(bench: &Bench, mut made: Value, status: &str) -> Value {
    made["status"] = json!(status);
    made["ended_at"] = json!(bench.sim.now());
    made
}

async fn say(bench: &Bench, id: &str, kind: &str, object: &Value) {
    let said = event(id, kind, bench.sim.now(), object);
    assert_eq!(bench.webhook(&said).await, 200, "{said}");
}

/// Sends a webhook that is not about subscriptions.
async fn say_anything(bench: &Bench, customer: &str, id: &str) {
    let method = json!({ "id": "pm_1", "object": "payment_method", "customer": customer });
    let old = event(id, "payment_method.attached", NOW - 100_000, &method);
    assert_eq!(bench.webhook(&old).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_payment_that_never_succeeds_gives_no_second_helping_of_a_cycle() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let before = record(&bench.gate, "acme").await;
    let mut served = vec![drain(&bench.gate).await];
    for n in 0..5 {
        let made = begun(&bench, &customer, &format!("sub_{n}"), "incomplete");
        say(&bench, &format!("evt_{n}a"), CREATED, &made).await;
        bench.pass(23 * 3_600);
        let expired = over(&bench, made, "incomplete_expired");
        say(&bench, &format!("evt_{n}b"), UPDATED, &expired).await;
        bench.pass(3);
        served.push(drain(&bench.gate).await);
    }
    assert_eq!(served, [10, 0, 0, 0, 0, 0], "of 10 in a cycle");
    let is = record(&bench.gate, "acme").await;
    assert_eq!(is, before, "nothing was said of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canceling_a_trial_gives_no_second_helping_of_the_cycle_before_it() {
    for status in ["trialing", "active", "past_due", "canceled"] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        let anchor_ms = unix_ms(record(&bench.gate, "acme").await.anchor());
        let mut served = vec![drain(&bench.gate).await];
        for n in 0..3 {
            bench.pass(3_600);
            let made = begun(&bench, &customer, &format!("sub_{n}"), status);
            say(&bench, &format!("evt_{n}a"), CREATED, &made).await;
            bench.pass(60);
            let ended = over(&bench, made, "canceled");
            say(&bench, &format!("evt_{n}b"), DELETED, &ended).await;
            bench.pass(3);
            served.push(drain(&bench.gate).await);
        }
        assert_eq!(served, [10, 0, 0, 0], "{status}: of 10 in a cycle");
        let is = record(&bench.gate, "acme").await;
        assert_eq!(
            (unix_ms(is.anchor()), is.payment),
            (anchor_ms, PaymentState::Canceled),
            "{status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_to_subscribe_takes_away_no_plan_that_was_assigned() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("team").note("a contract").save().await.unwrap();
    let strict = "canceled          = \"payment-required\"";
    let strict = bench.another_with("canceled          = \"free\"", strict).await;
    for (n, status) in ["incomplete", "incomplete_expired"].into_iter().enumerate() {
        let attempt = subscription("sub_1", &customer, status, "payg_monthly");
        say(&bench, &format!("evt_{n}"), UPDATED, &attempt).await;
        for gate in [&bench.gate, &strict] {
            assert_eq!(plan_at(gate, "acme").await, "team", "{status}");
            let is = record(gate, "acme").await;
            assert_eq!((is.payment, is.plan.as_deref()), (PaymentState::Good, Some("team")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_assigned_before_a_subscription_is_in_force_again_after_its_end() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let assigned = |plan: &str| bench.gate.directory().tenant("acme").plan(plan).note("contract");
    assigned("payg").save().await.unwrap();
    let before = record(&bench.gate, "acme").await;
    let made = begun(&bench, &customer, "sub_1", "active");
    say(&bench, "evt_1", CREATED, &made).await;
    assert_eq!(bench.plan("acme").await, "team");
    bench.pass(60);
    say(&bench, "evt_2", DELETED, &over(&bench, made, "canceled")).await;
    assert_eq!(bench.plan("acme").await, "payg");
    let is = record(&bench.gate, "acme").await;
    assert_eq!((is.payment, unix_ms(is.anchor())), (before.payment, unix_ms(before.anchor())));

    // A plan assigned while a subscription lives waits for its end.
    let made = begun(&bench, &customer, "sub_2", "active");
    say(&bench, "evt_3", CREATED, &made).await;
    assigned("free").save().await.unwrap();
    assert_eq!(bench.plan("acme").await, "team", "the live subscription, then the plan assigned");
    bench.pass(60);
    say(&bench, "evt_4", DELETED, &over(&bench, made, "canceled")).await;
    assert_eq!(bench.plan("acme").await, "free");
    assert_eq!(record(&bench.gate, "acme").await.payment, PaymentState::Good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_says_after_a_cancellation_stays() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = begun(&bench, &customer, "sub_1", "active");
    say(&bench, "evt_1", CREATED, &made).await;
    bench.pass(60);
    let ended = over(&bench, made.clone(), "canceled");
    say(&bench, "evt_2", DELETED, &ended).await;
    assert_eq!(bench.plan("acme").await, "free");
    assert_eq!(record(&bench.gate, "acme").await.payment, PaymentState::Canceled);
    let acme = || bench.gate.directory().tenant("acme").note("paid by wire");
    let said = [
        ("team", acme().plan("team").payment(PaymentState::Good)),
        ("payg", acme().plan("payg")),
        ("free", acme().default_plan().payment(PaymentState::Unpaid)),
        ("team", acme().payment(PaymentState::Good).plan("team")),
    ];
    for (n, (plan, edit)) in said.into_iter().enumerate() {
        edit.save().await.unwrap();
        let stands = record(&bench.gate, "acme").await;
        assert_eq!(bench.plan("acme").await, plan);
        say_anything(&bench, &customer, &format!("evt_m{n}")).await;
        say(&bench, &format!("evt_d{n}"), DELETED, &ended).await;
        say(&bench, &format!("evt_l{n}"), UPDATED, &made).await;
        assert_eq!(record(&bench.gate, "acme").await, stands, "{plan}: after webhooks");
    }
    let stands = record(&bench.gate, "acme").await;
    bench.use_("acme", "requests", 1).await;
    bench.pass(DAY + 3_600);
    bench.report().await;
    assert_eq!(record(&bench.gate, "acme").await, stands, "after the daily look");
    // The next subscription decides again, and so does its end.
    let made = begun(&bench, &customer, "sub_2", "active");
    bench.gate.directory().tenant("acme").default_plan().save().await.unwrap();
    say(&bench, "evt_3", CREATED, &made).await;
    assert_eq!(bench.plan("acme").await, "team");
    bench.pass(60);
    say(&bench, "evt_4", DELETED, &over(&bench, made, "canceled")).await;
    assert_eq!(bench.plan("acme").await, "free");
    assert_eq!(record(&bench.gate, "acme").await.payment, PaymentState::Canceled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_failed_at_first_is_not_subscribed_with_again() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let payg = "currency=usd&unit_amount=900&product_data[name]=x&recurring[interval]=month\
                &lookup_key=payg_monthly";
    bench.sim.call("POST", "/v1/prices", payg);
    let made = begun(&bench, &customer, "sub_1", "incomplete");
    say(&bench, "evt_1", CREATED, &made).await;
    say_anything(&bench, &customer, "evt_m").await;
    let calls = |bench: &Bench| {
        let calls = bench.sim.calls();
        calls.iter().filter(|call| call.call == "POST /v1/subscriptions").count()
    };
    let before = calls(&bench);
    bench.pass(23 * 3_600);
    say(&bench, "evt_2", UPDATED, &over(&bench, made, "incomplete_expired")).await;
    say_anything(&bench, &customer, "evt_3").await;
    assert_eq!(calls(&bench), before, "nothing was attached since");
}

/// A record's bought and assigned state.
type Stands = (Option<String>, PaymentState, i64, i64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_an_end_with_the_link_anywhere_in_it_ends_the_same() {
    let bench = Bench::new().await;
    let mut cases = 0;
    for (assigned, last) in [(None, true), (None, false), (Some("payg"), true)] {
        let mut ends: Vec<Stands> = Vec::new();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for link_at in 0..=3 {
                cases += 1;
                let (tenant, customer) = (format!("tenant-{cases}"), format!("cus_{cases}"));
                bench.tenant(&tenant).await;
                if let Some(plan) = assigned {
                    bench.gate.directory().tenant(&tenant).plan(plan).save().await.unwrap();
                }
                let own_ms = unix_ms(record(&bench.gate, &tenant).await.anchor());
                let sub = format!("sub_{customer}");
                let lived = subscription(&sub, &customer, "active", "team_monthly");
                let mut ended = subscription(&sub, &customer, "canceled", "team_monthly");
                ended["ended_at"] = json!(NOW + 7);
                let other = format!("sub_x{customer}");
                let mut never =
                    subscription(&other, &customer, "incomplete_expired", "payg_monthly");
                never["ended_at"] = json!(if last { NOW + 9 } else { NOW + 5 });
                let events = [
                    event(&format!("evt_{cases}_0"), CREATED, NOW, &lived),
                    event(&format!("evt_{cases}_1"), DELETED, NOW + 7, &ended),
                    event(&format!("evt_{cases}_2"), UPDATED, NOW + 9, &never),
                ];
                for at in 0..=3 {
                    if at == link_at {
                        bench.gate.link_customer(&tenant, &customer).await.unwrap();
                    }
                    if let Some(n) = order.get(at) {
                        let status = webhook_at(&bench.gate, &events[*n], NOW).await;
                        assert_eq!(status, 200, "{order:?}, {link_at}");
                    }
                }
                let is = record(&bench.gate, &tenant).await;
                assert_eq!(unix_ms(is.anchor()), own_ms, "{order:?}, linked at {link_at}");
                let since_ms = if assigned.is_some() { 0 } else { unix_ms(is.payment_since()) };
                let anchor_ms = unix_ms(is.anchor());
                ends.push((is.plan, is.payment, since_ms, anchor_ms));
            }
        }
        let expected = match assigned {
            Some(plan) => (Some(plan.to_owned()), PaymentState::Good, 0, ends[0].3),
            None => {
                let since_ms = (NOW + 7) * 1_000;
                (Some("team".to_owned()), PaymentState::Canceled, since_ms, ends[0].3)
            }
        };
        assert!(ends.iter().all(|end| *end == expected), "{ends:#?}");
    }
}

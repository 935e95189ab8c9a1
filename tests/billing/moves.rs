//! Tenants that move from one customer to another, and subscriptions that go to a price without
//! a meaning here: no plan stays in force that is not paid for.

use serde_json::{Value, json};
use tallygate::directory::{PaymentState, TenantRecord};
use tallygate::testing::unix_ms;

use crate::bench::{Bench, NOW, event, make, plan_at, subscription, subscription_of, webhook_at};

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";
const DAY: u32 = 86_400;

async fn record(bench: &Bench, tenant: &str) -> TenantRecord {
    bench.gate.directory().find(tenant).await.unwrap().unwrap().record().as_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_a_former_customer_bought_ends_with_the_move_to_another() {
    for ends_first in [true, false] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        let own = record(&bench, "acme").await;
        let made = subscription("sub_1", &customer, "active", "team_monthly");
        assert_eq!(bench.webhook(&event("evt_1", CREATED, NOW, &made)).await, 200);
        let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
        assert_eq!(bench.webhook(&event("evt_2", CREATED, NOW, &seats)).await, 200);
        assert_eq!(bench.plan("acme").await, "team");
        let ended = subscription("sub_1", &customer, "canceled", "team_monthly");
        let ended = event("evt_3", DELETED, NOW + 5, &ended);
        if ends_first {
            assert_eq!(bench.webhook(&ended).await, 200);
        }
        let other = make(&bench, "/v1/customers", "name=other");
        bench.gate.link_customer("acme", &other).await.unwrap();
        if !ends_first {
            assert_eq!(bench.webhook(&ended).await, 200);
        }
        bench.use_("acme", "requests", 1).await;
        bench.pass(2 * DAY);
        bench.report().await;
        assert_eq!(bench.plan("acme").await, "free", "paid for by no customer of acme");
        let is = record(&bench, "acme").await;
        assert_eq!((is.payment, unix_ms(is.anchor())), (PaymentState::Good, unix_ms(own.anchor())));
        assert!(is.addons.is_empty());
        // What the new customer buys counts.
        let made = subscription("sub_3", &other, "active", "payg_monthly");
        assert_eq!(bench.webhook(&event("evt_4", CREATED, bench.sim.now(), &made)).await, 200);
        assert_eq!(bench.plan("acme").await, "payg");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assigned_plan_is_in_force_again_once_the_account_is_cleared() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    assert_eq!(bench.webhook(&event("evt_1", CREATED, NOW, &made)).await, 200);
    assert_eq!(bench.plan("acme").await, "team");
    bench.gate.directory().tenant("acme").account(None).note("t").save().await.unwrap();
    assert_eq!(bench.plan("acme").await, "payg");
}

/// A subscription to `team` that goes to a custom price, and ends.
fn custom(customer: &str) -> [(&'static str, Value); 3] {
    let made = subscription(&format!("sub_{customer}"), customer, "active", "team_monthly");
    let mut custom = made.clone();
    custom["items"]["data"][0]["price"] = json!({ "id": "price_custom", "lookup_key": null });
    let mut ended = custom.clone();
    ended["status"] = json!("canceled");
    ended["ended_at"] = json!(NOW + 20);
    [(CREATED, made), (UPDATED, custom), (DELETED, ended)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_means_no_plan_any_more_leaves_none_behind_in_any_order() {
    let bench = Bench::new().await;
    let mut cases = 0;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for link_at in 0..=3 {
            cases += 1;
            let (tenant, customer) = (format!("tenant-{cases}"), format!("cus_{cases}"));
            bench.tenant(&tenant).await;
            let own = record(&bench, &tenant).await;
            let said = custom(&customer);
            for at in 0..=3 {
                if at == link_at {
                    bench.gate.link_customer(&tenant, &customer).await.unwrap();
                }
                let Some(n) = order.get(at).copied() else { continue };
                let at_s = NOW + 10 * i64::try_from(n).unwrap();
                let (kind, object) = &said[n];
                let said = event(&format!("evt_{cases}_{n}"), kind, at_s, object);
                assert_eq!(bench.webhook(&said).await, 200);
            }
            let is = record(&bench, &tenant).await;
            let anchor_ms = unix_ms(is.anchor());
            let stands = (is.plan, is.payment, anchor_ms);
            let case = format!("{order:?}, linked at {link_at}");
            assert_eq!(stands, (None, PaymentState::Good, unix_ms(own.anchor())), "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_another_plan_file_has_is_not_taken_away_by_a_process_without_it() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let sells = "[plan.pro]\n    stripe = { price = \"pro_monthly\" }\n    [plan.payg]";
    let newer = bench.another_with("[plan.payg]", sells).await;
    let made = subscription("sub_1", &customer, "active", "pro_monthly");
    assert_eq!(webhook_at(&newer, &event("evt_1", CREATED, NOW, &made), NOW).await, 200);
    assert_eq!(plan_at(&newer, "acme").await, "pro");
    // Another event of the customer reaches a process that still has the file of before.
    let method = json!({ "id": "pm_1", "object": "payment_method", "customer": customer });
    let any = event("evt_2", "payment_method.detached", NOW, &method);
    assert_eq!(bench.webhook(&any).await, 200);
    assert_eq!(record(&bench, "acme").await.plan.as_deref(), Some("pro"));
}

//! What was bought and what the plan file says of it now: renamed plans and addons, and addons
//! whose payment has failed.

use tallygate::Gate;

use crate::bench::{Bench, NOW, event, plan_at, subscription, subscription_of, webhook_at};

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DAY: u32 = 86_400;

/// What `GET /usage` says: of it the units that the plan in force includes in a cycle.
async fn included(gate: &Gate) -> String {
    let who = tallygate::testing::identified(gate, "acme").await;
    String::from_utf8(gate.usage_reply(&who, None).await.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_addon_whose_payment_has_failed_counts_until_its_grace_is_over() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let base = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_1", CREATED, NOW, &base)).await;
    let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
    bench.webhook(&event("evt_2", CREATED, NOW, &seats)).await;
    assert!(included(&bench.gate).await.contains("103000"), "100k and 3 x 1k");
    let seats = subscription_of("sub_2", &customer, "past_due", "seat_monthly", 3);
    bench.webhook(&event("evt_3", UPDATED, NOW + 9, &seats)).await;
    bench.pass(6 * DAY);
    assert!(included(&bench.gate).await.contains("103000"), "within 7 days");
    // Without any event.
    bench.pass(DAY);
    let of = included(&bench.gate).await;
    assert!(of.contains("100000") && !of.contains("103000"), "{of}");
    bench.webhook(&event("evt_4", UPDATED, bench.sim.now(), &base)).await;
    let tenant = bench.gate.directory().find("acme").await.unwrap().unwrap();
    assert!(tenant.record().addons.is_empty());
    // It is paid for again.
    let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
    bench.webhook(&event("evt_5", UPDATED, bench.sim.now(), &seats)).await;
    assert!(included(&bench.gate).await.contains("103000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_and_an_addon_that_were_renamed_in_the_file_are_in_force_under_their_new_names() {
    for uses in [true, false] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        let base = subscription("sub_1", &customer, "active", "team_monthly");
        bench.webhook(&event("evt_1", CREATED, NOW, &base)).await;
        let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
        bench.webhook(&event("evt_2", CREATED, NOW, &seats)).await;
        if uses {
            bench.use_("acme", "requests", 1).await;
            bench.gate.flush_now().await.unwrap();
        }
        let gate = bench.another_with("[plan.team]", "[plan.pro]").await;
        assert_eq!(plan_at(&gate, "acme").await, "pro", "uses what is billed: {uses}");
        let gate = bench.another_with("[addon.seats]", "[addon.places]").await;
        assert!(included(&gate).await.contains("103000"), "uses what is billed: {uses}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_under_the_old_name_and_a_plan_assigned_under_it_are_no_purchases() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_1", CREATED, NOW, &made)).await;
    bench.gate.directory().tenant("acme").plan("payg").note("t").save().await.unwrap();
    let ended = subscription("sub_1", &customer, "canceled", "team_monthly");
    bench.webhook(&event("evt_2", "customer.subscription.deleted", NOW + 5, &ended)).await;
    let gate = bench.another_with("[plan.team]", "[plan.pro]").await;
    assert_eq!(plan_at(&gate, "acme").await, "payg", "what is assigned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_whose_price_was_missing_in_the_file_for_a_while_is_in_force_again_after_it() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_1", CREATED, NOW, &made)).await;
    let prices = r#"["team_monthly", "team_yearly"]"#;
    let lacks = bench.another_with(prices, r#""team_weekly""#).await;
    let again = event("evt_2", UPDATED, NOW + 5, &made);
    assert_eq!(webhook_at(&lacks, &again, NOW).await, 200);
    let renamed = bench.another_with("[plan.team]", "[plan.pro]").await;
    assert_eq!(plan_at(&renamed, "acme").await, "pro");
}

//! Stripe's events, and their effect on a tenant's next request.

use serde_json::{Value, json};
use tallygate::directory::PaymentState;
use tallygate::testing::{Faulty, Odds, time_at, unix_ms};

use crate::bench::{Bench, NOW, event, plan_at, subscription, subscription_of, webhook_at};

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";

async fn record(bench: &Bench, tenant: &str) -> tallygate::directory::TenantRecord {
    bench.gate.directory().find(tenant).await.unwrap().unwrap().record().as_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_a_plan_from_the_next_request_on() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    assert_eq!(bench.plan("acme").await, "free");
    let made = subscription("sub_1", &customer, "active", "team_yearly");
    let made = event("evt_1", CREATED, NOW, &made);
    assert_eq!(bench.webhook(&made).await, 200);
    assert_eq!(bench.plan("acme").await, "team");
    let at = record(&bench, "acme").await;
    assert_eq!((at.payment, unix_ms(at.anchor())), (PaymentState::Good, (NOW - 100) * 1_000));

    // Another process learns it within its cache's age, and a new one at once.
    let other = bench.another().await;
    assert_eq!(plan_at(&other, "acme").await, "team");
    let late = subscription("sub_1", &customer, "past_due", "team_yearly");
    assert_eq!(bench.webhook(&event("evt_2", UPDATED, NOW + 5, &late)).await, 200);
    assert_eq!(record(&bench, "acme").await.payment, PaymentState::PastDue);
    let over = subscription("sub_1", &customer, "canceled", "team_yearly");
    assert_eq!(bench.webhook(&event("evt_3", DELETED, NOW + 6, &over)).await, 200);
    // An event from before the end that arrives after it changes nothing.
    let before = record(&bench, "acme").await;
    assert_eq!(bench.webhook(&event("evt_4", UPDATED, NOW + 4, &late)).await, 200);
    assert_eq!(bench.webhook(&made).await, 200);
    assert_eq!(record(&bench, "acme").await, before);
    assert_eq!(before.payment, PaymentState::Canceled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_the_link_is_in_force_with_the_link() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    let made = subscription("sub_1", "cus_elsewhere", "trialing", "team_monthly");
    assert_eq!(bench.webhook(&event("evt_1", CREATED, NOW, &made)).await, 200);
    assert_eq!(bench.plan("acme").await, "free");
    bench.gate.link_customer("acme", "cus_elsewhere").await.unwrap();
    assert_eq!(bench.plan("acme").await, "team");
    bench.tenant("globex").await;
    let stolen = bench.gate.link_customer("globex", "cus_elsewhere").await;
    assert!(stolen.unwrap_err().to_string().contains("another tenant"));
    assert_eq!(bench.plan("globex").await, "free");
}

/// A lifecycle within one second, active at first and past due from its first failure on.
fn lifecycle(customer: &str) -> Vec<Value> {
    let id = format!("sub_{customer}");
    let of = |status: &str| subscription(&id, customer, status, "team_monthly");
    let made = event(&format!("evt_{customer}_1"), CREATED, NOW, &of("trialing"));
    let update = |n: u32, status: &str, before: &str| {
        let mut event = event(&format!("evt_{customer}_{n}"), UPDATED, NOW, &of(status));
        event["data"]["previous_attributes"] = json!({ "status": before });
        event
    };
    let invoice = json!({
        "id": format!("in_{customer}"), "object": "invoice", "customer": customer, "status": "open",
        "parent": { "subscription_details": { "subscription": id } }, "lines": { "data": [] },
    });
    let failed = event(&format!("evt_{customer}_4"), "invoice.payment_failed", NOW, &invoice);
    vec![made, update(2, "active", "trialing"), update(3, "past_due", "active"), failed]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_a_lifecycle_with_the_link_anywhere_in_it_ends_the_same() {
    let bench = Bench::new().await;
    let mut orders = vec![vec![]];
    for n in 0..4 {
        let longer = orders.iter().flat_map(|order: &Vec<usize>| {
            (0..=n).map(|at| {
                let mut order = order.clone();
                order.insert(at, n);
                order
            })
        });
        orders = longer.collect();
    }
    let mut cases = 0;
    for order in &orders {
        for link_at in 0..=4 {
            cases += 1;
            let (tenant, customer) = (format!("tenant-{cases}"), format!("cus_{cases}"));
            bench.tenant(&tenant).await;
            let events = lifecycle(&customer);
            for (at, n) in order.iter().enumerate() {
                if at == link_at {
                    bench.gate.link_customer(&tenant, &customer).await.unwrap();
                }
                // Each twice, as Stripe may send them.
                for _ in 0..2 {
                    assert_eq!(bench.webhook(&events[*n]).await, 200, "{order:?}, {link_at}");
                }
            }
            if link_at == 4 {
                bench.gate.link_customer(&tenant, &customer).await.unwrap();
            }
            let is = record(&bench, &tenant).await;
            assert_eq!(
                (is.plan.as_deref(), is.payment, unix_ms(is.payment_since()), unix_ms(is.anchor())),
                (Some("team"), PaymentState::PastDue, NOW * 1_000, (NOW - 100) * 1_000),
                "{order:?}, linked at {link_at}"
            );
        }
    }
    assert_eq!(cases, 24 * 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_that_names_its_tenant_links_it() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    let made = subscription("sub_1", "cus_new", "active", "team_monthly");
    assert_eq!(bench.webhook(&event("evt_1", CREATED, NOW, &made)).await, 200);
    let checkout = |tenant: &str| {
        json!({
            "id": "cs_1", "object": "checkout.session", "customer": "cus_new",
            "metadata": { "tallygate_tenant": tenant },
        })
    };
    let completed = "checkout.session.completed";
    for (id, tenant) in [("evt_2", "nobody"), ("evt_3", "acme"), ("evt_4", "acme")] {
        let status = bench.webhook(&event(id, completed, NOW, &checkout(tenant))).await;
        assert_eq!(status, 200, "{tenant}: nothing that another attempt would change");
    }
    // Sent again by hand, it links the tenant that has come since.
    let later = event(
        "evt_6",
        completed,
        NOW,
        &json!({
            "id": "cs_2", "object": "checkout.session", "customer": "cus_later",
            "metadata": { "tallygate_tenant": "later" },
        }),
    );
    assert_eq!(bench.webhook(&later).await, 200);
    bench.tenant("later").await;
    assert_eq!(bench.webhook(&later).await, 200);
    assert_eq!(record(&bench, "later").await.account.as_deref(), Some("cus_later"));
    assert_eq!(bench.plan("acme").await, "team");
    // A session without a name does not concern tenants.
    let mut nameless = checkout("acme");
    nameless["metadata"] = json!({});
    assert_eq!(bench.webhook(&event("evt_5", completed, NOW, &nameless)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addons_count_by_quantity_and_top_ups_are_granted_once() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let base = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_1", CREATED, NOW, &base)).await;
    let seats = subscription_of("sub_2", &customer, "active", "seat_monthly", 3);
    bench.webhook(&event("evt_2", CREATED, NOW, &seats)).await;
    let at = record(&bench, "acme").await;
    assert_eq!(at.addons.get("seats"), Some(&3));
    let seats = tallygate::testing::identified(&bench.gate, "acme").await;
    let usage = bench.gate.usage_reply(&seats, None).await;
    let usage = String::from_utf8(usage.body).unwrap();
    assert!(usage.contains("103000"), "100k and 3 x 1k: {usage}");

    let form = "currency=usd&unit_amount=500&product_data[name]=x&lookup_key=pack";
    let price = bench.sim.call("POST", "/v1/prices", form)["id"].clone();
    let invoice = json!({
        "id": "in_1", "object": "invoice", "customer": customer, "status": "paid",
        "status_transitions": { "paid_at": NOW }, "parent": null,
        "lines": { "data": [
            { "id": "il_1", "quantity": 2, "pricing": { "price_details": { "price": price } } },
        ] },
    });
    for id in ["evt_3", "evt_3", "evt_4"] {
        assert_eq!(bench.webhook(&event(id, "invoice.paid", NOW, &invoice)).await, 200);
    }
    let at = record(&bench, "acme").await;
    let grants: Vec<_> =
        at.grants.iter().map(|g| (g.id.as_str(), g.units, g.expires_at())).collect();
    assert_eq!(grants, [("il_1.credits", 100, Some(time_at((NOW + 30 * 86_400) * 1_000)))]);
    bench.use_("acme", "credits", 100).await;

    let seats = subscription_of("sub_2", &customer, "canceled", "seat_monthly", 3);
    bench.webhook(&event("evt_5", DELETED, NOW + 9, &seats)).await;
    assert!(record(&bench, "acme").await.addons.is_empty());
    // Long after it has expired, the invoice does not give it again.
    bench.pass(80 * 86_400);
    let base = subscription("sub_1", &customer, "past_due", "team_monthly");
    bench.webhook(&event("evt_6", UPDATED, bench.sim.now(), &base)).await;
    assert!(record(&bench, "acme").await.grants.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_kept_and_answered() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let before = bench.store.changes();
    let odd = event("evt_1", "charge.refunded", NOW, &json!({ "id": "ch_1" }));
    assert_eq!(bench.webhook(&odd).await, 200);
    assert_eq!(bench.store.changes(), before + 1, "its mark alone");
    let mut live =
        event("evt_2", CREATED, NOW, &subscription("sub_1", &customer, "active", "team_monthly"));
    live["livemode"] = json!(true);
    assert_eq!(bench.webhook(&live).await, 200);
    assert_eq!(bench.plan("acme").await, "free", "events of the other mode change nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_asked_again_by_stripe_until_it_is_done() {
    for seed in 0..6 {
        let odds = Odds { unavailable: 80, lose_request: 40, lose_reply: 80, ..Odds::default() };
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        // For another process the same table fails.
        let broken = Faulty::seeded(bench.store.clone(), seed, odds);
        let gate = loop {
            if let Some(gate) = bench.try_over(broken.clone()).await {
                break gate;
            }
        };
        let made = subscription("sub_1", &customer, "active", "team_monthly");
        let made = event("evt_1", CREATED, NOW, &made);
        let mut attempts = 0;
        while webhook_at(&gate, &made, NOW).await != 200 {
            attempts += 1;
            assert!(attempts < 200, "seed {seed}");
        }
        // The answer was 200: it is durable, as any other process sees.
        assert_eq!(plan_at(&bench.another().await, "acme").await, "team", "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_of_one_customer_at_once_end_as_their_set_says() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let other = bench.another().await;
    let statuses = ["active", "past_due", "active", "past_due", "unpaid", "active", "past_due"];
    let tasks = (0_i64..).zip(statuses).map(|(n, status)| {
        let gate = if n % 2 == 0 { bench.gate.clone() } else { other.clone() };
        let object = subscription("sub_1", &customer, status, "team_monthly");
        let event = event(&format!("evt_{n}"), UPDATED, NOW + n, &object);
        tokio::spawn(async move {
            while webhook_at(&gate, &event, NOW).await != 200 {
                tokio::task::yield_now().await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let at = record(&bench, "acme").await;
    assert_eq!((at.payment, at.plan.as_deref()), (PaymentState::PastDue, Some("team")));
}

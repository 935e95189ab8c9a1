//! A tenant that is erased: what it owes is sent, and what comes of its customer afterwards is not
//! its id's next tenant's.

use serde_json::json;
use tallygate::Ask;
use tallygate::directory::DirectoryError;

use crate::bench::{Bench, subscription};

const HOURS: u32 = 3_600;
const ID: &str = "ann@example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_erased_tenant_has_used_is_billed_once_and_to_its_customer() {
    let bench = Bench::new().await;
    let customer = bench.customer(ID).await;
    bench.use_(ID, "requests", 10).await;
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 10);
    bench.use_(ID, "requests", 7).await;
    let directory = bench.gate.directory().by("kim");
    let erased = directory.erase(ID, "request 4711").await.unwrap();
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 17, "what was used until then");

    // The next tenant of this id has a customer of its own.
    bench.tenant(ID).await;
    let next = bench.gate.ensure_customer(ID).await.unwrap();
    assert_ne!(next, customer);
    bench.use_(ID, "requests", 5).await;
    bench.pass(60);
    bench.report().await;
    assert_eq!(bench.billed("api_requests"), 22);
    let of = |customer: &str| -> i64 {
        let totals = bench.sim.totals();
        totals.iter().filter(|total| total.customer == customer).map(|total| total.total).sum()
    };
    assert_eq!((of(&customer), of(&next)), (17, 5));

    // The period ends, and its items are settled.
    bench.pass(33 * 24 * HOURS);
    bench.report().await;
    bench.pass(25 * HOURS);
    let report = bench.report().await;
    assert!(report.stopped.is_empty() && report.failed.is_empty(), "{report:?}");
    assert_eq!(bench.billed("api_requests"), 22);
    let audit = bench.gate.audit().await.unwrap();
    assert!(audit.is_clean(), "{audit:?}");
    let own = &erased.record().id;
    let who = tallygate::Identified::from(&bench.gate.tenant(own).await.unwrap());
    let reply = bench.gate.usage_reply(&who, None).await;
    assert_eq!(reply.status, 200, "its usage is asked for under its new id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_reports_after_the_erasure_of_its_tenant_is_owed_by_its_customer() {
    let bench = Bench::new().await;
    bench.customer(ID).await;
    let tenant = bench.gate.tenant(ID).await.unwrap();
    let ask = Ask::new(&tenant, "work").cost("requests", 3);
    let permit = bench.gate.admit(ask).await.unwrap();
    bench.pass(60);
    bench.gate.directory().by("kim").erase(ID, "request 4711").await.unwrap();
    bench.pass(60);
    permit.usage().add("requests", 40);
    permit.settle();
    for _ in 0..3 {
        bench.pass(1_200);
        bench.report().await;
    }
    assert_eq!(bench.billed("api_requests"), 43);
    let audit = bench.gate.audit().await.unwrap();
    assert!(audit.is_clean(), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_a_live_subscription_is_erased_only_once_that_has_ended() {
    let bench = Bench::new().await;
    let customer = bench.customer(ID).await;
    let live = subscription("sub_1", &customer, "active", "team_monthly");
    let begun = bench.sim.emit("customer.subscription.created", &live);
    assert_eq!(bench.webhook(&begun).await, 200);
    let directory = bench.gate.directory();
    let refused = directory.erase(ID, "request 4711").await;
    assert!(matches!(refused, Err(DirectoryError::SubscriptionLives { .. })), "{refused:?}");
    assert!(!directory.find(ID).await.unwrap().unwrap().record().suspended);

    bench.pass(60);
    let mut over = subscription("sub_1", &customer, "canceled", "team_monthly");
    over["ended_at"] = json!(bench.sim.now());
    let ended = bench.sim.emit("customer.subscription.deleted", &over);
    assert_eq!(bench.webhook(&ended).await, 200);
    let erased = directory.erase(ID, "request 4711").await.unwrap();
    // Events of that customer that come late.
    bench.pass(60);
    for kind in ["customer.subscription.updated", "customer.subscription.created"] {
        let object = if kind.ends_with("created") { &live } else { &over };
        assert_eq!(bench.webhook(&bench.sim.emit(kind, object)).await, 200);
    }
    let found = directory.get(erased.record().surrogate).await.unwrap().unwrap();
    assert_eq!((found.record().account.as_deref(), found.record().suspended), (None, true));
    assert!(directory.find(ID).await.unwrap().is_none());
}

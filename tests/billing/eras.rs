//! Usage belongs to the subscription, the customer and the cycle of the moment in which it was
//! used, whatever they are when it is reported.

use serde_json::{Value, json};
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::testing::{time_at, unix_ms};

use crate::bench::{Bench, KEY, NOW, event, make, subscription, use_at, webhook_at};

const CREATED: &str = "customer.subscription.created";
const TEAM: &str = "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month\
                    &lookup_key=team_monthly";
const PAYS: &str = "invoice_settings[default_payment_method]=pm_card_visa";
const DAY: u32 = 86_400;
const HOUR: u32 = 3_600;

/// A customer of `acme` who pays for a subscription to plan `team` from now on.
async fn subscriber(bench: &Bench) -> (String, String) {
    let price = make(bench, "/v1/prices", TEAM);
    let customer = bench.customer("acme").await;
    make(bench, &format!("/v1/customers/{customer}"), PAYS);
    let form = format!("customer={customer}&items[0][price]={price}");
    let subscription = make(bench, "/v1/subscriptions", &form);
    (customer, subscription)
}

async fn on_plan(bench: &Bench, plan: &str) {
    bench.gate.directory().tenant("acme").plan(plan).note("t").save().await.unwrap();
}

/// What Stripe counts of an event between two instants.
fn counted(bench: &Bench, event: &str, customer: &str, from_s: i64, until_s: i64) -> i64 {
    let meters = bench.sim.call("GET", "/v1/billing/meters", "");
    let mut meters = meters["data"].as_array().unwrap().iter();
    let meter = meters.find(|meter| meter["event_name"] == event).unwrap()["id"].as_str().unwrap();
    let of = format!("customer={customer}&start_time={from_s}&end_time={until_s}");
    let path = format!("/v1/billing/meters/{meter}/event_summaries?{of}");
    let sums = bench.sim.call("GET", &path, "");
    let sums = sums["data"].as_array().unwrap_or_else(|| panic!("{sums}")).clone();
    sums.iter().map(|sum| sum["aggregated_value"].as_f64().unwrap() as i64).sum()
}

/// The same subscription, begun and anchored at this second.
fn anchored(mut subscription: Value, at_s: i64) -> Value {
    for field in ["start_date", "created", "billing_cycle_anchor"] {
        subscription[field] = json!(at_s);
    }
    subscription
}

fn jobs(id: &str, units: u64, at_s: i64) -> UsageEvent {
    UsageEvent::new(id, "acme", "jobs", units).at(time_at(at_s * 1_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_reports_after_a_move_is_owed_by_the_next_customer() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    let tenant = bench.gate.tenant("acme").await.unwrap();
    let ask = tallygate::Ask::new(&tenant, "work").cost("requests", 3);
    let permit = bench.gate.admit(ask).await.unwrap();
    bench.pass(60);
    let second = make(&bench, "/v1/customers", "name=acme");
    bench.gate.link_customer("acme", &second).await.unwrap();
    bench.pass(60);
    permit.usage().add("requests", 40);
    permit.settle();
    for _ in 0..3 {
        bench.pass(1_200);
        bench.report().await;
    }
    let of = |customer: &str| -> i64 {
        let totals = bench.sim.totals();
        totals.iter().filter(|total| total.customer == customer).map(|total| total.total).sum()
    };
    assert_eq!((of(&first), of(&second)), (3, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_before_a_subscription_was_canceled_is_dated_before_its_end() {
    let bench = Bench::new().await;
    let (customer, id) = subscriber(&bench).await;
    let begun_s = bench.sim.now();
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    bench.pass(300);
    bench.use_("acme", "jobs", 900).await; // 800 beyond what is included
    bench.gate.flush_now().await.unwrap();
    bench.pass(300);
    bench.sim.call("DELETE", &format!("/v1/subscriptions/{id}"), "");
    let ended_s = bench.sim.now();
    bench.deliver(&mut seen).await;
    bench.pass(300); // `report-every` is 15 minutes
    bench.report().await;
    let within = counted(&bench, "jobs", &customer, begun_s, ended_s);
    let after = counted(&bench, "jobs", &customer, ended_s, ended_s + 86_400);
    assert_eq!((within, after), (800, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_while_a_subscription_lives_is_dated_into_it_though_its_webhook_is_late() {
    let bench = Bench::new().await;
    let (customer, _) = subscriber(&bench).await;
    let begun_s = bench.sim.now();
    bench.pass(600);
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(600);
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    bench.pass(60);
    bench.report().await;
    let before = counted(&bench, "api_requests", &customer, begun_s - 86_400, begun_s);
    let within = counted(&bench, "api_requests", &customer, begun_s, begun_s + 86_400);
    assert_eq!((before, within), (0, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_a_period_of_stripes_is_dated_into_it_whatever_the_zone() {
    const ANCHOR: i64 = 1_769_824_800; // 2026-01-31T02:00:00Z
    const ENDS: i64 = 1_777_514_400; // 2026-04-30T02:00:00Z, where Stripe's third period ends
    for zone in ["UTC", "America/New_York"] {
        let bench = Bench::new().await;
        let plans = format!("default-plan = \"free\"\n    timezone = \"{zone}\"");
        let gate = bench.another_with("default-plan = \"free\"", &plans).await;
        let customer = bench.customer("acme").await;
        let made = subscription("sub_1", &customer, "active", "team_monthly");
        let made = event("evt_1", CREATED, ANCHOR, &anchored(made, ANCHOR));
        assert_eq!(webhook_at(&gate, &made, NOW).await, 200);
        // Used ten minutes before Stripe's period ends, and reported ten minutes after it.
        bench.pass(u32::try_from(ENDS - 600 - NOW).unwrap());
        use_at(&gate, "acme", "requests", 10).await;
        gate.flush_now().await.unwrap();
        bench.pass(1_200);
        gate.report_now().await.unwrap();
        let within = counted(&bench, "api_requests", &customer, ENDS - 30 * 86_400, ENDS);
        let after = counted(&bench, "api_requests", &customer, ENDS, ENDS + 86_400);
        assert_eq!((within, after), (10, 0), "{zone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_use_of_before_a_subscription_is_paid_by_the_cycle_in_which_it_lies() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    on_plan(&bench, "team").await;
    bench.use_("acme", "jobs", 150).await;
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 50);
    bench.pass(HOUR);
    let begun_s = bench.sim.now();
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    let made = event("evt_1", CREATED, begun_s, &anchored(made, begun_s));
    assert_eq!(bench.webhook(&made).await, 200);
    bench.pass(600);
    let late = jobs("late", 40, begun_s - 60);
    assert_eq!(bench.gate.ingest().events(vec![late]).await, [Ok(Counted::Now)]);
    bench.report().await;
    let lines = bench.gate.audit().await.unwrap().lines;
    let lines: Vec<_> = lines.iter().map(|l| (unix_ms(l.period()), l.recorded, l.owed)).collect();
    assert_eq!(bench.billed("jobs"), 90, "all 100 of that cycle were used by then: {lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_use_is_owed_by_the_customer_of_its_time() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    on_plan(&bench, "payg").await;
    bench.pass(HOUR);
    let first = make(&bench, "/v1/customers", "name=first");
    bench.gate.link_customer("acme", &first).await.unwrap();
    bench.pass(DAY);
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    bench.pass(600);
    let before_any = jobs("before any", 1, NOW + 60);
    let of_the_first = jobs("of the first", 10, NOW + 2 * i64::from(HOUR));
    let answers = bench.gate.ingest().events(vec![before_any, of_the_first]).await;
    assert_eq!(answers, [Ok(Counted::Now), Ok(Counted::Now)]);
    bench.report().await;
    let of = |customer: &str| counted(&bench, "jobs", customer, NOW - 86_400, NOW + 2 * 86_400);
    assert_eq!((of(&first), of(&second)), (10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_just_before_a_subscription_is_not_too_old() {
    let bench = Bench::new().await;
    let gate = bench.try_key(KEY, "test\"\ntoo-old = \"name").await.unwrap();
    bench.gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    let customer = bench.gate.ensure_customer("acme").await.unwrap();
    use_at(&gate, "acme", "requests", 5).await;
    bench.pass(40);
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    let made = event("evt_1", CREATED, bench.sim.now(), &anchored(made, bench.sim.now()));
    assert_eq!(webhook_at(&gate, &made, bench.sim.now()).await, 200);
    bench.pass(300);
    let report = gate.report_now().await.unwrap();
    assert_eq!(bench.billed("api_requests"), 5, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_before_a_subscription_stays_out_of_it_though_its_webhook_is_late() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    bench.pass(HOUR);
    bench.use_("acme", "requests", 3).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(60);
    let begun_s = bench.sim.now();
    bench.pass(600);
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(600);
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    let made = event("evt_1", CREATED, begun_s, &anchored(made, begun_s));
    assert_eq!(bench.webhook(&made).await, 200);
    bench.use_("acme", "requests", 100).await;
    bench.pass(60);
    for _ in 0..2 {
        bench.report().await; // nothing is sent twice
        bench.pass(60);
    }
    let before = counted(&bench, "api_requests", &customer, begun_s - 2 * 86_400, begun_s);
    let within = counted(&bench, "api_requests", &customer, begun_s, begun_s + 86_400);
    assert_eq!((before, within), (3, 110));
    // Use of before it that is reported now is known to be that.
    bench.pass(HOUR);
    let at_ms = (begun_s - 600) * 1_000;
    let late = UsageEvent::new("late", "acme", "requests", 7).at(time_at(at_ms));
    assert_eq!(bench.gate.ingest().events(vec![late]).await, [Ok(Counted::Now)]);
    bench.report().await;
    let before = counted(&bench, "api_requests", &customer, begun_s - 2 * 86_400, begun_s);
    assert_eq!((before, bench.billed("api_requests")), (10, 120));
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_after_a_subscriptions_end_stays_out_of_it_though_its_webhook_is_late() {
    let bench = Bench::new().await;
    let (customer, id) = subscriber(&bench).await;
    let begun_s = bench.sim.now();
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    bench.pass(300);
    bench.use_("acme", "requests", 10).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(300);
    bench.sim.call("DELETE", &format!("/v1/subscriptions/{id}"), "");
    let ended_s = bench.sim.now();
    bench.pass(300);
    bench.use_("acme", "requests", 4).await;
    bench.gate.flush_now().await.unwrap();
    bench.pass(300);
    bench.deliver(&mut seen).await;
    bench.use_("acme", "requests", 20).await;
    bench.pass(60);
    bench.report().await;
    let within = counted(&bench, "api_requests", &customer, begun_s, ended_s);
    let after = counted(&bench, "api_requests", &customer, ended_s, ended_s + 86_400);
    assert_eq!((within, after), (10, 24));
    assert!(bench.gate.audit().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_use_of_a_subscription_that_has_ended_is_dated_before_its_end() {
    let bench = Bench::new().await;
    let (customer, id) = subscriber(&bench).await;
    let begun_s = bench.sim.now();
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    bench.pass(HOUR);
    bench.sim.call("DELETE", &format!("/v1/subscriptions/{id}"), "");
    let ended_s = bench.sim.now();
    bench.deliver(&mut seen).await;
    on_plan(&bench, "payg").await;
    bench.pass(HOUR);
    let within = jobs("within", 140, begun_s + 600);
    let after = jobs("after", 7, ended_s + 600);
    let answers = bench.gate.ingest().events(vec![within, after]).await;
    assert_eq!(answers, [Ok(Counted::Now), Ok(Counted::Now)]);
    bench.report().await;
    let within = counted(&bench, "jobs", &customer, begun_s, ended_s);
    let after = counted(&bench, "jobs", &customer, ended_s, ended_s + 86_400);
    assert_eq!((within, after), (140, 7), "plan `payg` includes none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_before_a_move_to_another_customer_is_dated_before_it() {
    let bench = Bench::new().await;
    let first = bench.customer("acme").await;
    bench.pass(HOUR);
    bench.use_("acme", "requests", 10).await;
    bench.pass(60);
    let moved_s = bench.sim.now();
    let second = make(&bench, "/v1/customers", "name=second");
    bench.gate.link_customer("acme", &second).await.unwrap();
    bench.use_("acme", "requests", 5).await;
    bench.pass(300);
    bench.report().await;
    let of =
        |customer: &str, from_s| counted(&bench, "api_requests", customer, from_s, from_s + 86_400);
    assert_eq!((of(&first, moved_s - 86_400), of(&first, moved_s)), (10, 0));
    assert_eq!(of(&second, moved_s), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_use_of_before_an_anchor_was_moved_is_paid_by_the_cycle_in_which_it_lies() {
    let bench = Bench::new().await;
    bench.customer("acme").await;
    on_plan(&bench, "team").await;
    bench.use_("acme", "jobs", 150).await;
    bench.pass(HOUR);
    let moved_ms = bench.sim.now() * 1_000;
    let acme = bench.gate.directory().tenant("acme");
    acme.anchor(time_at(moved_ms)).note("t").save().await.unwrap();
    bench.pass(600);
    let late = jobs("late", 40, NOW + 600);
    assert_eq!(bench.gate.ingest().events(vec![late]).await, [Ok(Counted::Now)]);
    bench.use_("acme", "jobs", 100).await;
    bench.report().await;
    assert_eq!(bench.billed("jobs"), 90, "the moved cycle includes 100 more");
}

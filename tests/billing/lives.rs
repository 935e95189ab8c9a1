//! Plans, packs and payment over the real lives of customers at Stripe.

use serde_json::{Value, json};
use tallygate::directory::{PaymentState, TenantRecord};
use tallygate::testing::unix_ms;

use crate::bench::{Bench, NOW, event, subscription, webhook_at};

const MONTHLY: &str =
    "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month";
const PACK: &str = "currency=usd&unit_amount=500&product_data[name]=x&lookup_key=pack";
const PAYS: &str = "invoice_settings[default_payment_method]=pm_card_visa";
const FAILS: &str = "invoice_settings[default_payment_method]=pm_card_chargeCustomerFail";

const DAY: u32 = 86_400;

async fn record(bench: &Bench, tenant: &str) -> TenantRecord {
    bench.gate.directory().find(tenant).await.unwrap().unwrap().record().as_ref().clone()
}

/// Creates an object at Stripe; returns its id.
async fn make(bench: &Bench, path: &str, form: &str) -> String {
    let made = bench.sim.call("POST", path, form);
    made["id"].as_str().unwrap_or_else(|| panic!("{path}: {made}")).to_owned()
}

/// A tenant that pays for a subscription to this price from now on.
async fn subscriber(bench: &Bench, tenant: &str, price: &str) -> (String, String) {
    let customer = bench.customer(tenant).await;
    make(bench, &format!("/v1/customers/{customer}"), PAYS).await;
    let form = format!("customer={customer}&items[0][price]={price}");
    let subscription = make(bench, "/v1/subscriptions", &form).await;
    (customer, subscription)
}

fn attached(id: &str, customer: &str, created: i64) -> Value {
    let method = json!({ "id": "pm_card_visa", "object": "payment_method", "customer": customer });
    event(id, "payment_method.attached", created, &method)
}

async fn subscriptions(bench: &Bench, customer: &str) -> usize {
    let path = format!("/v1/subscriptions?status=all&customer={customer}");
    bench.sim.call("GET", &path, "")["data"].as_array().unwrap().len()
}

/// Units of its packs, grant by grant.
async fn packs(bench: &Bench, tenant: &str) -> Vec<u64> {
    record(bench, tenant).await.grants.iter().map(|grant| grant.units).collect()
}

/// Passes on every event except those of prices, which an operator may not send.
async fn deliver_without_prices(bench: &Bench, seen: &mut usize) {
    let list = bench.sim.call("GET", "/v1/events?limit=100", "");
    let events = list["data"].as_array().unwrap();
    for event in events.iter().rev().skip(*seen) {
        if !event["type"].as_str().unwrap().starts_with("price.") {
            assert_eq!(bench.webhook(event).await, 200, "{event}");
        }
    }
    *seen = events.len();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_subscribed_before_a_lookup_key_moved_keeps_its_plan_and_loses_it_by_canceling() {
    let bench = Bench::new().await;
    make(&bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=payg_monthly")).await;
    let team = format!("{MONTHLY}&lookup_key=team_monthly");
    let old = make(&bench, "/v1/prices", &team).await;
    let (customer, id) = subscriber(&bench, "acme", &old).await;
    let mut seen = 0;
    deliver_without_prices(&bench, &mut seen).await;
    assert_eq!(bench.plan("acme").await, "team");
    make(&bench, "/v1/prices", &format!("{team}&transfer_lookup_key=true")).await;
    // Any event that shows the subscription again shows its price without a lookup key.
    bench.pass(DAY);
    make(&bench, &format!("/v1/subscriptions/{id}"), "metadata[seen]=yes").await;
    deliver_without_prices(&bench, &mut seen).await;
    assert_eq!(bench.plan("acme").await, "team");
    assert_eq!(bench.webhook(&attached("evt_m", &customer, bench.sim.now())).await, 200);
    assert_eq!(subscriptions(&bench, &customer).await, 1, "it has one");
    bench.pass(DAY);
    bench.sim.call("DELETE", &format!("/v1/subscriptions/{id}"), "");
    deliver_without_prices(&bench, &mut seen).await;
    let is = record(&bench, "acme").await;
    assert_eq!(is.payment, PaymentState::Canceled);
    assert_eq!(bench.plan("acme").await, "free");
}

/// A customer of `acme` who subscribed to a price after its lookup key had moved. Returns the
/// events of prices, and the others.
async fn subscribed_late(bench: &Bench) -> (Vec<Value>, Vec<Value>) {
    let team = format!("{MONTHLY}&lookup_key=team_monthly");
    let old = make(bench, "/v1/prices", &team).await;
    make(bench, "/v1/prices", &format!("{team}&transfer_lookup_key=true")).await;
    subscriber(bench, "acme", &old).await;
    let list = bench.sim.call("GET", "/v1/events?limit=100", "");
    let events = list["data"].as_array().unwrap().iter().rev().cloned();
    events.partition(|event| event["type"].as_str().unwrap().starts_with("price."))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_prices_are_heard_of_last_is_on_the_plan_that_is_paid_for() {
    for again in [false, true] {
        let bench = Bench::new().await;
        let (prices, others) = subscribed_late(&bench).await;
        for event in &others {
            assert_eq!(bench.webhook(event).await, 200);
        }
        assert_eq!(bench.plan("acme").await, "free", "what was bought is not known");
        let other = bench.another().await;
        for event in &prices {
            // Any process may take it: the store knows which tenant waits for it.
            assert_eq!(webhook_at(&other, event, bench.sim.now()).await, 200);
        }
        if again {
            for event in others.iter().chain(&prices) {
                assert_eq!(bench.webhook(event).await, 200);
            }
        }
        let is = record(&bench, "acme").await;
        assert_eq!((is.plan.as_deref(), is.payment), (Some("team"), PaymentState::Good));
        assert_eq!(crate::bench::plan_at(&other, "acme").await, "team");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_a_price_that_moved_and_of_who_holds_it_ends_the_same() {
    let mut random = 1_515_u64;
    for _ in 0..24 {
        let bench = Bench::new().await;
        let (mut events, others) = subscribed_late(&bench).await;
        events.extend(others);
        for at in (1..events.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            events.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
        }
        for event in &events {
            assert_eq!(bench.webhook(event).await, 200, "{event}");
        }
        let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str()).collect();
        let is = record(&bench, "acme").await;
        assert_eq!(
            (is.plan.as_deref(), is.payment),
            (Some("team"), PaymentState::Good),
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_customer_shows_of_a_price_is_in_force_for_those_who_hold_it() {
    let bench = Bench::new().await;
    let mut made = subscription("sub_1", &bench.customer("acme").await, "active", "team_monthly");
    made["items"]["data"][0]["price"]["lookup_key"] = Value::Null;
    let made = event("evt_1", "customer.subscription.created", NOW, &made);
    assert_eq!(bench.webhook(&made).await, 200);
    assert_eq!(bench.plan("acme").await, "free");
    let shown = subscription("sub_2", "cus_elsewhere", "active", "team_monthly");
    let shown = event("evt_2", "customer.subscription.created", NOW - 50, &shown);
    assert_eq!(bench.webhook(&shown).await, 200);
    assert_eq!(bench.plan("acme").await, "team");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_price_was_called_is_known_from_other_customers_too() {
    let bench = Bench::new().await;
    make(&bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=payg_monthly")).await;
    let team = format!("{MONTHLY}&lookup_key=team_monthly");
    let old = make(&bench, "/v1/prices", &team).await;
    subscriber(&bench, "globex", &old).await;
    let mut seen = 0;
    deliver_without_prices(&bench, &mut seen).await;
    // No event of this one arrives before the key has moved.
    let (customer, _) = subscriber(&bench, "acme", &old).await;
    make(&bench, "/v1/prices", &format!("{team}&transfer_lookup_key=true")).await;
    bench.pass(DAY);
    assert_eq!(bench.webhook(&attached("evt_m", &customer, bench.sim.now())).await, 200);
    assert_eq!(subscriptions(&bench, &customer).await, 1, "it has one");
    assert_eq!(bench.plan("acme").await, "team");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_is_what_the_invoice_says_that_was_paid_and_not_its_draft() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    make(&bench, &format!("/v1/customers/{customer}"), PAYS).await;
    let pack = make(&bench, "/v1/prices", PACK).await;
    let mut seen = 0;
    let of = format!("customer={customer}");
    let invoice = make(&bench, "/v1/invoices", &of).await;
    let item = |invoice: &str, n: u32| {
        format!("{of}&invoice={invoice}&pricing[price]={pack}&quantity={n}")
    };
    let first = make(&bench, "/v1/invoiceitems", &item(&invoice, 5)).await;
    bench.deliver(&mut seen).await;
    make(&bench, &format!("/v1/invoiceitems/{first}"), "quantity=1").await;
    bench.deliver(&mut seen).await;
    assert_eq!(packs(&bench, "acme").await, [0_u64; 0], "nothing is paid");
    make(&bench, &format!("/v1/invoices/{invoice}/pay"), "").await;
    bench.deliver(&mut seen).await;
    assert_eq!(packs(&bench, "acme").await, [50]);
    // A line in the place of another is a different line.
    let invoice = make(&bench, "/v1/invoices", &of).await;
    let other = make(&bench, "/v1/prices", "currency=usd&unit_amount=1&product_data[name]=y").await;
    let wrong = format!("{of}&invoice={invoice}&pricing[price]={other}&quantity=9");
    let wrong = make(&bench, "/v1/invoiceitems", &wrong).await;
    bench.deliver(&mut seen).await;
    bench.sim.call("DELETE", &format!("/v1/invoiceitems/{wrong}"), "");
    make(&bench, "/v1/invoiceitems", &item(&invoice, 3)).await;
    bench.deliver(&mut seen).await;
    make(&bench, &format!("/v1/invoices/{invoice}/pay"), "").await;
    bench.deliver(&mut seen).await;
    let mut got = packs(&bench, "acme").await;
    got.sort_unstable();
    assert_eq!(got, [50, 150]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_beyond_the_first_page_of_an_invoice_are_granted() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    make(&bench, &format!("/v1/customers/{customer}"), PAYS).await;
    let pack = make(&bench, "/v1/prices", PACK).await;
    let other = make(&bench, "/v1/prices", "currency=usd&unit_amount=1&product_data[name]=y").await;
    let of = format!("customer={customer}");
    let invoice = make(&bench, "/v1/invoices", &of).await;
    for n in 0..120 {
        let price = if n % 30 == 20 { &pack } else { &other };
        let item = format!("{of}&invoice={invoice}&pricing[price]={price}&quantity=1");
        make(&bench, "/v1/invoiceitems", &item).await;
    }
    let paid = bench.sim.call("POST", &format!("/v1/invoices/{invoice}/pay"), "");
    assert_eq!(bench.webhook(&event("evt_1", "invoice.paid", NOW, &paid)).await, 200);
    assert_eq!(packs(&bench, "acme").await, [50; 4]);
}

/// A subscriber whose invoice of the first month has failed, and its ids.
async fn failed_once(bench: &Bench, seen: &mut usize) -> (String, String, String) {
    let price = make(bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=team_monthly")).await;
    let (customer, id) = subscriber(bench, "acme", &price).await;
    make(bench, &format!("/v1/customers/{customer}"), FAILS).await;
    bench.pass(31 * DAY);
    bench.deliver(seen).await;
    assert_eq!(record(bench, "acme").await.payment, PaymentState::PastDue);
    let list = bench.sim.call("GET", "/v1/invoices?status=open", "");
    (customer, id, list["data"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_that_was_given_up_long_ago_cancels_nothing_at_the_next_failure() {
    let bench = Bench::new().await;
    let mut seen = 0;
    let (customer, id, invoice) = failed_once(&bench, &mut seen).await;
    // Written off; and the next month is paid.
    make(&bench, &format!("/v1/invoices/{invoice}/mark_uncollectible"), "").await;
    make(&bench, &format!("/v1/customers/{customer}"), PAYS).await;
    bench.pass(30 * DAY);
    bench.deliver(&mut seen).await;
    assert_eq!(record(&bench, "acme").await.payment, PaymentState::Good);
    make(&bench, &format!("/v1/customers/{customer}"), FAILS).await;
    bench.pass(31 * DAY);
    bench.deliver(&mut seen).await;
    let is = record(&bench, "acme").await;
    assert_eq!(is.payment, PaymentState::PastDue);
    assert!(
        bench.sim.now() * 1_000 - unix_ms(is.payment_since()) < 2 * 86_400_000,
        "grace has just begun"
    );
    let stands = bench.sim.call("GET", &format!("/v1/subscriptions/{id}"), "");
    assert_eq!(stands["status"], "past_due", "it is still being retried");
    assert_eq!(bench.plan("acme").await, "team", "within its grace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voided_invoice_begins_no_grace() {
    let bench = Bench::new().await;
    let mut seen = 0;
    let (customer, _, invoice) = failed_once(&bench, &mut seen).await;
    make(&bench, &format!("/v1/invoices/{invoice}/void"), "").await;
    make(&bench, &format!("/v1/customers/{customer}"), PAYS).await;
    bench.pass(61 * DAY);
    bench.deliver(&mut seen).await;
    assert_eq!(record(&bench, "acme").await.payment, PaymentState::Good);
    make(&bench, &format!("/v1/customers/{customer}"), FAILS).await;
    bench.pass(31 * DAY);
    bench.deliver(&mut seen).await;
    let is = record(&bench, "acme").await;
    assert_eq!(is.payment, PaymentState::PastDue);
    assert!(
        bench.sim.now() * 1_000 - unix_ms(is.payment_since()) < 2 * 86_400_000,
        "grace has just begun"
    );
    assert_eq!(bench.plan("acme").await, "team", "within its grace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_of_an_api_version_of_2024_give_plans_grace_and_packs() {
    let bench = Bench::new().await;
    bench.sim.set(|settings| settings.api_version = "2024-06-20".to_owned());
    let price = make(&bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=team_monthly")).await;
    let (customer, _) = subscriber(&bench, "acme", &price).await;
    let pack = make(&bench, "/v1/prices", PACK).await;
    let invoice = make(&bench, "/v1/invoices", &format!("customer={customer}")).await;
    let item = format!("customer={customer}&invoice={invoice}&price={pack}&quantity=2");
    make(&bench, "/v1/invoiceitems", &item).await;
    make(&bench, &format!("/v1/invoices/{invoice}/pay"), "").await;
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    assert_eq!(bench.plan("acme").await, "team");
    assert_eq!(packs(&bench, "acme").await, [100]);
    make(&bench, &format!("/v1/customers/{customer}"), FAILS).await;
    bench.pass(33 * DAY);
    bench.deliver(&mut seen).await;
    let is = record(&bench, "acme").await;
    assert_eq!(is.payment, PaymentState::PastDue);
    assert_eq!(unix_ms(is.payment_since()), bench.sim.now() * 1_000, "the simulator tells it now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_in_no_shape_that_is_known_is_refused_until_it_is() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let before = bench.store.changes();
    let mut strange = subscription("sub_1", &customer, "active", "team_monthly");
    strange["items"] = json!([]);
    let mut invoice = json!({
        "id": "in_1", "object": "invoice", "customer": customer, "status": "paid", "parent": null,
        "lines": { "data": [{ "id": "il_1", "sold": "pack" }] },
    });
    let subscribed = event("evt_1", "customer.subscription.created", NOW, &strange);
    let paid = |invoice: &Value| event("evt_2", "invoice.paid", NOW, invoice);
    for _ in 0..2 {
        assert_eq!(bench.webhook(&subscribed).await, 422);
        assert_eq!(bench.webhook(&paid(&invoice)).await, 422);
    }
    assert_eq!(bench.store.changes(), before, "nothing was taken, or marked as taken");
    invoice["lines"]["data"][0]["pricing"] = Value::Null;
    assert_eq!(bench.webhook(&paid(&invoice)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_that_its_tenant_has_left_is_let_alone() {
    let bench = Bench::new().await;
    make(&bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=payg_monthly")).await;
    let left = bench.customer("acme").await;
    let other = make(&bench, "/v1/customers", "name=other").await;
    bench.gate.link_customer("acme", &other).await.unwrap();
    assert_eq!(bench.webhook(&attached("evt_1", &left, NOW)).await, 200);
    assert_eq!(subscriptions(&bench, &left).await, 0, "nobody asked for it");
    // Nor is a subscription it still pays for canceled.
    let late = subscription("sub_x", &left, "unpaid", "team_monthly");
    assert_eq!(
        bench.webhook(&event("evt_2", "customer.subscription.updated", NOW, &late)).await,
        200
    );
    let touched = |call: &stripe_sim::Answered| call.call.contains("sub_x");
    assert!(!bench.sim.calls().iter().any(touched));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_for_a_payment_takes_no_tenant_from_its_customer() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_1", "customer.subscription.created", NOW, &made)).await;
    let checkout = |mode: &str, tenant: &str, customer: &str| {
        json!({
            "id": "cs_1", "object": "checkout.session", "customer": customer, "mode": mode,
            "metadata": { "tallygate_tenant": tenant },
        })
    };
    let completed = "checkout.session.completed";
    for (id, mode) in [("evt_2", "payment"), ("evt_3", "setup")] {
        let guest = checkout(mode, "acme", "cus_guest");
        assert_eq!(bench.webhook(&event(id, completed, NOW, &guest)).await, 200);
        assert_eq!(record(&bench, "acme").await.account.as_deref(), Some(&*customer), "{mode}");
    }
    assert_eq!(bench.plan("acme").await, "team");
    // A tenant without a customer gets one from any of them; a new subscription replaces it.
    bench.tenant("globex").await;
    let first = checkout("payment", "globex", "cus_first");
    assert_eq!(bench.webhook(&event("evt_4", completed, NOW, &first)).await, 200);
    assert_eq!(record(&bench, "globex").await.account.as_deref(), Some("cus_first"));
    let next = checkout("subscription", "acme", "cus_next");
    assert_eq!(bench.webhook(&event("evt_5", completed, NOW, &next)).await, 200);
    assert_eq!(record(&bench, "acme").await.account.as_deref(), Some("cus_next"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_connected_accounts_decide_no_plan() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    let theirs = bench.sim.emit_for("acct_1", "customer.subscription.created", &made);
    assert_eq!(bench.webhook(&theirs).await, 200);
    assert_eq!(bench.plan("acme").await, "free");
    assert_eq!(bench.webhook(&bench.sim.emit("customer.subscription.created", &made)).await, 200);
    assert_eq!(bench.plan("acme").await, "team");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_of_a_thousand_long_invoices_still_hears_its_webhooks() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let made = subscription("sub_1", &customer, "active", "team_monthly");
    bench.webhook(&event("evt_0", "customer.subscription.created", NOW, &made)).await;
    let line = |n: i64, line: i64| {
        json!({
            "id": format!("il_1PgafmB7WZ01zgk{n:05}{line:02}"), "quantity": 1, "amount": 2_000,
            "pricing": { "price_details": { "price": "price_1PgafmB7WZ01zgkW6dKueIc5" } },
        })
    };
    for n in 0..1_000 {
        let lines: Vec<Value> = (0..10).map(|at| line(n, at)).collect();
        let invoice = json!({
            "id": format!("in_1PgafmB7WZ01zgkW6dKu{n:05}"), "object": "invoice",
            "customer": customer, "status": "paid", "created": NOW + n,
            "status_transitions": { "paid_at": NOW + n },
            "parent": { "subscription_details": { "subscription": "sub_1" } },
            "lines": { "data": lines },
        });
        let paid = event(&format!("evt_i{n}"), "invoice.paid", NOW + n, &invoice);
        assert_eq!(bench.webhook(&paid).await, 200, "invoice {n}");
    }
    let late = subscription("sub_1", &customer, "past_due", "team_monthly");
    let late = event("evt_late", "customer.subscription.updated", NOW + 4_000, &late);
    assert_eq!(bench.webhook(&late).await, 200);
    assert_eq!(record(&bench, "acme").await.payment, PaymentState::PastDue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_by_hand_asks_about_customers_whose_webhooks_never_came() {
    let bench = Bench::new().await;
    let price = make(&bench, "/v1/prices", &format!("{MONTHLY}&lookup_key=team_monthly")).await;
    subscriber(&bench, "acme", &price).await;
    bench.use_("acme", "requests", 1).await;
    bench.report().await;
    assert_eq!(bench.plan("acme").await, "team");
    let asked = |bench: &Bench| {
        let calls = bench.sim.calls();
        calls.iter().filter(|call| call.call == "GET /v1/subscriptions").count()
    };
    let before = asked(&bench);
    bench.pass(600);
    bench.report().await;
    assert_eq!(asked(&bench), before, "once a day");
}

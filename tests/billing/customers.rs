//! Subscriptions made and canceled because of `[billing]`, and events that never come.

use serde_json::json;
use tallygate::directory::PaymentState;
use tallygate::testing::unix_ms;

use crate::bench::{Bench, NOW, event, make, subscription};

const PAYG: &str = "currency=usd&unit_amount=0&product_data[name]=x&recurring[interval]=month\
                    &lookup_key=payg_monthly";
const TEAM: &str = "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month\
                    &lookup_key=team_monthly";

fn calls(bench: &Bench, name: &str) -> usize {
    bench.sim.calls().iter().filter(|call| call.call.starts_with(name)).count()
}

fn attached(id: &str, customer: &str, created: i64) -> serde_json::Value {
    let method = json!({ "id": "pm_card_visa", "object": "payment_method", "customer": customer });
    event(id, "payment_method.attached", created, &method)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_method_subscribes_once() {
    let bench = Bench::new().await;
    bench.sim.call("POST", "/v1/prices", PAYG);
    let customer = bench.customer("acme").await;
    // The first answer is lost: the subscription exists, unknown to the gate.
    let lose = json!({ "on": "POST /v1/subscriptions", "do": "lose" });
    bench.sim.fault(serde_json::from_value(lose).unwrap());
    let (one, two) = (attached("evt_1", &customer, NOW), attached("evt_2", &customer, NOW));
    let (one, two) = tokio::join!(bench.webhook(&one), bench.webhook(&two));
    for (status, id) in [(one, "evt_1"), (two, "evt_2")] {
        if status != 200 {
            assert_eq!(bench.webhook(&attached(id, &customer, NOW)).await, 200);
        }
    }
    let made = bench.sim.call("GET", "/v1/subscriptions?status=all", "");
    assert_eq!(made["data"].as_array().unwrap().len(), 1, "{made}");
    assert_eq!(bench.plan("acme").await, "payg");
    let before = calls(&bench, "POST /v1/subscriptions");
    assert_eq!(bench.webhook(&attached("evt_3", &customer, NOW + 5)).await, 200);
    assert_eq!(calls(&bench, "POST /v1/subscriptions"), before, "it has one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_subscription_gets_no_second_one() {
    let bench = Bench::new().await;
    bench.sim.call("POST", "/v1/prices", PAYG);
    let price = bench.sim.call("POST", "/v1/prices", TEAM)["id"].clone();
    let customer = bench.customer("acme").await;
    let path = format!("/v1/customers/{customer}");
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    bench.sim.call("POST", &path, method);
    let form = format!("customer={customer}&items[0][price]={}", price.as_str().unwrap());
    bench.sim.call("POST", "/v1/subscriptions", &form);
    // Its own event has not come yet: Stripe is asked first.
    assert_eq!(bench.webhook(&attached("evt_m", &customer, NOW)).await, 200);
    assert_eq!(calls(&bench, "POST /v1/subscriptions"), 0, "the gate makes none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_whose_payment_finally_fails_is_canceled_and_not_made_again() {
    let bench = Bench::new().await;
    bench.sim.set(|settings| settings.after_dunning = "unpaid".to_owned());
    let price = bench.sim.call("POST", "/v1/prices", TEAM)["id"].clone();
    let customer = bench.customer("acme").await;
    let path = format!("/v1/customers/{customer}");
    let pays = |method: &str| format!("invoice_settings[default_payment_method]={method}");
    bench.sim.call("POST", &path, &pays("pm_card_visa"));
    let form = format!("customer={customer}&items[0][price]={}", price.as_str().unwrap());
    bench.sim.call("POST", "/v1/subscriptions", &form);
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    assert_eq!(bench.plan("acme").await, "team");
    bench.sim.call("POST", &path, &pays("pm_card_chargeCustomerFail"));
    bench.pass(31 * 86_400);
    bench.deliver(&mut seen).await;
    let payment = async || {
        let tenant = bench.gate.directory().find("acme").await.unwrap().unwrap();
        tenant.record().payment
    };
    assert_eq!(payment().await, PaymentState::PastDue);
    assert_eq!(calls(&bench, "DELETE"), 0, "it is still being retried");
    bench.pass(12 * 86_400);
    bench.deliver(&mut seen).await;
    assert_eq!(calls(&bench, "DELETE /v1/subscriptions"), 1);
    assert_eq!(payment().await, PaymentState::Canceled);
    // The card that failed is still attached: no subscription is made to pay with it.
    let before = calls(&bench, "POST /v1/subscriptions");
    bench.webhook(&attached("evt_old", &customer, NOW)).await;
    assert_eq!(calls(&bench, "POST /v1/subscriptions"), before);
    // Another card is a new beginning.
    bench.sim.call("POST", "/v1/prices", PAYG);
    let new =
        json!({ "id": "pm_card_mastercard", "object": "payment_method", "customer": customer });
    let new = event("evt_new", "payment_method.attached", bench.sim.now() + 1, &new);
    assert_eq!(bench.webhook(&new).await, 200);
    assert_eq!(bench.plan("acme").await, "payg");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_past_due_subscription_whose_newest_invoice_was_given_up_is_canceled() {
    let bench = Bench::new().await;
    bench.sim.set(|settings| settings.after_dunning = "past_due".to_owned());
    let price = make(&bench, "/v1/prices", TEAM);
    let customer = bench.customer("acme").await;
    let path = format!("/v1/customers/{customer}");
    let pays = |method: &str| format!("invoice_settings[default_payment_method]={method}");
    make(&bench, &path, &pays("pm_card_visa"));
    make(&bench, "/v1/subscriptions", &format!("customer={customer}&items[0][price]={price}"));
    make(&bench, &path, &pays("pm_card_chargeCustomerFail"));
    bench.pass(31 * 86_400);
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    assert_eq!(calls(&bench, "DELETE"), 0, "it is still being retried");
    bench.pass(12 * 86_400);
    bench.deliver(&mut seen).await;
    assert_eq!(calls(&bench, "DELETE /v1/subscriptions"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_no_second_customer() {
    let bench = Bench::new().await;
    bench.tenant("acme").await;
    let lose = json!({ "on": "POST /v1/customers", "times": 2, "do": "lose" });
    bench.sim.fault(serde_json::from_value(lose).unwrap());
    let other = bench.another().await;
    let (one, two) =
        tokio::join!(bench.gate.ensure_customer("acme"), other.ensure_customer("acme"));
    drop((one, two));
    let customer = bench.gate.ensure_customer("acme").await.unwrap();
    let all = bench.sim.call("GET", "/v1/customers/search?query=name:%27acme%27", "");
    let all = all["data"].as_array().unwrap().clone();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["id"], customer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_covers_webhooks_that_never_came() {
    let bench = Bench::new().await;
    let price = bench.sim.call("POST", "/v1/prices", TEAM)["id"].clone();
    let customer = bench.customer("acme").await;
    bench.use_("acme", "requests", 1).await;
    let path = format!("/v1/customers/{customer}");
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    bench.sim.call("POST", &path, method);
    let form = format!("customer={customer}&items[0][price]={}", price.as_str().unwrap());
    bench.sim.call("POST", "/v1/subscriptions", &form);
    assert_eq!(bench.plan("acme").await, "free");
    // The last report of a closing process asks too.
    bench.gate.close().await.unwrap();
    let next = bench.another().await;
    assert_eq!(crate::bench::plan_at(&next, "acme").await, "team");
    let before = calls(&bench, "GET /v1/subscriptions");
    next.close().await.unwrap();
    assert_eq!(calls(&bench, "GET /v1/subscriptions"), before, "once a day");
    let _ = subscription("sub_x", &customer, "active", "team_monthly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_payment_method_subscribes_no_customer_who_has_canceled_since() {
    let bench = Bench::new().await;
    make(&bench, "/v1/prices", PAYG);
    let price = make(&bench, "/v1/prices", TEAM);
    let customer = bench.customer("acme").await;
    let pays = "invoice_settings[default_payment_method]=pm_card_visa";
    make(&bench, &format!("/v1/customers/{customer}"), pays);
    let form = format!("customer={customer}&items[0][price]={price}");
    let id = make(&bench, "/v1/subscriptions", &form);
    let attached_s = bench.sim.now();
    bench.pass(3_600);
    bench.sim.call("DELETE", &format!("/v1/subscriptions/{id}"), "");
    bench.pass(60);
    // Of all events that of the payment method comes first.
    assert_eq!(bench.webhook(&attached("evt_m", &customer, attached_s)).await, 200);
    bench.deliver(&mut 0).await;
    let path = format!("/v1/subscriptions?customer={customer}&status=all");
    let all = bench.sim.call("GET", &path, "");
    let states: Vec<_> = all["data"].as_array().unwrap().iter().map(|s| &s["status"]).collect();
    assert_eq!(states, ["canceled"]);
}

/// The id of the only open invoice.
fn open_invoice(bench: &Bench) -> String {
    let list = bench.sim.call("GET", "/v1/invoices?status=open", "");
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    list["data"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_failure_after_a_forgiven_invoice_cancels_nothing() {
    let bench = Bench::new().await;
    let price = make(&bench, "/v1/prices", TEAM);
    let customer = bench.customer("acme").await;
    let path = format!("/v1/customers/{customer}");
    let pays = |method: &str| format!("invoice_settings[default_payment_method]={method}");
    make(&bench, &path, &pays("pm_card_visa"));
    let form = format!("customer={customer}&items[0][price]={price}");
    let id = make(&bench, "/v1/subscriptions", &form);
    make(&bench, &path, &pays("pm_card_chargeCustomerFail"));
    bench.pass(31 * 86_400);
    let mut seen = 0;
    bench.deliver(&mut seen).await;
    let forgiven = open_invoice(&bench);
    make(&bench, &format!("/v1/invoices/{forgiven}/mark_uncollectible"), "");
    bench.deliver(&mut seen).await;
    // The next month fails, too. Of its events that of the subscription comes first.
    bench.pass(30 * 86_400);
    let kinds = bench.deliver(&mut seen).await;
    assert_eq!(kinds[0], "customer.subscription.updated");
    let status = || bench.sim.call("GET", &format!("/v1/subscriptions/{id}"), "")["status"].clone();
    assert_eq!(status(), "past_due", "its grace has just begun, its newest invoice is open");
    let tenant = bench.gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(tenant.record().payment, PaymentState::PastDue);
    let grace_s = unix_ms(tenant.record().payment_since()) / 1_000;
    assert!(bench.sim.now() - grace_s < 2 * 86_400, "counted from the newest failure");
}

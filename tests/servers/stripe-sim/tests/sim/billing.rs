//! Customers, prices, subscriptions and invoices, and what time does to them.

use serde_json::Value;

use crate::client::{Client, NOW, id, start};

const DAY: u32 = 86_400;

async fn monthly(client: &Client, lookup_key: &str) -> String {
    let form = format!(
        "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month\
         &lookup_key={lookup_key}"
    );
    id(&client.post("/v1/prices", &form).await.ok())
}

async fn subscribe(client: &Client, payment_method: &str, rest: &str) -> Value {
    let method = format!("invoice_settings[default_payment_method]={payment_method}");
    let customer = client.customer(&method).await;
    let price = monthly(client, &format!("k{customer}")).await;
    let form = format!("customer={customer}&items[0][price]={price}{rest}");
    client.post("/v1/subscriptions", &form).await.ok()
}

async fn status(client: &Client, subscription: &Value) -> String {
    let path = format!("/v1/subscriptions/{}", id(subscription));
    client.get(&path, "").await.ok()["status"].as_str().unwrap().to_owned()
}

/// Types of all events but those of customers and prices, oldest first.
async fn told(client: &Client) -> Vec<String> {
    let list = client.get("/v1/events", "limit=100").await.ok();
    let kinds = list["data"].as_array().unwrap().iter().rev();
    let kinds = kinds.map(|event| event["type"].as_str().unwrap().to_owned());
    let set_up = |kind: &String| kind == "customer.created" || kind.starts_with("price.");
    kinds.filter(|kind| !set_up(kind)).collect()
}

#[tokio::test]
async fn a_customer_is_found_by_metadata_and_deleted_for_good() {
    let (_sim, client) = start().await;
    client.customer("metadata[tallygate]=t1").await;
    let wanted = client.customer("metadata[tallygate]=t2&email=a@example.com").await;
    let query = "query=metadata[%27tallygate%27]:%27t2%27";
    let found = client.get("/v1/customers/search", query).await.ok();
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    assert_eq!(found["data"][0]["id"], wanted.as_str());
    let by_email = client.get("/v1/customers", "email=a@example.com").await.ok();
    assert_eq!(by_email["data"][0]["id"], wanted.as_str());
    let path = format!("/v1/customers/{wanted}");
    let gone = client.call("DELETE", &path, "", None).await.unwrap().ok();
    assert_eq!(gone["deleted"], true);
    assert_eq!(client.post(&path, "name=x").await.status, 404);
    let nonsense = client.get("/v1/customers/search", "query=%27").await;
    assert_eq!(nonsense.status, 400);
}

#[tokio::test]
async fn a_price_is_found_by_its_lookup_key_which_moves() {
    let (_sim, client) = start().await;
    let old = monthly(&client, "pro").await;
    let by_key = async || client.get("/v1/prices", "lookup_keys[0]=pro").await.ok()["data"].clone();
    assert_eq!(by_key().await[0]["id"], old.as_str());
    let form = "currency=usd&unit_amount=1&product_data[name]=y&lookup_key=pro";
    assert_eq!(client.post("/v1/prices", form).await.status, 400);
    let new = client.post("/v1/prices", &format!("{form}&transfer_lookup_key=true")).await.ok();
    let found = by_key().await;
    assert_eq!((found[0]["id"].clone(), found.as_array().unwrap().len()), (new["id"].clone(), 1));
}

#[tokio::test]
async fn a_paid_subscription_renews_from_its_anchor() {
    let (sim, client) = start().await;
    let subscription = subscribe(&client, "pm_card_visa", "").await;
    assert_eq!(subscription["status"], "active");
    let item = &subscription["items"]["data"][0];
    assert_eq!(item["current_period_start"], NOW);
    assert_eq!(item["current_period_end"], NOW + 31 * 86_400);
    sim.advance(31 * DAY);
    let path = format!("/v1/subscriptions/{}", id(&subscription));
    let renewed = client.get(&path, "").await.ok();
    assert_eq!(renewed["items"]["data"][0]["current_period_start"], NOW + 31 * 86_400);
    let expected = [
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
    ];
    assert_eq!(told(&client).await, expected);
}

#[tokio::test]
async fn a_trial_is_announced_to_end_and_ends() {
    let (sim, client) = start().await;
    let subscription = subscribe(&client, "pm_card_visa", "&trial_period_days=14").await;
    assert_eq!(subscription["status"], "trialing");
    sim.advance(11 * DAY);
    assert_eq!(told(&client).await.last().unwrap(), "customer.subscription.trial_will_end");
    sim.advance(3 * DAY);
    assert_eq!(status(&client, &subscription).await, "active");
    assert_eq!(told(&client).await.iter().filter(|k| k.ends_with("trial_will_end")).count(), 1);
}

#[tokio::test]
async fn failed_payments_lead_past_due_to_the_end() {
    let (sim, client) = start().await;
    let card = "pm_card_chargeCustomerFail";
    let subscription = subscribe(&client, card, "&trial_period_days=1").await;
    sim.advance(DAY);
    assert_eq!(status(&client, &subscription).await, "past_due");
    sim.advance(9 * DAY);
    assert_eq!(status(&client, &subscription).await, "canceled");
    let told = told(&client).await;
    assert_eq!(told.iter().filter(|kind| *kind == "invoice.payment_failed").count(), 4);
    assert_eq!(
        told[told.len() - 2..],
        ["invoice.marked_uncollectible", "customer.subscription.deleted"]
    );
}

#[tokio::test]
async fn paying_the_invoice_makes_a_subscription_active_again() {
    let (sim, client) = start().await;
    let card = "pm_card_chargeCustomerFail";
    let subscription = subscribe(&client, card, "&trial_period_days=1").await;
    sim.advance(DAY);
    let customer = subscription["customer"].as_str().unwrap();
    let good = "invoice_settings[default_payment_method]=pm_card_visa";
    client.post(&format!("/v1/customers/{customer}"), good).await.ok();
    let open = client.get("/v1/invoices", &format!("customer={customer}&status=open")).await.ok();
    let path = format!("/v1/invoices/{}/pay", id(&open["data"][0]));
    assert_eq!(client.post(&path, "").await.ok()["status"], "paid");
    assert_eq!(status(&client, &subscription).await, "active");
    assert_eq!(client.post(&path, "").await.status, 400);
}

#[tokio::test]
async fn a_cancelled_subscription_lasts_to_the_end_of_its_period() {
    let (sim, client) = start().await;
    let subscription = subscribe(&client, "pm_card_visa", "").await;
    let path = format!("/v1/subscriptions/{}", id(&subscription));
    client.post(&path, "cancel_at_period_end=true").await.ok();
    sim.advance(31 * DAY - 1);
    assert_eq!(status(&client, &subscription).await, "active");
    sim.advance(1);
    assert_eq!(status(&client, &subscription).await, "canceled");
    assert_eq!(client.get("/v1/subscriptions", "").await.ok()["data"].as_array().unwrap().len(), 0);
    let all = client.get("/v1/subscriptions", "status=all").await.ok();
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let (_sim, client) = start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(client.customer("").await);
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = client.get("/v1/customers", &query).await.ok();
        seen.extend(page["data"].as_array().unwrap().iter().map(id));
        if page["has_more"] == false {
            break;
        }
        query = format!("limit=2&starting_after={}", seen.last().unwrap());
    }
    assert_eq!(seen, made);
    assert_eq!(client.get("/v1/customers", "limit=0").await.status, 400);
    assert_eq!(client.get("/v1/customers", "limit=101").await.status, 400);
}

//! What a Stripe shows that has had a life: prices as they are now, invoices from draft to end, two
//! API versions, connected accounts and live mode.

use serde_json::{Value, json};

use crate::client::{Client, NOW, id, start};

async fn price(client: &Client, rest: &str) -> String {
    let form = format!("currency=usd&unit_amount=500&product_data[name]=x&{rest}");
    id(&client.post("/v1/prices", &form).await.ok())
}

/// The newest event of a kind.
async fn told(client: &Client, kind: &str) -> Value {
    client.get("/v1/events", &format!("type={kind}&limit=1")).await.ok()["data"][0].clone()
}

#[tokio::test]
async fn a_lookup_key_that_has_moved_is_gone_from_the_subscriptions_of_its_old_price() {
    let (_sim, client) = start().await;
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    let customer = client.customer(method).await;
    let old = price(&client, "recurring[interval]=month&lookup_key=pro").await;
    let form = format!("customer={customer}&items[0][price]={old}");
    let subscription = id(&client.post("/v1/subscriptions", &form).await.ok());
    let before = told(&client, "customer.subscription.created").await;
    price(&client, "recurring[interval]=month&lookup_key=pro&transfer_lookup_key=true").await;
    let now = client.get(&format!("/v1/subscriptions/{subscription}"), "").await.ok();
    let shown = |of: &Value| of["items"]["data"][0]["price"].clone();
    assert_eq!((&shown(&now)["id"], &shown(&now)["lookup_key"]), (&json!(old), &Value::Null));
    assert_eq!(shown(&before["data"]["object"])["lookup_key"], "pro", "an event stays as it was");
    let moved = told(&client, "price.updated").await;
    assert_eq!(moved["data"]["previous_attributes"], json!({ "lookup_key": "pro" }));
    // And back, by an update of the price.
    client.post(&format!("/v1/prices/{old}"), "lookup_key=pro&transfer_lookup_key=true").await.ok();
    let now = client.get(&format!("/v1/subscriptions/{subscription}"), "").await.ok();
    assert_eq!(shown(&now)["lookup_key"], "pro");
}

#[tokio::test]
async fn a_draft_can_be_changed_and_what_is_finalized_cannot() {
    let (_sim, client) = start().await;
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    let customer = client.customer(method).await;
    let pack = price(&client, "").await;
    let of = format!("customer={customer}");
    let draft = id(&client.post("/v1/invoices", &of).await.ok());
    let item = format!("{of}&invoice={draft}&pricing[price]={pack}");
    let first = id(&client.post("/v1/invoiceitems", &format!("{item}&quantity=5")).await.ok());
    let second = id(&client.post("/v1/invoiceitems", &item).await.ok());
    client.post(&format!("/v1/invoiceitems/{first}"), "quantity=1").await.ok();
    client.call("DELETE", &format!("/v1/invoiceitems/{second}"), "", None).await.unwrap().ok();
    let path = format!("/v1/invoices/{draft}");
    let invoice = client.get(&path, "").await.ok();
    let line = &invoice["lines"]["data"][0];
    assert_eq!((&invoice["status"], &invoice["amount_due"]), (&json!("draft"), &json!(500)));
    assert_eq!(
        (&line["quantity"], invoice["lines"]["data"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    let open = client.post(&format!("{path}/finalize"), "auto_advance=false").await.ok();
    assert_eq!((&open["status"], &open["lines"]["data"][0]["id"]), (&json!("open"), &line["id"]));
    assert_eq!(client.post(&format!("/v1/invoiceitems/{first}"), "quantity=2").await.status, 400);
    let given_up = client.post(&format!("{path}/mark_uncollectible"), "").await.ok();
    assert_eq!(given_up["status"], "uncollectible");
    let paid = client.post(&format!("{path}/pay"), "").await.ok();
    assert_eq!((&paid["status"], &paid["amount_paid"]), (&json!("paid"), &json!(500)));
    assert_eq!(client.post(&format!("{path}/void"), "").await.status, 400);
    let other = id(&client.post("/v1/invoices", &format!("{of}&auto_advance=true")).await.ok());
    assert_eq!(
        client.call("DELETE", &format!("/v1/invoices/{other}"), "", None).await.unwrap().status,
        200
    );
    assert_eq!(client.get(&format!("/v1/invoices/{other}"), "").await.status, 404);
    for kind in
        ["invoice.updated", "invoice.finalized", "invoice.marked_uncollectible", "invoice.paid"]
    {
        assert_eq!(told(&client, kind).await["data"]["object"]["id"], draft.as_str(), "{kind}");
    }
}

#[tokio::test]
async fn a_draft_that_advances_is_finalized_and_paid_an_hour_later() {
    let (sim, client) = start().await;
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    let customer = client.customer(method).await;
    let pack = price(&client, "").await;
    let waiting = format!("customer={customer}&pricing[price]={pack}&quantity=3");
    client.post("/v1/invoiceitems", &waiting).await.ok();
    let form =
        format!("customer={customer}&auto_advance=true&pending_invoice_items_behavior=include");
    let draft = id(&client.post("/v1/invoices", &form).await.ok());
    sim.advance(3_599);
    let path = format!("/v1/invoices/{draft}");
    assert_eq!(client.get(&path, "").await.ok()["status"], "draft");
    sim.advance(1);
    let paid = client.get(&path, "").await.ok();
    assert_eq!((&paid["status"], &paid["amount_paid"]), (&json!("paid"), &json!(1_500)));
    assert_eq!(paid["status_transitions"]["paid_at"], NOW + 3_600);
}

#[tokio::test]
async fn an_invoice_shows_ten_lines_and_the_rest_by_pages() {
    let (_sim, client) = start().await;
    let customer = client.customer("name=x").await;
    let pack = price(&client, "").await;
    let draft = id(&client.post("/v1/invoices", &format!("customer={customer}")).await.ok());
    for quantity in 1..=25 {
        let item = format!(
            "customer={customer}&invoice={draft}&pricing[price]={pack}&quantity={quantity}"
        );
        client.post("/v1/invoiceitems", &item).await.ok();
    }
    let invoice = client.get(&format!("/v1/invoices/{draft}"), "").await.ok();
    let lines = &invoice["lines"];
    assert_eq!((lines["data"].as_array().unwrap().len(), &lines["has_more"]), (10, &json!(true)));
    let event = told(&client, "invoice.updated").await;
    assert_eq!(event["data"]["object"]["lines"]["data"].as_array().unwrap().len(), 10);
    let url = lines["url"].as_str().unwrap();
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = client.get(url, &format!("limit=10{after}")).await.ok();
        for line in page["data"].as_array().unwrap() {
            seen.push(line["quantity"].as_i64().unwrap());
            after = format!("&starting_after={}", line["id"].as_str().unwrap());
        }
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<i64>>());
}

#[tokio::test]
async fn before_2025_03_31_invoices_and_subscriptions_have_their_older_shape() {
    let (sim, client) = start().await;
    let method = "invoice_settings[default_payment_method]=pm_card_visa";
    let customer = client.customer(method).await;
    let of = price(&client, "recurring[interval]=month&lookup_key=pro").await;
    sim.set(|settings| settings.api_version = "2024-12-18.acacia".to_owned());
    let form = format!("customer={customer}&items[0][price]={of}");
    let old = client.post("/v1/subscriptions", &form).await.ok();
    assert_eq!(old["current_period_start"], NOW);
    assert!(old["items"]["data"][0].get("current_period_start").is_none());
    let event = told(&client, "invoice.paid").await;
    assert_eq!(event["api_version"], "2024-12-18.acacia");
    let invoice = &event["data"]["object"];
    assert_eq!((&invoice["subscription"], invoice.get("parent")), (&old["id"], None));
    let line = &invoice["lines"]["data"][0];
    assert_eq!((&line["price"]["lookup_key"], line.get("pricing")), (&json!("pro"), None));
    assert_eq!((&line["type"], &line["subscription"]), (&json!("subscription"), &old["id"]));
    sim.set(|settings| settings.api_version = "2025-03-31.basil".to_owned());
    let new = client.get(&format!("/v1/invoices/{}", id(invoice)), "").await.ok();
    assert_eq!(new["parent"]["subscription_details"]["subscription"], old["id"]);
    let pricing = &new["lines"]["data"][0]["pricing"]["price_details"];
    assert_eq!(pricing["price"], of.as_str());
}

#[tokio::test]
async fn a_connected_accounts_objects_are_its_own_and_its_events_name_it() {
    let (sim, client) = start().await;
    let own = client.customer("name=own").await;
    let made =
        sim.emit_for("acct_1", "customer.updated", &json!({ "id": "cus_x", "object": "customer" }));
    assert_eq!(made["account"], "acct_1");
    let event = told(&client, "customer.created").await;
    assert_eq!((event.get("account"), &event["data"]["object"]["id"]), (None, &json!(own)));
    let missing = client.get(&format!("/v1/events/{}", id(&made)), "").await;
    assert_eq!(missing.status, 404, "it is in the other account's list");
}

#[tokio::test]
async fn a_live_account_takes_live_keys_and_says_so_everywhere() {
    let (sim, client) = start().await;
    sim.set(|settings| settings.livemode = true);
    assert_eq!(client.get("/v1/customers", "").await.status, 401, "with a test key");
    let made = sim.emit("customer.updated", &json!({ "id": "cus_x", "livemode": false }));
    assert_eq!(
        (&made["livemode"], &made["data"]["object"]["livemode"]),
        (&json!(true), &json!(true))
    );
}

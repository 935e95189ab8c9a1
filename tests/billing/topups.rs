//! One-time purchases are given once, on the terms of the plan file under which they were first
//! seen.

use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::directory::Grant;

use crate::bench::{Bench, NOW, event, make, use_at, webhook_at};

const PACK: &str = "currency=usd&unit_amount=500&product_data[name]=x&lookup_key=pack";

/// A paid invoice with two packs on it.
async fn bought(bench: &Bench, customer: &str, id: &str, paid_at: i64) -> Value {
    let form = "currency=usd&unit_amount=500&product_data[name]=x&lookup_key=pack\
                &transfer_lookup_key=true";
    let price = bench.sim.call("POST", "/v1/prices", form)["id"].clone();
    json!({
        "id": id, "object": "invoice", "customer": customer, "status": "paid",
        "status_transitions": { "paid_at": paid_at }, "parent": null,
        "lines": { "data": [{
            "id": format!("il_{id}"), "quantity": 2,
            "pricing": { "price_details": { "price": price } },
        }] },
    })
}

/// Two packs on an invoice that is paid at Stripe.
pub(crate) fn buy_packs(bench: &Bench, customer: &str) {
    let pays = "invoice_settings[default_payment_method]=pm_card_visa";
    make(bench, &format!("/v1/customers/{customer}"), pays);
    let pack = make(bench, "/v1/prices", PACK);
    let of = format!("customer={customer}");
    let invoice = make(bench, "/v1/invoices", &of);
    let item = format!("{of}&invoice={invoice}&pricing[price]={pack}&quantity=2");
    make(bench, "/v1/invoiceitems", &item);
    make(bench, &format!("/v1/invoices/{invoice}/pay"), "");
}

/// A paid invoice with this line.
fn paid(customer: &str, line: &Value) -> Value {
    json!({
        "id": "in_1", "object": "invoice", "customer": customer, "status": "paid",
        "status_transitions": { "paid_at": NOW }, "parent": null, "lines": { "data": [line] },
    })
}

/// Meters and units of the tenant's grants.
pub(crate) async fn packs(gate: &Gate) -> Vec<(String, u64)> {
    grants(gate).await.into_iter().map(|grant| (grant.meter, grant.units)).collect()
}

async fn grants(gate: &Gate) -> Vec<Grant> {
    gate.directory().find("acme").await.unwrap().unwrap().record().grants.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_has_expired_is_not_given_again_by_a_longer_expiry() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let invoice = bought(&bench, &customer, "in_1", NOW).await;
    assert_eq!(bench.webhook(&event("evt_1", "invoice.paid", NOW, &invoice)).await, 200);
    // A pack that had ended before it was first seen.
    let old = bought(&bench, &customer, "in_2", NOW - 31 * 86_400).await;
    assert_eq!(bench.webhook(&event("evt_2", "invoice.paid", NOW, &old)).await, 200);
    assert_eq!(grants(&bench.gate).await.len(), 1);
    let ends = grants(&bench.gate).await[0].expires_at();
    let edited = bench.another_with("expires = \"30d\"", "expires = \"365d\"").await;
    let again = event("evt_3", "invoice.paid", NOW, &invoice);
    assert_eq!(webhook_at(&edited, &again, bench.sim.now()).await, 200);
    assert_eq!(grants(&edited).await.len(), 1);
    assert_eq!(grants(&edited).await[0].expires_at(), ends, "as it was given");
    // Long after its end it has left the record, and still counts as given.
    bench.pass(80 * 86_400);
    edited.directory().tenant("acme").suspend().save().await.unwrap();
    assert!(grants(&edited).await.is_empty());
    let again = event("evt_4", "invoice.paid", bench.sim.now(), &invoice);
    assert_eq!(webhook_at(&edited, &again, bench.sim.now()).await, 200);
    assert!(grants(&edited).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_found_no_room_is_given_once_an_operator_has_ended_one_that_is_used_up() {
    let bench = Bench::new().await;
    let gate = bench.another_with("expires = \"30d\"", "").await;
    let customer = bench.customer("acme").await;
    let acme = || gate.directory().tenant("acme").note("t");
    acme().plan("team").save().await.unwrap();
    let small = |n: usize| Grant::new(format!("pack-{n}"), "credits", 2).source("operator");
    for n in 0..64 {
        acme().grant(small(n)).save().await.unwrap();
        use_at(&gate, "acme", "credits", 2).await;
    }
    let invoice = bought(&bench, &customer, "in_1", NOW).await;
    let paid = |id: &str| event(id, "invoice.paid", NOW, &invoice);
    assert_eq!(webhook_at(&gate, &paid("evt_1"), bench.sim.now()).await, 200);
    assert_eq!(grants(&gate).await.len(), 64, "there is no room");
    acme().end_grant("pack-3").save().await.unwrap();
    assert_eq!(webhook_at(&gate, &paid("evt_2"), bench.sim.now()).await, 200);
    let held = grants(&gate).await;
    assert_eq!(
        held.last().map(|grant| (grant.id.as_str(), grant.units)),
        Some(("il_in_1.credits", 100))
    );
    // A grant that was ended is not given again; nor is the pack, however often its event arrives.
    acme().end_grant("pack-3").end_grant("il_in_1.credits").save().await.unwrap();
    acme().grant(small(3)).save().await.unwrap();
    assert_eq!(webhook_at(&gate, &paid("evt_3"), bench.sim.now()).await, 200);
    assert_eq!(grants(&gate).await.len(), 63);
    assert!(!grants(&gate).await.contains(&small(3)));
    // And nothing remains of it.
    let acme = gate.tenant("acme").await.unwrap();
    let more = tallygate::Ask::new(&acme, "work").cost("credits", 1);
    assert!(gate.admit(more).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_of_a_meter_that_the_plan_does_not_limit_is_kept_until_one_does() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let invoice = bought(&bench, &customer, "in_1", NOW).await;
    assert_eq!(bench.webhook(&event("evt_1", "invoice.paid", NOW, &invoice)).await, 200);
    assert_eq!(grants(&bench.gate).await[0].units, 100);
    // As a manual grant it is a mistake.
    let grant = Grant::new("gift", "credits", 1);
    let error = bench.gate.directory().tenant("acme").grant(grant).save().await.unwrap_err();
    assert!(error.to_string().contains("does not limit \"credits\""), "{error}");
    let limited =
        bench.another_with("quota.jobs     = \"10/cycle\"", "quota.credits = \"5/cycle\"");
    let limited = limited.await;
    let acme = limited.tenant("acme").await.unwrap();
    let mut used = 0;
    let ask = || tallygate::Ask::new(&acme, "work").cost("credits", 1);
    while let Ok(permit) = limited.admit(ask()).await {
        permit.settle();
        used += 1;
        assert!(used < 1_000, "nothing refuses");
    }
    assert_eq!(used, 105);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prorations_and_lines_that_cost_nothing_give_no_pack() {
    let details = json!({
        "type": "subscription_item_details",
        "subscription_item_details": { "proration": true, "subscription": "sub_1" },
    });
    for (amount, parent) in [(4_903, details), (0, Value::Null)] {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        let price = make(&bench, "/v1/prices", &format!("{PACK}&recurring[interval]=month"));
        let line = json!({
            "id": "il_1", "quantity": 11, "amount": amount, "parent": parent,
            "pricing": { "price_details": { "price": price } },
        });
        let bought = event("evt_1", "invoice.paid", NOW, &paid(&customer, &line));
        assert_eq!(bench.webhook(&bought).await, 200);
        assert_eq!(packs(&bench.gate).await, [], "{amount}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_top_up_gives_nothing_for_packs_given_before() {
    let edits = [r#"{ jobs = "50" }"#, r#"{ credits = "50", jobs = "500" }"#];
    for adds in edits {
        let bench = Bench::new().await;
        let customer = bench.customer("acme").await;
        let price = make(&bench, "/v1/prices", PACK);
        let line = json!({
            "id": "il_1", "quantity": 2, "pricing": { "price_details": { "price": price } },
        });
        let bought = event("evt_1", "invoice.paid", NOW, &paid(&customer, &line));
        assert_eq!(bench.webhook(&bought).await, 200);
        assert_eq!(packs(&bench.gate).await, [("credits".to_owned(), 100)]);
        let edited = format!("adds    = {adds}");
        let gate = bench.another_with(r#"adds    = { credits = "50" }"#, &edited).await;
        // Any event of the customer.
        let method = json!({ "id": "pm_1", "object": "payment_method", "customer": customer });
        let any = event("evt_2", "payment_method.detached", NOW, &method);
        assert_eq!(webhook_at(&gate, &any, NOW).await, 200);
        assert_eq!(packs(&gate).await, [("credits".to_owned(), 100)], "{adds}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_whose_webhook_never_came_are_given_within_a_day() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    buy_packs(&bench, &customer);
    for _ in 0..3 {
        bench.use_("acme", "requests", 1).await;
        bench.pass(86_400 + 60);
        bench.report().await;
    }
    assert_eq!(packs(&bench.gate).await, [("credits".to_owned(), 100)]);
}
